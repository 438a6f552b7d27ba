"""The weak colour models C_m (makeup) and C_s (skin): crude colours of labelled pixels, the only teacher there is.

They need a label map and therefore exist for training and measuring alone. No mask ever enters the generator.
Label maps are CelebAMask-HQ's: 1 skin, 2 nose, 4 and 5 eyes, 6 and 7 brows, 10 inner mouth, 11 and 12 lips.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

REGIONS = ("lips", "eyes")
REACH = 0.3  # how far eye shadow goes, in widths of the eye
LEAST = 12  # pixels whose median may be called a colour


@dataclass(frozen=True)
class Areas:
    """Of one close-up, bool (H, W) each: `makeup` what is to change colour, `skin` what C_s is measured on, `inside` inner mouth or eyeball."""

    makeup: np.ndarray
    skin: np.ndarray
    inside: np.ndarray


def areas(labels: np.ndarray, region: str) -> Areas | None:
    """The areas of a label map (H, W) of a close-up of `region`; None when too little of it shows."""
    skin = labels == 1
    if region == "lips":
        makeup, inside = np.isin(labels, (11, 12)), labels == 10
    else:
        inside = labels == (4 if np.count_nonzero(labels == 4) >= np.count_nonzero(labels == 5) else 5)
        if np.count_nonzero(np.isin(labels, (4, 5)) & ~inside) >= LEAST:
            return None  # both eyes show: no close-up of one
        makeup = lid(inside, skin)
    if np.count_nonzero(makeup) < LEAST:
        return None
    margin = max(2, round(0.03 * max(labels.shape)))  # lipstick bleeds over a label's ragged edge: that is not skin
    skin = skin & ~ndimage.binary_dilation(makeup | inside, iterations=margin)
    return Areas(makeup, skin, inside) if np.count_nonzero(skin) >= LEAST else None


def lid(eye: np.ndarray, skin: np.ndarray) -> np.ndarray:
    """Where eye shadow goes, bool (H, W): skin above the line through the eye's corners, at most REACH widths of the eye away from it."""
    y, x = np.nonzero(eye)
    if len(x) < LEAST:
        return np.zeros_like(eye)
    left, right = np.array([x[x.argmin()], y[x == x.min()].mean()]), np.array([x[x.argmax()], y[x == x.max()].mean()])
    width = max(float(np.hypot(*(right - left))), 1.0)
    yy, xx = np.mgrid[: eye.shape[0], : eye.shape[1]]
    along = ((xx - left[0]) * (right[0] - left[0]) + (yy - left[1]) * (right[1] - left[1])) / width**2
    line = left[1] + along * (right[1] - left[1])
    above = (yy < line + 0.05 * width) & (along > -0.2) & (along < 1.2)
    return skin & above & (ndimage.distance_transform_edt(~eye) < REACH * width)


def median_colour(lab: Tensor, area: Tensor) -> Tensor:
    """C: the median of each Lab channel over an area. `lab` (B, 3, H, W), `area` (B, H, W) bool -> (B, 3); NaN where the area is empty."""
    return lab.masked_fill(~area[:, None], torch.nan).flatten(2).nanmedian(2).values


def mean_colour(lab: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean of Lab (B, 3, H, W) under `weight` (B, 1, H, W) -> (B, 3): smooth, so that a generator can learn from it."""
    return (lab * weight).sum((2, 3)) / weight.sum((2, 3)).clamp(min=1e-6)
