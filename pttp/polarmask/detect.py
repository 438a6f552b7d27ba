"""From the five maps of one picture to contours: thresholds, the limit a level, suppression."""
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pttp import ops
from pttp.polarmask import polar
from pttp.polarmask.model import STRIDES, Level, cells

CENTERNESS_BONUS = 0.5  # added to the centerness before it multiplies the class score, which may therefore exceed 1


@dataclass(frozen=True)
class Detections:
    """n objects: `boxes` (n, 4) and `contours` (n, N, 2) in pixels of the original picture, `scores` (n,) up to 1.5, `classes` (n,) from 0.

    And of the cell that speaks for each: its `level` (n,), 0 for P3; where it stands, `centers` (n, 2), and its `rays` (n, N), both in pixels of the picture
    that the network saw; its polar `centerness` (n,) in [0, 1].
    """

    boxes: Tensor
    contours: Tensor
    scores: Tensor
    classes: Tensor
    level: Tensor
    centers: Tensor
    rays: Tensor
    centerness: Tensor


def _flat(x: Tensor) -> Tensor:
    """(1, C, h, w) -> (h * w, C)."""
    return x[0].permute(1, 2, 0).flatten(0, 1)


@torch.no_grad()
def detect(
    levels: list[Level],
    size: tuple[int, int],
    stretched: Tensor | None = None,
    score: float = 0.05,
    iou: float = 0.5,
    limit: int = 100,
    level_limit: int = 1000,
    mask_nms: bool = False,
    inclusive: bool = True,
) -> Detections:
    """The objects of one picture (a batch of one), `limit` at most.

    `size` (height, width) of the picture that the network saw, without padding; `stretched` (4,) by how much x, y, x, y of the original were multiplied. Of
    every level the `level_limit` best cells are considered, for the classes whose score (without centerness) is above `score`. Boxes of the same class
    suppress each other at an overlap of `iou`, as the authors' CPU code does it, or above it (not `inclusive`, as on a GPU); `mask_nms` takes the extents of
    the contours for boxes. As in the authors' code, fewer objects than `limit` are listed class by class, more are cut to the best and listed by score.
    """
    found: list[tuple[Tensor, ...]] = []
    for i, (level, stride) in enumerate(zip(levels, STRIDES)):
        classes, center = _flat(level.cls).sigmoid(), _flat(level.centerness).sigmoid()[:, 0]
        at = cells(*level.cls.shape[-2:], stride, classes)
        kept = torch.arange(len(at), device=at.device)
        if len(at) > level_limit:
            kept = (classes * center[:, None]).amax(1).topk(level_limit).indices
        found.append((classes[kept], center[kept], at[kept], _flat(level.box)[kept], _flat(level.mask)[kept], torch.full_like(kept, i)))
    probability, center, at, sides, rays, level = (torch.cat(parts) for parts in zip(*found))
    stretched = torch.ones(4) if stretched is None else stretched
    stretched = stretched.to(at)
    contours = polar.contours(at, rays, size) / stretched[:2]
    boxes = torch.cat([contours.amin(1), contours.amax(1)], 1) if mask_nms else polar.boxes(at, sides, size) / stretched
    kind, cell = (probability.T > score).nonzero(as_tuple=True)  # class by class
    scores = probability[cell, kind] * (center[cell] + CENTERNESS_BONUS)
    whole = boxes[cell] + boxes.new_tensor([0, 0, 1, 1])  # the last pixel belongs to the box
    stay = ops.nms(whole, scores, iou, kind, limit + 1, inclusive)
    stay = stay[:limit] if len(stay) > limit else stay.sort().values
    cell, kind = cell[stay], kind[stay]
    return Detections(boxes[cell], contours[cell], scores[stay], kind, level[cell], at[cell], rays[cell], center[cell])
