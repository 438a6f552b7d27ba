"""The six papers, in the order of the home page: newest entry first, numbered 6 to 1."""
from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path


@dataclass(frozen=True)
class Link:
    label: str
    url: str


@dataclass(frozen=True)
class HubWeights:
    """Weights on the Hub that are better than the embedded ones: `repo`, its commit where we know it, the file, its SHA-256 where we know it."""

    repo: str
    licence: str
    trained_on: str
    reported: str
    revision: str | None = None
    filename: str = "model.safetensors"
    sha256: str | None = None


@dataclass(frozen=True)
class Paper:
    """One paper. `authors` in the paper's order (the page stars the first); `summary` is one sentence, `abstract` a few, both in our own words."""

    name: str
    number: int
    short: str
    title: str
    authors: tuple[str, ...]
    venue: str
    task: str
    summary: str
    abstract: str
    links: tuple[Link, ...]
    accent: str
    hub: HubWeights | None = None

    @property
    def room(self) -> Path:
        """The folder pttp/<name>."""
        return Path(__file__).parent / self.name

    @cached_property
    def measured(self) -> dict:
        """What the evaluation command wrote beside the embedded weights; empty while there are none."""
        file = self.room / "weights" / "metrics.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _links(arxiv: str, **others: str) -> tuple[Link, ...]:
    return (Link("arXiv", f"https://arxiv.org/abs/{arxiv}"), *(Link(label.replace("_", " "), url) for label, url in others.items()))


_PAPERS = (
    Paper(
        name="pointrend",
        number=6,
        short="PointRend",
        title="PointRend: Image Segmentation as Rendering",
        authors=("Alexander Kirillov", "Yuxin Wu", "Kaiming He", "Ross Girshick"),
        venue="CVPR 2020",
        task="Click to segment",
        summary="Draw a mask the way a renderer draws an edge: coarse first, then only where it is not sure.",
        abstract="A segmentation network usually predicts every pixel of a small grid and stretches the result, so borders come out soft. PointRend treats the mask as something to "
        "render. It starts from a coarse prediction and, level by level, looks only at the points whose label is still uncertain: a small network reads fine image features at "
        "exactly those points and decides again. Borders become crisp at high resolution, for a fraction of the work that a dense prediction would need, in instance and in semantic segmentation.",
        links=_links("1912.08193", video="https://www.youtube.com/watch?v=yvNZGDZC3F8", code="https://github.com/facebookresearch/detectron2/tree/main/projects/PointRend"),
        accent="#2563eb",
    ),
    Paper(
        name="polarmask",
        number=5,
        short="PolarMask",
        title="PolarMask: Single Shot Instance Segmentation with Polar Representation",
        authors=("Enze Xie", "Peize Sun", "Xiaoge Song", "Wenhai Wang", "Ding Liang", "Chunhua Shen", "Ping Luo"),
        venue="CVPR 2020",
        task="Instances as rays",
        summary="An object is a centre and the lengths of 36 rays: no anchors, no second stage, one shot.",
        abstract="Instance segmentation is reduced to what a one-stage detector already does. The network says which cells of a grid are good centres of an object and, for each of them, "
        "how far the object's contour lies along 36 directions; joining the ends of the rays draws the mask. A loss on the overlap of two polar shapes trains all rays together instead of "
        "one by one, and a score called polar centerness prefers centres from which the rays have similar lengths.",
        links=_links(
            "1909.13226",
            video="https://www.youtube.com/watch?v=sysySMr3YN4",
            code="https://github.com/xieenze/PolarMask",
            study="https://zhuanlan.zhihu.com/p/84890413",
        ),
        accent="#7c3aed",
    ),
    Paper(
        name="gfm",
        number=4,
        short="GFM",
        title="Bridging Composite and Real: Towards End-to-end Deep Image Matting",
        authors=("Jizhizi Li", "Jing Zhang", "Stephen J. Maybank", "Dacheng Tao"),
        venue="IJCV 2022",
        task="Animal matting",
        summary="Glance at the whole animal, focus on its hair, and join the two into an alpha matte without a trimap.",
        abstract="Cutting out a furry animal asks for two different skills: to know what is animal at all, and to trace single hairs. GFM shares one encoder between two decoders. The glance decoder sorts "
        "the picture into background, animal and a band in between; the focus decoder estimates transparency and is believed only inside that band. The authors also collected 2,000 natural animal photos with "
        "careful mattes, and a way of composing training pictures (resolution, sharpness and noise made to agree) that narrows the gap between pasted and real photos.",
        links=_links(
            "2010.16188",
            project="https://github.com/JizhiziLi/animal-matting",
            code="https://github.com/JizhiziLi/GFM",
            related="https://arxiv.org/abs/2009.06613",
        ),
        accent="#0f766e",
    ),
    Paper(
        name="ghostnet",
        number=3,
        short="GhostNet",
        title="GhostNet: More Features from Cheap Operations",
        authors=("Kai Han", "Yunhe Wang", "Qi Tian", "Jianyuan Guo", "Chunjing Xu", "Chang Xu"),
        venue="CVPR 2020",
        task="Classification",
        summary="Half of a layer's feature maps look like copies of the other half, so make them cheaply.",
        abstract="Look at the feature maps of a trained network and many come in near-identical pairs. GhostNet does not pay for both of a pair: an ordinary convolution makes half of the maps, and a tiny filter "
        "per map makes a 'ghost' of each for the other half. Put into a MobileNetV3-like plan, such layers reach a better accuracy for the same number of multiplications. Whether fewer multiplications also mean "
        "less time is a different question, which this tab lets you measure.",
        links=_links("1911.11907", video="https://www.youtube.com/watch?v=xthNLbn1bUY", code="https://github.com/huawei-noah/Efficient-AI-Backbones"),
        accent="#b45309",
        hub=HubWeights(
            repo="timm/ghostnet_100.in1k",
            licence="Apache-2.0",
            trained_on="ImageNet-1k, by the authors",
            reported="73.98 % top-1, 91.46 % top-5 on ImageNet val (as published with the authors' checkpoint)",
        ),
    ),
    Paper(
        name="stegastamp",
        number=2,
        short="StegaStamp",
        title="StegaStamp: Invisible Hyperlinks in Physical Photographs",
        authors=("Matthew Tancik", "Ben Mildenhall", "Ren Ng"),
        venue="CVPR 2020",
        task="Hide a link in a photo",
        summary="Hide a link in a photo so that a camera pointed at the print or the screen can read it back.",
        abstract="One network changes a photo so slightly that people do not notice; another reads 100 bits out of the changed photo, 56 of them free to use after error correction. What makes it survive the physical "
        "world is what stands between the two during training: a differentiable imitation of printing, tilting, blurring, lighting, noise and JPEG. A third network finds the photo in the camera's frame.",
        links=_links(
            "1904.05343",
            project="https://www.matthewtancik.com/stegastamp",
            video="https://www.youtube.com/watch?v=E8OqgNDBGO0",
            code="https://github.com/tancik/StegaStamp",
        ),
        accent="#be123c",
    ),
    Paper(
        name="cagan",
        number=1,
        short="CA-GAN",
        title="CA-GAN: Weakly Supervised Color Aware GAN for Controllable Makeup Transfer",
        authors=("Robin Kips", "Pietro Gori", "Matthieu Perrot", "Isabelle Bloch"),
        venue="AIM workshop, ECCV 2020",
        task="Makeup colour picker",
        summary="Change lipstick or eye shadow to any colour you pick, and nothing else.",
        abstract="Most makeup networks copy the look of another face. CA-GAN is told a colour instead. Nobody labelled its training photos with colours: a simple estimate of the lip or eye-shadow colour, right on "
        "average and wrong in places, is enough of a teacher when the discriminator also has to judge colours. Skin colour is estimated the same way, so that the network learns to leave it alone. "
        "No code was ever published; this is an implementation from the paper.",
        links=_links("2008.10298", project="https://robinkips.github.io/CA-GAN/", video="https://www.youtube.com/watch?v=3YjkkxgAIKw"),
        accent="#a21caf",
    ),
)


def papers() -> tuple[Paper, ...]:
    """The six Paper records, in the order of the home page."""
    return _PAPERS


def paper(name: str) -> Paper:
    """The record called `name`; KeyError when there is none."""
    return {p.name: p for p in _PAPERS}[name]
