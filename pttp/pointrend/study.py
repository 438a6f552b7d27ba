"""What "look inside" shows: where the rendering looks at each step, how sure it is there, and what that saves."""
from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pttp.pointrend import points, render
from pttp.pointrend.fast import Decider
from pttp.pointrend.session import Mask, Session, SubdivisionStep
from pttp.pointrend.slim import Box, SlimPointRend


@dataclass(frozen=True)
class Reading:
    """One place of a step: its `logit`, the `probability` of the object, the `uncertainty` (the paper's, -|logit|; 0 is the least sure); `asked`: the point head
    was asked here in this step, else the logit is interpolated from the step before."""

    logit: float
    probability: float
    uncertainty: float
    asked: bool


@dataclass(frozen=True)
class Cost:
    """Up to one step: `size` of its grid; points evaluated so far, and by a dense grid of this size; multiply-accumulates and milliseconds of both."""

    size: int
    points: int
    dense_points: int
    macs: int
    dense_macs: int
    milliseconds: float
    dense_milliseconds: float


def uncertainty(step: SubdivisionStep) -> NDArray[np.float32]:
    """(size, size): the paper's uncertainty of every cell, -|logit|."""
    return -np.abs(step.logits)


def cell(mask: Mask, step: SubdivisionStep, x: float, y: float) -> tuple[int, int] | None:
    """(row, column) of the cell of `step` at a place of the picture; None outside of the window."""
    x0, y0, x1, y1 = mask.window
    if not (x0 <= x < x1 and y0 <= y < y1):
        return None
    return int((y - y0) / (y1 - y0) * step.size), int((x - x0) / (x1 - x0) * step.size)


def asked(mask: Mask, step: SubdivisionStep) -> NDArray[np.bool_]:
    """(size, size): the cells that the point head decided in this step."""
    grid = np.zeros((step.size, step.size), bool)
    x0, y0, x1, y1 = mask.window
    columns, rows = ((step.points - (x0, y0)) / (x1 - x0, y1 - y0) * step.size).astype(int).clip(0, step.size - 1).T
    grid[rows, columns] = True
    return grid


def read(mask: Mask, step: SubdivisionStep, x: float, y: float) -> Reading | None:
    """What `step` says of the place (x, y) of the picture; None outside of the window."""
    where = cell(mask, step, x, y)
    if where is None:
        return None
    logit = float(step.logits[where])
    return Reading(logit, float(1 / (1 + np.exp(-logit))), -abs(logit), bool(asked(mask, step)[where]))


def macs_of_a_point(net: SlimPointRend) -> int:
    """Multiply-accumulates to decide one point: reading the fine features and the guide (four neighbours each), and the four layers."""
    head, guides = net.point_head, net.options["codes"] + 3
    layers = sum(layer.weight.numel() for layer in (head.fc1, head.fc2, head.fc3, head.predictor))
    return layers + 4 * (net.options["channels"] + guides)


def _milliseconds(work: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return 1e3 * float(np.median(times))


@torch.no_grad()
def dense(net: SlimPointRend, p2: torch.Tensor, box: Box, side: int) -> torch.Tensor:
    """Every point of a `side` x `side` grid decided: logits (R, side, side)."""
    channels = getattr(box, "kind", torch.zeros(len(box.boxes), 1, dtype=torch.long, device=p2.device))  # the authors' networks have a mask for each class
    decide = Decider(net.point_head, p2).of(box.guide, box.boxes, channels)
    return decide(points.regular_grid(len(box.boxes), side, box.boxes))[:, 0].unflatten(1, (side, side))


@torch.no_grad()
def costs(session: Session, clicks: list, labels: list, count: int = render.POINTS, steps: int = 5, rounds: int = 3) -> list[Cost]:
    """What each step costs so far, beside deciding its grid densely; milliseconds are medians of `rounds`, measured now. Raises BadInput."""
    box, net, p2 = session.look(clicks, labels), session.net, session.maps.p2
    each = macs_of_a_point(net)
    first, more = render.schedule(box.coarse.shape[-1], steps, count)
    table, total = [], first**2
    for step in range(more + 1):
        size = first * 2**step
        total += min(count, size**2) if step else 0
        doublings = steps - more + step
        adaptive = _milliseconds(lambda n=doublings: net.masks(p2, box, count, n), rounds)
        table.append(Cost(size, total, size**2, total * each, size**2 * each, adaptive, _milliseconds(lambda n=size: dense(net, p2, box, n), rounds)))
    return table


@torch.no_grad()
def agreement(session: Session, clicks: list, labels: list, count: int = render.POINTS, steps: int = 5) -> float:
    """Share of the finest grid's cells on which the rendered mask and the dense one agree."""
    box, net, p2 = session.look(clicks, labels), session.net, session.maps.p2
    rendered = net.masks(p2, box, count, steps)
    return float(((rendered > 0) == (dense(net, p2, box, rendered.shape[-1]) > 0)).float().mean())
