"""Operators shared by two rooms, against torchvision's own or the plainest form of the same rule."""
from __future__ import annotations

import sys

import pytest
import torch
from torch.nn import functional as F

from pttp import ops
from pttp.vision import torchvision


def some_boxes(count: int, width: float, height: float, seed: int = 0) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    ends = torch.rand(2, count, 2, generator=random) * torch.tensor([width, height])
    return torch.cat([ends.amin(0), ends.amax(0)], 1)


@pytest.mark.parametrize("scale", [0.25, 0.125, 1.0])
def test_roi_align_equals_torchvision(scale):
    torch.manual_seed(0)
    torchvision()
    maps = torch.randn(2, 2, 23, 31, dtype=torch.float64)
    boxes = some_boxes(12, 31 / scale, 23 / scale).double()
    boxes[0] = torch.tensor([0, 0, 31, 23]) / scale
    boxes[1] = boxes[1, [0, 1, 0, 1]]  # a point
    boxes[2] = torch.tensor([0.2, 3, 30.9, 3.3]) / scale
    image = torch.randint(0, 2, (12,))
    rois = torch.cat([image[:, None].double(), boxes], 1)
    if ops.compiled():
        theirs = torchvision().ops.roi_align(maps, rois, 7, scale, 0, True)
    else:  # the public function would first put its Python form through a compiler
        theirs = sys.modules["torchvision.ops.roi_align"]._roi_align.__wrapped__(maps, rois, scale, 7, 7, 0, True)
    torch.testing.assert_close(ops._roi_align(maps, boxes, image, 7, scale), theirs, rtol=0, atol=1e-12)
    torch.testing.assert_close(ops.roi_align(maps, boxes, image, 7, scale), theirs, rtol=0, atol=1e-12)


def test_roi_align_far_outside_is_zero():
    """Samples more than one cell outside count as zero; a plane inside is reproduced at the centres of the bins."""
    x = torch.arange(16.0).expand(1, 1, 12, 16)
    inside, outside = torch.tensor([2.0, 2, 9, 9]), torch.tensor([-40.0, 2, -10, 9])
    y = ops._roi_align(x, torch.stack([inside, outside]), torch.zeros(2, dtype=torch.long), 7, 1.0)
    torch.testing.assert_close(y[0, 0], (torch.arange(7.0) + 2).expand(7, 7))
    assert (y[1] == 0).all()


def test_roi_align_of_no_boxes():
    assert ops._roi_align(torch.ones(1, 3, 4, 4), torch.empty(0, 4), torch.empty(0, dtype=torch.long), 7, 1.0).shape == (0, 3, 7, 7)


def test_roi_align_gradient():
    torch.manual_seed(0)
    maps = torch.randn(1, 2, 6, 7, dtype=torch.float64, requires_grad=True)
    boxes = some_boxes(3, 28, 24).double()
    assert torch.autograd.gradcheck(lambda m: ops._roi_align(m, boxes, torch.zeros(3, dtype=torch.long), 3, 0.25), maps)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_sample_equals_grid_sample(layout):
    torch.manual_seed(0)
    maps = torch.randn(3, 4, 5, 7, dtype=torch.float64).contiguous(memory_format=layout)
    at = torch.rand(3, 50, 2, dtype=torch.float64) * 1.4 - 0.2
    theirs = F.grid_sample(maps, 2 * at[:, :, None] - 1, align_corners=False)[..., 0]
    ours = ops.sample(maps, at[..., 0] * 7 - 0.5, at[..., 1] * 5 - 0.5, torch.arange(3))
    torch.testing.assert_close(ours.transpose(1, 2), theirs, rtol=0, atol=1e-12)


def plain_nms(boxes, scores, threshold, groups=None, inclusive=False) -> list[int]:
    kept: list[int] = []
    for i in scores.argsort(descending=True, stable=True).tolist():
        for k in kept:
            if groups is None or groups[i] == groups[k]:
                w = min(boxes[i][2], boxes[k][2]) - max(boxes[i][0], boxes[k][0])
                h = min(boxes[i][3], boxes[k][3]) - max(boxes[i][1], boxes[k][1])
                shared = max(w, 0) * max(h, 0)
                areas = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (boxes[i], boxes[k]))
                iou = shared / (areas - shared)
                if iou > threshold or (inclusive and iou == threshold):
                    break
        else:
            kept.append(i)
    return kept


@pytest.mark.parametrize("chunk", [7, 1000])
@pytest.mark.parametrize("limit", [None, 20])
@pytest.mark.parametrize("group_count", [None, 1, 4])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_nms_is_greedy(monkeypatch, chunk, limit, group_count, threshold):
    monkeypatch.setattr(ops, "CHUNK", chunk)
    boxes, scores = some_boxes(120, 100, 100).double(), torch.rand(120, generator=torch.Generator().manual_seed(1))
    groups = None if group_count is None else torch.arange(120) % group_count
    wanted = plain_nms(boxes.tolist(), scores, threshold, groups)
    assert ops.nms(boxes, scores, threshold, groups, limit).tolist() == wanted[:limit]


@pytest.mark.parametrize(("inclusive", "stay"), [(False, [0, 1]), (True, [0])])
def test_nms_at_the_threshold(inclusive, stay):
    boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 2]])  # an IoU of one half
    assert ops.nms(boxes, torch.tensor([0.9, 0.8]), 0.5, inclusive=inclusive).tolist() == stay


def test_nms_of_nothing():
    assert ops.nms(torch.empty(0, 4), torch.empty(0), 0.5).tolist() == []


def test_nms_does_not_explode():
    """Everything passes, nothing overlaps enough: the matrix of all pairs would hold 4e10 numbers."""
    boxes, random = some_boxes(200_000, 1000, 1000), torch.Generator().manual_seed(0)
    scores, groups = torch.rand(200_000, generator=random), torch.randint(0, 80, (200_000,), generator=random)
    kept = ops.nms(boxes, scores, 0.5, groups, limit=100)
    assert len(kept) == 100
    best = scores.argsort(descending=True)[:400]
    assert kept.tolist() == best[ops.nms(boxes[best], scores[best], 0.5, groups[best], limit=100)].tolist()
