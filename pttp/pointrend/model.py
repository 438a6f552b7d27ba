"""PointRend (CVPR 2020): the networks of the paper, nothing else.

Instance segmentation is Faster R-CNN on a ResNet pyramid whose mask head is split in two: a coarse head sees a whole box at 7 x 7 and a point head decides
single points from the fine features at that point and the coarse prediction there. Everything else of the paper is in `points.py` (where to look) and
`render.py` (the subdivision).

Pictures are (B, 3, H, W), BGR in 0..255 minus MEAN, sides a multiple of 32. Symbols: R boxes, K classes, P points.
"""
from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pttp import ops
from pttp.pointrend import points
from pttp.resnet import R50, R101, ResNetFPN

STRIDES = {"p2": 4, "p3": 8, "p4": 16, "p5": 32, "p6": 64}
ANCHORS = 3  # a cell of the region proposal network


class RPNHead(nn.Module):
    """For every cell and each of its three anchors: is it an object, and how does its box differ from the anchor."""

    def __init__(self, channels: int = 256):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.objectness_logits = nn.Conv2d(channels, ANCHORS, 1)
        self.anchor_deltas = nn.Conv2d(channels, 4 * ANCHORS, 1)

    def forward(self, maps: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Levels (B, 256, h, w) -> logits (B, 3, h, w) and deltas (B, 12, h, w) of each."""
        hidden = {level: F.relu(self.conv(x), inplace=True) for level, x in maps.items()}
        return {level: self.objectness_logits(x) for level, x in hidden.items()}, {level: self.anchor_deltas(x) for level, x in hidden.items()}


class BoxHead(nn.Module):
    """From the 7 x 7 RoIAlign of a box: its class, and for every class a finer box."""

    def __init__(self, num_classes: int = 80, channels: int = 256, width: int = 1024):
        super().__init__()
        self.fc1 = nn.Linear(channels * 49, width)
        self.fc2 = nn.Linear(width, width)
        self.cls_score = nn.Linear(width, num_classes + 1)
        self.bbox_pred = nn.Linear(width, 4 * num_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(R, 256, 7, 7) -> logits (R, K + 1), the background last, and deltas (R, 4 K)."""
        x = F.relu(self.fc2(F.relu(self.fc1(x.flatten(1)))))
        return self.cls_score(x), self.bbox_pred(x)


class CoarseHead(nn.Module):
    """Section 4.1: the light-weight coarse mask head. Its features are point samples too: P2 on a regular 14 x 14 grid in the box."""

    def __init__(self, num_classes: int = 80, channels: int = 256, width: int = 1024, side: int = 7):
        super().__init__()
        self.side = side
        self.reduce_spatial_dim_conv = nn.Conv2d(channels, channels, 2, 2)
        self.fc1 = nn.Linear(channels * side * side, width)
        self.fc2 = nn.Linear(width, width)
        self.prediction = nn.Linear(width, num_classes * side * side)

    def pool(self, p2: Tensor, boxes: Tensor, image: Tensor | None = None) -> Tensor:
        """P2 (B, 256, h, w), boxes (R, 4) in pixels -> (R, 256, 14, 14)."""
        side = 2 * self.side
        grid = points.regular_grid(len(boxes), side, boxes)
        return points.sample_in_boxes(p2, STRIDES["p2"], boxes, grid, image).transpose(1, 2).unflatten(2, (side, side))

    def forward(self, x: Tensor) -> Tensor:
        """(R, 256, 14, 14) -> logits (R, K, 7, 7)."""
        x = F.relu(self.reduce_spatial_dim_conv(x)).flatten(1)
        x = self.prediction(F.relu(self.fc2(F.relu(self.fc1(x)))))
        return x.view(len(x), self.prediction.out_features // self.side**2, self.side, self.side)


class PointHead(nn.Module):
    """Section 3.3: one small MLP, shared by all points (hence 1 x 1 convolutions). It sees fine features and the coarse logits of the point.

    With `coarse_each_layer` the coarse logits are given to every layer again, the predictor included (instance segmentation); without, to the first only
    (semantic).
    """

    def __init__(self, num_classes: int = 80, channels: int = 256, width: int = 256, coarse_each_layer: bool = True):
        super().__init__()
        self.coarse_each_layer = coarse_each_layer
        again = num_classes if coarse_each_layer else 0
        self.fc1 = nn.Conv1d(channels + num_classes, width, 1)
        self.fc2 = nn.Conv1d(width + again, width, 1)
        self.fc3 = nn.Conv1d(width + again, width, 1)
        self.predictor = nn.Conv1d(width + again, num_classes, 1)

    def forward(self, fine: Tensor, coarse: Tensor, channels: Tensor | None = None) -> Tensor:
        """`fine` (R, 256, P), `coarse` (R, K, P) -> logits (R, K, P); or only the classes `channels` (R, k) of each box, (R, k, P)."""
        x = torch.cat([fine, coarse], 1)
        for fc in (self.fc1, self.fc2, self.fc3):
            x = F.relu(fc(x), inplace=True)
            if self.coarse_each_layer:
                x = torch.cat([x, coarse], 1)
        if channels is None:
            return self.predictor(x)
        weight = self.predictor.weight[channels, :, 0]  # (R, k, width + K)
        return torch.baddbmm(self.predictor.bias[channels][..., None], weight, x)


class PointRend(nn.Module):
    """Instance segmentation. Detections come from `detect.py`, masks from `render.py`."""

    def __init__(self, num_classes: int = 80, depths: tuple[int, ...] = R50, groups: int = 1, width_per_group: int = 64, stride_in_1x1: bool = True):
        super().__init__()
        self.num_classes = num_classes
        self.backbone = ResNetFPN(depths, groups=groups, width_per_group=width_per_group, stride_in_1x1=stride_in_1x1)
        self.rpn = RPNHead()
        self.box_head = BoxHead(num_classes)
        self.coarse_head = CoarseHead(num_classes)
        self.point_head = PointHead(num_classes)

    def pool(self, maps: dict[str, Tensor], boxes: Tensor) -> Tensor:
        """RoIAlign of boxes (R, 4), each from the level that suits its size: (R, 256, 7, 7). A box of 224 x 224 pixels is read from P4."""
        area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        level = (4 + (area.sqrt() / 224 + 1e-8).log2()).floor().clamp(2, 5)
        x = maps["p2"].new_zeros(len(boxes), maps["p2"].shape[1], 7, 7)
        for i in range(2, 6):
            here = (level == i).nonzero()[:, 0]
            if len(here):
                x[here] = ops.roi_align(maps[f"p{i}"], boxes[here], torch.zeros_like(here), 7, 1 / STRIDES[f"p{i}"])
        return x


class SemanticCoarseHead(nn.Module):
    """Semantic FPN: every level is brought to stride 4 by convolutions and bilinear doublings, and the levels are summed."""

    def __init__(self, num_classes: int = 19, channels: int = 256, width: int = 128):
        super().__init__()
        for level, doublings in (("p2", 0), ("p3", 1), ("p4", 2), ("p5", 3)):
            steps = []
            for i in range(max(doublings, 1)):
                steps.append(ConvNormReLU(width if i else channels, width))
                if doublings:
                    steps.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
            self.add_module(level, nn.Sequential(*steps))
        self.predictor = nn.Conv2d(width, num_classes, 1)

    def forward(self, maps: dict[str, Tensor]) -> Tensor:
        """Levels p2..p5 (B, 256, h, w) -> logits (B, K, H / 4, W / 4)."""
        return self.predictor(self.p2(maps["p2"]) + self.p3(maps["p3"]) + self.p4(maps["p4"]) + self.p5(maps["p5"]))


class ConvNormReLU(nn.Module):
    def __init__(self, in_chs: int, out_chs: int):
        super().__init__()
        self.conv = nn.Conv2d(in_chs, out_chs, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(32, out_chs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class SemanticPointRend(nn.Module):
    """Semantic segmentation (Section 5): the coarse prediction is a map of the whole picture at stride 4. Maps come from `render.semantic`."""

    def __init__(self, num_classes: int = 19, depths: tuple[int, ...] = R101):
        super().__init__()
        self.backbone = ResNetFPN(depths)
        self.coarse_head = SemanticCoarseHead(num_classes)
        self.point_head = PointHead(num_classes, coarse_each_layer=False)
