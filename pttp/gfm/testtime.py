"""From a picture of any size to its matte: the authors' two test-time strategies (HYBRID and RESIZE), and what they write to disk.

HYBRID lets glance look at a third of the size, where it sees the whole animal, and focus at half, where it sees hair; RESIZE runs both at half. Maps
come back at the picture's size. Where the working size would be nothing, because the picture is small, 32 pixels take its place: there the released code stops.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pttp.errors import BadInput
from pttp.gfm.model import CLASSES, STEP

LARGEST = 1600
SHORT_SIDE = 1080
GLANCE, FOCUS = 1 / 3, 1 / 2
Array = NDArray[np.generic]


@dataclass(frozen=True)
class Maps:
    """At the picture's size (H, W): `glance` 0..255 (0 background, 255 animal, TT: 128 transition, and in between at the seams), `focus` and `fusion` in [0, 1].

    For RIM glance and focus are None and `parts` holds the three mattes (TT, FT, BT) that `fusion` was made from.
    """

    fusion: NDArray[np.floating]
    glance: NDArray[np.floating] | None = None
    focus: NDArray[np.floating] | None = None
    parts: tuple[NDArray[np.floating], ...] = ()


def working_size(height: int, width: int, ratio: float) -> tuple[int, int]:
    """Height and width at `ratio`, rounded down to multiples of 32 and at most 1600; 0 where that leaves nothing."""
    return tuple(min(LARGEST, int(side * ratio) // STEP * STEP) for side in (height, width))


def resized(image: Array, size: tuple[int, int]) -> NDArray[np.floating]:
    """`image` (H, W) or (H, W, 3) at another height and width: linear, blurred first where it shrinks. Integers are taken as shares of 255."""
    from skimage.transform import resize

    return resize(image, size)


def prepared(image: NDArray[np.uint8], ratio: float) -> torch.Tensor:
    """`image` (H, W, 3) uint8 RGB -> (1, 3, h, w) float32 0..255 at the working size, each side at least 32."""
    size = tuple(max(STEP, side) for side in working_size(*image.shape[:2], ratio))
    pixels = (resized(image, size) * 255.0).astype(np.float32)
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


def classes(glance: Array) -> NDArray[np.uint8]:
    """Class probabilities (3 or 2, h, w) -> (h, w): 0, 128, 255 for three classes, 0, 255 for two; the first of equals wins."""
    values = np.array([0, 128, 255] if len(glance) == 3 else [0, 255], np.uint8)
    return values[np.argmax(glance, 0)]


def fuse(rosta: str, glance: Array, focus: Array, hybrid: str = "tolerant") -> NDArray[np.floating]:
    """Stretched `glance` 0..255 and `focus` in [0, 1], both (H, W) -> the matte (H, W).

    TT believes glance only where it is exactly 0 or 255. Stretching makes 254.99999999999997 of about one 255 in a hundred, and with `hybrid="literal"`,
    the released rule, such pixels show focus: speckles inside the animal. "tolerant" rounds first. Raises BadInput for any other `hybrid`.
    """
    if hybrid not in ("tolerant", "literal"):
        raise BadInput(f'hybrid is "tolerant" or "literal", not {hybrid!r}.')
    if rosta == "FT":
        return np.minimum(glance / 255 + focus, 1)
    if rosta == "BT":
        return np.maximum(glance / 255 - focus, 0)
    if hybrid == "tolerant":
        glance = np.rint(glance)
    return np.where((glance == 0) | (glance == 255), glance / 255, focus)


@torch.inference_mode()
def hybrid_maps(net: nn.Module, image: NDArray[np.uint8], hybrid: str = "tolerant") -> Maps:
    """HYBRID with a `net` of the RoSTa TT, FT or BT on `image` (H, W, 3) uint8 RGB; `hybrid` as in `fuse`.

    Of each pass only the decoder that is asked for runs: the same numbers for less.
    """
    _is_image(image)
    size, device = image.shape[:2], next(net.parameters()).device
    (glance,) = net.glance(net.encode(prepared(image, GLANCE).to(device)))
    (focus,) = net.focus(net.encode(prepared(image, FOCUS).to(device)))
    glance = resized(classes(glance[0].cpu().numpy()), size) * 255.0
    focus = resized(focus[0, 0].cpu().numpy(), size)
    return Maps(fuse(net.rosta, glance, focus, hybrid), glance, focus)


@torch.inference_mode()
def resize_maps(net: nn.Module, image: NDArray[np.uint8]) -> Maps:
    """RESIZE with a `net` of the RoSTa TT, FT or BT on `image` (H, W, 3) uint8 RGB: one pass at half the size, the three results stretched.

    RIM has no other strategy, and its pass is at a third.
    """
    _is_image(image)
    size, device = image.shape[:2], next(net.parameters()).device

    def stretched(x: torch.Tensor) -> NDArray[np.floating]:
        return resized(x[0, 0].cpu().numpy(), size)

    if net.rosta not in CLASSES:
        said = net(prepared(image, GLANCE).to(device))
        return Maps(stretched(said.fusion), parts=tuple(stretched(one.fusion) for one in said[:3]))
    said = net(prepared(image, FOCUS).to(device))
    return Maps(stretched(said.fusion), resized(classes(said.glance[0].cpu().numpy()), size) * 255.0, stretched(said.focus))


def matte(net: nn.Module, image: NDArray[np.uint8], strategy: str = "HYBRID", hybrid: str = "tolerant") -> Maps:
    """The maps of `image` (H, W, 3) uint8 RGB by the `strategy` HYBRID, the authors' default, or RESIZE; `hybrid` as in `fuse`.

    RIM has its own strategy (see `resize_maps`). Raises BadInput for any other, and for an array that is no picture.
    """
    if strategy not in ("HYBRID", "RESIZE"):
        raise BadInput(f"The strategy is HYBRID or RESIZE, not {strategy!r}.")
    return hybrid_maps(net, image, hybrid) if strategy == "HYBRID" and net.rosta in CLASSES else resize_maps(net, image)


def limited(image: NDArray[np.uint8], short_side: int = SHORT_SIDE) -> NDArray[np.uint8]:
    """`image` (H, W, 3) uint8, shrunk (linear, not blurred) so that its short side is `short_side`, if it is longer: the authors' rule for sample pictures."""
    h, w = image.shape[:2]
    if min(h, w) <= short_side:
        return image
    size = (int(short_side * h / w), short_side) if h >= w else (short_side, int(short_side * w / h))
    pixels = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None]
    pixels = nn.functional.interpolate(pixels, size=size, mode="bilinear", align_corners=False)
    return pixels[0].permute(1, 2, 0).round().to(torch.uint8).numpy()


def saved(alpha: Array) -> NDArray[np.uint8]:
    """A matte (H, W) in [0, 1] as the authors write it: fractions of 255 cut off."""
    return (alpha * 255).astype(np.uint8)


def premultiplied(image: NDArray[np.uint8], alpha: Array) -> NDArray[np.floating]:
    """`image` (H, W, 3) RGB and `alpha` (H, W) in [0, 1] -> the authors' colour result before rounding, (H, W, 4) BGRA 0..255: colours times alpha."""
    return np.dstack([image[..., ::-1] * alpha[..., None], alpha * 255])


def _is_image(image: Array) -> None:
    if getattr(image, "ndim", 0) != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise BadInput("The picture must be an (H, W, 3) array of RGB bytes.")
