"""A picture as the authors' network wants it: stretched, blue first, mean subtracted."""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

MEAN = (102.9801, 115.9465, 122.7717)  # of blue, green, red in 0..255
SCALE = (1280, 768)  # width and height: every picture is stretched to it, portraits, too
DIVISOR = 32  # of padded sides


def _taps(length: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """For each of `size` cells: the source cell before it, and the weights (size, 2) of that and the next in units of 1/2048."""
    at = ((np.arange(size) + 0.5) * (length / size) - 0.5).astype(np.float32)
    before = np.floor(at)
    part = at - before
    weights = np.rint(np.stack([1 - part, part], 1) * np.float32(2048)).astype(np.int32)
    return before.astype(np.int64), weights


def resize(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """uint8 (H, W, 3) -> (height, width, 3), bilinear without antialiasing: the integers of OpenCV's resize, which the authors use."""
    h, w = image.shape[:2]
    if (height, width) == (h, w):
        return image
    if (h, w) == (2 * height, 2 * width):  # exactly half: OpenCV takes the mean of four
        x = image.astype(np.int32)
        return ((x[0::2, 0::2] + x[0::2, 1::2] + x[1::2, 0::2] + x[1::2, 1::2] + 2) >> 2).astype(np.uint8)
    column, wx = _taps(w, width)
    at_edge = (column < 0) | (column >= w - 1)
    wx[at_edge] = 2048, 0
    row, wy = _taps(h, height)
    x = image[:, column.clip(0, w - 1)].astype(np.int32) * wx[None, :, :1] + image[:, (column + 1).clip(0, w - 1)].astype(np.int32) * wx[None, :, 1:]
    above, below = x[row.clip(0, h - 1)] >> 4, x[(row + 1).clip(0, h - 1)] >> 4
    y = ((above * wy[:, None, :1]) >> 16) + ((below * wy[:, None, 1:]) >> 16)
    return ((y + 2) >> 2).clip(0, 255).astype(np.uint8)


def prepare(image: np.ndarray, scale: tuple[int, int] = SCALE, keep_ratio: bool = False) -> tuple[Tensor, tuple[int, int], Tensor]:
    """uint8 RGB (H, W, 3) -> the network's picture (1, 3, H', W'), padded with zeros to a multiple of DIVISOR; its (height, width) without padding; and by how
    much x, y, x, y were stretched (4,).

    With `keep_ratio` the longer side fits into the longer one of `scale`, the shorter into the shorter.
    """
    h, w = image.shape[:2]
    if keep_ratio:
        factor = min(max(scale) / max(h, w), min(scale) / min(h, w))
        width, height = max(1, int(w * factor + 0.5)), max(1, int(h * factor + 0.5))
        stretched = torch.full((4,), factor)
    else:
        width, height = scale
        stretched = torch.tensor([width / w, height / h] * 2)
    return normalise(resize(image, width, height)), (height, width), stretched


def normalise(image: np.ndarray) -> Tensor:
    """uint8 RGB (H, W, 3) -> float32 (1, 3, H', W'): blue first, minus MEAN, then zeros on the right and below up to a multiple of DIVISOR."""
    x = torch.from_numpy(image[..., ::-1].astype(np.float32)).permute(2, 0, 1)[None] - torch.tensor(MEAN).view(1, 3, 1, 1)
    h, w = x.shape[-2:]
    return F.pad(x, (0, -w % DIVISOR, 0, -h % DIVISOR))
