"""What PolarMask is trained with (Section 3.3): polar IoU for the rays, focal loss for the classes, IoU for the boxes, BCE for the centerness."""
from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from pttp.polarmask import polar
from pttp.polarmask.model import STRIDES, Level, cells
from pttp.polarmask.targets import Targets


class Losses(NamedTuple):
    """To be minimised together, with equal weights."""

    cls: Tensor
    box: Tensor
    mask: Tensor
    centerness: Tensor


def polar_iou_loss(rays: Tensor, targets: Tensor) -> Tensor:
    """-log of the polar IoU, of each sample: (n, N), (n, N) -> (n,)."""
    return (torch.maximum(rays, targets).sum(1) / torch.minimum(rays, targets).sum(1)).log()


def mean_log_loss(rays: Tensor, targets: Tensor) -> Tensor:
    """A variant that the authors left unused: the mean over the rays of their log ratio, (n,)."""
    return (torch.maximum(rays, targets) / torch.minimum(rays, targets)).log().mean(1)


def squared_loss(rays: Tensor, targets: Tensor) -> Tensor:
    """A variant that the authors left unused: areas, that is squares, in place of lengths, (n,)."""
    return (torch.maximum(rays, targets).square().sum(1) / torch.minimum(rays, targets).square().sum(1)).log()


def box_loss(boxes: Tensor, targets: Tensor) -> Tensor:
    """-log IoU of boxes (n, 4) with boxes (n, 4) whose last pixel is included: (n,)."""
    shared = (torch.minimum(boxes[:, 2:], targets[:, 2:]) - torch.maximum(boxes[:, :2], targets[:, :2]) + 1).clamp(min=0).prod(1)
    areas = [(b[:, 2:] - b[:, :2] + 1).prod(1) for b in (boxes, targets)]
    return -(shared / (areas[0] + areas[1] - shared)).clamp(min=1e-6).log()


def focal_loss(logits: Tensor, labels: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """The sum over cells and classes of the sigmoid focal loss: `logits` (P, K), `labels` (P,), 0 for nothing, else 1..K."""
    truth = F.one_hot(labels, logits.shape[1] + 1)[:, 1:].to(logits.dtype)
    error = torch.where(truth > 0, 1 - logits.sigmoid(), logits.sigmoid())
    balance = torch.where(truth > 0, alpha, 1 - alpha)
    return (balance * error**gamma * F.binary_cross_entropy_with_logits(logits, truth, reduction="none")).sum()


def _flat(maps: list[Tensor]) -> Tensor:
    """Maps (B, C, h, w) -> cells of all levels, (B, P, C)."""
    return torch.cat([m.permute(0, 2, 3, 1).flatten(1, 2) for m in maps], 1)


def losses(levels: list[Level], targets: list[Targets]) -> Losses:
    """`levels` for a batch of pictures, `targets` of each picture. Without a positive cell, all but the first are zero (and differentiable)."""
    cls, box, centerness, mask = (_flat([level[i] for level in levels]) for i in range(4))
    at = torch.cat([cells(*level.cls.shape[-2:], s, box) for level, s in zip(levels, STRIDES)])
    positives = sum(len(t.index) for t in targets)
    loss_cls = focal_loss(cls.flatten(0, 1), torch.cat([t.labels for t in targets])) / (positives + len(targets))
    picture = torch.cat([torch.full_like(t.index, i) for i, t in enumerate(targets)])
    cell = torch.cat([t.index for t in targets])
    rays, sides = torch.cat([t.rays for t in targets]), torch.cat([t.boxes for t in targets])
    said = centerness[picture, cell, 0]
    if not positives:
        return Losses(loss_cls, box[picture, cell].sum(), mask[picture, cell].sum(), said.sum())
    weight = polar.centerness(rays)
    where = at[cell]
    loss_box = box_loss(polar.boxes(where, box[picture, cell]), polar.boxes(where, sides))
    loss_mask = polar_iou_loss(mask[picture, cell], rays)
    return Losses(
        loss_cls,
        (loss_box * weight).sum() / weight.sum(),
        (loss_mask * weight).sum() / weight.sum(),
        F.binary_cross_entropy_with_logits(said, weight),
    )
