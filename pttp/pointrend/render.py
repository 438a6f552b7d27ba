"""Segmentation as rendering: the adaptive subdivision of Section 3.1, and masks in the picture.

Only the class that is asked for is ever computed: the authors render all K classes of a box, K x 224 x 224 numbers, and keep one.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pttp import ops
from pttp.pointrend import points
from pttp.pointrend.fast import Decider
from pttp.pointrend.model import STRIDES, PointHead, PointRend

Decide = Callable[[Tensor], Tensor]  # points (R, P, 2) of R boxes -> k logits each, (R, k, P)

POINTS = 28 * 28  # N, of each subdivision step
BATCH = 4  # boxes rendered together: more do not fit into the processor's cache
PROJECT = 16  # boxes from which it pays to put all of P2 through the first layer beforehand


@dataclass(frozen=True)
class Step:
    """One subdivision of R boxes. `logits` (R, k, side, side) after it; `index` (R, P) row-major and `points` (R, P, 2) relative to the box, the cells that
    were decided anew, most uncertain first; `point_logits` (R, k, P) what was decided."""

    side: int
    index: Tensor
    points: Tensor
    point_logits: Tensor
    logits: Tensor


def schedule(side: int = 7, steps: int = 5, count: int = POINTS) -> tuple[int, int]:
    """Side of the first grid, and subdivision steps after it. As long as a grid has no more cells than points, deciding all of it at once is the same."""
    while 4 * side**2 <= count and steps > 0:
        side, steps = 2 * side, steps - 1
    return side, steps


def coarse_at(coarse: Tensor, at: Tensor) -> Tensor:
    """The coarse logits (R, K, 7, 7) of each box at its points (R, P, 2): (R, P, K)."""
    h, w = coarse.shape[-2:]
    return ops.sample(coarse, at[..., 0] * w - 0.5, at[..., 1] * h - 0.5, torch.arange(len(coarse), device=coarse.device))


def decide(head: PointHead, p2: Tensor, coarse: Tensor, boxes: Tensor, at: Tensor, channels: Tensor | None = None, image: Tensor | None = None) -> Tensor:
    """The point head at points `at` (R, P, 2) of `boxes` (R, 4): logits (R, K, P), or of the classes `channels` (R, k) only.

    This is the form of the paper; `fast.Decider` gives the same sooner.
    """
    fine = points.sample_in_boxes(p2, STRIDES["p2"], boxes, at, image)
    return head(fine.transpose(1, 2), coarse_at(coarse, at).transpose(1, 2), channels)


def subdivide(logits: Tensor, decide: Decide, uncertainty: Callable[[Tensor], Tensor], count: int) -> Step:
    """Double the resolution of `logits` (R, k, h, w), and let `decide` answer for the `count` most uncertain cells."""
    logits = F.interpolate(logits, scale_factor=2, mode="bilinear", align_corners=False)
    index, at = points.most_uncertain(uncertainty(logits), count)
    answer = decide(at)
    logits = logits.flatten(2).scatter(2, index[:, None].expand(-1, logits.shape[1], -1), answer).view_as(logits)
    return Step(logits.shape[-1], index, at, answer, logits)


def render(decide: Decide, like: Tensor, coarse_side: int = 7, count: int = POINTS, steps: int = 5, watch: Callable[[Step], None] | None = None) -> Tensor:
    """Masks of R boxes: logits (R, k, 224, 224), k what `decide` answers; the first of its answers says where the mask is uncertain.

    `like` (R, ...) any tensor of the boxes, for their number, type and device; `watch` is called with every step, the first grid included (there, every cell
    is a point).
    """
    side, steps = schedule(coarse_side, steps, count)
    at = points.regular_grid(len(like), side, like)
    answer = decide(at)
    step = Step(side, torch.arange(side * side, device=like.device).expand(len(like), -1), at, answer, answer.unflatten(2, (side, side)))
    for _ in range(steps):
        if watch:
            watch(step)
        step = subdivide(step.logits, decide, lambda x: -x[:, :1].abs(), count)
    if watch:
        watch(step)
    return step.logits


def masks(net: PointRend, p2: Tensor, boxes: Tensor, classes: Tensor, count: int = POINTS, steps: int = 5) -> Tensor:
    """Probabilities (R, side, side), side = 7 * 2**`steps`, of the masks of `boxes` (R, 4), each of the class that `classes` (R,) says; `p2` (1, 256, h, w)."""
    if not len(boxes):
        return p2.new_zeros(0, net.coarse_head.side * 2**steps, net.coarse_head.side * 2**steps)
    decider = Decider(net.point_head, p2, project=len(boxes) >= PROJECT)
    answers = []
    for some, kind in zip(boxes.split(BATCH), classes.split(BATCH)):
        coarse = net.coarse_head(net.coarse_head.pool(p2, some))
        logits = render(decider.of(coarse, some, kind[:, None]), some, coarse.shape[-1], count, steps)
        answers.append(logits[:, 0].sigmoid())
    return torch.cat(answers)


def semantic(head: PointHead, p2: Tensor, coarse: Tensor, count: int = 8192, steps: int = 2, watch: Callable[[Step], None] | None = None) -> Tensor:
    """Semantic logits (B, K, H, W) at 2**`steps` times the resolution of `coarse` (B, K, h, w); `p2` (B, 256, h, w)."""
    logits = coarse
    for _ in range(steps):
        step = subdivide(logits, lambda at: head(points.point_sample(p2, at), points.point_sample(coarse, at)), points.semantic_uncertainty, count)
        logits = step.logits
        if watch:
            watch(step)
    return logits


def axis(start: float, end: float, cells: int, length: int, like: Tensor) -> tuple[int, int, Tensor]:
    """Pixels of one axis that a mask between `start` and `end` can reach, first and last + 1, and how each mixes the mask's cells: (pixels, cells)."""
    first = min(max(int(start) - 1, 0), length)
    last = max(min(int(end) + 2, length), first)
    pixels = torch.arange(first, last, dtype=like.dtype, device=like.device) + 0.5
    at = (pixels - start) / (end - start) * cells - 0.5
    return first, last, (1 - (at[:, None] - torch.arange(cells, dtype=like.dtype, device=like.device)).abs()).clamp(min=0)


def paste_soft(mask: Tensor, box: Tensor, size: tuple[int, int]) -> tuple[Tensor, tuple[slice, slice]]:
    """One mask (h, w) stretched into its `box` (4,) in a picture of `size` (height, width): its values around the box, and where that is (rows, columns)."""
    x0, y0, x1, y1 = box.tolist()
    left, right, wx = axis(x0, x1, mask.shape[1], size[1], mask)
    top, bottom, wy = axis(y0, y1, mask.shape[0], size[0], mask)
    return wy @ mask @ wx.T, (slice(top, bottom), slice(left, right))


def paste(masks: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float = 0.5) -> Tensor:
    """Masks (N, h, w) of probabilities in their `boxes` (N, 4) in a picture of `size` (height, width): bool (N, height, width). Boxes need an area."""
    picture = torch.zeros(len(masks), *size, dtype=torch.bool, device=masks.device)
    for i, (mask, box) in enumerate(zip(masks, boxes)):
        soft, where = paste_soft(mask, box, size)
        picture[i][where] = soft >= threshold
    return picture
