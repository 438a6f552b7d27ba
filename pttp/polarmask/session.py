"""One picture, seen once: every object in it, and the contour around any point.

Points are (x, y) in pixels of the picture as it was given; the middle of a pixel has whole numbers. A session belongs to one person: predictors are shared,
sessions are not.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from pttp.errors import BadInput
from pttp.polarmask import detect, polar, preprocess, slim
from pttp.polarmask.model import STRIDES, PolarMask, cells
from pttp.polarmask.slim import Found, Maps, SlimPolarMask

SHOWN = 0.45  # the score from which an object is listed
LEAST = 0.1  # below it nothing is found, whatever is asked for
LISTED = 100  # objects at most
BAD = "Give a point as (x, y), two numbers in pixels."


@dataclass(frozen=True)
class PolarInstance:
    """One object.

    `center` (2,) and the ends of its N rays, `contour` (N, 2), kept inside of the picture; `rays` (N,), how long they were before; all float32, in pixels.
    `score` in [0, 1] (with the authors' weights up to 1.5); `centerness` in [0, 1]; `label`; `box` (x0, y0, x1, y1) around the mask, x1 and y1 exclusive;
    `stride` of the level that answered; `size` (height, width) of the picture.
    """

    center: NDArray[np.float32]
    rays: NDArray[np.float32]
    contour: NDArray[np.float32]
    score: float
    centerness: float
    label: str
    stride: int
    size: tuple[int, int] = field(repr=False)

    @property
    def mask(self) -> NDArray[np.bool_]:
        """bool (height, width), filled whenever it is asked for: of a large photo a hundred masks at once would take gigabytes."""
        return polar.fill(self.contour.round(), self.size)

    @property
    def box(self) -> tuple[int, int, int, int]:
        (x0, y0), (x1, y1) = self.contour.min(0).round().astype(int).tolist(), self.contour.max(0).round().astype(int).tolist()
        return x0, y0, x1 + 1, y1 + 1

    @property
    def area(self) -> float:
        """Of the polygon, in pixels."""
        x, y = self.contour.T.astype(float)
        return abs(float((x * np.roll(y, 1) - y * np.roll(x, 1)).sum())) / 2

    def to_dict(self) -> dict:
        return {
            "label": self.label,
            "score": round(self.score, 4),
            "centerness": round(self.centerness, 4),
            "center": self.center.astype(float).round(1).tolist(),
            "rays": self.rays.astype(float).round(1).tolist(),
            "contour": self.contour.astype(float).round(1).tolist(),
            "box": list(self.box),
            "area": round(self.area),
            "stride": self.stride,
            "width": self.size[1],
            "height": self.size[0],
        }


def checked(point: Sequence[float], size: tuple[int, int]) -> tuple[float, float]:
    """`point` as two numbers inside of a picture of `size` (height, width). Raises BadInput."""
    try:
        x, y = (float(v) for v in point)
    except (TypeError, ValueError, OverflowError):
        raise BadInput(BAD) from None
    h, w = size
    if not (0 <= x < w and 0 <= y < h):  # false for NaN, too
        raise BadInput(f"The point ({x:g}, {y:g}) lies outside of this picture of {w} x {h} pixels: choose x from 0 to {w - 1} and y from 0 to {h - 1}.")
    return x, y


class Session:
    """A picture (H, W, 3) uint8 RGB that `net` has seen: ours, at a longer side of `longest` (and in the `mirror`: see `slim.see`), or the authors', as they stretch it to `scale`. Threads may
    share it."""

    def __init__(
        self,
        net: SlimPolarMask | PolarMask,
        image: NDArray[np.uint8],
        classes: Sequence[str],
        *,
        longest: int = 320,
        centerness: bool = True,
        mirror: bool = False,
        scale: Sequence[int] = preprocess.SCALE,
        keep_ratio: bool = False,
    ):
        self.shape, self.classes, self.centerness = image.shape[:2], tuple(classes), centerness
        self.ours = isinstance(net, SlimPolarMask)
        self.middle = 0.5 if self.ours else 0.0  # of a pixel: ours keeps it when sizes change, the authors' code does not
        device = next(net.parameters()).device
        with torch.inference_mode():
            if self.ours:
                x, self.size = slim.prepare(image, longest)
                self.maps: Maps = slim.see(net, x.to(device), mirror)
            else:
                x, self.size, _ = preprocess.prepare(image, tuple(scale), keep_ratio)
                self.levels = net(x.to(device))
                self.maps = as_maps(self.levels)
        self.scale = np.array([self.size[1] / self.shape[1], self.size[0] / self.shape[0]], np.float32)  # (x, y): rounding makes them differ a little

    def original(self, points: torch.Tensor) -> NDArray[np.float32]:
        """Points (..., 2) of the network's picture -> of the original."""
        return (points.float().cpu().numpy() + self.middle) / self.scale - self.middle

    def _instances(self, found: Found) -> list[PolarInstance]:
        centers, ends = self.original(found.centers), self.original(polar.contours(found.centers, found.rays))
        inside = ends.clip(0, np.array(self.shape[::-1], np.float32) - 1)
        rays = np.linalg.norm(ends - centers[:, None], axis=-1)
        numbers = zip(found.scores.tolist(), found.centerness.tolist(), found.classes.tolist(), found.level.tolist())
        return [
            PolarInstance(centers[i], rays[i], inside[i], score, center, self.classes[kind], self.maps.strides[level], self.shape)
            for i, (score, center, kind, level) in enumerate(numbers)
        ]

    @cached_property
    def everything(self) -> list[PolarInstance]:
        """All answers that survive suppression, best first, at most LISTED."""
        with torch.inference_mode():
            if self.ours:
                return self._instances(slim.detect(self.maps, self.size, LEAST, limit=LISTED, use_centerness=self.centerness))
            found = detect.detect(self.levels, self.size, limit=LISTED)
            best = found.scores.argsort(descending=True)
            quality = found.scores / (found.centerness + detect.CENTERNESS_BONUS)
            answers = Found(found.centers, found.rays, found.contours, found.scores, found.classes, found.centerness, quality, found.level)
            return self._instances(Found(**{k: v[best] for k, v in vars(answers).items()}))

    def instances(self, score: float = SHOWN) -> list[PolarInstance]:
        """The objects with at least this `score`, best first."""
        return [found for found in self.everything if found.score >= score]

    def at(self, point: Sequence[float]) -> PolarInstance:
        """The one contour that the network draws around `point`. Its score says whether it believes in it. Raises BadInput."""
        x, y = checked(point, self.shape)
        with torch.inference_mode():
            inner = (np.array([x, y]) + self.middle) * self.scale - self.middle
            return self._instances(slim.answer(self.maps, self.size, tuple(inner.tolist())))[0]


def as_maps(levels) -> Maps:
    """The authors' levels of one picture in the form of ours; the quality of a cell is the probability of its best class."""
    parts_of = [[slim.flat(part).float() for part in level] for level in levels]
    classes, _, centerness, rays = (torch.cat(parts, 1) for parts in zip(*parts_of))
    sizes = tuple(tuple(level.cls.shape[-2:]) for level in levels)
    at = torch.cat([cells(*size, stride, rays) for size, stride in zip(sizes, STRIDES)])
    return Maps(classes, classes.amax(-1), centerness[..., 0], rays, at, sizes, STRIDES)
