"""From quads in a picture to messages: rectify, decode in four rotations, move the corners where the code does not verify.

Every look at a picture is one more chance to read a message that is not there. The first look at a quad, in its four rotations, takes whatever `message`
takes; every further one is `strict`: all nine constant bits right and at most four repairs, which fair coins pass once in two thousand million looks
(`message.false_positive_rate(1, 0, STRICT_REPAIRS)`), so that hundreds of looks at a picture stay far below 1e-5.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from pttp.stegastamp import geometry, message
from pttp.stegastamp.model import StegaStamp

STRICT_REPAIRS = 4
STEPS = (0.03, 0.015)  # of the quad's side: how far a corner is moved in each round


@dataclass(frozen=True)
class Look:
    """One quad, decoded. `quad` (4, 2) as seen, clockwise from its top left; `logits` (4, 100) by quarter turns; `turns` of the clearest one; `payload` or None."""

    quad: np.ndarray
    logits: np.ndarray
    turns: int
    payload: message.Payload | None

    @property
    def own_quad(self) -> np.ndarray:
        """The corners, clockwise from the stamp's own top left."""
        return np.roll(self.quad, -self.turns, 0)

    @property
    def rotation(self) -> int:
        """Degrees by which the stamp is turned clockwise in the picture."""
        return 90 * self.turns


def strict(payload: message.Payload | None) -> message.Payload | None:
    """`payload` if it passes what further looks must pass."""
    return payload if payload and payload.wrong_constants == 0 and payload.corrected <= STRICT_REPAIRS else None


def clarity(logits: np.ndarray) -> np.ndarray:
    """How much (..., 100) logits look like a stamp: mean certainty of the bits, less what the nine constant ones contradict."""
    certainty = np.tanh(np.abs(logits) / 2).mean(-1)
    constants = np.logaddexp(0, logits[..., message.CODE :]).mean(-1)  # cross-entropy against zero
    return certainty - constants


def tensor(picture: Image.Image | np.ndarray, device) -> Tensor:
    """RGB, 8 bit -> (3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(picture)).to(device).permute(2, 0, 1).float().div_(255)


def squares(picture: Tensor, quads: np.ndarray, size: int) -> Tensor:
    """Quads (N, 4, 2) of `picture` (3, H, W) as squares (N, 3, size, size), averaged where the picture has more pixels than that."""
    quads = np.asarray(quads, np.float64).reshape(-1, 4, 2)
    sides = np.linalg.norm(quads - np.roll(quads, 1, 1), axis=-1).mean(1)
    factors = np.maximum(1, np.round(sides / size)).astype(int)
    out = picture.new_empty(len(quads), 3, size, size)
    bounds = np.array([picture.shape[2], picture.shape[1]])
    for factor in np.unique(factors).tolist():
        rows = np.flatnonzero(factors == factor)
        corner = (np.floor(quads[rows].min((0, 1)) / factor - 1) * factor).clip(0, bounds - 1).astype(int) // factor * factor  # only what is looked at is averaged
        end = np.ceil(quads[rows].max((0, 1)) + 2 * factor).clip(corner + 1, bounds).astype(int)
        part = picture[:, corner[1] : end[1], corner[0] : end[0]]
        small = F.avg_pool2d(part[None], factor, ceil_mode=True, count_include_pad=False)[0] if factor > 1 else part
        inner = (quads[rows] - corner + 0.5) / factor - 0.5
        h = geometry.homography(geometry.square(size - 1), inner)
        out[torch.from_numpy(rows)] = geometry.warp(small[None].expand(len(rows), -1, -1, -1), torch.from_numpy(h), (size, size), padding="border")
    return out


def decode(net: StegaStamp, views: Tensor) -> np.ndarray:
    """(N, 3, S, S) -> logits (N, bits) float64."""
    with torch.inference_mode():
        return net.decoder(views).cpu().double().numpy()


def four_turns(views: Tensor) -> Tensor:
    """(N, 3, S, S) -> (4 N, 3, S, S): each view turned back by 0, 90, 180 and 270 degrees."""
    return torch.stack([torch.rot90(views, k, (2, 3)) for k in range(4)], 1).flatten(0, 1)


def looks(net: StegaStamp, picture: Tensor, quads: np.ndarray, lenient: bool = True) -> list[Look]:
    """Decode each quad (N, 4, 2) in four rotations; see the module about `lenient`."""
    if not len(quads):
        return []
    logits = decode(net, four_turns(squares(picture, quads, net.size))).reshape(len(quads), 4, -1)
    payloads = message.unpack_all(probabilities(logits.reshape(-1, logits.shape[-1])))
    out = []
    for i, (quad, turned) in enumerate(zip(np.asarray(quads, np.float64).reshape(-1, 4, 2), logits, strict=True)):
        read = payloads[4 * i : 4 * i + 4]
        read = read if lenient else [strict(p) for p in read]
        best = max((k for k in range(4) if read[k]), key=lambda k: read[k].confidence, default=None)
        turns = int(clarity(turned).argmax()) if best is None else best
        out.append(Look(quad, turned, turns, None if best is None else read[best]))
    return out


def probabilities(logits: np.ndarray) -> np.ndarray:
    """That each bit is 1."""
    return 0.5 + 0.5 * np.tanh(np.asarray(logits, np.float64) / 2)


MOVES = np.array(
    [np.tile(shift, (4, 1)) for shift in ((1, 0), (-1, 0), (0, 1), (0, -1))]  # the whole quad
    + [sign * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) for sign in (1, -1)]  # larger, smaller
    + [sign * np.eye(4)[[i]].T * np.array(out) for i, out in enumerate(((-1, -1), (1, -1), (1, 1), (-1, 1))) for sign in (1, -1)],  # one corner out or in
    np.float64,
)  # (14, 4, 2), in units of the quad's side


def refined(net: StegaStamp, picture: Tensor, look: Look, steps: tuple[float, ...] = STEPS) -> Look:
    """Small moves of the corners until the code verifies; the clearest look otherwise. The rotation is that of the given look."""
    for step in steps:
        if look.payload:
            break
        along = (look.quad[1] - look.quad[0] + look.quad[2] - look.quad[3]) / 2
        down = (look.quad[3] - look.quad[0] + look.quad[2] - look.quad[1]) / 2
        quads = look.quad + step * (MOVES @ np.stack([along, down]))
        logits = decode(net, torch.rot90(squares(picture, quads, net.size), look.turns, (2, 3)))
        payloads = [strict(p) for p in message.unpack_all(probabilities(logits))]
        best = max(range(len(quads)), key=lambda i: (payloads[i] is not None, clarity(logits[i])))
        if payloads[best] is None and clarity(logits[best]) <= clarity(look.logits[look.turns]):
            continue
        turned = look.logits.copy()
        turned[look.turns] = logits[best]
        look = Look(quads[best], turned, look.turns, payloads[best])
    return look


def whole(width: int, height: int) -> np.ndarray:
    """The corners of a picture, at the centres of its corner pixels."""
    return np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], np.float64)


def windows(width: int, height: int) -> np.ndarray:
    """Quads to try when nothing was found: parts of the picture (a stamp with something around it), and larger frames (a stamp that was cropped)."""
    corners = ((0, 0), (1, 0), (1, 1), (0, 1))
    boxes = [((1 - part) * x, (1 - part) * y, part, part) for part in (0.9, 0.8, 0.66) for x, y in ((0.5, 0.5), *corners)]
    for cut in (0.05, 0.1, 0.2):
        sides = [(cut / 2,) * 4] + [tuple(cut * (side in gone) for side in "ltrb") for gone in ("l", "t", "r", "b", "lt", "tr", "rb", "lb")]
        for left, top, right, bottom in sides:  # shares of the stamp that were cut off
            w, h = 1 / (1 - left - right), 1 / (1 - top - bottom)
            boxes.append((-left * w, -top * h, w, h))
    quads = [[[x, y], [x + w, y], [x + w, y + h], [x, y + h]] for x, y, w, h in boxes]
    return np.array(quads) * (width - 1, height - 1)
