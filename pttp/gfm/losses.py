"""What GFM is trained for (section 3.4), as the authors' code has it.

Shapes and ranges everywhere: predictions (B, 1, H, W) in [0, 1]; `alpha`, `image`, `fg`, `bg` and the maps derived from alpha 0..255, (B, 1, H, W) or
(B, 3, H, W). A trimap is 128 where the loss counts; one that was resized holds other values too, and they do not count.
"""
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pttp.gfm.model import Integrated, Prediction

TRANSITION = 128


def labels(target: Tensor, classes: int) -> Tensor:
    """`target` (B, 1, H, W), 0..255 -> class of each pixel (B, H, W).

    Two classes: 1 only where it is exactly 255. Three: 0 at 0, 2 at 255, else 1, except that a value between 0 and 2 keeps its integer part (which only a
    resized trimap can hold).
    """
    target = target[:, 0]
    if classes == 2:
        return (target == 255).long()
    return torch.where(target == 255, 2, torch.where(target > 2, 1, target.long()))


def glance_loss(glance: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of the classes of `target` (B, 1, H, W; see `labels`), with the sigmoids `glance` (B, 3 or 2, H, W) in the place of logits.

    Probabilities are thus squashed twice, as released: the loss of a perfect answer is not 0.
    """
    return F.cross_entropy(glance, labels(target, glance.shape[1]))


def alpha_loss(matte: Tensor, alpha: Tensor, trimap: Tensor | None = None) -> Tensor:
    """Absolute difference, smooth at 0: a mean over all pixels, or over the transition of `trimap`.

    There the sum still runs over all pixels (the others add 1e-6 each) and the divisor is one more than their number, as released.
    """
    d = matte - alpha / 255
    if trimap is None:
        return torch.sqrt(d.square() + 1e-12).mean()
    counts = (trimap == TRANSITION).to(d.dtype)
    return torch.sqrt((d * counts).square() + 1e-12).sum() / (counts.sum() + 1)


def blur_kernel(size: int = 5, sigma: float = 1.0) -> Tensor:
    """(1, 1, size, size), sums to 1. The two axes' bells are squared and ADDED, as released: a cross-shaped blur rather than a Gaussian one."""
    x = torch.arange(size) - size // 2
    bell = torch.exp(-x.square() / (2 * sigma**2)).square()
    kernel = bell[None] + bell[:, None]
    return (kernel / kernel.sum())[None, None]


def laplacian_pyramid(x: Tensor, levels: int = 5) -> list[Tensor]:
    """(B, 1, H, W) -> what a blur takes away at each of `levels` sizes, then what is left: levels + 1 maps."""
    kernel, maps = blur_kernel().to(x), []
    for _ in range(levels):
        blurred = F.conv2d(F.pad(x, (2, 2, 2, 2), mode="replicate"), kernel)
        maps.append(x - blurred)
        x = F.avg_pool2d(blurred, 2)
    return [*maps, x]


def laplacian_loss(matte: Tensor, alpha: Tensor, trimap: Tensor | None = None) -> Tensor:
    """Sum over the pyramid's levels of the mean absolute difference, for sides of at least 32 pixels.

    Outside the transition of `trimap`, if given, both mattes are taken as 0.
    """
    alpha = alpha / 255
    if trimap is not None:
        counts = (trimap == TRANSITION).to(matte.dtype)
        matte, alpha = matte * counts, alpha * counts
    return sum(F.l1_loss(a, m) for a, m in zip(laplacian_pyramid(alpha), laplacian_pyramid(matte), strict=True))


def composition_loss(matte: Tensor, image: Tensor, fg: Tensor, bg: Tensor) -> Tensor:
    """How far `matte` puts `fg` over `bg` from `image`, in [0, 1]: summed over the channels, averaged over the pixels."""
    composite = matte * fg + (1 - matte) * bg
    return (torch.sqrt((composite - image).square() + 1e-12) / 255).sum(1).mean()


@dataclass(frozen=True)
class Truth:
    """What a training picture is compared with, 0..255: `trimap`, `dilation`, `erosion` of `alpha` as in data.py; `image` is `fg` over `bg`."""

    image: Tensor
    alpha: Tensor
    fg: Tensor
    bg: Tensor
    trimap: Tensor
    dilation: Tensor
    erosion: Tensor


def parts(rosta: str, said: Prediction, truth: Truth, as_released: bool = True) -> dict[str, Tensor]:
    """The six losses of one RoSTa (TT, FT, BT): glance_ce, focus_alpha, focus_laplacian, fusion_alpha, fusion_laplacian, fusion_composition.

    Where FT and BT meet the fusion's formula, glance is erosion (FT) or dilation (BT). As released it is compared with the dilation (FT) and with alpha
    itself (BT), and only RIM uses the consistent pair: `as_released` says which.
    """
    glance, focus = {
        "TT": (truth.trimap, truth.alpha),
        "FT": (truth.dilation if as_released else truth.erosion, truth.alpha - truth.erosion),
        "BT": (truth.alpha if as_released else truth.dilation, truth.dilation - truth.alpha),
    }[rosta]
    return {
        "glance_ce": glance_loss(said.glance, glance),
        "focus_alpha": alpha_loss(said.focus, focus, truth.trimap),
        "focus_laplacian": laplacian_loss(said.focus, focus, truth.trimap),
        **whole(said.fusion, truth),
    }


def whole(fusion: Tensor, truth: Truth) -> dict[str, Tensor]:
    """The three losses of a finished matte."""
    return {
        "fusion_alpha": alpha_loss(fusion, truth.alpha),
        "fusion_laplacian": laplacian_loss(fusion, truth.alpha),
        "fusion_composition": composition_loss(fusion, truth.image, truth.fg, truth.bg),
    }


def gfm_loss(rosta: str, said: Prediction, truth: Truth, as_released: bool = True) -> dict[str, Tensor]:
    """`parts`, and "loss": a quarter of their sum."""
    losses = parts(rosta, said, truth, as_released)
    return {"loss": sum(losses.values()) / 4, **losses}


def rim_loss(said: Integrated, truth: Truth, as_released: bool = True) -> dict[str, Tensor]:
    """Losses by name, and "loss": their plain sum, over the three RoSTas and the integrated matte.

    The released code reads BT's prediction from FT's place; with `as_released` so does this, and the BT head then learns through the integrated matte only.
    """
    three = {"TT": said.tt, "FT": said.ft, "BT": said.ft if as_released else said.bt}
    losses = {f"{rosta.lower()}_{k}": v for rosta, one in three.items() for k, v in parts(rosta, one, truth, as_released=False).items()}
    losses |= whole(said.fusion, truth)
    return {"loss": sum(losses.values()), **losses}
