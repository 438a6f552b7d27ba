"""The losses of CA-GAN, one function a symbol. c are scaled Lab colours (B, 3); x, x', x'' pictures (B, 3, H, W) in [0, 1].

L_color, L_bg, L_adv and L_cycle are the paper's. L_weak, L_keep, L_texture, L_gloss and L_border are ours: they say with the weak colour model and its label
maps, directly, what the paper leaves to the discriminator, and let an hour on one core be enough.
"""
from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pttp.cagan.colour import SPAN


def colour_distance(said: Tensor, true: Tensor) -> Tensor:
    """Squared distance of two scaled Lab colours (B, 3) in units of (50 Delta E)^2, averaged over the pictures where both are known (no NaN)."""
    known = (said.isfinite() & true.isfinite()).all(1, keepdim=True)
    difference = (said.nan_to_num() - true.nan_to_num()) * said.new_tensor(SPAN) / 50
    return torch.where(known, difference, 0.0).square().sum() / known.sum().clamp(min=1)


def color(estimate: Tensor, asked: Tensor) -> Tensor:
    """L_color: D's estimate of the makeup colour of x' against the target c."""
    return colour_distance(estimate, asked)


def background(estimate: Tensor, weak_skin: Tensor) -> Tensor:
    """L_bg: D's estimate of the skin colour of x' against the weak skin colour C_s(x) of the source."""
    return colour_distance(estimate, weak_skin)


def adversarial(fake: Tensor) -> Tensor:
    """L_adv for G: the hinge's other half, minus the mean of D's real/fake map of x'."""
    return -fake.mean()


def real_fake(real: Tensor, fake: Tensor) -> Tensor:
    """L_adv for D: hinge loss of its real/fake maps of x and x'."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def gaussian_blur(x: Tensor, size: int = 11, sigma: float = 1.5) -> Tensor:
    t = torch.arange(size, dtype=x.dtype, device=x.device) - (size - 1) / 2
    g = torch.exp(-(t**2) / (2 * sigma**2))
    g = (g / g.sum()).expand(x.shape[1], 1, size)
    x = F.conv2d(x, g[:, :, :, None], groups=x.shape[1])
    return F.conv2d(x, g[:, :, None], groups=x.shape[1])


def ms_ssim(x: Tensor, y: Tensor, scales: int = 3) -> Tensor:
    """Multi-scale structural similarity (Wang et al. 2003) of pictures in [0, 1], sides at least 11 * 2^(scales - 1); the first `scales` of its five weights."""
    weights = torch.tensor((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)[:scales], dtype=x.dtype, device=x.device)
    weights = weights / weights.sum()
    result = x.new_ones(())
    for i, w in enumerate(weights):
        blurred = gaussian_blur(torch.cat([x, y, x * x, y * y, x * y], 1))
        mx, my, xx, yy, xy = blurred.chunk(5, 1)
        structure = (2 * (xy - mx * my) + 0.03**2) / (xx - mx * mx + yy - my * my + 0.03**2)
        if i == scales - 1:
            structure = structure * (2 * mx * my + 0.01**2) / (mx * mx + my * my + 0.01**2)
        result = result * structure.mean().clamp(min=1e-4) ** w
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return result


def cycle(back: Tensor, x: Tensor) -> Tensor:
    """L_cycle: L1 + (1 - MS-SSIM) between x'' and x."""
    return (back - x).abs().mean() + 1 - ms_ssim(back, x)


def weak(measured: Tensor, asked: Tensor) -> Tensor:
    """L_weak (ours): the weak makeup colour of x', measured under the SOURCE's label map, against the target c."""
    return colour_distance(measured, asked)


def keep(changed: Tensor, x: Tensor, outside: Tensor, care: Tensor) -> Tensor:
    """L_keep (ours): mean absolute change where nothing may change, `outside` (B, 1, H, W) in [0, 1], times what it weighs in each picture, `care` (B,)."""
    each = ((changed - x).abs().mean(1, keepdim=True) * outside).sum((1, 2, 3)) / outside.sum((1, 2, 3)).clamp(min=1)
    return (each * care).mean()


def texture(changed: Tensor, x: Tensor, inside: Tensor) -> Tensor:
    """L_texture (ours): the scaled Lab of x' and of x (B, 3, H, W) differ by one colour and nothing else under `inside` (B, 1, H, W): gloss and creases stay."""
    total = inside.sum((2, 3), keepdim=True).clamp(min=1)
    difference = (changed - x) * inside
    shift = difference.sum((2, 3), keepdim=True) / total
    return ((difference - shift * inside).abs().sum((2, 3)) / total[..., 0]).mean()


def gloss(changed: Tensor, x: Tensor, inside: Tensor) -> Tensor:
    """L_gloss (ours): L* of x' spreads under `inside` (B, 1, H, W) as widely as that of x does; the absolute logarithm of the ratio of the standard deviations."""

    def spread(lab: Tensor) -> Tensor:
        lightness, total = lab[:, :1], inside.sum((2, 3), keepdim=True).clamp(min=1)
        middle = (lightness * inside).sum((2, 3), keepdim=True) / total
        return ((lightness - middle).square() * inside).sum((1, 2, 3)) / total[:, 0, 0, 0]

    return ((spread(changed) + 1e-4) / (spread(x) + 1e-4)).log().abs().mean() / 2


def border(changed: Tensor, x: Tensor, band: Tensor, care: Tensor) -> Tensor:
    """L_border (ours): how much steeper x' is than x in a `band` (B, 1, H, W), in 50 Delta E a pixel, times what it weighs in each picture, `care` (B,);
    `changed` and `x` are scaled Lab (B, 3, H, W)."""
    span = x.new_tensor(SPAN).view(3, 1, 1) / 50

    def steep(lab: Tensor) -> Tensor:
        lab = F.pad(lab * span, (0, 1, 0, 1), mode="replicate")
        dx, dy = lab[:, :, :-1, 1:] - lab[:, :, :-1, :-1], lab[:, :, 1:, :-1] - lab[:, :, :-1, :-1]
        return ((dx.square() + dy.square()).sum(1, keepdim=True) + 1e-6).sqrt()

    each = (F.relu(steep(changed) - steep(x)) * band).sum((1, 2, 3)) / band.sum((1, 2, 3)).clamp(min=1)
    return (each * care).mean()
