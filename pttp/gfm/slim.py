"""The embedded GFM: the paper's two decoders, made slim, on the shared trunk. RoSTa TT; fusion and losses are those of model.py and losses.py.

Where it leaves the paper: the encoder is EfficientNet-Lite0 (pttp/trunk.py); glance too sees the finer maps, because a small encoder's deepest map alone
loses legs and tails, and stops at a quarter of the size, enough for an area; focus ends on the picture itself, where the hair is.
"""
from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pttp.errors import BadInput
from pttp.gfm.model import STEP, Prediction, fuse, upsample
from pttp.trunk import CHANNELS, MEAN, STD, Trunk


def conv_bn_relu(in_chs: int, out_chs: int, kernel: int = 3, dilation: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(in_chs, out_chs, kernel, padding=kernel // 2 * dilation, dilation=dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_chs), nn.ReLU(inplace=True))


class PyramidPooling(nn.Module):
    """The whole picture at a glance: averages over 1, 3 x 3 and 5 x 5 fields join the map that they are taken from."""

    def __init__(self, in_chs: int, out_chs: int, sizes: tuple[int, ...] = (1, 3, 5)):
        super().__init__()
        part = out_chs // 4
        self.sizes = sizes
        self.reduce = conv_bn_relu(in_chs, out_chs, 1)
        self.stages = nn.ModuleList(nn.Conv2d(out_chs, part, 1) for _ in sizes)
        self.join = conv_bn_relu(out_chs + part * len(sizes), out_chs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.reduce(x)
        fields = [F.relu(stage(F.adaptive_avg_pool2d(x, size))) for size, stage in zip(self.sizes, self.stages, strict=True)]
        return self.join(torch.cat([x, *(F.interpolate(f, size=x.shape[2:], mode="bilinear", align_corners=True) for f in fields)], 1))


class Up(nn.Module):
    """Twice the size, joined with the encoder's map of that size, one convolution."""

    def __init__(self, in_chs: int, skip_chs: int, out_chs: int):
        super().__init__()
        self.grow = upsample(2)
        self.conv = conv_bn_relu(in_chs + skip_chs, out_chs)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.conv(torch.cat([self.grow(x), skip], 1))


def at_size(image: Tensor, long_side: int) -> Tensor:
    """`image` (B, 3, H, W) resized for the network: its long side about `long_side`, both sides multiples of 32, at least 32."""
    scale = long_side / max(image.shape[2:])
    size = [max(STEP, round(side * scale / STEP) * STEP) for side in image.shape[2:]]
    return F.interpolate(image, size=size, mode="bilinear", antialias=True, align_corners=False)


class Finest(nn.Module):
    """To the picture's own size: the same kind of step, but the two parts have a convolution each, the wide one before the size is doubled.

    A third of the cost where the map is largest.
    """

    def __init__(self, in_chs: int, skip_chs: int, out_chs: int):
        super().__init__()
        self.grow = upsample(2)
        self.above = nn.Conv2d(in_chs, out_chs, 3, padding=1, bias=False)
        self.beside = nn.Conv2d(skip_chs, out_chs, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out_chs)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return F.relu(self.norm(self.grow(self.above(x)) + self.beside(skip)))


class SlimGFM(nn.Module):
    """`glance`: channels of the glance decoder at strides 32, 16, 8, 4; `focus`: of the focus decoder at strides 32, 16, 8, 4, 2, 1."""

    rosta = "TT"

    def __init__(self, glance: tuple[int, ...] = (128, 96, 64, 48), focus: tuple[int, ...] = (96, 64, 48, 32, 24, 16)):
        super().__init__()
        self.widths = {"glance": list(glance), "focus": list(focus)}
        skips = [CHANNELS[stride] for stride in (16, 8, 4, 2)] + [3]
        self.trunk = Trunk()
        self.pyramid = PyramidPooling(CHANNELS[32], glance[0])
        self.glance_ups = nn.ModuleList(Up(a, skip, b) for a, b, skip in zip(glance, glance[1:], skips, strict=False))
        self.glance_head = nn.Conv2d(glance[-1], 3, 1)
        self.bridge = nn.Sequential(conv_bn_relu(CHANNELS[32], focus[0], 1), conv_bn_relu(focus[0], focus[0], dilation=2))
        self.focus_ups = nn.ModuleList((Finest if skip == 3 else Up)(a, skip, b) for a, b, skip in zip(focus, focus[1:], skips, strict=False))
        self.focus_head = nn.Conv2d(focus[-1], 1, 3, padding=1)
        self.to(memory_format=torch.channels_last)

    @property
    def config(self) -> dict[str, list[int]]:
        """The keyword arguments that make this network again."""
        return self.widths

    def train(self, mode: bool = True) -> "SlimGFM":
        """As usual, but the trunk keeps the statistics of ImageNet: a batch of a few photos has none worth having."""
        super().train(mode)
        self.trunk.eval()
        return self

    def encode(self, x: Tensor) -> list[Tensor]:
        """`x` (B, 3, H, W) RGB, 0..255, not normalised; H and W multiples of 32 (else BadInput) -> the normalised picture and the trunk's maps, largest first."""
        h, w = x.shape[2:]
        if h % STEP or w % STEP or not h or not w:
            raise BadInput(f"GFM works on pictures whose height and width are multiples of {STEP}, not on {w} x {h}: resize the picture first.")
        x = ((x / 255 - MEAN) / STD).contiguous(memory_format=torch.channels_last)
        maps = self.trunk(x)
        return [x, *(maps[stride] for stride in (2, 4, 8, 16, 32))]

    def glance_logits(self, maps: list[Tensor]) -> Tensor:
        """Maps of `encode` -> class scores before the softmax (B, 3, H, W): background, transition, animal."""
        x = self.pyramid(maps[-1])  # (B, 128, H/32, W/32)
        for up, skip in zip(self.glance_ups, maps[-2::-1], strict=False):
            x = up(x, skip)  # (B, 96, H/16, W/16) (B, 64, H/8, W/8) (B, 48, H/4, W/4)
        return F.interpolate(self.glance_head(x), size=maps[0].shape[2:], mode="bilinear", align_corners=False)

    def glance(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps of `encode` -> one tensor in a list, as in `GFM.glance`: class probabilities (B, 3, H, W) that sum to 1."""
        return [self.glance_logits(maps).softmax(1)]

    def focus(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps of `encode` -> one tensor in a list, as in `GFM.focus`: transparency in the transition area (B, 1, H, W)."""
        x = self.bridge(maps[-1])  # (B, 96, H/32, W/32)
        for up, skip in zip(self.focus_ups, maps[-2::-1], strict=True):
            x = up(x, skip)  # (B, 64, H/16, W/16) ... (B, 24, H/2, W/2) (B, 16, H, W)
        return [torch.sigmoid(self.focus_head(x))]

    def forward(self, x: Tensor) -> Prediction:
        """`x` as in `encode` -> `Prediction` of the RoSTa TT; glance sums to 1 over its classes here."""
        maps = self.encode(x)
        (glance,), (focus,) = self.glance(maps), self.focus(maps)
        return Prediction(glance, focus, fuse("TT", glance, focus))
