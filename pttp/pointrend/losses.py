"""What the mask heads are trained with (Section 3.2)."""
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pttp import ops
from pttp.pointrend import points, render
from pttp.pointrend.model import CoarseHead, PointHead

TRAIN_POINTS = 14 * 14
SEMANTIC_TRAIN_POINTS = 2048
IGNORE = 255  # a semantic label that is nobody's mistake


@dataclass(frozen=True)
class MaskLosses:
    """`coarse` and `point` are to be minimised, their sum with equal weights. `points` (R, P, 2), `logits` (R, P), `labels` (R, P): what was compared;
    `targets` (R, 7, 7): the coarse labels; `accuracy`: the share of points on the right side, where a label between 0 and 1 counts as 0."""

    coarse: Tensor
    point: Tensor
    points: Tensor
    logits: Tensor
    labels: Tensor
    targets: Tensor
    accuracy: float


def coarse_targets(bitmaps: Tensor, boxes: Tensor, side: int = 7) -> Tensor:
    """Bitmaps (R, H, W) of 0 and 1, each cut out by its box (R, 4) -> (R, side, side): 1 where at least half of a cell is covered, else 0."""
    here = torch.arange(len(boxes), device=boxes.device)
    covered = ops.roi_align(bitmaps[:, None].to(boxes.dtype), boxes, here, side, 1.0)[:, 0]
    return (covered >= 0.5 - 1e-6).to(boxes.dtype)  # bitmaps make exact halves, which rounding must not turn away


def point_labels(bitmaps: Tensor, boxes: Tensor, at: Tensor) -> Tensor:
    """Bitmaps (R, H, W) at the box-relative points (R, P, 2): bilinear, so labels lie between 0 and 1. (R, P)."""
    h, w = bitmaps.shape[-2:]
    return points.point_sample(bitmaps[:, None].to(at.dtype), points.in_picture(at, boxes) / at.new_tensor([w, h]))[:, 0]


def mask_losses(
    coarse_head: CoarseHead,
    point_head: PointHead,
    p2: Tensor,
    boxes: Tensor,
    classes: Tensor,
    bitmaps: Tensor,
    image: Tensor | None = None,
    count: int = TRAIN_POINTS,
    draw=None,
) -> MaskLosses:
    """Both losses of the mask head.

    `p2` (B, 256, h, w); `boxes` (R, 4) as the box head predicts them for the true class, `classes` (R,), `bitmaps` (R, H, W), `image` (R,) which picture of
    the batch; `draw` as in `points.biased_points`. Gradients reach both heads and `p2`, not the boxes.
    """
    boxes = boxes.detach()
    coarse = coarse_head(coarse_head.pool(p2, boxes, image))
    targets = coarse_targets(bitmaps, boxes, coarse.shape[-1])
    at = points.biased_points(coarse, lambda x: points.uncertainty(x, classes), count, draw=draw)
    labels = point_labels(bitmaps, boxes, at)
    logits = points.of_channel(render.decide(point_head, p2, coarse, boxes, at, image=image), classes)[:, 0]
    return MaskLosses(
        coarse=F.binary_cross_entropy_with_logits(points.of_channel(coarse, classes)[:, 0], targets),
        point=F.binary_cross_entropy_with_logits(logits, labels),
        points=at,
        logits=logits,
        labels=labels,
        targets=targets,
        accuracy=((logits > 0) == (labels >= 1)).float().mean().item(),
    )


def semantic_losses(
    head: PointHead, p2: Tensor, coarse: Tensor, target: Tensor, count: int = SEMANTIC_TRAIN_POINTS, stride: int = 4, draw=None
) -> tuple[Tensor, Tensor]:
    """Loss of the coarse logits (B, K, H / stride, W / stride), upsampled, and of the points, for labels `target` (B, H, W) of which IGNORE does not count."""
    upsampled = F.interpolate(coarse, scale_factor=stride, mode="bilinear", align_corners=False)
    at = points.biased_points(coarse, points.semantic_uncertainty, count, draw=draw)
    logits = head(points.point_sample(p2, at), points.point_sample(coarse, at))
    labels = points.point_sample(target[:, None].to(coarse.dtype), at, mode="nearest")[:, 0].long()
    return F.cross_entropy(upsampled, target.long(), ignore_index=IGNORE), F.cross_entropy(logits, labels, ignore_index=IGNORE)
