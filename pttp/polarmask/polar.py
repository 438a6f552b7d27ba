"""Polar geometry: rays to contours, contours to masks, and the overlap of two polar shapes (Section 3.2 of the paper).

Ray i of N points at the angle 2 pi i / N, measured from straight down towards the right: ray 0 points down (+y), ray N / 4 right (+x).
"""
from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor


def angles(rays: int, like: Tensor) -> Tensor:
    """(N,) in radians."""
    return torch.arange(rays, dtype=like.dtype, device=like.device) * (360 / rays) / 180 * math.pi


def contours(centers: Tensor, distances: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """The ends of the rays: `centers` (n, 2) as (x, y), `distances` (n, N) -> (n, N, 2), kept inside a picture of `size` (height, width) if given."""
    a = angles(distances.shape[1], distances)
    ends = centers[:, None] + distances[..., None] * torch.stack([a.sin(), a.cos()], -1)
    if size is None:
        return ends
    return torch.stack([ends[..., 0].clamp(0, size[1] - 1), ends[..., 1].clamp(0, size[0] - 1)], -1)


def boxes(centers: Tensor, distances: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """`centers` (n, 2), `distances` (n, 4) to left, top, right, bottom -> x0, y0, x1, y1 (n, 4), kept inside a picture of `size` if given."""
    ends = torch.cat([centers - distances[:, :2], centers + distances[:, 2:]], 1)
    if size is None:
        return ends
    x, y = ends[:, 0::2].clamp(0, size[1] - 1), ends[:, 1::2].clamp(0, size[0] - 1)
    return torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], 1)


def centerness(distances: Tensor) -> Tensor:
    """Polar centerness of rays (n, N): sqrt(shortest / longest), (n,). Near 1 where all rays have about the same length."""
    return (distances.amin(1) / distances.amax(1)).sqrt()


def polar_iou(a: Tensor, b: Tensor) -> Tensor:
    """Polar IoU of rays (n, N) and (n, N): the sum of the shorter ones over the sum of the longer ones, (n,)."""
    return torch.minimum(a, b).sum(1) / torch.maximum(a, b).sum(1)


def _line(x0: int, y0: int, x1: int, y1: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of a line, one a step along its longer axis; the other axis is rounded, halves towards the left end."""
    if x1 < x0:
        x0, y0, x1, y1 = x1, y1, x0, y0
    dx, dy = x1 - x0, y1 - y0
    n = max(dx, abs(dy))
    t = np.arange(n + 1)
    along = [np.sign(d) * ((2 * abs(d) * t + n - 1) // max(2 * n, 1)) for d in (dx, dy)]
    return x0 + along[0], y0 + along[1]


def fill(contour: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The polygon with the corners `contour` (N, 2), truncated to whole pixels, filled by the even-odd rule, its border included: bool (height, width).

    The arithmetic is that of OpenCV's drawContours, which the authors fill with.
    """
    corners = np.asarray(contour).astype(np.int64)
    mask = np.zeros(size, bool)
    (left, top), (right, bottom) = corners.min(0).clip(0), (corners.max(0) + 1).clip(max=(size[1], size[0]))
    if right > left and bottom > top:  # only the rectangle that the polygon can reach: a picture may be large
        mask[top:bottom, left:right] = _fill(corners - [left, top], bottom - top, right - left)
    return mask


def _fill(corners: np.ndarray, h: int, w: int) -> np.ndarray:
    x0, y0 = corners.T
    x1, y1 = np.roll(corners, -1, 0).T
    rows = np.arange(max(y0.min(), 0), min(y0.max(), h))[:, None]
    crossed = (rows >= np.minimum(y0, y1)) & (rows < np.maximum(y0, y1))  # (rows, N)
    slope = np.trunc(((x1 - x0) << 16) / np.where(y1 == y0, 1, y1 - y0)).astype(np.int64)
    outside = np.int64(w) << 16
    at = np.where(crossed, (x0 << 16) + (rows - y0) * slope, outside)
    at = np.sort(np.concatenate([at, np.full((len(rows), len(x0) % 2), outside)], 1), 1)
    first, last = (at[:, 0::2] + (1 << 16) - 1) >> 16, at[:, 1::2] >> 16
    edges = np.zeros((h, w + 2), np.int16)  # small numbers, and a picture may be large
    np.add.at(edges, (rows, first.clip(0, w)), 1)
    np.add.at(edges, (rows, last.clip(-1, w) + 1), -1)
    mask = edges.cumsum(1, dtype=np.int16)[:, :w] > 0
    for ends in zip(x0.tolist(), y0.tolist(), x1.tolist(), y1.tolist()):
        x, y = _line(*ends)
        inside = (x >= 0) & (x < w) & (y >= 0) & (y < h)
        mask[y[inside], x[inside]] = True
    return mask
