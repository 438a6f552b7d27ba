"""GFM (IJCV 2022), the Glance and Focus Matting network: the networks of the paper, nothing else.

One encoder, two decoders. The glance decoder says what is animal, background or in between; the focus decoder estimates the transparency and is
believed only where glance was not sure (section 3). How the two divide the work is the RoSTa, "representation of semantic and transition areas":

    TT  glance: background | transition | animal         alpha = focus in the transition, 0 or 1 elsewhere
    FT  glance: background and transition | animal       alpha = min(glance + focus, 1)
    BT  glance: background | transition and animal       alpha = max(glance - focus, 0)
    RIM all three at once; the "RoSTa integration module" joins the three mattes

Sizes in the comments are for the backbone r34 and a picture of H x W. Names are those of the authors' code (see official.py); their backbones stand
on torchvision's, and so do ours, without the parts that nothing computes with (classifier, last norm).
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pttp.errors import BadInput
from pttp.vision import torchvision

CLASSES = {"TT": 3, "FT": 2, "BT": 2}  # of the glance decoder
ROSTAS = (*CLASSES, "RIM")
STEP = 32  # heights and widths are multiples of this


@dataclass(frozen=True)
class Plan:
    """`maps`: channels of encoder0, encoder1, ...; `decoders`: output channels of the three convolutions of decoder1, decoder2, ...

    `full_size`: the first two maps have the picture's own size, so that the last two decoder stages need not double theirs.
    """

    maps: tuple[int, ...]
    decoders: tuple[tuple[int, int, int], ...]
    full_size: bool = False


_NARROW = ((64, 64, 64), (128, 128, 64), (256, 256, 128), (512, 512, 256))
PLANS = {
    "r34": Plan((64, 64, 128, 256, 512), _NARROW),
    "r34_2b": Plan((64, 64, 128, 256, 512, 512, 512), (*_NARROW, (512, 512, 512), (512, 512, 512)), full_size=True),
    "d121": Plan((64, 128, 256, 512, 512), _NARROW),
    "r101": Plan((64, 256, 512, 1024, 2048), ((256, 128, 64), (512, 256, 256), (1024, 512, 512), (2048, 1024, 1024))),
}


class Prediction(NamedTuple):
    """What one RoSTa says, all in [0, 1]: `glance` (B, 3 or 2, H, W) a sigmoid per class, `focus` (B, 1, H, W), `fusion` (B, 1, H, W) the alpha matte."""

    glance: Tensor
    focus: Tensor
    fusion: Tensor


class Integrated(NamedTuple):
    """What RIM says: the three predictions, and their `fusion` (B, 1, H, W), which no activation bounds."""

    tt: Prediction
    ft: Prediction
    bt: Prediction
    fusion: Tensor


def conv_bn_relu(in_chs: int, out_chs: int, dilation: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(in_chs, out_chs, 3, padding=dilation, dilation=dilation), nn.BatchNorm2d(out_chs), nn.ReLU(inplace=True)]


def upsample(factor: int) -> nn.Module:
    return nn.Upsample(scale_factor=factor, mode="bilinear", align_corners=False)


def decoder(in_chs: int, chs: tuple[int, int, int], activated: bool = True, double: bool = True) -> nn.Sequential:
    """Three convolutions, the last one followed by norm and ReLU only if `activated`, then twice the size if `double`."""
    last = conv_bn_relu(chs[1], chs[2])
    layers = [*conv_bn_relu(in_chs, chs[0]), *conv_bn_relu(chs[0], chs[1]), *(last if activated else last[:1])]
    return nn.Sequential(*layers, upsample(2)) if double else nn.Sequential(*layers)


def bridge(chs: int) -> nn.Sequential:
    """The focus decoder's look around: three dilated convolutions on the deepest map."""
    return nn.Sequential(*(layer for _ in range(3) for layer in conv_bn_relu(chs, chs, dilation=2)))


class PyramidPooling(nn.Module):
    """The glance decoder's look at the whole picture: averages over 1, 3 x 3 and 5 x 5 fields, spread out again (Zhao et al., PSPNet)."""

    def __init__(self, chs: int, sizes: tuple[int, ...] = (1, 3, 5)):
        super().__init__()
        self.stages = nn.ModuleList(nn.Sequential(nn.AdaptiveAvgPool2d(size), nn.Conv2d(chs, chs, 1, bias=False)) for size in sizes)
        self.bottleneck = nn.Conv2d(chs * (len(sizes) + 1), chs, 1)

    def forward(self, x: Tensor) -> Tensor:
        spread = [F.interpolate(stage(x), size=x.shape[2:], mode="bilinear", align_corners=True) for stage in self.stages]
        return F.relu(self.bottleneck(torch.cat([*spread, x], 1)))


class SqueezeExcite(nn.Module):
    """Channel attention with dense layers and no biases (Hu et al., 2018)."""

    def __init__(self, chs: int, reduction: int = 4):
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(chs, chs // reduction, bias=False), nn.ReLU(inplace=True), nn.Linear(chs // reduction, chs, bias=False), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(x.mean((2, 3)))[:, :, None, None]


def encoders(backbone: str) -> list[nn.Module]:
    """encoder0, encoder1, ... of a backbone, freshly initialised; their output channels are `PLANS[backbone].maps`."""
    models = torchvision().models
    if backbone == "d121":
        f = models.densenet121(weights=None).features
        squeeze = [*conv_bn_relu(1024, 512), nn.MaxPool2d(2, 2, ceil_mode=True)]
        stem = nn.Sequential(f.conv0, f.norm0, f.relu0)  # without its pooling: the maps are twice as large as a DenseNet's
        dense = [nn.Sequential(getattr(f, f"denseblock{i}"), getattr(f, f"transition{i}")) for i in (1, 2, 3)]
        return [stem, *dense, nn.Sequential(f.denseblock4, *squeeze)]
    net = (models.resnet101 if backbone == "r101" else models.resnet34)(weights=None)
    if backbone == "r34_2b":
        block = models.resnet.BasicBlock
        deeper = [nn.Sequential(nn.MaxPool2d(2, 2, ceil_mode=True), *(block(512, 512) for _ in range(3))) for _ in range(2)]
        return [nn.Sequential(*conv_bn_relu(3, 64)), net.layer1, net.layer2, net.layer3, net.layer4, *deeper]
    return [nn.Sequential(net.conv1, net.bn1, net.relu), nn.Sequential(net.maxpool, net.layer1), net.layer2, net.layer3, net.layer4]


def fuse(rosta: str, glance: Tensor, focus: Tensor) -> Tensor:
    """Collaborative matting (section 3.3): the alpha matte (B, 1, H, W) of `glance` (B, 3 or 2, H, W) and `focus` (B, 1, H, W).

    Glance counts by its largest class, the first of equals, so that no gradient reaches it from here.
    """
    index = glance.argmax(1, keepdim=True).to(focus.dtype)
    if rosta == "TT":
        return torch.where(index == 1, focus, (index == 2).to(focus.dtype))
    if rosta == "FT":
        return (index + focus).clamp(max=1)
    return (index - focus).clamp(min=0)


class GFM(nn.Module):
    """`backbone`: r34, r34_2b (two more blocks, and a stem at full size: the model behind the authors' published mattes), d121 or r101;
    `rosta`: TT, FT, BT or RIM. Raises BadInput for any other."""

    def __init__(self, backbone: str = "r34", rosta: str = "TT"):
        super().__init__()
        if backbone not in PLANS or rosta not in ROSTAS:
            raise BadInput(f"There is no GFM of {backbone!r} and {rosta!r}: the backbone is one of {', '.join(PLANS)}, the RoSTa one of {', '.join(ROSTAS)}.")
        self.backbone, self.rosta, self.plan = backbone, rosta, PLANS[backbone]
        maps, plan = self.plan.maps, self.plan
        deep, self.deepest = maps[-1], len(maps) - 1
        for level, encoder in enumerate(encoders(backbone)):
            self.add_module(f"encoder{level}", encoder)
        self.psp_module, self.bridge_block = PyramidPooling(deep), bridge(deep)
        for level in range(self.deepest, 0, -1):
            chs, double = plan.decoders[level - 1], not (plan.full_size and level == 1)
            above = plan.decoders[level][-1] if level < self.deepest else deep
            self.add_module(f"decoder{level}_g", decoder(2 * above, chs, double=double))
            self.add_module(f"decoder{level}_f", decoder(above + maps[level], chs, double=double))
            if level > plan.full_size:  # the pyramid joins the decoder's map wherever a further stage follows
                self.add_module(f"psp{level}", nn.Sequential(*conv_bn_relu(deep, chs[-1]), upsample(2 ** (self.deepest - level + 1))))
        for suffix, classes in self.heads().items():
            for name, out_chs in ((f"decoder0_g{suffix}", classes), (f"decoder0_f{suffix}", 1)):
                head = nn.Sequential(nn.Conv2d(64, out_chs, 3, padding=1)) if plan.full_size else decoder(64 + maps[0], (64, 64, out_chs), activated=False)
                self.add_module(name, head)
        if rosta == "RIM":
            self.rim = nn.Sequential(nn.Conv2d(3, 16, 1), SqueezeExcite(16), nn.Conv2d(16, 1, 1))

    @property
    def config(self) -> dict[str, str]:
        """The keyword arguments that make this network again."""
        return {"backbone": self.backbone, "rosta": self.rosta}

    def heads(self) -> dict[str, int]:
        """Name suffix of each last stage -> classes of its glance."""
        return {f"_{rosta.lower()}": n for rosta, n in CLASSES.items()} if self.rosta == "RIM" else {"": CLASSES[self.rosta]}

    def encode(self, x: Tensor) -> list[Tensor]:
        """`x` (B, 3, H, W) RGB, 0..255, not normalised; H and W multiples of 32 (else BadInput) -> the encoder's maps, largest first."""
        h, w = x.shape[2:]
        if h % STEP or w % STEP or not h or not w:
            raise BadInput(f"GFM works on pictures whose height and width are multiples of {STEP}, not on {w} x {h}: resize the picture first.")
        maps = []
        for level in range(self.deepest + 1):
            x = self.get_submodule(f"encoder{level}")(x)
            maps.append(x)  # (B, 64, H/2, W/2) (B, 64, H/4, W/4) (B, 128, H/8, W/8) (B, 256, H/16, W/16) (B, 512, H/32, W/32)
        return maps

    def glance(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps of `encode` -> class probabilities (B, 3 or 2, H, W): one tensor, or TT, FT and BT of RIM. Of the maps it sees the deepest only."""
        psp = self.psp_module(maps[-1])
        x = torch.cat([psp, maps[-1]], 1)  # (B, 1024, H/32, W/32)
        for level in range(self.deepest, 0, -1):
            x = self.get_submodule(f"decoder{level}_g")(x)
            if level > self.plan.full_size:
                x = torch.cat([self.get_submodule(f"psp{level}")(psp), x], 1)  # (B, 512, H/16, W/16) ... (B, 128, H/2, W/2)
        return [torch.sigmoid(self.get_submodule(f"decoder0_g{suffix}")(x)) for suffix in self.heads()]

    def focus(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps of `encode` -> transparency in the transition area (B, 1, H, W): one tensor, or TT, FT and BT of RIM."""
        x = torch.cat([self.bridge_block(maps[-1]), maps[-1]], 1)  # (B, 1024, H/32, W/32)
        for level in range(self.deepest, 0, -1):
            x = self.get_submodule(f"decoder{level}_f")(x)
            if level > self.plan.full_size:
                x = torch.cat([x, maps[level - 1]], 1)  # (B, 512, H/16, W/16) ... (B, 128, H/2, W/2)
        return [torch.sigmoid(self.get_submodule(f"decoder0_f{suffix}")(x)) for suffix in self.heads()]

    def forward(self, x: Tensor) -> Prediction | Integrated:
        """`x` as in `encode` -> `Prediction`, or `Integrated` where the RoSTa is RIM."""
        maps = self.encode(x)
        rostas = CLASSES if self.rosta == "RIM" else (self.rosta,)
        said = [Prediction(g, f, fuse(r, g, f)) for r, g, f in zip(rostas, self.glance(maps), self.focus(maps), strict=True)]
        if self.rosta != "RIM":
            return said[0]
        return Integrated(*said, self.rim(torch.cat([p.fusion for p in said], 1)))
