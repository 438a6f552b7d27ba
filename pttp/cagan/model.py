"""The networks of CA-GAN: a generator that is told a colour, and one discriminator with three outputs (here four: the inner mouth counts too).

The authors published no architecture in detail. Ours stands on the house's trunk, which both networks read; what it sees does not depend on the colour, so that
another colour for the same picture costs the generator's decoder alone. No mask enters G.

x: pictures (B, 3, S, S) RGB in [0, 1], S a multiple of 16, close-ups of lips or of one eye. c: scaled Lab colours (B, 3), see colour.py. region: (B,) long,
rank in weak.REGIONS.
"""
from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pttp import trunk
from pttp.cagan.colour import lab_to_rgb, rgb_to_lab, scaled, unscaled
from pttp.cagan.locate import Locator
from pttp.cagan.losses import gaussian_blur
from pttp.cagan.weak import REGIONS

STYLE = 64
SOFT = 0.8  # pixels, sigma of the blur of G's map
FLOOR = 0.05  # a sigmoid never reaches 0 or 1: what is nearer to them than this is 0 or 1


class Change(NamedTuple):
    """What G did: x' `image` (B, 3, S, S); `lab` the same, scaled; `where` (B, 1, S, S) in [0, 1]; `shift` (B, 3, S, S) of scaled Lab, so that
    x' = x + where * shift; `own` (B, 3), the makeup colour that G sees in x."""

    image: Tensor
    lab: Tensor
    where: Tensor
    shift: Tensor
    own: Tensor


class Judgement(NamedTuple):
    """What D says of a picture: `makeup`, `skin`, `inside` (B, 3), scaled Lab; `real` (B, 1, S/8, S/8), high where it believes; `looks` (B, 3, S/4, S/4), how
    much each place counts for each of the three colours, summing to 1."""

    makeup: Tensor
    skin: Tensor
    inside: Tensor
    real: Tensor
    looks: Tensor


def attend(logits: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Means of `values` (B, V, h, w) under the softmax of `logits` (B, K, h, w) over all places: (B, K, V), and the weights (B, K, h, w)."""
    weights = logits.flatten(2).softmax(2)
    return weights @ values.flatten(2).transpose(1, 2), weights.view_as(logits)


def of_region(maps: Tensor, region: Tensor) -> Tensor:
    """`maps` (B, R * K, h, w), one group of K for each region -> those of each picture's region (B, K, h, w)."""
    grouped = maps.unflatten(1, (len(REGIONS), -1))
    return grouped[torch.arange(len(maps), device=maps.device), region]


def one_hot(region: Tensor, like: Tensor) -> Tensor:
    return F.one_hot(region, len(REGIONS)).to(like.dtype)


class Film(nn.Module):
    """Two 3 x 3 convolutions beside the identity; the style sets scale and shift between them.

    StarGAN's instance norm would take each map's mean away, and with it the constant planes that carry the colour. Group norm with one group takes away one
    mean for all maps together; without any norm the maps grow until one step in thousands explodes.
    """

    def __init__(self, chs: int):
        super().__init__()
        self.norm = nn.GroupNorm(1, chs)
        self.first, self.second = nn.Conv2d(chs, chs, 3, padding=1), nn.Conv2d(chs, chs, 3, padding=1)
        self.style = nn.Linear(STYLE, 2 * chs)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        scale, shift = self.style(style)[:, :, None, None].chunk(2, 1)
        return F.relu(x + self.second(F.relu(self.first(self.norm(x)) * (1 + scale) + shift)))


class Generator(nn.Module):
    """G(x, c) -> x'. The decoder climbs from stride 16 to the picture; each step's style knows the colour asked for, the colour found, and the region."""

    def __init__(self, widths: tuple[int, ...] = (96, 64, 48, 32), last: int = 16):
        super().__init__()
        strides = (16, 8, 4, 2)
        self.look = nn.Sequential(nn.Conv2d(trunk.CHANNELS[16] + trunk.CHANNELS[8], 64, 1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, len(REGIONS), 1))
        self.mlp = nn.Sequential(nn.Linear(9 + len(REGIONS), STYLE), nn.ReLU(), nn.Linear(STYLE, STYLE), nn.ReLU())
        self.sides = nn.ModuleList(nn.Conv2d(trunk.CHANNELS[s], w, 1) for s, w in zip(strides, widths, strict=True))
        self.blocks = nn.ModuleList(Film(w) for w in widths)
        self.ups = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(widths, (*widths[1:], last), strict=True))
        self.pixels = nn.Conv2d(6, last, 3, padding=1)
        self.norm = nn.GroupNorm(1, last)
        self.heads = nn.Conv2d(last, 4, 3, padding=1)
        nn.init.normal_(self.heads.weight, std=0.01)
        nn.init.constant_(self.heads.bias, 0.0)

    def own_colour(self, lab: Tensor, maps: dict[int, Tensor], region: Tensor) -> Tensor:
        """The makeup colour that G sees in x, (B, 3): a mean of its pixels, weighted by where G thinks the makeup is."""
        logits = self.look(torch.cat([_up(maps[16], maps[8]), maps[8]], 1))
        return attend(of_region(logits, region), F.avg_pool2d(lab, 8))[0][:, 0]

    def forward(self, x: Tensor, maps: dict[int, Tensor], c: Tensor, region: Tensor) -> Change:
        """`maps` is the trunk's view of x."""
        lab = scaled(rgb_to_lab(x))
        own = self.own_colour(lab, maps, region)
        style = self.mlp(torch.cat([c, own, c - own, one_hot(region, c)], 1))
        h = self.sides[0](maps[16])
        for i, block in enumerate(self.blocks):
            h = block(h, style)
            h = self.ups[i](h)
            h = _double(h) + (self.sides[i + 1](maps[(16, 8, 4, 2)[i + 1]]) if i + 1 < len(self.blocks) else 0)
        h = F.relu(h + self.pixels(torch.cat([lab, lab - own[:, :, None, None]], 1)))  # (B, 16, S, S)
        heads = self.heads(self.norm(h))
        where = gaussian_blur(F.pad(heads[:, :1].sigmoid(), (4, 4, 4, 4), mode="replicate"), 9, SOFT)  # a border that nobody sees
        if not self.training:  # a hint of lipstick all over a face is a change of skin; in training there would be no gradient
            where = ((where - FLOOR) / (1 - 2 * FLOOR)).clamp(0, 1)
        # what is asked minus what is there, and what the network adds: so it cannot begin as the identity and never leave it
        shift = (c - own)[:, :, None, None] + heads[:, 1:]
        changed = lab + where * shift
        return Change(lab_to_rgb(unscaled(changed)), changed, where, shift, own)


class Discriminator(nn.Module):
    """D(x) -> makeup colour, skin colour, inner colour, real/fake map.

    A colour is a weighted mean of the picture's own pixels; what D learns is where to look. So its estimates can be looked at, and lie in the picture's gamut.
    """

    def __init__(self, chs: int = 48):
        super().__init__()
        self.side16, self.side8, self.side4 = (nn.Conv2d(trunk.CHANNELS[s], chs, 1) for s in (16, 8, 4))
        self.mix8, self.mix4 = nn.Conv2d(chs, chs, 3, padding=1), nn.Conv2d(chs, chs, 3, padding=1)
        self.look = nn.Conv2d(chs, 3 * len(REGIONS), 1)
        self.critic = nn.Sequential(nn.Conv2d(chs + trunk.CHANNELS[8] + 3, 64, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(64, 1, 3, padding=1))

    def forward(self, x: Tensor, maps: dict[int, Tensor], region: Tensor) -> Judgement:
        lab = scaled(rgb_to_lab(x))
        h8 = F.relu(self.mix8(F.relu(_up(self.side16(maps[16]), maps[8]) + self.side8(maps[8]))))
        h4 = F.relu(self.mix4(F.relu(_up(h8, maps[4]) + self.side4(maps[4]))))
        colours, looks = attend(of_region(self.look(h4), region), F.avg_pool2d(lab, 4))
        real = self.critic(torch.cat([h8, maps[8], F.avg_pool2d(lab, 8)], 1))
        return Judgement(colours[:, 0], colours[:, 1], colours[:, 2], real, looks)


class CAGAN(nn.Module):
    """The trunk, G and D; and, where close-ups have to be found first, the localiser, which has a trunk of its own."""

    def __init__(self, size: int = 128, locator: bool = False):
        super().__init__()
        self.size = size
        self.trunk = trunk.Trunk(max_stride=16)
        self.generator, self.discriminator = Generator(), Discriminator()
        self.locator = Locator() if locator else None
        self.to(memory_format=torch.channels_last)

    @property
    def config(self) -> dict:
        return {"size": self.size, "locator": self.locator is not None}

    def train(self, mode: bool = True) -> "CAGAN":
        """The trunk's batch-norm statistics are ImageNet's and stay so."""
        super().train(mode)
        self.trunk.eval()
        return self

    def encode(self, x: Tensor) -> dict[int, Tensor]:
        """What both networks read: {stride: (B, channels, S / stride, S / stride)}."""
        return self.trunk((x - trunk.MEAN) / trunk.STD)

    def forward(self, x: Tensor, c: Tensor, region: Tensor) -> Change:
        return self.generator(x, self.encode(x), c, region)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def _up(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)
