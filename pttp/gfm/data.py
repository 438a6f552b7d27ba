"""The authors' steps from a matte to a training picture (sections 4 and 5): trimaps, and RSSN composition.

RSSN means "high Resolution, Sharpness and Semantics, and Noise": what usually tells a pasted animal from a photographed one, made to agree between the two.
Pictures (H, W, 3) uint8 RGB, mattes `alpha` (H, W) uint8, all numpy.
"""
from __future__ import annotations

import random

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]


def ellipse(size: int) -> NDArray[np.bool_]:
    """(size, size): the filled ellipse that OpenCV calls MORPH_ELLIPSE."""
    radius = size // 2
    rows = np.arange(size) - radius
    half = np.rint(radius * np.sqrt(np.maximum(radius**2 - rows**2, 0) * (1 / radius**2 if radius else 0)))
    columns = np.arange(size) - radius
    return (np.abs(columns)[None] <= half[:, None]) & (np.abs(rows) <= radius)[:, None]


def dilate(mask: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """`mask` (H, W) grown by `ellipse(size)`; beyond the border there is nothing.

    Row by row of the ellipse, each a difference of running sums: the cost does not depend on how wide the ellipse is.
    """
    (h, w), radius = mask.shape, size // 2
    sums = np.cumsum(np.pad(mask, ((0, 0), (radius + 1, radius))), 1, dtype=np.int32)
    grown = np.zeros_like(mask)
    for shift, run in enumerate(ellipse(size), start=-radius):
        if abs(shift) >= h:
            continue
        first, last = np.flatnonzero(run)[[0, -1]]
        reached = sums[:, last + 1 : last + 1 + w] > sums[:, first : first + w]
        grown[max(0, -shift) : h - max(0, shift)] |= reached[max(0, shift) : h + min(0, shift)]
    return grown


def erode(mask: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """`mask` (H, W) shrunk by `ellipse(size)`; beyond the border everything belongs to it."""
    return ~dilate(~mask, size)


def dilation(alpha: Array, size: int = 50) -> NDArray[np.uint8]:
    """(H, W): 255 within reach of any pixel that is not fully background, else 0."""
    return dilate(alpha != 0, size) * np.uint8(255)


def erosion(alpha: Array, size: int = 50) -> NDArray[np.uint8]:
    """(H, W): 255 where everything within reach is fully foreground, else 0."""
    return erode(alpha == 255, size) * np.uint8(255)


def trimap(alpha: Array, size: int = 25) -> NDArray[np.uint8]:
    """(H, W): 255 foreground, 0 background, 128 within reach of anything in between."""
    return np.where(erode(alpha == 255, size), 255, np.where(dilate(alpha != 0, size), 128, 0)).astype(np.uint8)


def split(image: Array, alpha: Array) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """`image` times `alpha`, and times the rest: the authors' foreground and background where none was estimated, float32 0..255."""
    part = (alpha / 255)[..., None].astype(np.float32)
    return image * part, image * (1 - part)


def fitted(bg: Array, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """`bg` uint8, stretched to the height and width of `shape`; float64 0..255."""
    from skimage.transform import resize

    return resize(bg, shape) * 255.0


def composite(fg: Array, bg: Array, alpha: Array) -> NDArray[np.uint8]:
    """`fg` over `bg` of the same size, fractions cut off."""
    part = (alpha / 255)[..., None].astype(np.float32)
    return (part * fg + (1 - part) * bg).astype(np.uint8)


def box_blur(image: Array, size: int) -> Array:
    """Mean over size x size pixels, mirrored at the border without repeating it; an even window reaches one pixel further up and left."""
    from scipy.ndimage import uniform_filter

    return uniform_filter(image, (size, size, 1), mode="mirror")


def add_noise(noise: Array, *images: Array, clip: bool) -> list[NDArray[np.uint8]]:
    """Each image + `noise` as uint8. Without `clip` what leaves 0..255 comes back at the other end, as in the released code."""
    if clip:
        return [np.clip(image + noise, 0, 255).astype(np.uint8) for image in images]
    return [(np.trunc(image + noise).astype(np.int64) & 255).astype(np.uint8) for image in images]


def rssn(
    fg: Array,
    bg: Array,
    alpha: Array,
    denoised: tuple[Array, Array] | None = None,
    *,
    choose: random.Random,
    normal: np.random.RandomState,
    clip: bool = True,
) -> tuple[Array, Array, Array]:
    """`fg` (H, W, 3) over `bg` (of any size) by `alpha`: the composite (uint8), and foreground and background as they went into it.

    Each half of the time: both from `denoised` = (fg, bg) if given; the background blurred (nobody photographs an animal with everything in focus); the same
    noise, sigma 10, on all three. `choose` and `normal` are drawn from in the authors' order. `clip=False` lets the noise wrap round, as released.
    """
    if denoised is not None and choose.random() < 0.5:
        fg, bg = denoised
    bg = fitted(bg, fg.shape)
    if choose.random() < 0.5:
        bg = box_blur(bg, choose.choice([20, 30, 40, 50, 60]))
    image = composite(fg, bg, alpha)
    if choose.random() < 0.5:
        image, fg, bg = add_noise(normal.normal(0, 10, image.shape), image, fg, bg, clip=clip)
    return image, fg, bg
