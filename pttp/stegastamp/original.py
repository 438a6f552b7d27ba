"""The authors' training pass, to the digit: their blur, their imitation of printing and photographing, and how a batch runs through it.

Our own training uses distort.py; this is kept so that their training can be repeated and compared. Every random number is an argument, drawn
by `Draws.sample` in the range that the authors draw it from.
"""
from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pttp.stegastamp import geometry
from pttp.stegastamp.jpeg import jpeg, quality_to_factor
from pttp.stegastamp.losses import image_loss, secret_accuracy, secret_loss

LUMINANCE = (0.3, 0.6, 0.1)
BORDERS = ("no_edge", "black", "white", "random", "randomrgb", "image")


@dataclass(frozen=True)
class Draws:
    """The random numbers of one pass: all uniform in [0, 1) except `noise`, which is standard normal. One number a batch where no shape is given."""

    select: float  # which blur
    sig_gauss: float
    theta: float
    sig_line: float
    w_line: float
    noise_std: float
    noise: Tensor  # (B, 3, H, W)
    contrast: Tensor  # (B,)
    bri: Tensor  # (B, 1, 1, 1)
    hue: Tensor  # (B, 3, 1, 1)
    sat: float
    jpegq: float
    border: Tensor  # (3,): grey or colour of the border modes "random" and "randomrgb"

    @classmethod
    def sample(cls, shape: tuple[int, ...], generator: torch.Generator) -> "Draws":
        """For a batch of pictures of `shape` (B, 3, H, W)."""
        b = shape[0]

        def u(*size: int) -> Tensor:
            return torch.rand(size, generator=generator)

        names = ("select", "sig_gauss", "theta", "sig_line", "w_line", "noise_std", "sat", "jpegq")
        one = {name: float(v) for name, v in zip(names, u(len(names)), strict=True)}
        return cls(noise=torch.randn(shape, generator=generator), contrast=u(b), bri=u(b, 1, 1, 1), hue=u(b, 3, 1, 1), border=u(3), **one)


@dataclass(frozen=True)
class Settings:
    """How strong the distortions are at the end of their ramp; defaults as in the authors' `base.sh`."""

    bri: float = 0.3
    hue: float = 0.1
    noise: float = 0.02
    sat: float = 1.0
    contrast_low: float = 0.5
    contrast_high: float = 1.5
    jpeg_quality: float = 50.0
    ramp: int = 1_000


def blur_kernel(select: float, sig_gauss: float, theta: float, sig_line: float, w_line: float, size: int = 7) -> Tensor:
    """A (size, size) kernel of sum 1 from five uniform numbers: a Gaussian for `select` below 1/4, a streak below 1/2, else no blur."""
    axis = torch.arange(size, dtype=torch.float32) - (size - 1) / 2
    row, col = torch.meshgrid(axis, axis, indexing="ij")
    manhattan = row.abs() + col.abs()
    if select < 0.25:
        kernel = torch.exp(-(row**2 + col**2) / 2 / (1 + 2 * sig_gauss) ** 2)
    elif select < 0.5:
        angle, sigma, width = 2 * math.pi * theta, 0.25 + 0.75 * sig_line, 3 + w_line * ((size - 1) / 2 + 0.1 - 3)
        across = row * math.cos(angle) + col * math.sin(angle)  # the streak runs perpendicular to this axis
        kernel = torch.exp(-(across**2) / 2 / sigma**2) * (manhattan < width)
    else:
        kernel = (manhattan < 0.5).float()
    return kernel / kernel.sum()


def transform_net(x: Tensor, draws: Draws, step: int, settings: Settings = Settings()) -> Tensor:
    """Blur, noise, contrast, brightness and hue, saturation, JPEG, in this order, ramped up over the first `settings.ramp` steps.

    `x` (B, 3, H, W) in [0, 1] -> the same.
    """
    s, ramp = settings, min(step / settings.ramp, 1.0)
    kernel = blur_kernel(draws.select, draws.sig_gauss, draws.theta, draws.sig_line, draws.w_line).to(x)
    x = F.conv2d(x, kernel.expand(3, 1, -1, -1), padding=kernel.shape[-1] // 2, groups=3)
    x = (x + draws.noise.to(x) * (draws.noise_std * ramp * s.noise)).clamp(0, 1)
    low, high = 1 - (1 - s.contrast_low) * ramp, 1 + (s.contrast_high - 1) * ramp
    x = x * (low + (high - low) * draws.contrast.to(x)).view(-1, 1, 1, 1)
    x = (x + (2 * draws.bri.to(x) - 1) * (s.bri * ramp) + (2 * draws.hue.to(x) - 1) * (s.hue * ramp)).clamp(0, 1)
    grey = torch.einsum("c,bchw->bhw", torch.tensor(LUMINANCE).to(x), x)[:, None]
    saturation = draws.sat * ramp * s.sat
    x = (1 - saturation) * x + saturation * grey
    quality = 100 - draws.jpegq * ramp * (100 - s.jpeg_quality)
    return jpeg(x, quality_to_factor(quality) + 1e-4)


class _Warp(torch.autograd.Function):
    """TensorFlow's projective transform: its gradient is the incoming one warped by the inverse matrix, which is not quite the derivative."""

    @staticmethod
    def forward(ctx, image: Tensor, matrix: Tensor) -> Tensor:
        ctx.save_for_backward(matrix)
        return geometry.warp(image, matrix)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        (matrix,) = ctx.saved_tensors
        inverse = torch.linalg.inv(torch.cat([matrix, torch.ones_like(matrix[:, :1])], 1).view(-1, 3, 3)).flatten(1)
        return geometry.warp(grad, (inverse / inverse[:, 8:])[:, :8]), None


def warp(image: Tensor, matrix: Tensor) -> Tensor:
    """`geometry.warp` of `image` (B, 3, S, S) by `matrix` (B, 8), with the gradient that TensorFlow gives it."""
    return _Warp.apply(image, matrix)


@dataclass(frozen=True)
class Pass:
    """Everything that one pass computes. Pictures are (B, 3, S, S); "warped" ones are as a tilted camera sees the square."""

    image_warped: Tensor
    residual_warped: Tensor
    encoded_warped: Tensor
    residual: Tensor
    encoded: Tensor
    transformed: Tensor
    logits: Tensor
    real: Tensor  # the critic's score of the plain pictures ...
    fake: Tensor  # ... and of the stamped ones
    heatmap: Tensor  # (B, 1, S / 16, S / 16), of the stamped ones


def training_pass(
    encoder: nn.Module,
    decoder: nn.Module,
    critic: nn.Module,
    image: Tensor,
    secret: Tensor,
    matrices: Tensor,
    draws: Draws,
    step: int,
    borders: str = "white",
    settings: Settings = Settings(),
) -> Pass:
    """The authors' `build_model`: `image` (B, 3, S, S) is warped by M1, stamped, warped back by M0, distorted and read.

    `matrices` (B, 2, 8) are M0 and M1 (`warp_matrices`); `borders`, one of BORDERS, says what lies outside of the picture that was warped back.
    """
    m0, m1 = matrices[:, 0], matrices[:, 1]
    image_warped = warp(image, m1)
    image_warped = image_warped + (1 - warp(torch.ones_like(image), m1)) * image
    residual_warped = encoder(image_warped, secret)
    encoded_warped = image_warped + residual_warped
    residual = warp(residual_warped, m0)
    if borders == "no_edge":
        encoded = image + residual
    else:
        outside = 1 - warp(torch.ones_like(image), m0)
        fill = {
            "black": torch.zeros(1, 1, 1, 1),
            "white": torch.ones(1, 1, 1, 1),
            "random": draws.border[:1].view(1, 1, 1, 1),
            "randomrgb": draws.border.view(1, -1, 1, 1),
            "image": image.roll(1, 0),
        }[borders].to(image)
        encoded = warp(encoded_warped, m0) + outside * fill
    plain, stamped = (image, encoded) if borders == "no_edge" else (image_warped, encoded_warped)
    transformed = transform_net(encoded, draws, step, settings)
    heatmap = critic.heatmap(stamped)
    return Pass(image_warped, residual_warped, encoded_warped, residual, encoded, transformed, decoder(transformed), critic(plain), heatmap.mean(), heatmap)


def losses(
    p: Pass,
    image: Tensor,
    secret: Tensor,
    weights: tuple[float, float, float, float],
    yuv: tuple[float, float, float],
    edge_gain: float,
    perceptual: Tensor | float = 0.0,
) -> dict[str, Tensor | float]:
    """The authors' losses of one pass; `weights` of the image, perceptual, secret and critic loss (`losses.Schedule`).

    "loss" is the encoder's and decoder's, "critic" the critic's own, which it minimises.
    """
    picture, channels = image_loss(p.encoded, image, yuv, edge_gain)
    message = secret_loss(p.logits, secret)
    total = weights[0] * picture + weights[1] * perceptual + weights[2] * message + weights[3] * p.fake
    bit_accuracy, all_right = secret_accuracy(p.logits, secret)
    return {"loss": total, "critic": p.real - p.fake, "image": picture, "yuv": channels, "secret": message, "bit_accuracy": bit_accuracy, "all_right": all_right}


def warp_matrices(size: int, shift: float, batch: int, generator: torch.Generator) -> Tensor:
    """(batch, 2, 8) float64: M1 takes the square to a quad whose corners are shifted by up to `shift` pixels, M0 takes it back.

    M0 is the inverse of M1 without making its last entry 1 again, so the picture that comes back is slightly out of place, as in the authors' code.
    """
    corners = (torch.rand(batch, 4, 2, generator=generator, dtype=torch.float64) * 2 - 1) * shift
    m1 = torch.from_numpy(geometry.homography((geometry.square(size) + corners.numpy()).astype("float32"), geometry.square(size)))
    return torch.stack([torch.linalg.inv(m1), m1], 1).flatten(2)[..., :8]
