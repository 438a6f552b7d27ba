"""From annotated objects to what every cell shall say (Section 3.3 of the paper, with the details of the authors' code).

Masks are bool (H, W), contours (n, 2) whole pixels (x, y) on the rim of a mask, boxes (x0, y0, x1, y1) with the last pixel included (x1 = x0 + width - 1).
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from pttp.errors import BadInput
from pttp.polarmask.model import RAYS, STRIDES, cells

RANGES = ((-1, 64), (64, 128), (128, 256), (256, 512), (512, float("inf")))  # largest distance to a side of the box, by level
RADIUS = 1.5  # strides around the centroid in which cells are positive
MISSED = 1e-6  # the target of a ray that meets no contour
NEARBY = (0, 1, -1, 2, -2, 3, -3)  # degrees beside a ray that are tried, in this order

# the eight neighbours, clockwise as one sees them (y down), from the right one on
_STEPS = np.array([(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)])


@dataclass(frozen=True)
class Targets:
    """For P cells, all levels in a row: `labels` (P,), 0 for nothing, else 1..K; of the positive cells `index` (n,): `boxes` (n, 4) distances to left, top,
    right, bottom, and `rays` (n, N)."""

    labels: Tensor
    index: Tensor
    boxes: Tensor
    rays: Tensor


def rasterise(polygons: Sequence[Sequence[float]], height: int, width: int) -> np.ndarray:
    """A COCO segmentation, polygons [x0, y0, x1, y1, ...] that together make one object, as a mask; the same pixels as the COCO tools'.

    A polygon that crosses itself is filled by the even-odd rule; with fewer than three corners it covers nothing. Raises BadInput for coordinates that are no
    finite numbers or do not come in pairs.
    """
    mask = np.zeros((height, width), bool)
    for polygon in polygons:
        try:
            corners = np.asarray(polygon, np.float64).reshape(-1, 2)
        except (TypeError, ValueError):
            corners = np.array([[np.nan, np.nan]])
        if not np.isfinite(corners).all() or np.abs(corners).max(initial=0) > 1e6:
            raise BadInput("A polygon is a list of finite numbers x0, y0, x1, y1, ...: mend the annotation.")
        if len(corners) >= 3:
            mask |= _rasterise(corners, height, width)
    return mask


def _rasterise(corners: np.ndarray, h: int, w: int) -> np.ndarray:
    # the outline is walked on a grid five times as fine; wherever it enters a pixel's column, the pixels below change sides
    fine = np.trunc(5 * corners + 0.5).astype(np.int64)
    start, end = fine, np.roll(fine, -1, 0)
    u, v = [], []
    for (xs, ys), (xe, ye) in zip(start.tolist(), end.tolist()):
        dx, dy = abs(xe - xs), abs(ye - ys)
        flip = (dx >= dy and xs > xe) or (dx < dy and ys > ye)
        if flip:
            xs, ys, xe, ye = xe, ye, xs, ys
        t = np.arange(max(dx, dy) + 1)
        if dx >= dy:
            x, y = xs + t, np.trunc(ys + ((ye - ys) / dx if dx else 0.0) * t + 0.5).astype(np.int64)
        else:
            x, y = np.trunc(xs + (xe - xs) / dy * t + 0.5).astype(np.int64), ys + t
        u.append(x[::-1] if flip else x)
        v.append(y[::-1] if flip else y)
    x, y = np.concatenate(u), np.concatenate(v)
    moved = x[1:] != x[:-1]
    x = np.where(x[1:] < x[:-1], x[1:], x[1:] - 1)[moved]
    y = np.minimum(y[1:], y[:-1])[moved]
    column = (x + 0.5) / 5 - 0.5
    inside = (column == np.floor(column)) & (column >= 0) & (column <= w - 1)
    row = np.ceil(((y + 0.5) / 5 - 0.5).clip(0, h))
    at = (column * h + row)[inside].astype(np.int64)
    toggles = np.bincount(at, minlength=h * w + 1)[: h * w]
    return (toggles.cumsum() % 2).astype(bool).reshape(w, h).T


def _next_steps() -> np.ndarray:
    """Table (256, 8): neighbours of a pixel as bits, step by which it was entered -> step by which the rim goes on; 8 where there is no neighbour."""
    table = np.full((256, 8), 8, np.uint8)
    for code in range(1, 256):
        for came in range(8):
            # look around counter-clockwise (y down), beginning next to where one came from
            turns = [(came + 4 - 1 - i) % 8 for i in range(8)]
            table[code, came] = next(t for t in turns if code >> t & 1)
    return table


_NEXT = _next_steps()


def contour(mask: np.ndarray) -> np.ndarray | None:
    """The outer rim, pixel by pixel (n, 2), of that part of `mask` whose rim encloses the largest area; holes and other parts are lost. None for an empty mask.

    Order and beginning are those of OpenCV's findContours (from the first pixel in reading order, down first).
    """
    parts, count = ndimage.label(mask, np.ones((3, 3)))
    if not count:
        return None
    padded = np.pad(np.asarray(mask, bool), 1)
    h, w = mask.shape
    codes = np.zeros((h, w), np.uint8)
    for bit, (dx, dy) in enumerate(_STEPS):
        codes |= padded[1 + dy : 1 + dy + h, 1 + dx : 1 + dx + w].astype(np.uint8) << bit
    rims = [_trace(codes, box, parts, i + 1) for i, box in enumerate(ndimage.find_objects(parts))]
    return max(reversed(rims), key=area)  # of equal ones the last, as OpenCV lists them from the bottom up


def _trace(codes: np.ndarray, where: tuple[slice, slice], parts: np.ndarray, number: int) -> np.ndarray:
    """The rim of part `number`, which lies in the rectangle `where`."""
    top, left = where[0].start, where[1].start
    start = (left + int(np.argmax(parts[top, left : where[1].stop] == number)), top)
    if not codes[start[1], start[0]]:
        return np.array([start])
    moves = _STEPS.tolist()
    (x, y), step, first = start, 0, None
    rim: list[tuple[int, int]] = []
    while True:
        step = int(_NEXT[codes[y, x], step])
        if (x, y) == start and step == first:
            return np.array(rim)
        first = step if first is None else first
        rim.append((x, y))
        x, y = x + moves[step][0], y + moves[step][1]


def area(rim: np.ndarray) -> float:
    """Enclosed by the polygon through the pixel centres of `rim` (n, 2)."""
    x, y = rim.T.astype(np.int64)
    return abs(float((x * np.roll(y, 1) - y * np.roll(x, 1)).sum())) / 2


def center(rim: np.ndarray) -> tuple[int, int]:
    """The centroid (x, y) of the polygon `rim` (n, 2), or the mean of its points where it encloses nothing; truncated."""
    x, y = rim.T.astype(np.float64)
    x1, y1 = np.roll(x, 1), np.roll(y, 1)
    cross = (x * y1 - y * x1) / 2
    total = cross.sum()
    if total == 0:
        return int(x.mean()), int(y.mean())
    return int((cross * (x + x1)).sum() / 3 / total), int((cross * (y + y1)).sum() / 3 / total)


def usable(box: Sequence[float], object_area: float, mask: np.ndarray) -> bool:
    """Whether the authors train with an object: its `box` (x, y, width, height) as annotated, its annotated area, its mask at the training size."""
    _, _, w, h = box
    return object_area > 15 and (w >= 10 or h >= 10) and int(mask.sum()) >= 15


def rays(points: Tensor, rim: Tensor, count: int = RAYS) -> Tensor:
    """Ray targets: how far the contour `rim` (n, 2) is from each of `points` (q, 2) along `count` rays, (q, count).

    Of the contour's pixels in a ray's degree (rounded down) the farthest counts; if there is none, the nearest degrees are tried, never across 0; MISSED if
    there is none there either.
    """
    offset = rim.to(points)[None] - points[:, None]  # (q, n, 2)
    degrees = torch.atan2(offset[..., 0], offset[..., 1]) * 180 / np.pi
    degrees = torch.where(degrees < 0, degrees + 360, degrees).long()
    distance = (offset[..., 0] ** 2 + offset[..., 1] ** 2).sqrt()
    farthest = distance.new_full((len(points), 361), -1).scatter_reduce_(1, degrees, distance, "amax")
    wanted = (torch.arange(count, device=points.device) * 360) // count
    found = farthest.new_full((len(points), count), -1)
    for beside in NEARBY:
        degree = wanted + beside
        there = farthest[:, degree.clamp(0, 360)].where((degree >= 0) & (degree < 360), -1.0)
        found = torch.where(found < 0, there, found)
    return found.where(found >= 0, MISSED)


def sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Rows and columns of the five maps of a picture, whose sides must be multiples of 128."""
    return [(height // s, width // s) for s in STRIDES]


def assign(masks: Sequence[np.ndarray], boxes: Tensor, labels: Tensor, size: tuple[int, int], count: int = RAYS) -> Targets:
    """The targets of a picture of `size` (height, width), sides multiples of 128, for objects given by `masks`, `boxes` (n, 4) and `labels` (n,), 1..K.

    A cell is positive for an object if it lies within RADIUS strides of the centroid of its mask and inside of its box, and the box is of the level's size;
    of several objects it takes the one with the smallest box. An object whose mask is empty has no cells. Raises BadInput for sides that are no multiples of
    128.
    """
    if size[0] % STRIDES[-1] or size[1] % STRIDES[-1]:
        raise BadInput(f"Pad the picture to multiples of {STRIDES[-1]}: {size[0]} x {size[1]} is not one, and the maps would not match the targets.")
    like = boxes.float()
    maps = sizes(*size)
    points = torch.cat([cells(h, w, s, like) for (h, w), s in zip(maps, STRIDES)])  # (P, 2)
    per_level = torch.tensor([h * w for h, w in maps], device=boxes.device)
    rims = [contour(np.asarray(m)) for m in masks]
    there = [i for i, rim in enumerate(rims) if rim is not None]
    boxes, labels, rims = like[there], labels[there], [rims[i] for i in there]
    nothing = Targets(labels.new_zeros(len(points)), labels.new_zeros(0), points.new_zeros(0, 4), points.new_zeros(0, count))
    if not rims:
        return nothing
    centers = torch.tensor([center(rim) for rim in rims], dtype=points.dtype, device=points.device)  # (n, 2)
    reach = RADIUS * torch.tensor(STRIDES, dtype=points.dtype, device=points.device).repeat_interleave(per_level)[:, None, None]  # (P, 1, 1)
    near = torch.maximum(centers - reach, boxes[:, :2]), torch.minimum(centers + reach, boxes[:, 2:])  # (P, n, 2)
    at = points[:, None]
    inside = ((at > near[0]) & (at < near[1])).all(-1)
    sides = torch.cat([at - boxes[:, :2], boxes[:, 2:] - at], -1)  # (P, n, 4): left, top, right, bottom
    low, high = torch.tensor(RANGES, dtype=points.dtype, device=points.device).repeat_interleave(per_level, 0).unbind(1)
    largest = sides.amax(-1)
    fits = inside & (largest >= low[:, None]) & (largest <= high[:, None])
    areas = (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)
    smallest, chosen = areas.expand(len(points), -1).where(fits, float("inf")).min(1)
    index = smallest.isfinite().nonzero()[:, 0]
    chosen = chosen[index]
    told = nothing.labels.index_copy(0, index, labels[chosen])
    distances = points.new_zeros(len(index), count)
    for i, rim in enumerate(rims):
        mine = chosen == i
        distances[mine] = rays(points[index[mine]], torch.from_numpy(rim).to(points.device), count)
    return Targets(told, index, sides[index, chosen], distances)
