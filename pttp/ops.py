"""Operators of detection that two rooms share: reading maps between their cells, RoIAlign, greedy suppression.

The torchvision wheels that go with a CPU build of PyTorch come without their compiled operators (see `pttp.vision`): its NMS then raises, its RoIAlign
wants a C++ compiler. So each operator has a form here that needs neither. Reading a map at many points is a weighted sum of table rows, for which
`embedding_bag` is made: on one core 1 ms for 7,840 points of 256 channels, where `grid_sample` takes 12 (channels last) or 74.
"""
from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK = 1000  # boxes that are compared with each other at once


@cache
def compiled():
    """torchvision.ops, or None where its compiled operators are missing."""
    from pttp.vision import torchvision

    ops = torchvision().ops
    try:
        ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except RuntimeError:
        return None
    return ops


def rows(maps: Tensor) -> Tensor:
    """Maps (B, C, H, W) -> one row a cell, (B * H * W, C); no copy where the maps are channels last."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def weighted_rows(table: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """Rows of `table` (N, C), `index` and `weight` (M, K) -> the M weighted sums of K rows each, (M, C)."""
    return F.embedding_bag(index, table, per_sample_weights=weight, mode="sum")


def neighbours(x: Tensor, y: Tensor, size: tuple[int, int], image: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The four cells around positions `x`, `y` (R, P), given in cells, and their bilinear weights: rows of a table (see `rows`) of maps of `size` (h, w), and
    zero weight outside of the map, both (R * P, 4). `image` (R,) says which map of the batch each row of positions is in (default: the first)."""
    h, w = size
    x0, y0 = x.detach().floor(), y.detach().floor()
    first = torch.zeros(len(x), 1, dtype=torch.long, device=x.device) if image is None else image[:, None] * (h * w)
    index, weight = [], []
    for cy, wy in ((y0, y0 + 1 - y), (y0 + 1, y - y0)):
        for cx, wx in ((x0, x0 + 1 - x), (x0 + 1, x - x0)):
            inside = (cx >= 0) & (cx < w) & (cy >= 0) & (cy < h)
            index.append(first + (cy.clamp(0, h - 1) * w + cx.clamp(0, w - 1)).long())
            weight.append(wx * wy * inside)
    return torch.stack(index, -1).flatten(0, 1), torch.stack(weight, -1).flatten(0, 1)


def sample(maps: Tensor, x: Tensor, y: Tensor, image: Tensor | None = None) -> Tensor:
    """Bilinear values of `maps` (B, C, H, W) at positions in cells, the centre of cell i at i; zero outside of the map.

    `x`, `y` (R, P) and `image` (R,) as in `neighbours`. Returns (R, P, C). Gradients flow to maps and positions.
    """
    return weighted_rows(rows(maps), *neighbours(x, y, maps.shape[-2:], image)).view(*x.shape, maps.shape[1])


def _cells(start: Tensor, bin_size: Tensor, bins: int, samples: int, length: int) -> tuple[Tensor, Tensor]:
    """One axis of RoIAlign: for boxes (R,) the `samples` + 1 cells that each bin reads and their weights, both (R, bins, samples + 1).

    Samples lie at most one cell apart, so these are enough; a sample gives its neighbours the weights of the hat function. More than one cell outside, it
    counts as zero.
    """
    steps = torch.arange(bins, device=start.device, dtype=start.dtype)[:, None] + (torch.arange(samples, device=start.device, dtype=start.dtype) + 0.5) / samples
    at = start[:, None, None] + steps * bin_size[:, None, None]  # (R, bins, samples)
    counts = (at >= -1) & (at <= length)
    at = at.clamp(0, length - 1)
    cells = at[..., :1].floor() + torch.arange(samples + 1, device=start.device, dtype=start.dtype)  # (R, bins, samples + 1)
    hat = (1 - (at[..., None] - cells[..., None, :]).abs()).clamp(min=0) * counts[..., None]
    return cells.clamp(max=length - 1).long(), hat.mean(-2)


def _roi_align(maps: Tensor, boxes: Tensor, image: Tensor, size: int, scale: float) -> Tensor:
    h, w = maps.shape[-2:]
    table = rows(maps)
    start = boxes[:, :2] * scale - 0.5
    bin_size = (boxes[:, 2:] - boxes[:, :2]) * scale / size  # (R, 2)
    samples = bin_size.ceil().long()
    y = maps.new_zeros(len(boxes), size * size, maps.shape[1])  # a box without an area stays zero
    for nx, ny in samples[(samples > 0).all(1)].unique(dim=0).tolist():
        alike = ((samples[:, 0] == nx) & (samples[:, 1] == ny)).nonzero()[:, 0]
        cx, wx = _cells(start[alike, 0], bin_size[alike, 0], size, nx, w)
        cy, wy = _cells(start[alike, 1], bin_size[alike, 1], size, ny, h)
        first = image[alike, None, None] * (h * w) + cy * w
        index = first[:, :, None, :, None] + cx[:, None, :, None, :]  # (R, size, size, ny + 1, nx + 1)
        weight = wy[:, :, None, :, None] * wx[:, None, :, None, :]
        k = (nx + 1) * (ny + 1)
        y[alike] = weighted_rows(table, index.reshape(-1, k), weight.reshape(-1, k)).view(len(alike), size * size, -1)
    return y.transpose(1, 2).unflatten(2, (size, size))


def roi_align(maps: Tensor, boxes: Tensor, image: Tensor, size: int, scale: float) -> Tensor:
    """RoIAlign with half-pixel alignment and as many samples a bin as it has cells (sampling_ratio 0).

    `maps` (B, C, H, W); `boxes` (R, 4) as x0, y0, x1, y1 in pixels of the picture, of which a cell is 1 / `scale`; `image` (R,) their maps in the batch.
    Returns (R, C, size, size).
    """
    if ops := compiled():
        return ops.roi_align(maps, torch.cat([image[:, None].to(boxes), boxes], 1), size, scale, 0, True)
    return _roi_align(maps, boxes, image, size, scale)


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes (N, 4) with boxes (M, 4): (N, M)."""
    def side(axis: int) -> Tensor:
        far = torch.minimum(a[:, None, axis + 2], b[None, :, axis + 2])
        return far.sub_(torch.maximum(a[:, None, axis], b[None, :, axis])).clamp_(min=0)

    areas = [(x[:, 2] - x[:, 0]) * (x[:, 3] - x[:, 1]) for x in (a, b)]
    shared = side(0).mul_(side(1))
    return shared / (areas[0][:, None] + areas[1]).sub_(shared)


def nms(boxes: Tensor, scores: Tensor, threshold: float, groups: Tensor | None = None, limit: int | None = None, inclusive: bool = False) -> Tensor:
    """Greedy suppression: indices of the boxes that stay, best score first, `limit` of them at most.

    `boxes` (N, 4), `scores` (N,); only boxes of the same group (N,) suppress each other, at IoU > `threshold`, or >= if `inclusive`.
    A box's fate depends on better boxes alone, so boxes are taken in chunks from the best down, and once `limit` have stayed the rest is not looked at:
    time and memory do not grow with the square of the number of boxes.
    """
    if groups is None and limit is None and not inclusive and (ops := compiled()):
        return ops.nms(boxes, scores.to(boxes), threshold)
    kept = torch.empty(0, dtype=torch.long, device=boxes.device)
    for chunk in scores.argsort(descending=True, stable=True).split(CHUNK):
        chunk = chunk[~_suppress(boxes, groups, kept, chunk, threshold, inclusive).any(0)]
        pairs = _suppress(boxes, groups, chunk, chunk, threshold, inclusive).cpu().numpy()
        stays = torch.ones(len(chunk), dtype=torch.bool)
        alive = stays.numpy()
        for i in range(len(chunk)):
            if alive[i]:
                alive[i + 1 :] &= ~pairs[i, i + 1 :]
        kept = torch.cat([kept, chunk[stays.to(chunk.device)]])
        if limit is not None and len(kept) >= limit:
            return kept[:limit]
    return kept


def _suppress(boxes: Tensor, groups: Tensor | None, better: Tensor, worse: Tensor, threshold: float, inclusive: bool) -> Tensor:
    """Whether a box of `better` (N,) would suppress one of `worse` (M,): (N, M)."""
    iou = box_iou(boxes[better], boxes[worse])
    over = iou >= threshold if inclusive else iou > threshold
    return over if groups is None else over.logical_and_(groups[better][:, None] == groups[worse])
