"""JPEG as a differentiable function (Shin and Song, 2017): what a saved or streamed stamp goes through while the networks are trained."""
from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

# The quantisation tables of the JPEG standard (Annex K), row = vertical frequency
LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA = ((17, 18, 24, 47), (18, 21, 26, 66), (24, 26, 56, 99), (47, 66, 99, 99))  # 99 everywhere else
YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))


def quality_to_factor(quality: float | Tensor) -> float | Tensor:
    """JPEG quality 1..100 -> what the quantisation tables are multiplied by."""
    if isinstance(quality, Tensor):
        return torch.where(quality < 50, 5000 / quality, 200 - 2 * quality) / 100
    return (5000 / quality if quality < 50 else 200 - 2 * quality) / 100


def round_only_at_0(x: Tensor) -> Tensor:
    """x^3 where |x| < 0.5, else x: only that small coefficients vanish is modelled. The authors train with this one."""
    return torch.where(x.abs() < 0.5, x**3, x)


def diff_round(x: Tensor) -> Tensor:
    """round(x) + (x - round(x))^3: close to rounding, with a slope everywhere but at the integers."""
    whole = torch.round(x)
    return whole + (x - whole) ** 3


def round_through(x: Tensor) -> Tensor:
    """Rounding as it is, with the gradient of the identity."""
    return x + (torch.round(x) - x).detach()


def quantisation_tables(like: Tensor) -> tuple[Tensor, Tensor]:
    """(8, 8) tables of luma and chroma of the standard, quality 50."""
    luma = torch.tensor(LUMA, dtype=like.dtype, device=like.device)
    chroma = torch.full((8, 8), 99.0, dtype=like.dtype, device=like.device)
    chroma[:4, :4] = torch.tensor(CHROMA, dtype=like.dtype, device=like.device)
    return luma, chroma


def dct_matrix(like: Tensor) -> Tensor:
    """(8, 8) orthonormal DCT-II: coefficients = D @ block @ D.T"""
    k, n = torch.arange(8, dtype=torch.float64)[:, None], torch.arange(8, dtype=torch.float64)
    d = torch.cos((2 * n + 1) * k * math.pi / 16) / 2
    d[0] /= math.sqrt(2)
    return d.to(like)


def _through_dct(plane: Tensor, steps: Tensor, rounding: Callable[[Tensor], Tensor]) -> Tensor:
    """(B, H, W) in 0..255, H and W multiples of 8; `steps` (B or 1, 1, 1, 8, 8) are the quantisation steps."""
    b, h, w = plane.shape
    d = dct_matrix(plane)
    blocks = plane.view(b, h // 8, 8, w // 8, 8).transpose(2, 3) - 128  # (B, H / 8, W / 8, 8, 8)
    coefficients = rounding(d @ blocks @ d.T / steps) * steps
    return (d.T @ coefficients @ d + 128).transpose(2, 3).reshape(b, h, w)


def jpeg(x: Tensor, factor: float | Tensor, rounding: Callable[[Tensor], Tensor] = round_only_at_0, subsample: bool = True, as_authors: bool = True) -> Tensor:
    """Compress and decompress.

    `x` (B, 3, H, W) RGB in [0, 1], any size -> the same, clipped to [0, 1]. `factor` is `quality_to_factor(quality)`, one number or one a picture (B,).
    `rounding` stands in for rounding the coefficients; `subsample` halves the chroma planes (4:2:0). The authors read the luma table transposed and leave
    its steps unrounded (`factor` must then be positive); without `as_authors` the tables are those that an encoder writes.
    """
    h, w = x.shape[-2:]
    factor = torch.as_tensor(factor, dtype=x.dtype, device=x.device).view(-1, 1, 1, 1, 1)
    pixels = _mirror_to_multiple(x * 255, 16)
    y, cb, cr = torch.einsum("oc,bchw->obhw", torch.tensor(YCBCR, dtype=x.dtype, device=x.device), pixels)
    luma, chroma = quantisation_tables(x)
    if as_authors:
        luma, chroma = luma.T * factor, chroma * factor
    else:
        luma, chroma = ((table * factor).round().clamp(1, 255) for table in (luma, chroma))
    planes = [_through_dct(y, luma, rounding)]
    for plane in (cb + 128, cr + 128):
        if subsample:
            plane = F.avg_pool2d(plane[:, None], 2)[:, 0]
        plane = _through_dct(plane, chroma, rounding)
        if subsample:
            plane = F.interpolate(plane[:, None], scale_factor=2, mode="nearest")[:, 0]
        planes.append(plane - 128)
    rgb = torch.einsum("oc,bchw->bohw", torch.tensor(RGB, dtype=x.dtype, device=x.device), torch.stack(planes, 1))
    return (rgb[..., :h, :w] / 255).clamp(0, 1)


def _mirror_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Pad below and to the right, edge pixels mirrored with the edge itself (NumPy's "symmetric")."""
    for dim in (-2, -1):
        n = x.shape[dim]
        missing = -n % multiple
        while missing > 0:  # a side shorter than what is missing is mirrored more than once
            part = min(missing, x.shape[dim])
            x = torch.cat([x, x.narrow(dim, x.shape[dim] - part, part).flip(dim)], dim)
            missing -= part
    return x
