"""Where the faces of a picture are, and on each of them the eyes and the mouth: a small network on the shared trunk, and close-ups cut upright from its points.

Points are (x, y) in pixels, pixel centres at whole numbers. Left and right are as seen in the picture.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pttp import trunk
from pttp.errors import BadInput
from pttp.trunk import Wide, conv

STRIDE = 16
UNIT = 64.0  # pixels an offset of 1 stands for
POINTS = ("left eye, outer corner", "left eye, inner corner", "right eye, inner corner", "right eye, outer corner", "mouth, left", "mouth, right", "mouth, top", "mouth, bottom")
MIRRORED = (3, 2, 1, 0, 5, 4, 6, 7)  # what each point is called in a mirrored picture
PARTS = {"left_eye": (0, 1), "right_eye": (2, 3), "lips": (4, 5, 6, 7)}
SPREAD, CORE = 0.22, 0.45  # of the centre's bell, and how far from it cells must name the points, in units of the face's height (eyes to mouth)
LONG_SIDES = (512, 256, 1024)  # a picture is looked at with these, until one shows a face: one that fills the picture is seen in a small copy, a tiny one in a large
CLOSER = 224  # and every face once more, upright, in a square of this side
TALL = 0.34  # the face's height (eyes to mouth) in that square
SURE = 0.4
# the close-ups that the generator learned from: how wide the part is in them, and where its middle lies (left eyes mirror right ones)
WIDE = {"lips": 0.59, "eyes": 0.455}
MIDDLE = {"lips": (0.5, 0.5), "right_eye": (0.444, 0.66), "left_eye": (0.556, 0.66)}
EYE = 0.374  # width of an eye, in distances between the two


class Maps(NamedTuple):
    """`centre` (B, 1, h, w) logits; `points` (B, 16, h, w), offsets x, y of the eight points from the middle of the cell, in units of 64 pixels; `shown`
    (B, 3, h, w), logits of PARTS being visible. h = H / 16."""

    centre: Tensor
    points: Tensor
    shown: Tensor


class Locator(nn.Module):
    """The trunk to stride 16, two steps of context at stride 32, one head for all maps."""

    def __init__(self, chs: int = 128):
        super().__init__()
        self.trunk = trunk.Trunk(max_stride=16)
        self.enter, self.fine = conv(trunk.CHANNELS[16], chs), nn.Sequential(conv(trunk.CHANNELS[8], 32), conv(32, chs, 3, 2))
        self.down = nn.Sequential(conv(chs, chs, 5, 2, groups=chs), conv(chs, chs))
        self.context = nn.Sequential(Wide(chs), Wide(chs, 2), Wide(chs))
        self.head = nn.Sequential(Wide(chs), Wide(chs), conv(chs, chs))
        self.centre, self.points, self.shown = nn.Conv2d(chs, 1, 1), nn.Conv2d(chs, 2 * len(POINTS), 1), nn.Conv2d(chs, len(PARTS), 1)
        nn.init.constant_(self.centre.bias, -4.0)  # almost every cell is no centre
        nn.init.normal_(self.points.weight, std=0.01)
        self.to(memory_format=torch.channels_last)

    def train(self, mode: bool = True) -> "Locator":
        """The trunk's batch-norm statistics are ImageNet's and stay so."""
        super().train(mode)
        self.trunk.eval()
        return self

    def forward(self, picture: Tensor) -> Maps:
        """`picture` (B, 3, H, W) RGB in [0, 1], H and W multiples of 32."""
        if picture.shape[-2] % 32 or picture.shape[-1] % 32:
            raise BadInput(f"The localiser needs sides that are multiples of 32, not {tuple(picture.shape[-2:])}: pad the picture.")
        maps = self.trunk((picture - trunk.MEAN) / trunk.STD)
        near = self.enter(maps[16]) + self.fine(maps[8])
        far = self.context(self.down(near))
        x = self.head(near + F.interpolate(far, size=near.shape[-2:], mode="bilinear", align_corners=False))
        return Maps(self.centre(x), self.points(x), self.shown(x))


@dataclass(frozen=True)
class Face:
    """`points` (8, 2) float, see POINTS; `shown` (3,) in [0, 1], of PARTS; `score` in [0, 1]."""

    points: np.ndarray
    shown: np.ndarray
    score: float

    @property
    def eyes(self) -> np.ndarray:
        """Middle of the left and of the right eye, (2, 2)."""
        return self.points[:4].reshape(2, 2, 2).mean(1)

    @property
    def mouth(self) -> np.ndarray:
        return self.points[4:].mean(0)

    @property
    def height(self) -> float:
        """From the eyes to the mouth, in pixels."""
        return float(np.linalg.norm(self.mouth - self.eyes.mean(0)))

    @property
    def width(self) -> float:
        """Of the whole face, in pixels, roughly: twice the larger of the distance between the eyes and the height."""
        return 2.0 * max(float(np.linalg.norm(self.eyes[1] - self.eyes[0])), self.height)

    @property
    def angle(self) -> float:
        """How far the face is turned, clockwise as seen, in radians: the direction from the eyes to the mouth, and that along eyes and mouth, together."""
        down, along = self.mouth - self.eyes.mean(0), (self.eyes[1] - self.eyes[0]) + (self.points[5] - self.points[4])
        total = along + np.array([down[1], -down[0]])
        return float(np.arctan2(total[1], total[0]))


def centre_of(points: np.ndarray) -> np.ndarray:
    """The middle between eyes and mouth (2,) of points (8, 2)."""
    return (points[:4].mean(0) + points[4:].mean(0)) / 2


def height_of(points: np.ndarray) -> float:
    return float(np.linalg.norm(points[4:].mean(0) - points[:4].mean(0)))


class Targets(NamedTuple):
    """What `Maps` should be: `centre` (h, w) in [0, 1]; `points` (16, h, w); `known` (16, h, w), 1 / face height (in units) where an offset must be right and
    0 elsewhere; `shown` (3, h, w) in {0, 1}, meant only where `core` (h, w) is True."""

    centre: np.ndarray
    points: np.ndarray
    known: np.ndarray
    shown: np.ndarray
    core: np.ndarray


def targets(faces: list[tuple[np.ndarray, np.ndarray]], height: int, width: int) -> Targets:
    """The maps of faces (points (8, 2), visible (3,) bool) in a picture of `height` x `width` pixels. Points of what is not visible need not be right."""
    h, w = height // STRIDE, width // STRIDE
    centre, core = np.zeros((h, w), np.float32), np.zeros((h, w), bool)
    offsets, known, shown = np.zeros((16, h, w), np.float32), np.zeros((16, h, w), np.float32), np.zeros((3, h, w), np.float32)
    y, x = np.mgrid[:h, :w] * float(STRIDE) + (STRIDE - 1) / 2
    for points, visible in faces:
        middle, size = centre_of(points), max(height_of(points), 1.0)
        away = np.hypot(x - middle[0], y - middle[1]) / size
        bell = np.exp(-(away**2) / (2 * SPREAD**2))
        nearest = np.unravel_index(away.argmin(), away.shape)
        if away[nearest] > max(1.0, STRIDE / size):
            continue
        here = away < CORE
        here[nearest], bell = True, bell / max(bell[nearest], 1e-9)
        here &= bell >= centre  # of two faces the one whose centre is nearer
        centre = np.maximum(centre, np.minimum(bell, 1).astype(np.float32))
        core |= here
        offset = (points.reshape(8, 2, 1, 1) - np.stack([x, y])) / UNIT
        offsets[:, here] = offset.reshape(16, h, w)[:, here]
        each = np.repeat([visible[part] for part in range(3)], [4, 4, 8])  # two numbers a point
        known[:, here] = (each / (size / UNIT))[:, None]
        shown[:, here] = np.asarray(visible, np.float32)[:, None]
    return Targets(centre, offsets, known, shown, core)


def decode(centre: np.ndarray, points: np.ndarray, shown: np.ndarray, threshold: float = SURE, most: int = 16) -> list[Face]:
    """From maps, `centre` (h, w) and `shown` (3, h, w) as probabilities, to faces in pixels of the network's picture, the surest first."""
    h, w = centre.shape
    around = np.pad(centre, 1)
    peak = centre == np.max([around[i : i + h, j : j + w] for i in range(3) for j in range(3)], 0)
    rows, columns = np.nonzero(peak & (centre > threshold))
    kept: list[Face] = []
    for i in centre[rows, columns].argsort()[::-1]:
        r, c = rows[i], columns[i]
        middle = np.array([c, r]) * float(STRIDE) + (STRIDE - 1) / 2
        face = Face(points[:, r, c].reshape(8, 2) * UNIT + middle, shown[:, r, c], float(centre[r, c]))
        apart = all(np.linalg.norm(centre_of(face.points) - centre_of(k.points)) > 0.6 * max(face.height, k.height) for k in kept)
        if apart and face.height > 2 and len(kept) < most:
            kept.append(face)
    return kept


def _look(net: Locator, pixels: Tensor, threshold: float) -> list[Face]:
    """Faces of `pixels` (1, 3, h, w) in [0, 1]; grey is added below and to the right."""
    h, w = pixels.shape[-2:]
    maps = net(F.pad(pixels, (0, -w % 32, 0, -h % 32), value=0.5))
    return decode(*(m[0].float().cpu().numpy() for m in (maps.centre[:, 0].sigmoid(), maps.points, maps.shown.sigmoid())), threshold)


@torch.inference_mode()
def find_faces(net: Locator, picture: np.ndarray, threshold: float = SURE) -> list[Face]:
    """The faces of `picture` (H, W, 3) uint8 RGB of any size, the largest first; points in its pixels. Every face is looked at twice, the second time upright."""
    net.eval()
    device = next(net.parameters()).device
    whole = torch.from_numpy(np.array(picture)).to(device).permute(2, 0, 1)[None].float() / 255
    height, width = picture.shape[:2]
    faces: list[Face] = []
    for long_side in LONG_SIDES:
        scale = long_side / max(height, width)
        if faces or (long_side > LONG_SIDES[0] and scale > 1):
            break
        size = [max(16, round(s * scale)) for s in (height, width)]
        small = F.interpolate(whole, size=size, mode="bilinear", antialias=True, align_corners=False)
        ratio = np.array([width / size[1], height / size[0]])
        faces = [Face((f.points + 0.5) * ratio - 0.5, f.shown, f.score) for f in _look(net, small, threshold)]
    return sorted((_closer(net, whole, f, threshold) for f in faces), key=lambda f: -f.height)


def _closer(net: Locator, whole: Tensor, face: Face, threshold: float) -> Face:
    """The same face from a second look: upright and at the size that the network knows best. The first look's, where the second sees nothing."""
    side = face.height / TALL
    square = Square(tuple(centre_of(face.points)), side, face.angle)
    seen = _look(net, square.cut(whole, CLOSER), threshold)
    if not seen:
        return face
    middle = (CLOSER - 1) / 2
    best = min(seen, key=lambda f: np.linalg.norm(centre_of(f.points) - middle))
    if np.linalg.norm(centre_of(best.points) - middle) > TALL * CLOSER / 2 or not 0.5 < best.height / (TALL * CLOSER) < 2:
        return face
    return Face(square.to_picture(best.points, CLOSER), best.shown, max(best.score, face.score))


@dataclass(frozen=True)
class Square:
    """A square of a picture, maybe turned: `centre` (x, y), `side` in pixels, `angle` in radians, clockwise as seen. It may reach beyond the picture."""

    centre: tuple[float, float]
    side: float
    angle: float

    def axes(self) -> np.ndarray:
        """Unit vectors (2, 2) of the square's own right and down."""
        c, s = np.cos(self.angle), np.sin(self.angle)
        return np.array([[c, s], [-s, c]])

    def to_picture(self, points: np.ndarray, size: int) -> np.ndarray:
        """Points (..., 2) in pixels of the square cut at `size` -> pixels of the picture."""
        return (((np.asarray(points) + 0.5) / size - 0.5) * self.side) @ self.axes() + np.array(self.centre)

    def to_square(self, points: np.ndarray, size: int) -> np.ndarray:
        """The inverse of `to_picture`."""
        return ((np.asarray(points) - np.array(self.centre)) @ self.axes().T / self.side + 0.5) * size - 0.5

    def cut(self, whole: Tensor, size: int) -> Tensor:
        """The square of a picture (1, 3, H, W), at `size`; beyond the picture its border is repeated. Averaged where it shrinks."""
        h, w = whole.shape[-2:]
        finer = int(min(8, max(1, np.ceil(self.side / size))))
        n = size * finer
        (ax, ay), (bx, by) = self.axes() * self.side / 2
        # grid_sample's [-1, 1] spans the picture from edge to edge, its pixel centres half a pixel further in
        theta = torch.tensor([[2 * ax / w, 2 * bx / w, 2 * (self.centre[0] + 0.5) / w - 1], [2 * ay / h, 2 * by / h, 2 * (self.centre[1] + 0.5) / h - 1]])
        grid = F.affine_grid(theta[None].to(whole), [1, 3, n, n], align_corners=False)
        square = F.grid_sample(whole, grid, padding_mode="border", align_corners=False)
        return F.avg_pool2d(square, finer) if finer > 1 else square


def closeup(face: Face, part: str) -> Square:
    """The upright close-up of a part ("lips", "left_eye", "right_eye"), framed as those that the generator learned from."""
    if part == "lips":
        width = np.linalg.norm(face.points[5] - face.points[4])
        side, middle = max(width, 0.55 * face.height) / WIDE["lips"], (face.points[4:6].mean(0) + face.points[6:8].mean(0)) / 2
    else:
        first, last = (face.points[i] for i in PARTS[part])
        own, between = np.linalg.norm(last - first), np.linalg.norm(face.eyes[1] - face.eyes[0])
        side, middle = max(own, EYE * between) / WIDE["eyes"], (first + last) / 2
    square = Square((0.0, 0.0), float(side), face.angle)
    off = (np.array([0.5, 0.5]) - np.array(MIDDLE[part])) * side
    return Square(tuple((middle + off @ square.axes()).tolist()), float(side), face.angle)
