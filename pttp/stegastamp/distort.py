"""What happens to a stamp between the file and the camera's frame, as differentiable functions to train through.

Each takes pictures (B, 3, H, W) RGB in [0, 1], a strength in [0, 1] and a generator, and returns pictures of the same shape in [0, 1]; every picture of
the batch gets numbers of its own, and strength 0 changes nothing. The generator lives on the CPU whatever the pictures live on, so that a run can be
repeated on another device. The authors' own chain is in original.py.
"""
from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from pttp.stegastamp import geometry
from pttp.stegastamp import jpeg as jpegs

BLUR = 11  # side of the blur kernels


def uniform(x: Tensor, low: float, high: float, generator: torch.Generator, *shape: int) -> Tensor:
    """One number in [low, high) a picture, (B, 1, 1, 1) or (B, *shape), on the device of `x`."""
    return (torch.rand(len(x), *(shape or (1, 1, 1)), generator=generator) * (high - low) + low).to(x)


def normal_like(x: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal noise, drawn where `x` lives: on an accelerator its seed comes from `generator`."""
    if x.device.type == "cpu":
        return torch.randn(x.shape, generator=generator, dtype=x.dtype)
    there = torch.Generator(x.device).manual_seed(int(torch.randint(2**62, (), generator=generator)))
    return torch.randn(x.shape, generator=there, device=x.device, dtype=x.dtype)


def surroundings(x: Tensor, generator: torch.Generator) -> Tensor:
    """What may lie around or in front of each picture: its neighbour in the batch, or one flat colour."""
    colour = uniform(x, 0, 1, generator, 3, 1, 1)
    return torch.where(uniform(x, 0, 1, generator) < 0.5, x.detach().roll(1, 0), colour.expand_as(x))


def perspective(x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Each corner is out of place by up to a tenth of the side in both directions: what is left of a tilted view after it was rectified."""
    side = torch.tensor([x.shape[-1], x.shape[-2]], dtype=torch.float64) - 1
    corners = torch.tensor([[0, 0], [1, 0], [1, 1], [0, 1]], dtype=torch.float64) * side
    shifted = corners + (torch.rand(len(x), 4, 2, generator=generator, dtype=torch.float64) * 2 - 1) * (0.1 * strength) * side
    matrix = torch.from_numpy(geometry.homography(corners.numpy(), shifted.numpy()))
    return _placed(x, matrix, generator)


def rotation(x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Up to ten degrees about the centre."""
    angle = uniform(x, -math.radians(10), math.radians(10), generator).flatten().cpu().double() * strength
    cx, cy = (x.shape[-1] - 1) / 2, (x.shape[-2] - 1) / 2
    c, s, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    matrix = torch.stack([c, -s, cx - c * cx + s * cy, s, c, cy - s * cx - c * cy, zero, zero, one], 1).view(-1, 3, 3)
    return _placed(x, matrix, generator)


def _placed(x: Tensor, matrix: Tensor, generator: torch.Generator) -> Tensor:
    inside = geometry.warp(torch.ones_like(x[:, :1]), matrix)
    return geometry.warp(x, matrix) + (1 - inside) * surroundings(x, generator)


def crop(x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """A window of at least three quarters of the side, anywhere, enlarged to the full picture."""
    side, left, top = (uniform(x, 0, 1, generator).flatten() for _ in range(3))
    side = 1 - 0.25 * strength * side
    zero, one = torch.zeros_like(side), torch.ones_like(side)
    left, top = left * (1 - side) * (x.shape[-1] - 1), top * (1 - side) * (x.shape[-2] - 1)
    return geometry.warp(x, torch.stack([side, zero, left, zero, side, top, zero, zero, one], 1).view(-1, 3, 3), padding="border")


def occlusion(x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """A rectangle or an ellipse in front, covering up to 15 % of the picture."""
    h, w = x.shape[-2:]
    area, aspect = 0.15 * strength * uniform(x, 0, 1, generator), torch.exp(uniform(x, -0.7, 0.7, generator))
    ys = (torch.arange(h, device=x.device, dtype=x.dtype) + 0.5).view(1, 1, h, 1) / h
    xs = (torch.arange(w, device=x.device, dtype=x.dtype) + 0.5).view(1, 1, 1, w) / w
    dx = (xs - uniform(x, 0, 1, generator)).abs() / (area * aspect).sqrt().clamp(min=1e-6) * 2
    dy = (ys - uniform(x, 0, 1, generator)).abs() / (area / aspect).sqrt().clamp(min=1e-6) * 2
    rectangle = torch.maximum(dx, dy) < 1
    ellipse = dx**2 + dy**2 < 4 / math.pi  # of the same area
    return torch.where(torch.where(uniform(x, 0, 1, generator) < 0.5, rectangle, ellipse), surroundings(x, generator), x)


def colour(x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Contrast 0.5 to 1.5, brightness +-0.3, each channel +-0.1, saturation down to none, gamma 0.7 to 1.4."""
    contrast = uniform(x, 1 - 0.5 * strength, 1 + 0.5 * strength, generator)
    offset = uniform(x, -0.3, 0.3, generator) + uniform(x, -0.1, 0.1, generator, 3, 1, 1)
    y = (x * contrast + strength * offset).clamp(0, 1)
    grey = torch.einsum("c,bchw->bhw", torch.tensor([0.299, 0.587, 0.114]).to(x), y)[:, None]
    y = torch.lerp(y, grey.expand_as(y), uniform(x, 0, strength, generator))
    return y.clamp(min=1e-4) ** torch.exp(strength * uniform(x, -0.35, 0.35, generator)) if strength else y


def light(x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Uneven light: a slope across the picture and a lamp's soft spot, each up to 30 %."""
    h, w = x.shape[-2:]
    ys = torch.linspace(-1, 1, h, device=x.device, dtype=x.dtype).view(1, 1, h, 1)
    xs = torch.linspace(-1, 1, w, device=x.device, dtype=x.dtype).view(1, 1, 1, w)
    angle = uniform(x, 0, 2 * math.pi, generator)
    slope = (xs * angle.cos() + ys * angle.sin()) * uniform(x, 0, 0.3, generator)
    distance = (xs - uniform(x, -1, 1, generator)) ** 2 + (ys - uniform(x, -1, 1, generator)) ** 2
    spot = torch.exp(-distance / uniform(x, 0.2, 1, generator)) * uniform(x, -0.3, 0.3, generator)
    return (x * (1 + strength * (slope + spot))).clamp(0, 1)


def blur(x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Half of the pictures: Gaussian (sigma up to 2), out of focus (disc, radius up to 3) or shaken (line, length up to 9), in pixels of `x`."""
    if not strength:
        return x
    axis = torch.arange(BLUR, device=x.device, dtype=x.dtype) - BLUR // 2
    row, col = axis.view(1, BLUR, 1), axis.view(1, 1, BLUR)
    kind, size, angle = (uniform(x, 0, 1, generator).view(-1, 1, 1) for _ in range(3))
    size = size * strength
    distance2 = row**2 + col**2
    gauss = torch.exp(-distance2 / (2 * (2 * size) ** 2 + 1e-6))
    disc = (3 * size + 0.5 - distance2.sqrt()).clamp(0, 1)
    along, across = (col * torch.cos(math.pi * angle) + row * torch.sin(math.pi * angle)), (row * torch.cos(math.pi * angle) - col * torch.sin(math.pi * angle))
    line = (4.5 * size + 0.5 - along.abs()).clamp(0, 1) * (1 - across.abs()).clamp(0, 1)
    none = (distance2 == 0).to(x).expand_as(gauss)
    kernel = torch.where(kind < 1 / 6, gauss, torch.where(kind < 1 / 3, disc, torch.where(kind < 1 / 2, line, none)))
    kernel = (kernel / kernel.sum((1, 2), keepdim=True)).repeat_interleave(3, 0)[:, None]  # (3 B, 1, 11, 11)
    padded = F.pad(x, [BLUR // 2] * 4, mode="replicate").flatten(0, 1)[None]
    return F.conv2d(padded, kernel, groups=len(kernel)).view_as(x).clamp(0, 1)


def resize(x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Shrunk to between 0.3 and 1 of its size and enlarged again; bilinear or bicubic both ways."""
    factors = uniform(x, 1 - 0.7 * strength, 1, generator).flatten().tolist()
    modes = (torch.rand(len(x), generator=generator) < 0.5).tolist()
    out = []
    for picture, factor, bicubic in zip(x.split(1), factors, modes, strict=True):
        size, mode = [max(8, round(n * factor)) for n in x.shape[-2:]], "bicubic" if bicubic else "bilinear"
        if size != list(x.shape[-2:]):
            small = F.interpolate(picture, size=size, mode=mode, antialias=True, align_corners=False)
            picture = F.interpolate(small, size=x.shape[-2:], mode=mode, align_corners=False)
        out.append(picture)
    return torch.cat(out).clamp(0, 1)


def noise(x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Gaussian, standard deviation up to 0.08."""
    return (x + normal_like(x, generator) * uniform(x, 0, 0.08 * strength, generator)).clamp(0, 1)


def stripes(x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Waves across the picture, each channel with its own phase, as between a screen's and a sensor's grid: period 2 to 20 pixels, amplitude up to 0.06."""
    h, w = x.shape[-2:]
    ys = torch.arange(h, device=x.device, dtype=x.dtype).view(1, 1, h, 1)
    xs = torch.arange(w, device=x.device, dtype=x.dtype).view(1, 1, 1, w)
    angle, frequency = uniform(x, 0, math.pi, generator), 2 * math.pi / torch.exp(uniform(x, math.log(2), math.log(20), generator))
    phase = uniform(x, 0, 2 * math.pi, generator, 3, 1, 1)
    wave = torch.sin((xs * angle.cos() + ys * angle.sin()) * frequency + phase)
    return (x + wave * uniform(x, 0, 0.06 * strength, generator)).clamp(0, 1)


def jpeg(x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Quality between 40 and 100, with the tables and the rounding of a real encoder."""
    if not strength:
        return x
    quality = uniform(x, 100 - 60 * strength, 100, generator).flatten()
    return jpegs.jpeg(x, jpegs.quality_to_factor(quality), jpegs.round_through, as_authors=False)


Distortion = Callable[[Tensor, float, torch.Generator], Tensor]
# In the order in which they happen, with the share of batches that go through each
CHAIN: dict[str, tuple[Distortion, float]] = {
    "occlusion": (occlusion, 0.3),
    "perspective": (perspective, 0.8),
    "rotation": (rotation, 0.2),
    "crop": (crop, 0.15),
    "light": (light, 0.4),
    "colour": (colour, 0.8),
    "blur": (blur, 0.8),
    "resize": (resize, 0.5),
    "stripes": (stripes, 0.2),
    "noise": (noise, 0.7),
    "jpeg": (jpeg, 0.6),
}


def camera(x: Tensor, strength: float | dict[str, float], generator: torch.Generator) -> Tensor:
    """The whole way from the stamp (B, 3, H, W) to the square that was cut out of the camera's frame.

    `strength` for all, or by name of CHAIN; what is not named is left out.
    """
    strengths = strength if isinstance(strength, dict) else dict.fromkeys(CHAIN, strength)
    for name, (distort, share) in CHAIN.items():
        happens = float(torch.rand((), generator=generator)) < share
        if happens and strengths.get(name, 0) > 0:
            x = distort(x, strengths[name], generator)
    return x
