"""How the embedded model was made: `python -m pttp.polarmask.train --help`.

One stage, resumable; every batch has its own side, larger views come in smaller batches. In a step

- a cell that lies on an object of its level's size is positive (the paper keeps to cells near the centre; here one can click anywhere), and learns the object's
  rays as measured from it, by the authors' rule; polar IoU loss, weighted by polar centerness, so that bad centres count little;
- it learns its class by focal loss, its polar centerness, and its quality, the polar IoU of its own rays with the true ones;
- what a photo does not tell is left out: see `Views.complete`;
- the trunk's first stages and all its batch norms stay as ImageNet left them.

Then `evaluate` measures the moving average, as it will be shipped, on photos that were kept aside, and `export` writes weights, metrics.json and MODEL_CARD.md.
`--rays`, `--loss` and `--no-centerness` are the paper's ablations.
"""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F

from pttp import trunk
from pttp.polarmask import ablate, evaluate, polar, targets
from pttp.polarmask.losses import polar_iou_loss
from pttp.polarmask.model import RAYS, cells
from pttp.polarmask.slim import STRIDES, Maps, SlimPolarMask
from pttp.training.export import LICENCE, MASKS, add_start, command, fill, freeze_trunk, gone_on, half, head, mean_of, parameters, precision_rows, start_trunk, write
from pttp.training.instances import CLASSES, Mask, Photo, Views, few, read, sampler
from pttp.training.loop import amount, drawn, fit, leave_to_main, made, processes, trunk_groups
from pttp.training.photos import data_root

SIDES = (224, 256, 288, 320)  # of the views
RANGES = ((0, 64), (40, 160), (80, np.inf))  # half of the longer side of an object's box, by level; where two overlap, both learn it
MOST = 40  # cells of one object on one level that learn in a step
FINE = 128  # a mask is enlarged to about so many pixels before its rays are measured: the rule in whole degrees is made for large pictures
ALPHA = 0.25  # of the focal loss of the classes
SIZES = (320, 384, 448)  # longer sides that are measured


class Truth(NamedTuple):
    """What the cells of B pictures shall say. Of n positive cells: `picture`, `cell` (n,), true `rays` (n, N), `labels` (n,), -1 = unknown. Of all: `known`
    (B, P, K) and `known_any` (B, P), whether a cell that is not positive shall say no, to a class and to everything."""

    picture: Tensor
    cell: Tensor
    rays: Tensor
    labels: Tensor
    known: Tensor
    known_any: Tensor

    def to(self, device) -> "Truth":
        return Truth(*(x.to(device, non_blocking=True) for x in self))


def rim(mask: Mask) -> tuple[Mask, np.ndarray]:
    """The part of `mask` that its contour is drawn around, and that contour (n, 2), in no order: the same pixels as `targets.contour`'s, ten times sooner. Of
    several parts it is the one with the most pixels."""
    padded = np.pad(mask, 1)
    parts, count = ndimage.label(padded, np.ones((3, 3)))
    if count > 1:
        padded = parts == np.bincount(parts.ravel())[1:].argmax() + 1
    outside, count = ndimage.label(~padded)
    if count > 1:
        outside = outside == outside[0, 0]
    else:
        outside = ~padded
    beside = np.zeros_like(padded)
    beside[1:] |= outside[:-1]
    beside[:-1] |= outside[1:]
    beside[:, 1:] |= outside[:, :-1]
    beside[:, :-1] |= outside[:, 1:]
    y, x = np.nonzero(beside & padded)
    return padded[1:-1, 1:-1], np.stack([x, y], 1) - 1


def true_rays(mask: Mask, points: np.ndarray, count: int = RAYS) -> Tensor:
    """The rays (q, count) of an object from `points` (q, 2) on it, by the rule of `targets.rays`. A small `mask` is enlarged first."""
    factor = max(1, round(FINE / max(mask.shape)))
    outline = rim(np.kron(mask, np.ones((factor, factor), bool)) if factor > 1 else mask)[1]
    fine = torch.from_numpy((points + 0.5) * factor - 0.5).float()
    return targets.rays(fine, torch.from_numpy(outline), count) / factor


def truth(views: Views, count: int, rng: np.random.Generator) -> Truth:
    """The targets of `views`. Of several objects that lie on a cell, the one with the smallest box has it."""
    size, n = views.masks.shape[-1], len(views.images)
    like = views.boxes
    per_level = [cells(size // s, size // s, s, like).long().numpy() for s in STRIDES]
    at = np.concatenate(per_level)
    first = np.cumsum([0, *map(len, per_level)])
    counts = views.sure[:, at[:, 1], at[:, 0]]  # (B, P)
    owner = np.full((n, len(at)), -1)
    on_any = np.zeros((n, len(at)), bool)
    boxes = views.boxes.long().numpy()
    sides = boxes[:, 2:] - boxes[:, :2]
    crops, whole = {}, views.masks.numpy()
    for r in np.argsort(-sides.prod(1), kind="stable"):  # large ones first: smaller ones overwrite them
        x0, y0, x1, y1 = boxes[r]
        crops[r] = rim(whole[r, y0:y1, x0:x1])[0]
        i = int(views.picture[r])
        inside = ((at >= (x0, y0)) & (at < (x1, y1))).all(1)
        x, y = (at[inside] - (x0, y0)).T
        on = inside.copy()
        on[inside] = crops[r][y, x]
        half_side = sides[r].max() / 2
        fits = np.concatenate([np.full(len(level), low <= half_side <= high) for level, (low, high) in zip(per_level, RANGES)])
        on_any[i, inside] |= whole[r][at[inside, 1], at[inside, 0]]
        if not (on & fits).any():  # too thin for any cell: the nearest one
            level = next(k for k, (low, high) in enumerate(RANGES) if low <= half_side <= high)
            ys, xs = np.nonzero(crops[r])
            nearest = np.square(per_level[level] - (xs.mean() + x0, ys.mean() + y0)).sum(1).argmin()
            on[first[level] + nearest] = fits[first[level] + nearest] = True
        owner[i, on & fits] = r
    positive = owner >= 0
    picture, cell, rays, labels = [], [], [], []
    for i, r in [(i, r) for i in range(n) for r in np.unique(owner[i][owner[i] >= 0])]:
        for a, b in zip(first, first[1:]):
            mine = a + np.flatnonzero(owner[i, a:b] == r)
            if len(mine):
                mine = rng.choice(mine, MOST, replace=False) if len(mine) > MOST else mine
                picture.append(np.full(len(mine), i))
                cell.append(mine)
                rays.append(true_rays(crops[r], at[mine] - boxes[r, :2], count))
                labels.append(np.full(len(mine), int(views.labels[r])))
    quiet = torch.from_numpy(~positive) & counts
    elsewhere = torch.from_numpy(on_any)  # a cell on a marked object whose level is another one's: that object is all there is
    known = (views.complete[:, None] | elsewhere[..., None]) & quiet[..., None]
    known_any = (views.complete.all(1)[:, None] | elsewhere) & quiet
    ints = [torch.from_numpy(np.concatenate(x) if x else np.zeros(0, int)).long() for x in (picture, cell, labels)]
    return Truth(ints[0], ints[1], torch.cat(rays) if rays else torch.zeros(0, count), ints[2], known, known_any)


def focal(logits: Tensor, target: Tensor) -> Tensor:
    """The sigmoid focal loss (gamma 2) of each number; `target` in [0, 1]: where it lies between, the distance to it is the error (Li et al., 2020)."""
    return (target - logits.sigmoid()).square() * F.binary_cross_entropy_with_logits(logits, target, reduction="none")


def losses(maps: Maps, truth: Truth, loss: str = "polar", centerness: bool = True) -> dict[str, Tensor]:
    """To be minimised together; "polar_iou" is only told. `loss` of the rays: "polar" (the paper's) or "smooth_l1", in strides."""
    where = truth.picture, truth.cell
    target = torch.zeros_like(maps.classes)
    known = truth.known.clone()
    named = truth.labels >= 0
    known[where] = named[:, None].expand(-1, known.shape[-1])
    target[truth.picture[named], truth.cell[named], truth.labels[named]] = 1
    count = max(1, len(truth.cell))
    kind = (focal(maps.classes, target) * torch.where(target > 0, ALPHA, 1 - ALPHA) * known).sum() / count
    rays = maps.rays[where]
    iou = polar.polar_iou(rays.detach(), truth.rays) if len(rays) else rays.new_zeros(0)
    expected = torch.zeros_like(maps.quality)
    expected[where] = iou
    known_any = truth.known_any.clone()
    known_any[where] = True
    quality = (focal(maps.quality, expected) * known_any).sum() / count
    if not len(rays):
        nothing = maps.rays.sum() * 0
        return {"kind": kind, "quality": quality, "rays": nothing, "centerness": nothing, "polar_iou": nothing}
    goodness = polar.centerness(truth.rays)
    weight = goodness if centerness else torch.ones_like(goodness)
    if loss == "polar":
        each = polar_iou_loss(rays, truth.rays)
    else:
        stride = torch.cat([torch.full((h * w,), s) for (h, w), s in zip(maps.sizes, maps.strides)]).to(rays)[truth.cell, None]
        each = F.smooth_l1_loss(rays / stride, truth.rays / stride, reduction="none").mean(1)
    return {
        "kind": kind,
        "quality": quality,
        "rays": (each * weight).sum() / weight.sum(),
        "centerness": F.binary_cross_entropy_with_logits(maps.centerness[where], goodness) * float(centerness),
        "polar_iou": (iou * goodness).sum() / goodness.sum(),
    }


class Learn(nn.Module):
    """What is minimised."""

    def __init__(self, net: SlimPolarMask, loss: str = "polar", centerness: bool = True):
        super().__init__()
        self.net, self.loss, self.centerness = net, loss, centerness

    def forward(self, images: Tensor, truth: Truth) -> dict[str, Tensor]:
        self.net.trunk.eval()  # its batch statistics are ImageNet's: eight pictures have none worth learning
        device = next(self.parameters()).device
        maps = self.net((images.to(device) - trunk.MEAN) / trunk.STD)
        lost = losses(maps, truth.to(device), self.loss, self.centerness)
        return {"loss": lost["kind"] + lost["quality"] + 2 * lost["rays"] + 0.5 * lost["centerness"], **lost}


def groups(net: SlimPolarMask, lr: float) -> list[dict]:
    """The levels' scales belong to no child of the network."""
    return [*trunk_groups(net, lr, 0.05), {"params": [net.scales], "lr": lr, "weight_decay": 0.0}]


def batches(photos: list[Photo], pixels: int, count: int):
    """Batches of about `pixels` pixels, one side each."""
    draws = [sampler(photos, side, max(1, round(pixels / side**2))) for side in SIDES]

    def draw(step: int, g: torch.Generator) -> tuple[Tensor, Truth]:
        views = draws[int(torch.randint(len(SIDES), (), generator=g))](g)
        return views.images, truth(views, count, np.random.default_rng(int(torch.randint(2**62, (), generator=g))))

    return draw


def quick(photos: list[Photo]):
    """The evaluation during a training, of some seconds."""

    def test(net: SlimPolarMask) -> dict[str, float]:
        return {name: v["iou"] for name, v in evaluate.table(evaluate.by_click(net, photos, 40, mirror=False)).items()}

    return test


def export(net: SlimPolarMask, photos: list[Photo], a: argparse.Namespace) -> None:
    """Measure the network as it will be shipped (rounded to float16) on all photos that were kept aside, then write weights, metrics and card.

    The input size of use is the one of SIZES at which a click does best.
    """
    net = half(net)
    by_size = {str(s): evaluate.table(evaluate.by_click(net, photos, a.objects, s)) for s in SIZES}
    size = max(SIZES, key=lambda s: sum(v["iou"] for v in by_size[str(s)].values()))
    clicks = by_size[str(size)]
    bound = evaluate.bounds(photos, (a.rays,), a.objects)
    steps, draws = (made(a.run), drawn(a.run)) if a.steps else (0, 0)
    training = {"steps": steps, "views": draws * sum(round(a.pixels / s**2) for s in SIDES) // len(SIDES), "command": command("pttp.polarmask.train", parser(), a, ("steps", "pixels", "lr", "rays", "loss", "seed"), draws / max(1, steps)) + ("" if a.centerness else " --no-centerness")}
    training = gone_on(training, a.start)
    metrics = {
        "licence": LICENCE,
        "trained_on": f"the masks of seven collections ({len(photos):,} photos kept aside), {training['views'] / 1e3:.0f} k augmented views",
        "metrics": {
            "headline": "IoU of the contour around a click: " + ", ".join(f"{name} {clicks[name]['iou']:.1%}" for name in ("pets", "horses", "cats", "coco") if name in clicks),
            "size": size,
            "clicks": {name: v | {"bound": bound[name][str(a.rays)]} for name, v in clicks.items()},
            "detection": evaluate.precision(net, photos, size, a.objects, a.centerness),
            "by_size": {s: {name: v["iou"] for name, v in some.items()} for s, some in by_size.items()},
        },
        "training": training,
    }
    config = {"kind": "slim", "net": net.options, "classes": list(CLASSES), "centerness": a.centerness, "mirror": True, "preprocess": {"longest": size, "mean": trunk.MEAN, "std": trunk.STD}}
    write(a.out, net, config, metrics, card(metrics, parameters(net)))
    notes = Path(__file__).with_name("NOTES.md")
    if notes.is_file() and a.out == parser().get_default("out"):
        fill(notes, ablate.notes(metrics))


def table(metrics: dict) -> str:
    """The measured numbers as Markdown, for the card and for NOTES.md."""
    m = metrics["metrics"]
    lines = [f"Measured on photos kept aside, objects of at least 32 x 32 of 320 pixels (longer side of the network's picture {m['size']}). One click on the object's deepest"]
    lines += ["pixel; the bound is what the true rays reach, from the centre of mass.", ""]
    lines += ["| set | objects | IoU | IoU of .5 or more | bound |", "|---|---|---|---|---|"]
    lines += [f"| {name} | {v['objects']} | {v['iou']:.1%} | {v['good']:.1%} | {v['bound']:.1%} |" for name, v in m["clicks"].items()]
    lines += ["", "Mask AP of what it finds without a click (COCO's definition, the classes that a set marks completely):", ""]
    lines += precision_rows(m["detection"])
    return "\n".join(lines)


def card(metrics: dict, count: int) -> str:
    return f"""{head("image-segmentation", "polarmask", "instance-segmentation")}
# PolarMask on a small trunk, embedded in PTTP

The head of PolarMask (Xie et al., CVPR 2020, https://arxiv.org/abs/1909.13226) - classes, polar centerness, rays - on a narrow feature pyramid over EfficientNet-Lite0.
{count:,} parameters, float16. These are not the authors' weights and not their backbone: their published files can be loaded into the same room
(`python -m pttp.polarmask.official`).

**Use.** `pttp.load("polarmask", "embedded").predict_at("photo.jpg", (120, 80))`.

**Training.** On {metrics["trained_on"]}. Command: `{metrics["training"]["command"]}`. The trunk began as EfficientNet-Lite0 (ImageNet, Apache-2.0).

{MASKS} Because of the photos, take these weights as {metrics["licence"]}.

**Limits.** It knows seven kinds of things: {", ".join(CLASSES)}. It saw some 3,000 photos, many of them of cats, horses and one thing in the middle; crowded scenes and
small things are where it is weakest. A contour of rays has no holes, and where a ray crosses the border several times the farthest crossing counts: legs grow together.

## Measured

{table(metrics)}
"""


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", help="folder of the photo collections (default ../shared/data)")
    p.add_argument("--trunk", type=Path, help="efficientnet_lite0.safetensors (default ../shared/weights/), or the model.safetensors of a room whose trunk is trained")
    p.add_argument("--run", type=Path, default=Path("runs/polarmask"))
    p.add_argument("--cache", type=Path, default=Path("runs/instances"), help="where the fine masks are kept once they are made")
    add_start(p)
    p.add_argument("--steps", type=amount, default=5400, help="or minutes: 12m")
    p.add_argument("--pixels", type=int, default=8 * 256**2, help="pixels of a batch, about")
    p.add_argument("--lr", type=float, default=1e-3, help="of pyramid and head; the trunk's is a fifth")
    p.add_argument("--rays", type=int, default=RAYS)
    p.add_argument("--loss", choices=("polar", "smooth_l1"), default="polar", help="of the rays")
    p.add_argument("--no-centerness", dest="centerness", action="store_false", help="all centres count alike, in the loss and in the score")
    p.add_argument("--seed", type=int, default=0, help="of the first weights and of the batches: another one for a training that goes on")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--limit", type=int, help="use only so many photos of each collection (a quick trial)")
    p.add_argument("--objects", type=int, help="measure only about so many objects of each set at the end (a quick trial)")
    p.add_argument("--eval-every", type=int, default=500)
    p.add_argument("--out", type=Path, default=Path(__file__).with_name("weights"), help="where weights, metrics.json and MODEL_CARD.md go")
    return p


def main(argv: list[str] | None = None) -> None:
    a = parser().parse_args(argv)
    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    root, here = data_root(a.data), processes()
    with here.main_process_first():
        photos, aside = read(root, "train", a.cache), read(root, "val")
    if a.limit:
        photos, aside = few(photos, a.limit), few(aside, a.limit)
    net = SlimPolarMask(rays=a.rays)
    if a.start:
        net.load_state_dict(mean_of(a.start))
    else:
        start_trunk(net.trunk, a.trunk or root.parent / "weights" / "efficientnet_lite0.safetensors")
    freeze_trunk(net).to(here.device, memory_format=torch.channels_last)
    net = fit(
        Learn(net, a.loss, a.centerness),
        net,
        batches(photos, a.pixels, a.rays),
        folder=a.run,
        steps=a.steps,
        groups=groups(net, a.lr),
        ema=0.998,
        seed=a.seed,
        evaluate=quick(aside),
        eval_every=a.eval_every,
    )
    leave_to_main()
    export(net, aside, a)


if __name__ == "__main__":
    main()
