"""PolarMask (CVPR 2020): the network of the paper, nothing else.

One shot, no anchors: every cell of five maps says what is there (class), whether it is a good centre (polar centerness), and how far the contour of the
object lies along 36 rays. A box is predicted, too; it serves only to suppress duplicates.

Pictures are (B, 3, H, W), BGR in 0..255 minus MEAN, sides a multiple of 32.
"""
from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pttp.resnet import R50, ResNetFPN

STRIDES = (8, 16, 32, 64, 128)  # of P3..P7
RAYS = 36
PRIOR = 0.01  # the class probability that an untrained network begins with


class Level(NamedTuple):
    """What the head says of one map. `cls` (B, K, h, w) and `centerness` (B, 1, h, w) are logits; `box` (B, 4, h, w), distances to left, top, right, bottom,
    and `mask` (B, 36, h, w), the rays, are pixels of the picture that the network sees."""

    cls: Tensor
    box: Tensor
    centerness: Tensor
    mask: Tensor


class ConvNormReLU(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.gn = nn.GroupNorm(32, channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.gn(self.conv(x)), inplace=True)


class PolarHead(nn.Module):
    """Section 3.1: three towers, shared by all levels. Centerness comes from the tower of the classes. Each level has a factor of its own for its distances."""

    def __init__(self, num_classes: int = 80, channels: int = 256, rays: int = RAYS, depth: int = 4):
        super().__init__()
        self.cls_convs, self.reg_convs, self.mask_convs = (nn.Sequential(*(ConvNormReLU(channels) for _ in range(depth))) for _ in range(3))
        self.polar_cls = nn.Conv2d(channels, num_classes, 3, padding=1)
        self.polar_reg = nn.Conv2d(channels, 4, 3, padding=1)
        self.polar_mask = nn.Conv2d(channels, rays, 3, padding=1)
        self.polar_centerness = nn.Conv2d(channels, 1, 3, padding=1)
        self.scales_bbox = nn.Parameter(torch.ones(len(STRIDES)))
        self.scales_mask = nn.Parameter(torch.ones(len(STRIDES)))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.constant_(self.polar_cls.bias, -math.log((1 - PRIOR) / PRIOR))

    def forward(self, maps: list[Tensor]) -> list[Level]:
        """P3..P7, each (B, 256, h, w) -> one `Level` each."""
        return [self.level(x, self.scales_bbox[i], self.scales_mask[i]) for i, x in enumerate(maps)]

    def level(self, x: Tensor, scale_bbox: Tensor, scale_mask: Tensor) -> Level:
        cls = self.cls_convs(x)
        box = (self.polar_reg(self.reg_convs(x)) * scale_bbox).exp()
        mask = (self.polar_mask(self.mask_convs(x)) * scale_mask).exp()
        return Level(self.polar_cls(cls), box, self.polar_centerness(cls), mask)


class PolarMask(nn.Module):
    def __init__(self, num_classes: int = 80, depths: tuple[int, ...] = R50, rays: int = RAYS):
        super().__init__()
        self.num_classes = num_classes
        self.backbone = ResNetFPN(depths, first=3, extra="p6p7")
        self.head = PolarHead(num_classes, rays=rays)

    def forward(self, x: Tensor) -> list[Level]:
        """Pictures (B, 3, H, W) -> the five levels, P3 first."""
        return self.head(list(self.backbone(x).values()))


def cells(height: int, width: int, stride: int, like: Tensor) -> Tensor:
    """Where the cells of a map look at the picture: (x, y) in pixels, row by row, (height * width, 2)."""
    y, x = torch.meshgrid(*(torch.arange(n, dtype=like.dtype, device=like.device) * stride + stride // 2 for n in (height, width)), indexing="ij")
    return torch.stack([x, y], -1).view(-1, 2)
