"""A picture as the authors' networks want it."""
from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

MEAN, STD = (103.53, 116.28, 123.675), (1.0, 1.0, 1.0)  # of blue, green, red in 0..255
DIVISOR = 32  # of padded sides


def resized_shape(height: int, width: int, short: int = 800, longest: int = 1333) -> tuple[int, int]:
    """(height, width) with the shorter side at `short`, or the longer at `longest` if it would be longer."""
    scale = short / min(height, width)
    h, w = (short, scale * width) if height < width else (scale * height, short)
    if max(h, w) > longest:
        scale = longest / max(h, w)
        h, w = h * scale, w * scale
    return max(1, int(h + 0.5)), max(1, int(w + 0.5))


def resize(image: np.ndarray, short: int = 800, longest: int = 1333) -> np.ndarray:
    """uint8 (H, W, 3), resized by Pillow's (antialiased) bilinear filter to `resized_shape`."""
    h, w = resized_shape(*image.shape[:2], short, longest)
    return np.asarray(Image.fromarray(image).resize((w, h), Image.Resampling.BILINEAR))


def normalise(image: np.ndarray, mean=MEAN, std=STD) -> Tensor:
    """uint8 RGB (H, W, 3) -> float32 (1, 3, H', W'): blue first, normalised, then zeros on the right and below up to a multiple of DIVISOR."""
    x = torch.from_numpy(image[..., ::-1].astype(np.float32)).permute(2, 0, 1)[None]
    x = (x - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
    h, w = x.shape[-2:]
    return F.pad(x, (0, -w % DIVISOR, 0, -h % DIVISOR))
