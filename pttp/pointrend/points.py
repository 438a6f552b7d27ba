"""Points: reading maps at them, and choosing them where the answer is uncertain (Sections 3.1 and 3.2 of the paper).

Points are (x, y). In [0, 1] they are relative to a map or a box: the centre of cell i of n lies at (i + 0.5) / n. Outside of a map there is zero, so that a
point closer than half a cell to the border is drawn towards zero.
"""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from pttp import ops


def point_sample(maps: Tensor, points: Tensor, mode: str = "bilinear", align_corners: bool = False) -> Tensor:
    """Values of `maps` (B, C, H, W) at `points` in [0, 1], (B, P, 2) -> (B, C, P), or (B, h, w, 2) -> (B, C, h, w)."""
    grid = 2 * (points if points.ndim == 4 else points[:, :, None]) - 1
    y = F.grid_sample(maps, grid, mode=mode, align_corners=align_corners)
    return y if points.ndim == 4 else y[..., 0]


def regular_grid(count: int, side: int, like: Tensor) -> Tensor:
    """The cell centres of a `side` x `side` grid, row by row: (count, side * side, 2), of the type and device of `like`."""
    at = (torch.arange(side, dtype=like.dtype, device=like.device) + 0.5) / side
    y, x = torch.meshgrid(at, at, indexing="ij")
    return torch.stack([x, y], -1).view(1, -1, 2).expand(count, -1, -1)


def in_picture(points: Tensor, boxes: Tensor) -> Tensor:
    """Box-relative `points` (R, P, 2) -> pixels of the picture in which the `boxes` (R, 4) are given."""
    return boxes[:, None, :2] + points * (boxes[:, None, 2:] - boxes[:, None, :2])


def sample_in_boxes(maps: Tensor, stride: int, boxes: Tensor, points: Tensor, image: Tensor | None = None) -> Tensor:
    """Values (R, P, C) of `maps` (B, C, H, W), cells of `stride` pixels, at the box-relative `points` (R, P, 2) of `boxes` (R, 4); `image` (R,) as in
    `ops.sample`."""
    at = in_picture(points, boxes) / stride - 0.5
    return ops.sample(maps, at[..., 0], at[..., 1], image)


def of_channel(logits: Tensor, channels: Tensor) -> Tensor:
    """The channel `channels` (R,) of each of `logits` (R, K, ...), (R, 1, ...); with a single channel, that one."""
    if logits.shape[1] == 1:
        return logits
    return logits[torch.arange(len(logits), device=logits.device), channels][:, None]


def uncertainty(logits: Tensor, classes: Tensor) -> Tensor:
    """Instance masks: nearness of the class's logit to 0. (R, K, ...), classes (R,) -> (R, 1, ...), at most 0."""
    return -of_channel(logits, classes).abs()


def semantic_uncertainty(logits: Tensor) -> Tensor:
    """Semantic maps: nearness of the best two classes. (B, K, ...) -> (B, 1, ...), at most 0."""
    best = logits.topk(2, dim=1).values
    return best[:, 1:2] - best[:, :1]


def most_uncertain(uncertainty: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` most uncertain cells of maps (R, 1, H, W), all if there are fewer: row-major indices (R, P) and centres (R, P, 2), most uncertain first."""
    h, w = uncertainty.shape[-2:]
    index = uncertainty.flatten(1).topk(min(count, h * w), dim=1).indices
    x, y = (index % w + 0.5) / w, (index // w + 0.5) / h
    return index, torch.stack([x, y], -1).to(uncertainty.dtype)


@torch.no_grad()
def biased_points(
    coarse: Tensor,
    uncertainty: Callable[[Tensor], Tensor],
    count: int,
    oversample: float = 3,
    importance: float = 0.75,
    draw: Callable[[int, int, int], Tensor] | None = None,
) -> Tensor:
    """The points of training: of k N uniform ones ("over generation") the beta N most uncertain, and (1 - beta) N uniform ones beside them.

    `coarse` logits (R, K, h, w); `uncertainty` of logits at points (R, K, P) -> (R, 1, P); `count` N, `oversample` k, `importance` beta; `draw(R, P, 2)`
    gives uniform numbers in [0, 1) (default torch.rand). Returns (R, N, 2), the uncertain ones first.
    """
    draw = draw or (lambda *shape: torch.rand(*shape, device=coarse.device))
    points = draw(len(coarse), int(count * oversample), 2)
    certain = uncertainty(point_sample(coarse, points))[:, 0]
    uncertain = int(importance * count)
    index = certain.topk(uncertain, dim=1).indices
    points = points.gather(1, index[..., None].expand(-1, -1, 2))
    if uncertain == count:
        return points
    return torch.cat([points, draw(len(coarse), count - uncertain, 2)], 1)
