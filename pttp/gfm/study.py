"""What "Look inside" shows: the two answers and what each decided, what the other RoSTas would have asked for, and the difference to a true matte."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pttp.errors import BadInput
from pttp.gfm import metrics
from pttp.gfm.data import dilate, erode
from pttp.gfm.predict import Matte

SHOWN = 480  # long side of the views
COMPARED = 1600  # long side at which a matte is compared with the true one, at most
CLASSES = np.array([(47, 111, 179), (244, 241, 234), (194, 87, 12)], np.uint8)  # background, transition, animal: blue, pale, orange
ASPECT = 0.02  # how far a true matte's aspect may be off
REACH = 0.02  # of the long side: half the width of the transition that RoSTa truths are drawn with
Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Panels:
    """Glance, focus and fusion as pictures (h, w, 3) uint8, and who decided what.

    `background`, `transition`, `animal`: shares of the picture by glance, summing to 1; `by_focus`: share of the matte's mass (the sum of alpha) that lies in the
    transition, so that focus decided it; `changed`: mean difference to the matte without widening, None where it was not widened.
    """

    glance: Bytes
    focus: Bytes
    fusion: Bytes
    background: float
    transition: float
    animal: float
    by_focus: float
    changed: float | None


@dataclass(frozen=True)
class Rosta:
    """What one RoSTa asks of the two decoders on a picture with a known matte, as pictures (h, w, 3) uint8, and what its rule makes of perfect answers.

    `asked`: share of the pixels in which focus has to answer anything but 0; `off`: largest difference between the fusion of the two truths and the matte.
    """

    name: str
    rule: str
    glance: Bytes
    focus: Bytes
    fusion: Bytes
    asked: float
    off: float


@dataclass(frozen=True)
class Errors:
    """A matte beside the true one, compared at `size` (w, h): the metrics of matting papers (see `metrics`), `sad_transition` within the truth's own transition; `picture` (h, w, 3):
    blue where the matte has too little, orange where it has too much."""

    picture: Bytes
    size: tuple[int, int]
    sad: float
    mse: float
    mad: float
    grad: float
    conn: float
    sad_transition: float


RULES = {"TT": "alpha = focus in the transition, else 0 or 1 as glance says", "FT": "alpha = min(glance + focus, 1)", "BT": "alpha = max(glance - focus, 0)"}


def small_size(shape: tuple[int, ...], longest: int = SHOWN) -> tuple[int, int]:
    """(w, h) of a picture of `shape` (H, W, ...) shrunk to `longest`."""
    scale = min(1, longest / max(shape[:2]))
    return max(1, round(shape[1] * scale)), max(1, round(shape[0] * scale))


def shrunk(x: NDArray, longest: int = SHOWN) -> NDArray:
    """(H, W) float32 or (H, W, 3) uint8, shrunk to `longest`."""
    return np.asarray(Image.fromarray(x).resize(small_size(x.shape, longest), Image.Resampling.BOX))


def grey(x: NDArray[np.floating]) -> Bytes:
    """(h, w) in [0, 1] -> (h, w, 3)."""
    return np.repeat(np.rint(255 * np.clip(x, 0, 1)).astype(np.uint8)[..., None], 3, 2)


def panels(matte: Matte, plain: Matte | None = None) -> Panels:
    """The three views of a `matte`; `plain` is the one of the same look without widening."""
    x0, y0, x1, y1 = matte.look.box
    w, h = small_size(matte.alpha.shape)
    sx, sy = w / matte.alpha.shape[1], h / matte.alpha.shape[0]
    box = (round(x0 * sx), round(y0 * sy), max(round(x0 * sx) + 1, round(x1 * sx)), max(round(y0 * sy) + 1, round(y1 * sy)))
    inside = slice(box[1], box[3]), slice(box[0], box[2])
    size = box[2] - box[0], box[3] - box[1]
    classes = matte.look.glance.argmax(0)
    classes = np.where(matte.transition, 1, classes).astype(np.uint8)
    glance = np.zeros((h, w), np.uint8)
    glance[inside] = np.asarray(Image.fromarray(classes).resize(size, Image.Resampling.NEAREST))
    focus = np.zeros((h, w), np.float32)
    focus[inside] = np.asarray(Image.fromarray(matte.look.focus).resize(size, Image.Resampling.BOX))
    believed = grey(focus)
    ignored = (0.25 * believed + 0.75 * CLASSES[0]).astype(np.uint8)  # focus answers there too; nobody listens
    alpha = shrunk(matte.alpha)
    mass = float(alpha.sum())
    return Panels(
        CLASSES[glance],
        np.where((glance == 1)[..., None], believed, ignored),
        grey(alpha),
        *(float((glance == k).mean()) for k in range(3)),
        float(alpha[glance == 1].sum()) / mass if mass else 0.0,
        None if plain is None else float(np.abs(matte.alpha - plain.alpha).mean()),
    )


def rosta(matte: NDArray[np.floating], name: str) -> Rosta:
    """What the RoSTa `name` (TT, FT or BT) asks for where `matte` (H, W) is the truth. Raises BadInput for any other name."""
    if name not in RULES:
        raise BadInput(f"The RoSTa is one of {', '.join(RULES)}, not {name!r}.")
    alpha = shrunk(np.asarray(matte, np.float32))
    reach = max(3, 2 * round(REACH * max(alpha.shape)) + 1)
    some, whole = dilate(alpha > 0, reach), erode(alpha >= 1, reach)
    if name == "TT":
        classes, focus = np.where(whole, 2, np.where(some, 1, 0)), np.where(some & ~whole, alpha, 0)
        fusion = np.where(classes == 1, focus, classes == 2)
        glance = CLASSES[classes]
    elif name == "FT":
        glance, focus = CLASSES[2 * whole.astype(int)], alpha - whole
        fusion = np.minimum(whole + focus, 1)
    else:
        glance, focus = CLASSES[2 * some.astype(int)], some - alpha
        fusion = np.maximum(some - focus, 0)
    return Rosta(name, RULES[name], glance, grey(focus), grey(fusion), float((focus > 0).mean()), float(np.abs(fusion - alpha).max()))


def errors(matte: NDArray[np.floating], truth: Image.Image) -> Errors:
    """`matte` (H, W) beside the true one: a picture of the same aspect whose grey values are alpha, or a cut-out whose transparency is. Raises BadInput for another
    aspect."""
    h, w = matte.shape
    cut_out = truth.mode == "RGBA" and truth.getchannel("A").getextrema()[0] < 255
    truth = truth.getchannel("A") if cut_out else truth.convert("L")
    if abs(truth.width * h / (truth.height * w) - 1) > ASPECT + 1 / min(truth.size):
        raise BadInput(f"The true matte is {truth.width} x {truth.height} and the photo {w} x {h}: give one of the same aspect.")
    ours = shrunk(np.asarray(matte, np.float32), COMPARED)
    theirs = np.asarray(truth.resize(ours.shape[1::-1], Image.Resampling.BOX if truth.width >= ours.shape[1] else Image.Resampling.BILINEAR), np.float32) / 255
    reach = max(3, 2 * round(REACH * max(ours.shape) / 2) + 1)
    trimap = np.where(erode(theirs >= 1, reach), 255, np.where(dilate(theirs > 0, reach), 128, 0)).astype(np.uint8)
    sad, mse, mad = metrics.sad_mse_mad(ours, theirs)
    inside = float(np.abs(ours - theirs)[trimap == 128].sum() / 1000)
    picture = error_picture(shrunk(ours) - shrunk(theirs))
    return Errors(picture, ours.shape[1::-1], sad, mse, mad, metrics.gradient_error(ours, theirs), metrics.connectivity_error(ours, theirs), inside)


def error_picture(d: NDArray[np.floating]) -> Bytes:
    """Differences (h, w) in [-1, 1] -> (h, w, 3): pale where there is none, blue below 0, orange above, full from a half on."""
    t = np.clip(2 * np.abs(d), 0, 1)[..., None]
    return np.rint(CLASSES[1] * (1 - t) + np.where(d[..., None] < 0, CLASSES[0], CLASSES[2]) * t).astype(np.uint8)
