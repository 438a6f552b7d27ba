"""How a matte is scored: the numbers of matting papers, as the authors compute them. All of them are better when smaller.

`matte` and `alpha` (H, W) in [0, 1]; `trimap` (H, W): 0, 128 (the transition) or 255.
"""
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.floating]


def sad_mse_mad(matte: Map, alpha: Map, trimap: NDArray[np.uint8] | None = None) -> tuple[float, float, float]:
    """Sum of absolute differences / 1000, mean squared and mean absolute difference.

    With a `trimap` the rest of the picture is taken from it and the means divide by the number of its 128s (where it has none: of whatever is neither 0
    nor 255; nan where there is nothing at all).
    """
    pixels = matte.size
    if trimap is not None:
        matte = np.where(trimap == 255, 1.0, np.where(trimap == 0, 0.0, matte))
        pixels = np.count_nonzero(trimap == 128) or np.count_nonzero((trimap != 0) & (trimap != 255)) or np.nan
    d = np.abs(matte - alpha)
    return float(d.sum() / 1000), float(np.square(d).sum() / pixels), float(d.sum() / pixels)


def sad_foreground_background(matte: Map, alpha: Map, trimap: NDArray[np.uint8]) -> tuple[float, float]:
    """Sum of absolute differences / 1000 where the trimap is 255, and where it is 0."""
    d = np.abs(matte - alpha)
    return float(d[trimap == 255].sum() / 1000), float(d[trimap == 0].sum() / 1000)


def gradient_error(matte: Map, alpha: Map) -> float:
    """"Grad": squared difference of the gradients' lengths (Gaussian derivatives, sigma 1.4), summed, / 10. Others divide by 1000."""
    from scipy.ndimage import gaussian_filter

    def length(x: Map) -> Map:
        return np.hypot(*(gaussian_filter(x, 1.4, order=order, output=np.float32) for order in ((1, 0), (0, 1))))

    return float(np.square(length(matte) - length(alpha)).sum() / 10)


def connectivity_error(matte: Map, alpha: Map, step: float = 0.1) -> float:
    """"Conn": how far each pixel is cut off from the largest region that both mattes hold at its level (Rhemann et al., 2009), summed, / 1000.

    The level of a pixel is the highest threshold at which it still belongs to that region; falling short of it by less than 0.15 does not count. As released,
    a level at which the two have nothing in common cuts nothing off, so that two mattes of different things score 0.
    """
    from scipy.ndimage import label

    thresholds = np.arange(0, 1 + step, step)
    level = np.full(matte.shape, -1, np.float32)
    for below, threshold in zip(thresholds, thresholds[1:], strict=False):
        regions, n = label((matte >= threshold) & (alpha >= threshold))  # neighbours share an edge
        if not n:
            continue
        largest = np.bincount(regions.flat)[1:].argmax() + 1
        level[(level == -1) & (regions != largest)] = below
    level[level == -1] = 1
    phi = [1 - d * (d >= 0.15) for d in (matte - level, alpha - level)]
    return float(np.abs(phi[0] - phi[1]).sum() / 1000)
