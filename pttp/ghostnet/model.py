"""GhostNet (CVPR 2020): the network of the paper, nothing else.

Symbols are the paper's: a layer should produce n feature maps; m = n / s of them are *intrinsic* maps Y' made by an ordinary ("primary")
convolution, the other n - m are *ghost* maps made from Y' by a cheap d x d depthwise operation Phi. Key names equal those of the authors'
checkpoint (and of timm's `ghostnet_*`), so both load with `strict=True`.
"""
from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Table 1 of the paper: kernel, expansion ("#exp"), output channels, squeeze-excite?, stride; one list a stage
STAGES = (
    ((3, 16, 16, False, 1),),
    ((3, 48, 24, False, 2),),
    ((3, 72, 24, False, 1),),
    ((5, 72, 40, True, 2),),
    ((5, 120, 40, True, 1),),
    ((3, 240, 80, False, 2),),
    ((3, 200, 80, False, 1), (3, 184, 80, False, 1), (3, 184, 80, False, 1), (3, 480, 112, True, 1), (3, 672, 112, True, 1)),
    ((5, 672, 160, True, 2),),
    ((5, 960, 160, False, 1), (5, 960, 160, True, 1), (5, 960, 160, False, 1), (5, 960, 160, True, 1)),
)


def round_channels(v: float, divisor: int = 4) -> int:
    """Nearest multiple of `divisor`, never more than 10 % below `v`: the rounding of every width-scaled channel count."""
    new = max(divisor, int(v + divisor / 2) // divisor * divisor)
    return new + divisor if new < 0.9 * v else new


class GhostModule(nn.Module):
    """Section 3.1: n maps from m = ceil(n / s) intrinsic ones.

    Parameters: `inp` c, `oup` n, `kernel_size` k of the primary convolution, `ratio` s, `dw_size` d of the cheap operation.
    """

    def __init__(self, inp: int, oup: int, kernel_size: int = 1, ratio: int = 2, dw_size: int = 3, stride: int = 1, relu: bool = True):
        super().__init__()
        self.oup = oup
        m = math.ceil(oup / ratio)
        ghosts = m * (ratio - 1)
        self.primary_conv = nn.Sequential(
            nn.Conv2d(inp, m, kernel_size, stride, kernel_size // 2, bias=False),
            nn.BatchNorm2d(m),
            nn.ReLU(inplace=True) if relu else nn.Identity(),
        )
        self.cheap_operation = nn.Sequential(
            nn.Conv2d(m, ghosts, dw_size, 1, dw_size // 2, groups=m, bias=False),
            nn.BatchNorm2d(ghosts),
            nn.ReLU(inplace=True) if relu else nn.Identity(),
        )

    def forward(self, x: Tensor) -> Tensor:
        intrinsic = self.primary_conv(x)  # Y' = X * f'          (B, m, H, W)      eq. 2
        ghost = self.cheap_operation(intrinsic)  # y_ij = Phi_ij(y'_i)  (B, m (s - 1), H, W)   eq. 3
        y = torch.cat([intrinsic, ghost], 1)  # the identity Phi_is keeps the intrinsic maps themselves
        return y[:, : self.oup]  # n may not be a multiple of s


class SqueezeExcite(nn.Module):
    """Channel attention as in MobileNetV3: no batch norm inside, hard sigmoid as the gate."""

    def __init__(self, in_chs: int, se_ratio: float = 0.25):
        super().__init__()
        reduced = round_channels(in_chs * se_ratio)
        self.conv_reduce = nn.Conv2d(in_chs, reduced, 1)
        self.act1 = nn.ReLU(inplace=True)
        self.conv_expand = nn.Conv2d(reduced, in_chs, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.conv_expand(self.act1(self.conv_reduce(x.mean((2, 3), keepdim=True))))  # (B, C, 1, 1)
        return x * (F.relu6(gate + 3) / 6)


class GhostBottleneck(nn.Module):
    """Section 3.2, Figure 3: one ghost module expands, one shrinks; the shortcut joins their ends; nothing is activated after the sum."""

    def __init__(self, in_chs: int, mid_chs: int, out_chs: int, dw_kernel_size: int = 3, stride: int = 1, se_ratio: float = 0.0, ratio: int = 2):
        super().__init__()
        self.stride = stride
        self.ghost1 = GhostModule(in_chs, mid_chs, ratio=ratio)
        if stride > 1:
            self.conv_dw = nn.Conv2d(mid_chs, mid_chs, dw_kernel_size, stride, (dw_kernel_size - 1) // 2, groups=mid_chs, bias=False)
            self.bn_dw = nn.BatchNorm2d(mid_chs)
        self.se = SqueezeExcite(mid_chs, se_ratio) if se_ratio else None
        self.ghost2 = GhostModule(mid_chs, out_chs, ratio=ratio, relu=False)
        self.shortcut = nn.Sequential()
        if in_chs != out_chs or stride > 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_chs, in_chs, dw_kernel_size, stride, (dw_kernel_size - 1) // 2, groups=in_chs, bias=False),
                nn.BatchNorm2d(in_chs),
                nn.Conv2d(in_chs, out_chs, 1, bias=False),
                nn.BatchNorm2d(out_chs),
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.ghost1(x)
        if self.stride > 1:
            y = self.bn_dw(self.conv_dw(y))
        if self.se is not None:
            y = self.se(y)
        return self.ghost2(y) + self.shortcut(x)


class ConvBnAct(nn.Module):
    """The last 1 x 1 convolution before pooling (`blocks.9.0`)."""

    def __init__(self, in_chs: int, out_chs: int):
        super().__init__()
        self.conv = nn.Conv2d(in_chs, out_chs, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_chs)
        self.act1 = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act1(self.bn1(self.conv(x)))


class GhostNet(nn.Module):
    """Table 1. `width` alpha scales every channel count but the 1280 of the head; `ratio` is s of every ghost module (the paper's is 2)."""

    def __init__(self, num_classes: int = 1000, width: float = 1.0, dropout: float = 0.2, ratio: int = 2):
        super().__init__()
        self.dropout = dropout
        chs = round_channels(16 * width)
        self.conv_stem = nn.Conv2d(3, chs, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(chs)
        self.act1 = nn.ReLU(inplace=True)
        stages = []
        for stage in STAGES:
            blocks = []
            for k, exp, out, se, stride in stage:
                mid, out = round_channels(exp * width), round_channels(out * width)
                blocks.append(GhostBottleneck(chs, mid, out, k, stride, 0.25 if se else 0.0, ratio))
                chs = out
            stages.append(nn.Sequential(*blocks))
        last = round_channels(960 * width)
        stages.append(nn.Sequential(ConvBnAct(chs, last)))
        self.blocks = nn.Sequential(*stages)
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.conv_head = nn.Conv2d(last, 1280, 1)
        self.act2 = nn.ReLU(inplace=True)
        self.classifier = nn.Linear(1280, num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """`x` (B, 3, H, W), ImageNet-normalised -> (B, 960 * width, ceil(H / 32), ceil(W / 32))."""
        return self.blocks(self.act1(self.bn1(self.conv_stem(x))))

    def forward_head(self, x: Tensor) -> Tensor:
        """(B, 960 * width, h, w) -> logits (B, num_classes)."""
        x = self.act2(self.conv_head(self.global_pool(x))).flatten(1)  # (B, 1280)
        return self.classifier(F.dropout(x, self.dropout, self.training))

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))
