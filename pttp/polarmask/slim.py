"""The embedded model: PolarMask's head on a small trunk.

What is the paper's: every cell of a pyramid says what is there (classes), whether it is a good centre (polar centerness), and how far the contour lies along
36 rays; polar IoU loss; one shot. What is ours: the trunk (EfficientNet-Lite0) with a narrow pyramid of three levels, towers of depthwise-separable
convolutions, no box (the extent of the contour is one), pictures that keep their aspect ratio, and one more number a cell, its quality: the polar IoU that it
expects of its own rays, whatever the class. It chooses the level that answers a click, and it lets photos teach whose objects have no name.

Pictures are RGB, (x - trunk.MEAN) / trunk.STD, sides a multiple of 32; places and lengths are pixels of that picture, the first pixel's centre at 0.
"""
from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pttp import ops, trunk
from pttp.polarmask import polar
from pttp.polarmask.model import PRIOR, RAYS, cells

CHANNELS = 96
STRIDES = (8, 16, 32)
DIVISOR = 32
SHARP = 8.0
UNIT = 4  # strides: the length of every ray of an untrained network


@dataclass(frozen=True)
class Maps:
    """What the network says of B pictures. Of P cells, all levels in a row: `classes` (B, P, K), `quality` (B, P) and `centerness` (B, P) as logits, `rays`
    (B, P, N); `at` (P, 2), where the cells are. And rows and columns of each level, `sizes`, and its stride."""

    classes: Tensor
    quality: Tensor
    centerness: Tensor
    rays: Tensor
    at: Tensor
    sizes: tuple[tuple[int, int], ...]
    strides: tuple[int, ...] = STRIDES


class SlimPolarMask(nn.Module):
    def __init__(self, num_classes: int = 7, rays: int = RAYS, channels: int = CHANNELS, depth: int = 3, kernel: int = 5):
        super().__init__()
        self.options = {"num_classes": num_classes, "rays": rays, "channels": channels, "depth": depth, "kernel": kernel}
        self.trunk = trunk.Trunk()
        self.pyramid = trunk.Pyramid(channels, STRIDES)
        self.cls_convs, self.mask_convs = (nn.Sequential(*(trunk.SeparableConv(channels, kernel) for _ in range(depth))) for _ in range(2))
        self.polar_cls = nn.Conv2d(channels, num_classes, 3, padding=1)
        self.polar_centerness = nn.Conv2d(channels, 1, 3, padding=1)
        self.polar_quality = nn.Conv2d(channels, 1, 3, padding=1)
        self.polar_mask = nn.Conv2d(channels, rays, 3, padding=1)
        self.scales = nn.Parameter(torch.ones(len(STRIDES)))
        for head in (self.polar_cls, self.polar_centerness, self.polar_quality, self.polar_mask):
            nn.init.normal_(head.weight, std=0.01)
            nn.init.zeros_(head.bias)
        for head in (self.polar_cls, self.polar_quality):
            nn.init.constant_(head.bias, -math.log((1 - PRIOR) / PRIOR))
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Maps:
        """Pictures (B, 3, H, W)."""
        levels = self.pyramid(self.trunk(x))
        said = [self.level(levels[s], s, self.scales[i]) for i, s in enumerate(STRIDES)]
        classes, quality, centerness, rays = (torch.cat([flat(level[i]).float() for level in said], 1) for i in range(4))
        sizes = tuple(tuple(levels[s].shape[-2:]) for s in STRIDES)
        at = torch.cat([cells(*size, s, rays) for size, s in zip(sizes, STRIDES)])
        return Maps(classes, quality[..., 0], centerness[..., 0], rays, at, sizes)

    def level(self, x: Tensor, stride: int, scale: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One level (B, C, h, w) -> classes, quality, centerness, rays."""
        cls, mask = self.cls_convs(x), self.mask_convs(x)
        rays = UNIT * stride * (self.polar_mask(mask).float() * scale).clamp(max=4).exp()
        return self.polar_cls(cls), self.polar_quality(mask), self.polar_centerness(cls), rays


def flat(x: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h * w, C)."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def prepare(image: np.ndarray, longest: int) -> tuple[Tensor, tuple[int, int]]:
    """uint8 RGB (H, W, 3) -> the network's picture (1, 3, H', W'), its longer side `longest`, padded with zeros to a multiple of 32; and its (height, width)
    without padding."""
    scale = longest / max(image.shape[:2])
    h, w = (max(1, round(side * scale)) for side in image.shape[:2])
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    x = F.interpolate(x, size=(h, w), mode="bilinear", antialias=True, align_corners=False).float() / 255
    return F.pad((x - trunk.MEAN) / trunk.STD, (0, -w % DIVISOR, 0, -h % DIVISOR)), (h, w)


def see(net: SlimPolarMask, x: Tensor, mirror: bool = True) -> Maps:
    """The network's maps of one picture (1, 3, H, W); with `mirror` the mean of those of the picture and of its mirror image, which costs twice the time."""
    if not mirror:
        return net(x)
    both = net(torch.cat([x, x.flip(3)]))
    order = torch.cat([(torch.arange(h * w, device=x.device).view(h, w).flip(1) + first).flatten() for (h, w), first in zip(both.sizes, firsts(both))])
    count = both.rays.shape[-1]
    rays = -torch.arange(count, device=x.device) % count  # what points left points right in the mirror
    one, other = ([part[i : i + 1] for part in (both.classes, both.quality, both.centerness, both.rays)] for i in (0, 1))
    other = [part[:, order] for part in other]
    other[3] = other[3][..., rays]
    return Maps(*((a + b) / 2 for a, b in zip(one, other)), both.at, both.sizes, both.strides)


def firsts(maps: Maps) -> list[int]:
    """The number of the first cell of each level."""
    ends = [0]
    for h, w in maps.sizes:
        ends.append(ends[-1] + h * w)
    return ends[:-1]


@dataclass(frozen=True)
class Found:
    """n objects: `centers` (n, 2), `rays` (n, N), `contours` (n, N, 2), kept inside of the picture, `scores` (n,) in [0, 1], `classes` (n,), `centerness` (n,),
    `quality` (n,), `level` (n,), 0 for stride 8."""

    centers: Tensor
    rays: Tensor
    contours: Tensor
    scores: Tensor
    classes: Tensor
    centerness: Tensor
    quality: Tensor
    level: Tensor


def levels(maps: Maps) -> Tensor:
    """The level of every cell, (P,)."""
    return torch.cat([torch.full((h * w,), i, device=maps.at.device) for i, (h, w) in enumerate(maps.sizes)])


def class_scores(maps: Maps, use_centerness: bool = True) -> Tensor:
    """How good an answer each cell of the first picture is, for each class: (P, K) in [0, 1]."""
    p = maps.classes[0].sigmoid() * maps.quality[0].sigmoid()[:, None]
    return (p * maps.centerness[0].sigmoid()[:, None]).pow(1 / 3) if use_centerness else p.sqrt()


def detect(maps: Maps, size: tuple[int, int], score: float = 0.1, iou: float = 0.5, limit: int = 100, use_centerness: bool = True, across: float = 0.75) -> Found:
    """The objects of one picture of `size` (height, width), best first. Of the same class, extents of contours suppress each other above `iou`; of different
    ones above `across`: a thing is not two things.

    At most 1,000 answers are compared, however many pass `score`.
    """
    scores = class_scores(maps, use_centerness)
    cell, kind = (scores > score).nonzero(as_tuple=True)
    scores = scores[cell, kind]
    if len(scores) > 1000:
        best = scores.topk(1000).indices
        cell, kind, scores = cell[best], kind[best], scores[best]
    contours = polar.contours(maps.at[cell], maps.rays[0, cell], size)
    boxes = torch.cat([contours.amin(1), contours.amax(1) + 1], 1)
    stay = ops.nms(boxes, scores, iou, kind)
    stay = stay[ops.nms(boxes[stay], scores[stay], across, limit=limit)]
    cell = cell[stay]
    return Found(maps.at[cell], maps.rays[0, cell], contours[stay], scores[stay], kind[stay], maps.centerness[0, cell].sigmoid(), maps.quality[0, cell].sigmoid(), levels(maps)[cell])


def around(maps: Maps, point: tuple[float, float]) -> list[tuple[Tensor, Tensor]]:
    """For each level the cells nearest to `point` (x, y), up to four, and their bilinear weights."""
    found = []
    for stride, (h, w), first in zip(maps.strides, maps.sizes, firsts(maps)):
        index, weight = ops.neighbours(*(maps.at.new_tensor([[(v - stride // 2) / stride]]).clamp(0, n - 1) for v, n in zip(point, (w, h))), (h, w))
        found.append((first + index[0], weight[0]))
    return found


def answer(maps: Maps, size: tuple[int, int], point: tuple[float, float], sharp: float = SHARP) -> Found:
    """The one contour around `point` (x, y).

    The answers of the cells around it are averaged, each counting by how near it is and by how good it thinks it is: to average contours is to average centres
    and rays. The levels count by the power `sharp` of what they expect of themselves: the larger it is, the more the best one answers alone.
    """
    quality = maps.quality[0].sigmoid()
    near = around(maps, point)
    mine = [quality[index] * weight + 1e-9 * weight for index, weight in near]  # never nothing at all
    expected = torch.stack([w.sum() for w in mine])
    share = (expected / expected.max()) ** sharp
    index = torch.cat([index for index, _ in near])
    weight = torch.cat([w / e * part for w, e, part in zip(mine, expected, share)]) / share.sum()

    def mean(x: Tensor) -> Tensor:
        return (x[index] * weight.view(-1, *[1] * (x.ndim - 1))).sum(0, keepdim=True)

    center, rays, classes = mean(maps.at), mean(maps.rays[0]), mean(maps.classes[0].sigmoid())
    contour = polar.contours(center, rays, size)
    score = mean(quality)
    return Found(center, rays, contour, score, classes.argmax(1), mean(maps.centerness[0].sigmoid()), score, expected.argmax()[None])
