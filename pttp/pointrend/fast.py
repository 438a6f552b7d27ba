"""The point head for answering: the same function as `model.PointHead`, in a form that takes two thirds of the time on a CPU, or less.

A layer sees [features, coarse logits]. Its second half is linear in the coarse logits at the point, which are a bilinear mix of the 7 x 7 coarse logits of
the box. So the 49 cells go through the coarse half of all layers once, and what a point needs is mixed from the results. In the same way P2 may go through
the first layer once for the whole picture: then only two layers are left to compute at a point.
"""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from pttp import ops
from pttp.pointrend import points
from pttp.pointrend.model import STRIDES, PointHead


def dense(x: Tensor, weight: Tensor) -> Tensor:
    """Rows (R, P, c) times `weight` (n, c, 1, 1), (R, P, n). As a convolution: on many processors oneDNN's is twice as fast as the matrix product."""
    return F.conv2d(x.permute(2, 0, 1)[None], weight)[0].permute(1, 2, 0)


class Decider:
    """A point head (with `coarse_each_layer`) on the map `p2` (1, 256, h, w) of one picture.

    With `project` the first layer is computed for the whole map, once. Gradients flow to coarse logits and boxes as through the plain form.
    """

    def __init__(self, head: PointHead, p2: Tensor, project: bool = False):
        layers = (head.fc1, head.fc2, head.fc3)
        self.predictor, self.width = head.predictor, head.fc1.out_channels
        fine = p2.shape[1]
        self.first, *self.hidden = [
            fc.weight[:, :n, :, None].contiguous(memory_format=torch.channels_last) for fc, n in zip(layers, (fine, self.width, self.width))
        ]
        self.coarse = torch.cat([layers[0].weight[:, fine:, 0], *(fc.weight[:, self.width :, 0] for fc in layers[1:])])  # (3 * width, K)
        self.bias = torch.cat([fc.bias for fc in layers])
        self.size, self.project = tuple(p2.shape[-2:]), project
        self.table = ops.rows(F.conv2d(p2, self.first) if project else p2)

    def of(self, coarse: Tensor, boxes: Tensor, channels: Tensor) -> Callable[[Tensor], Tensor]:
        """For `boxes` (R, 4) with `coarse` logits (R, K, 7, 7): a function from points (R, P, 2) to the logits (R, k, P) of the classes `channels` (R, k)."""
        h, w = coarse.shape[-2:]
        cells = coarse.flatten(2).transpose(1, 2)  # (R, 49, K)
        last = self.predictor.weight[channels, :, 0]  # (R, k, width + K)
        table = torch.cat([F.linear(cells, self.coarse), cells @ last[..., self.width :].transpose(1, 2)], 2).flatten(0, 1)
        last, bias = last[..., : self.width].transpose(1, 2), self.predictor.bias[channels][:, None]
        each = torch.arange(len(boxes), device=boxes.device)

        def decide(at: Tensor) -> Tensor:
            cell = ops.neighbours(at[..., 0] * w - 0.5, at[..., 1] * h - 0.5, (h, w), each)
            mixed = ops.weighted_rows(table, *cell).view(*at.shape[:2], -1)  # (R, P, 3 * width + k)
            mixed[..., : len(self.bias)] += self.bias
            *shares, rest = mixed.split([self.width] * 3 + [channels.shape[1]], 2)
            where = points.in_picture(at, boxes) / STRIDES["p2"] - 0.5
            x = ops.weighted_rows(self.table, *ops.neighbours(where[..., 0], where[..., 1], self.size)).view(*at.shape[:2], -1)
            x = (x if self.project else dense(x, self.first)).add_(shares[0]).relu_()
            for weight, share in zip(self.hidden, shares[1:]):
                x = dense(x, weight).add_(share).relu_()
            return (x @ last + rest + bias).transpose(1, 2)

        return decide
