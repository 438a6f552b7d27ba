"""What the networks are trained for: read the message, leave the picture as it was, keep the critic unsure."""
from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

YUV = (  # rows R, G, B; columns Y, U, V: tf.image.rgb_to_yuv
    (0.299, -0.14714119, 0.61497538),
    (0.587, -0.28886916, -0.51496512),
    (0.114, 0.43601035, -0.10001026),
)


def rgb_to_yuv(x: Tensor) -> Tensor:
    """(B, 3, H, W) RGB -> YUV, Y in [0, 1], U and V around 0."""
    return torch.einsum("co,bchw->bohw", torch.tensor(YUV, dtype=x.dtype, device=x.device), x)


def edge_falloff(height: int, width: int | None = None) -> Tensor:
    """1 at the border, falling to 0 at a quarter of the way in, (H, W) float32: where the image loss is raised late in training.

    Index 0 counts twice and the far end is one pixel off, as in the authors' loop (`a[-i]` with i = 0 is the first row again).
    """

    def profile(n: int) -> Tensor:
        p = torch.ones(n, dtype=torch.float64)
        for i in range(n // 4):
            factor = (math.cos(4 * math.pi * i / n + math.pi) + 1) / 2
            p[-i] *= factor
            p[i] *= factor
        return p

    return (1 - torch.outer(profile(height), profile(width or height))).float()


def weighted_difference(encoded: Tensor, image: Tensor, edge_gain: float = 0.0) -> Tensor:
    """YUV difference of two pictures (B, 3, H, W) RGB in [0, 1], multiplied near the borders by 1 + `edge_gain` * falloff: (B, 3, H, W)."""
    d = rgb_to_yuv(encoded) - rgb_to_yuv(image)
    return d * (1 + edge_gain * edge_falloff(*d.shape[-2:]).to(d)) if edge_gain else d


def image_loss(encoded: Tensor, image: Tensor, scales: tuple[float, float, float] = (1.0, 1.0, 1.0), edge_gain: float = 0.0) -> tuple[Tensor, Tensor]:
    """`weighted_difference` squared, mean per channel, dotted with the (Y, U, V) `scales`. Returns the loss and the three means (3,)."""
    channels = weighted_difference(encoded, image, edge_gain).square().mean((0, 2, 3))
    return channels @ torch.tensor(scales, dtype=channels.dtype, device=channels.device), channels


def secret_loss(logits: Tensor, secret: Tensor) -> Tensor:
    """Mean sigmoid cross-entropy over bits and batch, both (B, bits)."""
    return F.binary_cross_entropy_with_logits(logits, secret)


@torch.no_grad()
def secret_accuracy(logits: Tensor, secret: Tensor) -> tuple[float, float]:
    """Share of right bits, and of messages whose bits are all right; a probability of exactly one half reads as 0."""
    right = torch.round(torch.sigmoid(logits)) == secret
    return right.float().mean().item(), right.all(1).float().mean().item()


@dataclass(frozen=True)
class Schedule:
    """How the authors ramp the weights of the losses; the defaults are those of their `base.sh`. Steps count from 0."""

    image: float = 2.0
    image_ramp: int = 15_000
    perceptual: float = 1.5
    perceptual_ramp: int = 15_000
    secret: float = 1.5
    secret_ramp: int = 1
    critic: float = 0.5
    critic_ramp: int = 15_000
    edge_gain: float = 10.0
    edge_ramp: int = 10_000
    edge_delay: int = 80_000
    yuv: tuple[float, float, float] = (1.0, 100.0, 100.0)
    only_secret_steps: int = 1_500

    def weights(self, step: int) -> tuple[float, float, float, float]:
        """Weights of the image, perceptual, secret and critic loss."""
        ramps = ((self.image, self.image_ramp), (self.perceptual, self.perceptual_ramp), (self.secret, self.secret_ramp), (self.critic, self.critic_ramp))
        return tuple(min(scale * step / ramp, scale) for scale, ramp in ramps)

    def edge(self, step: int) -> float:
        """Gain of the image loss near the borders."""
        return 0.0 if step < self.edge_delay else min(self.edge_gain * (step - self.edge_delay) / self.edge_ramp, self.edge_gain)
