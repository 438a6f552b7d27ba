"""From the network's maps to a matte at the picture's own resolution: joining without seams, a guided filter, and the animal's own colours.

Pictures (1, 3, h, w) float32 in [0, 1], maps (1, 1, h, w), unless said otherwise.
"""
from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

RADIUS, EPSILON = (2, 5), 1e-4  # of the guided filter: pixels of the focus pass, and squared colour difference that counts as one area
BAND = 512  # rows at a time: a phone's photo never stands in memory as floating point
VEIL = 0.04  # what is nearer to 0 or 1 than this is 0 or 1, and the rest is stretched: a small network leaves a veil over the inside and around the animal
SPECK = 0.005
WORKED = 1024  # long side at which the animal's colours are estimated
Bytes = NDArray[np.uint8]


def grown(classes: Tensor, reach: int) -> Tensor:
    """`classes` (1, 1, h, w) of 0 background, 1 transition, 2 animal, with the transition grown by `reach` pixels to all sides."""
    if reach < 1:
        return classes
    near = classes.eq(1).float()
    for kernel, padding in (((2 * reach + 1, 1), (reach, 0)), ((1, 2 * reach + 1), (0, reach))):
        near = F.max_pool2d(near, kernel, 1, padding)
    return torch.where(near > 0, 1, classes)


def without_specks(classes: Tensor) -> Tensor:
    """`classes` as in `grown`, with what stands alone and is smaller than SPECK of the largest piece called background."""
    pieces, count = ndimage.label(classes[0, 0].cpu().numpy() > 0, np.ones((3, 3)))
    if count < 2:
        return classes
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    small = sizes[pieces] < SPECK * sizes.max()
    return classes.masked_fill(torch.from_numpy(small & (pieces > 0)).to(classes.device), 0)


def joined(classes: Tensor, focus: Tensor) -> Tensor:
    """TT's fusion of `classes` (1, 1, h, w), as in `grown`, with `focus` (1, 1, H, W) of finer resolution, at that resolution.

    The paper takes each pixel from one of the two, which leaves a step where their areas meet. Here the areas are enlarged as shares, so that within one
    pixel of the glance pass the two are mixed.
    """
    shares = torch.cat([classes == 1, classes == 2], 1).to(focus.dtype)
    transition, animal = F.interpolate(shares, size=focus.shape[2:], mode="bilinear", align_corners=False).split(1, 1)
    return transition * focus + animal


def box_mean(x: Tensor, radius: int) -> Tensor:
    """Mean over the square of `radius` around each pixel, of what of it lies in the picture."""
    for kernel, padding in (((2 * radius + 1, 1), (radius, 0)), ((1, 2 * radius + 1), (0, radius))):
        x = F.avg_pool2d(x, kernel, 1, padding, count_include_pad=False)
    return x


def guided(guide: Tensor, alpha: Tensor, radius: int, epsilon: float = EPSILON) -> Tensor:
    """The guided filter (He et al., 2013), its coefficients (1, 4, h, w): the filtered matte is r, g, b and 1 of the `guide`, weighted by them and added.

    In every small window alpha is taken for a linear function of the colour, which closed-form matting assumes too. The coefficients vary slowly, alpha does
    not: enlarged and applied to the full picture they give alpha its hairs at that resolution ("fast guided filter").
    """
    mean, mean_alpha = box_mean(guide, radius), box_mean(alpha, radius)
    covariance = box_mean(guide * alpha, radius) - mean * mean_alpha
    i, j = (0, 0, 0, 1, 1, 2), (0, 1, 2, 1, 2, 2)
    rr, rg, rb, gg, gb, bb = (box_mean(guide[:, i] * guide[:, j], radius) - mean[:, i] * mean[:, j]).split(1, 1)
    rr, gg, bb = rr + epsilon, gg + epsilon, bb + epsilon
    c = gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - rb * gg, rr * bb - rb * rb, rg * rb - rr * gb, rr * gg - rg * rg  # the symmetric 3 x 3 inverse, times its determinant
    determinant = rr * c[0] + rg * c[1] + rb * c[2]
    inverse = torch.cat([c[0], c[1], c[2], c[1], c[3], c[4], c[2], c[4], c[5]], 1).unflatten(1, (3, 3)) / determinant[:, None]
    slope = (inverse * covariance[:, None]).sum(2)
    offset = mean_alpha - (slope * mean).sum(1, keepdim=True)
    return box_mean(torch.cat([slope, offset], 1), radius)


def applied(coefficients: Tensor, guide: Tensor) -> Tensor:
    """The matte that `coefficients` of `guided` make of a `guide` of the same size."""
    x = (coefficients[:, :3] * guide).sum(1, keepdim=True) + coefficients[:, 3:]
    return ((x - VEIL) / (1 - 2 * VEIL)).clamp(0, 1)


def rows_of(x: Tensor, first: int, last: int, size: tuple[int, int]) -> Tensor:
    """Rows `first` to `last` of `x` (1, C, h, w) enlarged linearly to `size` (H, W), without the others."""
    h, (full, width) = x.shape[2], size
    at = ((torch.arange(first, last, dtype=torch.float64) + 0.5) * h / full - 0.5).clamp(0, h - 1)  # on the CPU: not every device has float64
    low = at.floor().long()
    part, low = (at - low).to(x)[:, None], low.to(x.device)
    rows = x[:, :, low] * (1 - part) + x[:, :, (low + 1).clamp(max=h - 1)] * part
    return F.interpolate(rows, size=(last - first, width), mode="bilinear", align_corners=False)


def radius_for(picture: tuple[int, int], guide: tuple[int, int]) -> int:
    """Of the guided filter, for a picture and a guide of these sizes (h, w): the wider, the more there is to be gained by the picture's own pixels. On one that is no
    larger than the guide a wide window only frays the border."""
    return int(np.clip(round(2.5 * max(picture) / max(guide)), *RADIUS))


def full_size(coefficients: Tensor, guide: Tensor, picture: Bytes) -> NDArray[np.float32]:
    """The matte (H, W) of `picture` (H, W, 3), which `guide` shows at the size of the `coefficients`. Where the picture is the smaller one the matte is shrunk."""
    h, w = picture.shape[:2]
    if h <= guide.shape[2] and w <= guide.shape[3]:
        return F.interpolate(applied(coefficients, guide), size=(h, w), mode="bilinear", antialias=True, align_corners=False)[0, 0].cpu().numpy()
    alpha = np.empty((h, w), np.float32)
    for first in range(0, h, BAND):
        last = min(h, first + BAND)
        band = torch.from_numpy(np.array(picture[first:last])).to(coefficients.device).permute(2, 0, 1)[None].float() / 255
        alpha[first:last] = applied(rows_of(coefficients, first, last, (h, w)), band)[0, 0].cpu().numpy()
    return alpha


def colours(image: Tensor, alpha: Tensor, small: int = 32, iterations: tuple[int, int] = (10, 2), regularization: float = 1e-5) -> tuple[Tensor, Tensor]:
    """Foreground and background colours (1, 3, h, w) of `image` by `alpha`: multi-level estimation (Germer et al., 2020).

    At every level, from one pixel up to all of them, each pixel looks for the two colours that mix to its own and are near to its neighbours', the nearer the
    less alpha tells the two apart. Where pymatting's estimate_foreground_ml updates pixel by pixel, all are updated at once here: the same answers in
    plain PyTorch (its first import compiles for a minute).
    """
    h0, w0 = image.shape[2:]
    steps = max(1, int(np.ceil(np.log2(max(h0, w0)))))
    sure = [(image * m).sum((2, 3), keepdim=True) / (m.sum() + 1e-5) for m in ((alpha > 0.9).float(), (alpha < 0.1).float())]
    front, back = sure
    for level in range(steps + 1):
        size = [round(side ** (level / steps)) for side in (h0, w0)]
        seen, a = (F.interpolate(x, size=size, mode="nearest") for x in (image, alpha))
        front, back = (F.interpolate(x, size=size, mode="nearest") for x in (front, back))
        pull = [regularization + (a - shifted(a, *way)).abs() for way in WAYS]
        total = sum(pull)
        a0, a1 = a, 1 - a
        f0, f1, b1 = a0 * a0 + total, a0 * a1, a1 * a1 + total
        determinant = f0 * b1 - f1 * f1
        for _ in range(iterations[0] if max(size) <= small else iterations[1]):
            right = a0 * seen + sum(p * shifted(front, *way) for p, way in zip(pull, WAYS, strict=True))
            left = a1 * seen + sum(p * shifted(back, *way) for p, way in zip(pull, WAYS, strict=True))
            front, back = ((b1 * right - f1 * left) / determinant).clamp(0, 1), ((f0 * left - f1 * right) / determinant).clamp(0, 1)
    return front, back


WAYS = ((0, -1), (0, 1), (-1, 0), (1, 0))


def shifted(x: Tensor, down: int, right: int) -> Tensor:
    """Each pixel's neighbour that many rows and columns (-1, 0 or 1) away; at the border the pixel itself."""
    x = F.pad(x, (max(0, -right), max(0, right), max(0, -down), max(0, down)), mode="replicate")
    h, w = x.shape[2] - abs(down), x.shape[3] - abs(right)
    return x[:, :, max(0, down) : max(0, down) + h, max(0, right) : max(0, right) + w]


@torch.inference_mode()
def foreground(picture: Bytes, alpha: NDArray[np.float32], device: torch.device | str = "cpu") -> Bytes:
    """The animal's own colours (H, W, 3) wherever `alpha` (H, W) is not 0, without what shines through of the background of `picture` (H, W, 3).

    They are estimated at a long side of `WORKED` pixels; at full size each pixel then differs from them by its share of what they leave unexplained.
    """
    from PIL import Image

    h, w = alpha.shape
    scale = min(1, WORKED / max(h, w))
    size = max(1, round(w * scale)), max(1, round(h * scale))
    small = [np.array(Image.fromarray(x).resize(size, Image.Resampling.BOX)) for x in (picture, alpha)]
    image, a = (torch.from_numpy(x.reshape(*x.shape[:2], -1)).to(device).permute(2, 0, 1)[None].float() for x in small)
    both = torch.cat(colours(image / 255, a), 1)
    out = np.empty((h, w, 3), np.uint8)
    for first in range(0, h, BAND):
        last = min(h, first + BAND)
        front, back = rows_of(both, first, last, (h, w)).split(3, 1)
        seen = torch.from_numpy(np.array(picture[first:last])).to(device).permute(2, 0, 1)[None].float() / 255
        a = torch.from_numpy(np.array(alpha[first:last])).to(device)[None, None]
        unexplained = seen - a * front - (1 - a) * back
        front = front + a / (a * a + (1 - a) * (1 - a)) * unexplained
        out[first:last] = (front.clamp(0, 1) * 255).round().byte()[0].permute(1, 2, 0).cpu().numpy()
    return out
