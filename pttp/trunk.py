"""The image trunk under the rooms' own models: EfficientNet-Lite0 with symmetric padding.

The rooms' networks are the papers'; their published backbones need ImageNet weights that nobody ships inside a package. Our embedded
models stand on this small trunk instead. Key names are timm's `efficientnet_lite0`, so its weights load with `strict=True`.
"""
from __future__ import annotations

import torch
from torch import Tensor, nn

# (blocks, kernel, stride of the first, expansion, channels): the EfficientNet-B0 plan, without squeeze-excite and with ReLU6
STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320))
TAPS = {0: 2, 1: 4, 2: 8, 4: 16, 6: 32}  # the last stage that works at each stride
CHANNELS = {2: 16, 4: 24, 8: 40, 16: 112, 32: 320}
MEAN, STD = 127 / 255, 128 / 255  # of RGB in [0, 1], all three channels alike


class DepthwiseSeparable(nn.Module):
    """The first stage's block: depthwise, then pointwise; no expansion."""

    def __init__(self, in_chs: int, out_chs: int, kernel: int, stride: int):
        super().__init__()
        self.conv_dw = nn.Conv2d(in_chs, in_chs, kernel, stride, kernel // 2, groups=in_chs, bias=False)
        self.bn1 = nn.BatchNorm2d(in_chs)
        self.conv_pw = nn.Conv2d(in_chs, out_chs, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_chs)
        self.residual = stride == 1 and in_chs == out_chs
        self.act = nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv_pw(self.act(self.bn1(self.conv_dw(x)))))
        return x + y if self.residual else y


class InvertedResidual(nn.Module):
    """Expand, depthwise, project; the sum is not activated (MobileNetV2)."""

    def __init__(self, in_chs: int, out_chs: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        mid = in_chs * expansion
        self.conv_pw = nn.Conv2d(in_chs, mid, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(mid)
        self.conv_dw = nn.Conv2d(mid, mid, kernel, stride, kernel // 2, groups=mid, bias=False)
        self.bn2 = nn.BatchNorm2d(mid)
        self.conv_pwl = nn.Conv2d(mid, out_chs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_chs)
        self.residual = stride == 1 and in_chs == out_chs
        self.act = nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.bn1(self.conv_pw(x)))
        y = self.act(self.bn2(self.conv_dw(y)))
        y = self.bn3(self.conv_pwl(y))
        return x + y if self.residual else y


class Trunk(nn.Module):
    """Feature maps of an RGB picture.

    `max_stride` 32 keeps all seven stages (2.96 M parameters), 16 the first five (0.70 M).
    """

    def __init__(self, max_stride: int = 32):
        super().__init__()
        last = {stride: stage for stage, stride in TAPS.items()}[max_stride]
        self.conv_stem = nn.Conv2d(3, 32, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.act = nn.ReLU6(inplace=True)
        self.blocks = nn.ModuleList()
        chs = 32
        for depth, kernel, stride, expansion, out_chs in STAGES[: last + 1]:
            stage = nn.Sequential()
            for i in range(depth):
                s = stride if i == 0 else 1
                stage.append(DepthwiseSeparable(chs, out_chs, kernel, s) if expansion == 1 else InvertedResidual(chs, out_chs, kernel, s, expansion))
                chs = out_chs
            self.blocks.append(stage)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        """`x` (B, 3, H, W) = (RGB in [0, 1] - MEAN) / STD -> {stride: (B, CHANNELS[stride], H / stride, W / stride)}, sizes rounded up."""
        x = self.act(self.bn1(self.conv_stem(x.contiguous(memory_format=torch.channels_last))))
        maps = {}
        for i, stage in enumerate(self.blocks):
            x = stage(x)
            if i in TAPS:
                maps[TAPS[i]] = x
        return maps


class Lite0(Trunk):
    """The trunk with its ImageNet head: the teacher of the GhostNet room, and what `efficientnet_lite0.safetensors` holds."""

    def __init__(self, num_classes: int = 1000):
        super().__init__()
        self.conv_head = nn.Conv2d(CHANNELS[32], 1280, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(1280)
        self.classifier = nn.Linear(1280, num_classes)
        self.to(memory_format=torch.channels_last)

    def head(self, x: Tensor) -> Tensor:
        """Stride-32 map (B, 320, h, w) -> logits (B, num_classes)."""
        return self.classifier(self.act(self.bn2(self.conv_head(x))).mean((2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(super().forward(x)[32])


def trunk_tensors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The part of a Lite0 `state` dict that a `Trunk` holds, as float32."""
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items() if not k.startswith(("conv_head.", "bn2.", "classifier."))}


def conv(in_chs: int, out_chs: int, kernel: int = 1, stride: int = 1, groups: int = 1, dilation: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU; the size is kept but for `stride`."""
    pad = dilation * (kernel // 2)
    layers = [nn.Conv2d(in_chs, out_chs, kernel, stride, pad, dilation, groups, bias=False), nn.BatchNorm2d(out_chs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class Wide(nn.Module):
    """5 x 5 depthwise and pointwise, added to what came in: context at little cost."""

    def __init__(self, chs: int, dilation: int = 1):
        super().__init__()
        self.body = nn.Sequential(conv(chs, chs, 5, groups=chs, dilation=dilation), nn.Conv2d(chs, chs, 1, bias=False), nn.BatchNorm2d(chs))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(x + self.body(x))


class SeparableConv(nn.Sequential):
    """What the heads on the trunk are made of: depthwise, pointwise, group norm, ReLU."""

    def __init__(self, channels: int, kernel: int = 3):
        super().__init__(
            nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.GroupNorm(16, channels),
            nn.ReLU(inplace=True),
        )


class Pyramid(nn.Module):
    """A feature pyramid over the trunk's maps at `strides`, finest first: from the top down, nearest doubling and sum, then 3 x 3."""

    def __init__(self, channels: int, strides: tuple[int, ...]):
        super().__init__()
        self.inner = nn.ModuleDict({str(s): nn.Conv2d(CHANNELS[s], channels, 1) for s in strides})
        self.outer = nn.ModuleDict({str(s): nn.Conv2d(channels, channels, 3, padding=1) for s in strides})

    def forward(self, maps: dict[int, Tensor]) -> dict[int, Tensor]:
        """{stride: (B, CHANNELS[stride], h, w)} -> {stride: (B, channels, h, w)}."""
        levels, above = {}, None
        for s in reversed(list(self.inner)):
            x = self.inner[s](maps[int(s)])
            above = x if above is None else x + nn.functional.interpolate(above, size=x.shape[-2:], mode="nearest")
            levels[int(s)] = self.outer[s](above)
        return levels
