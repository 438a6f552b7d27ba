"""ResNet and feature pyramid of the PointRend and PolarMask authors: torchvision's parts, with the stride where the authors have it."""
from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from pttp.vision import torchvision

CHANNELS = (256, 512, 1024, 2048)  # of C2..C5, at strides 4, 8, 16, 32
R50, R101 = (3, 4, 6, 3), (3, 4, 23, 3)


def resnet(depths: tuple[int, ...] = R50, groups: int = 1, width_per_group: int = 64, stride_in_1x1: bool = True) -> nn.Module:
    """torchvision's ResNet without its classifier.

    `stride_in_1x1` is the original ("caffe", MSRA) plan: the first convolution of a stage strides, not the 3 x 3 that follows it.
    """
    models = torchvision().models.resnet
    net = models.ResNet(models.Bottleneck, list(depths), groups=groups, width_per_group=width_per_group)
    del net.avgpool, net.fc
    if stride_in_1x1:
        for stage in (net.layer2, net.layer3, net.layer4):
            stage[0].conv1.stride, stage[0].conv2.stride = stage[0].conv2.stride, stage[0].conv1.stride
    return net


def stages(net: nn.Module, x: Tensor) -> list[Tensor]:
    """Pictures (B, 3, H, W) -> [C2, C3, C4, C5] of a `resnet`."""
    x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
    maps = []
    for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
        x = stage(x)
        maps.append(x)
    return maps


class ResNetFPN(nn.Module):
    """ResNet, and on it a pyramid of 256 channels without norm or activation.

    `first` is the lowest stage that enters the pyramid (2 or 3). `extra` makes the levels above P5: "pool", P6 is every second cell of P5; "p6p7", P6 is a
    strided convolution of P5 and P7 one of ReLU(P6). Batch norm keeps the statistics of its weights: it stays in evaluation mode also in training.
    """

    def __init__(
        self, depths: tuple[int, ...] = R50, first: int = 2, extra: str = "pool", groups: int = 1, width_per_group: int = 64, stride_in_1x1: bool = True
    ):
        super().__init__()
        pyramid = torchvision().ops.feature_pyramid_network
        more = pyramid.LastLevelMaxPool() if extra == "pool" else pyramid.LastLevelP6P7(256, 256)
        self.first, self.names = first, [f"p{i}" for i in range(first, 7 if extra == "pool" else 8)]
        self.body = resnet(depths, groups, width_per_group, stride_in_1x1)
        self.fpn = pyramid.FeaturePyramidNetwork(list(CHANNELS[first - 2 :]), 256, more)

    def train(self, mode: bool = True) -> ResNetFPN:
        super().train(mode)
        for module in self.body.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Pictures (B, 3, H, W), sides a multiple of 32, -> {"p2": (B, 256, H / 4, W / 4), ...}, from `first` to p6 or p7."""
        maps = stages(self.body, x)[self.first - 2 :]
        return dict(zip(self.names, self.fpn({str(i): m for i, m in enumerate(maps)}).values(), strict=True))


def inference_form(net: nn.Module) -> nn.Module:
    """A copy of `net` for answering only: batch norm folded into the convolutions of every `ResNetFPN` in it, maps and weights channels last."""
    net = copy.deepcopy(net).eval().requires_grad_(False)
    for part in net.modules():
        if isinstance(part, ResNetFPN):
            _fold(part.body)
    return net.to(memory_format=torch.channels_last)


def _fused(conv: nn.Conv2d, bn: nn.BatchNorm2d) -> nn.Conv2d:
    """The one convolution that equals both; computed in float64, so that only the result is rounded, and on the CPU: not every device has float64."""
    device, kind = conv.weight.device, conv.weight.dtype
    return torch.nn.utils.fusion.fuse_conv_bn_eval(conv.cpu().double(), bn.cpu().double()).to(device, kind)


def _fold(body: nn.Module) -> None:
    body.conv1, body.bn1 = _fused(body.conv1, body.bn1), nn.Identity()
    for stage in (body.layer1, body.layer2, body.layer3, body.layer4):
        for block in stage:
            for i in (1, 2, 3):
                fused = _fused(getattr(block, f"conv{i}"), getattr(block, f"bn{i}"))
                setattr(block, f"conv{i}", fused)
                setattr(block, f"bn{i}", nn.Identity())
            if block.downsample is not None:
                block.downsample = _fused(*block.downsample)
