"""Colours in CIE L*a*b* (D65, 2 degrees): the space that the paper asks and measures in.

Lab values are L* in [0, 100] and a*, b* of about -110 to 110. The networks see them scaled to about [-1, 1] (`scaled`).
"""
from __future__ import annotations

import re

import numpy as np
import torch
from torch import Tensor

WHITE = (0.95047, 1.0, 1.08883)
TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))  # from linear sRGB
SPAN, MIDDLE = (50.0, 110.0, 110.0), (50.0, 0.0, 0.0)
EDGE = 6 / 29  # below it the cube root of Lab is a straight line

# Shades that a person might ask for, by family, as sRGB; the last three families are what no lipstick of a drugstore has.
FAMILIES = {
    "reds": ("#b01030", "#c8102e", "#8b0a1a", "#d2262f"),
    "nudes": ("#c68e7a", "#b5766a", "#d9a08c", "#a8705f"),
    "plums": ("#6a2a4f", "#7d2e5d", "#4e1f3a"),
    "pinks": ("#e75480", "#d45b90", "#f08fa6", "#c2386b"),
    "browns": ("#6b3a2e", "#86503f", "#54291f"),
    "orange": ("#d9532c", "#e8704a"),
    "blue": ("#2d4fa3", "#5b7fc4"),
    "green": ("#3f8f5a",),
    "yellow": ("#d6b93c",),
}
TAIL = ("blue", "green", "yellow")
TARGETS = tuple((family, shade) for family, shades in FAMILIES.items() for shade in shades)


def _constant(values, like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """sRGB in [0, 1] -> Lab, both (..., 3, H, W); differentiable everywhere."""
    linear = torch.where(rgb > 0.04045, ((rgb.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = torch.einsum("dc,...chw->...dhw", _constant(TO_XYZ, rgb), linear) / _constant(WHITE, rgb)[:, None, None]
    f = torch.where(xyz > EDGE**3, xyz.clamp(min=EDGE**3) ** (1 / 3), xyz / (3 * EDGE**2) + 4 / 29)
    x, y, z = f.unbind(-3)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -3)


def clamp_through(x: Tensor) -> Tensor:
    """Clipped to [0, 1] with the gradient of the identity: a colour outside of the gamut can still be told to come back."""
    return x + (x.clamp(0, 1) - x).detach()


def lab_to_rgb(lab: Tensor) -> Tensor:
    """Lab -> sRGB, both (..., 3, H, W), clipped to [0, 1] channel by channel; differentiable everywhere."""
    lightness, a, b = lab.unbind(-3)
    y = (lightness + 16) / 116
    f = torch.stack([y + a / 500, y, y - b / 200], -3)
    xyz = torch.where(f > EDGE, f.clamp(min=EDGE) ** 3, 3 * EDGE**2 * (f - 4 / 29)) * _constant(WHITE, lab)[:, None, None]
    linear = clamp_through(torch.einsum("dc,...chw->...dhw", torch.linalg.inv(_constant(TO_XYZ, lab)), xyz))
    return clamp_through(torch.where(linear > 0.0031308, 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055, 12.92 * linear))


def scaled(lab: Tensor) -> Tensor:
    """Lab (B, 3) or (B, 3, H, W) -> about [-1, 1]: L*/50 - 1, a*/110, b*/110."""
    shape = (3,) + (1,) * (lab.ndim - 2)
    return (lab - _constant(MIDDLE, lab).view(shape)) / _constant(SPAN, lab).view(shape)


def unscaled(planes: Tensor) -> Tensor:
    """The inverse of `scaled`."""
    shape = (3,) + (1,) * (planes.ndim - 2)
    return planes * _constant(SPAN, planes).view(shape) + _constant(MIDDLE, planes).view(shape)


def parse(text: str) -> tuple[int, int, int]:
    """#rgb, #rrggbb, or rgb(r, g, b) / rgba(...) with numbers of 0 to 255 -> (r, g, b). Raises BadInput."""
    from pttp.errors import BadInput

    said = text.strip().lower() if isinstance(text, str) else ""
    if m := re.fullmatch(r"#?([0-9a-f]{3}|[0-9a-f]{6})", said):
        digits = m[1] if len(m[1]) == 6 else "".join(2 * d for d in m[1])
        return tuple(bytes.fromhex(digits))
    if m := re.fullmatch(r"rgba?\(\s*([\d.]{1,9})\s*,\s*([\d.]{1,9})\s*,\s*([\d.]{1,9})\s*(?:,\s*[\d.]{1,9}%?\s*)?\)", said):
        try:
            values = tuple(round(float(v)) for v in m.groups())
        except ValueError:
            values = (256,)
        if max(values) <= 255:
            return values
    raise BadInput(f"{str(text)[:40]!r} is not a colour: write it as #rrggbb, like #b01030.")


def lab_of(shade: str | tuple[int, int, int]) -> np.ndarray:
    """A colour as text (see `parse`) or (r, g, b) of 0 to 255 -> Lab (3,) float64."""
    rgb = parse(shade) if isinstance(shade, str) else shade
    return rgb_to_lab(torch.tensor(rgb, dtype=torch.float64).view(3, 1, 1) / 255).flatten().numpy()


def hex_of(lab: np.ndarray) -> str:
    """Lab (3,) -> #rrggbb, the nearest by clipping where the screen cannot show it."""
    rgb = lab_to_rgb(torch.as_tensor(np.asarray(lab, np.float64)).view(3, 1, 1)).flatten().numpy()
    return "#" + bytes(np.rint(rgb * 255).astype(np.uint8)).hex()


def delta_e(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """CIEDE2000 between Lab colours (..., 3)."""
    from skimage.color import deltaE_ciede2000

    return deltaE_ciede2000(np.asarray(a, np.float64), np.asarray(b, np.float64))
