"""Faster R-CNN as PointRend uses it: from the maps of one picture to boxes with classes.

Boxes are (x0, y0, x1, y1) in pixels of the picture that the network sees, `size` is its (height, width) without padding.
"""
from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pttp import ops
from pttp.pointrend.model import STRIDES, PointRend

SIZES = {"p2": 32, "p3": 64, "p4": 128, "p5": 256, "p6": 512}  # of the anchors of a level
ASPECTS = (0.5, 1.0, 2.0)  # height / width
BOX_WEIGHTS = (10.0, 5.0)  # of the box head's deltas: centre, log size


@dataclass(frozen=True)
class Detections:
    """`boxes` (N, 4), `scores` (N,), `classes` (N,), best first; `proposals` (N,): which proposal each was refined from."""

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    proposals: Tensor


def anchors(height: int, width: int, stride: int, size: int, like: Tensor) -> Tensor:
    """Boxes around the multiples of `stride`, (height * width * 3, 4): of the area `size` squared, and not rounded."""
    half = torch.tensor([[math.sqrt(size**2 / a), math.sqrt(size**2 / a) * a] for a in ASPECTS], dtype=like.dtype, device=like.device) / 2
    y, x = torch.meshgrid(*(torch.arange(n, dtype=like.dtype, device=like.device) * stride for n in (height, width)), indexing="ij")
    centers = torch.stack([x, y], -1).view(-1, 1, 2)  # (height * width, 1, 2)
    return torch.cat([centers - half, centers + half], -1).view(-1, 4)


def apply_deltas(boxes: Tensor, deltas: Tensor, weights: tuple[float, float] = (1, 1)) -> Tensor:
    """Boxes (N, 4) moved and scaled by `deltas` (N, ..., 4): centre by parts of the size, log size; `weights` divide the two kinds. (N, ..., 4)."""
    shape = (len(boxes),) + (1,) * (deltas.ndim - 2) + (2,)
    size = (boxes[:, 2:] - boxes[:, :2]).view(shape)
    center = boxes[:, :2].view(shape) + 0.5 * size
    center = deltas[..., :2] / weights[0] * size + center
    half = (deltas[..., 2:] / weights[1]).clamp(max=math.log(1000 / 16)).exp() * size * 0.5
    return torch.cat([center - half, center + half], -1)


def clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """`boxes` (..., 4) cut at the borders of the picture."""
    h, w = size
    return torch.stack([boxes[..., 0].clamp(0, w), boxes[..., 1].clamp(0, h), boxes[..., 2].clamp(0, w), boxes[..., 3].clamp(0, h)], -1)


def has_area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])


def proposals(logits: dict[str, Tensor], deltas: dict[str, Tensor], size: tuple[int, int], limit: int = 1000, iou: float = 0.7) -> tuple[Tensor, Tensor]:
    """The `limit` best boxes of all levels, (N, 4), and their logits (N,): of every level its `limit` best, clipped, suppressed among themselves.

    `logits` (1, 3, h, w) and `deltas` (1, 12, h, w) by level, as `RPNHead` gives them.
    """
    boxes, scores = [], []
    for level, x in logits.items():
        h, w = x.shape[-2:]
        best = x[0].permute(1, 2, 0).flatten().topk(min(limit, x[0].numel()))
        moves = deltas[level][0].unflatten(0, (-1, 4)).permute(2, 3, 0, 1).reshape(-1, 4)[best.indices]  # four numbers an anchor
        found = clip(apply_deltas(anchors(h, w, STRIDES[level], SIZES[level], x)[best.indices], moves), size)
        there = has_area(found)
        found, score = found[there], best.values[there]
        stay = ops.nms(found, score, iou)
        boxes.append(found[stay])
        scores.append(score[stay])
    score, order = torch.cat(scores).sort(descending=True, stable=True)
    return torch.cat(boxes)[order[:limit]], score[:limit]


def detections(boxes: Tensor, logits: Tensor, deltas: Tensor, size: tuple[int, int], score: float = 0.05, iou: float = 0.5, limit: int = 100) -> Detections:
    """The box head's answer for proposals `boxes` (N, 4), `logits` (N, K + 1), `deltas` (N, 4 K): the `limit` best after suppression within each class."""
    probabilities = logits.softmax(1)[:, :-1]  # the background is the last class
    refined = clip(apply_deltas(boxes, deltas.unflatten(1, (-1, 4)), BOX_WEIGHTS), size)
    proposal, kind = (probabilities > score).nonzero(as_tuple=True)
    found, scores = refined[proposal, kind], probabilities[proposal, kind]
    stay = ops.nms(found, scores, iou, kind, limit)
    return Detections(found[stay], scores[stay], kind[stay], proposal[stay])


def detect(net: PointRend, maps: dict[str, Tensor], size: tuple[int, int], score: float = 0.05, limit: int = 100) -> Detections:
    """Everything that `net` finds in one picture, from its `maps` (p2..p6, batch of one)."""
    boxes, _ = proposals(*net.rpn(maps), size)
    return detections(boxes, *net.box_head(net.pool(maps, boxes)), size, score, limit=limit)
