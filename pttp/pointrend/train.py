"""How the embedded model was made: `python -m pttp.pointrend.train --help`.

Two stages, each resumable, each in a folder of its own under --run: `learn` at 256 pixels, `finish` at 320 with a small learning rate. In a step

- every cell of the detector learns what box it can give and how good that is (its overlap with the object), for the object's class and for anything at
  all; a cell is positive where it lies on the object's mask, so that wherever one clicks, something answers;
- boxes around the objects, displaced as a detector's are, go through the coarse and the point head with 0 to 4 simulated clicks: the first inside the object,
  each further one in the largest error of the mask so far;
- the trunk's first stages and all its batch norms stay as ImageNet left them.

Then `evaluate` measures the moving average, as it will be shipped, on photos that were kept aside, and `export` writes weights, metrics.json and MODEL_CARD.md.
"""
from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F

from pttp import trunk
from pttp.pointrend import evaluate, points, slim
from pttp.pointrend.losses import TRAIN_POINTS, point_labels
from pttp.pointrend.slim import Clicks, Maps, SlimPointRend
from pttp.training.export import LICENCE, MASKS, add_start, command, fill, freeze_trunk, gone_on, half, head, mean_of, parameters, precision_rows, start_trunk, write
from pttp.training.instances import CLASSES, Photo, Views, few, read, sampler
from pttp.training.loop import amount, drawn, fit, leave_to_main, made, processes, trunk_groups
from pttp.training.photos import data_root

RANGES = {8: (0, 72), 16: (48, 160), 32: (112, 1e9)}  # square root of a box's area, by level; where two overlap, both learn it
CLICKS = (0.25, 0.35, 0.2, 0.12, 0.08)  # how often a box gets 0, 1, ... clicks
WEIGHTS = {"kind": 1.0, "box": 1.0, "coarse": 1.0, "point": 2.0, "quality": 0.3, "deltas": 0.5}
BOXES = 4  # a picture, on average, that go through the mask heads
SMALLEST = 10  # pixels of the longer side of a box that does


def assign(views: Views, maps: Maps) -> tuple[Tensor, Tensor]:
    """Which object each cell speaks for: (B, P), -1 where none; and which cells count, (B, P)."""
    size = views.masks.shape[-1]
    pixel = maps.at.long().clamp(max=size - 1)
    pixel = pixel[:, 1] * size + pixel[:, 0]  # (P,)
    owner = torch.full((len(views.images), len(pixel)), -1, device=pixel.device)
    counts = views.sure.flatten(1)[:, pixel]
    if not len(views.boxes):
        return owner, counts
    covered = views.masks.flatten(1)[:, pixel]  # (R, P)
    area = (views.boxes[:, 2:] - views.boxes[:, :2]).prod(1)
    low, high = (maps.at.new_tensor([RANGES[s][i] for s in maps.strides.tolist()]) for i in (0, 1))
    fits = (area.sqrt()[:, None] >= low) & (area.sqrt()[:, None] <= high)
    positive = covered & fits
    for r in (~positive.any(1)).nonzero()[:, 0].tolist():  # too thin for any cell: the cell nearest to the middle of what there is
        rows, columns = views.masks[r].nonzero(as_tuple=True)
        middle = torch.stack([columns.float().mean(), rows.float().mean()]) + 0.5
        positive[r, (maps.at - middle).square().sum(1).where(fits[r], torch.inf).argmin()] = True
    cost = torch.where(positive, area[:, None], torch.inf)
    for i in range(len(owner)):
        mine = (views.picture == i).nonzero()[:, 0]
        if len(mine):
            smallest, which = cost[mine].min(0)
            owner[i] = torch.where(smallest.isfinite(), mine[which], -1)
    return owner, counts


def overlap(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU of boxes (n, 4) with boxes (n, 4)."""
    shared = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(1)
    union = sum((x[:, 2:] - x[:, :2]).clamp(min=0).prod(1) for x in (a, b)) - shared
    hull = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).prod(1)
    iou = shared / union.clamp(min=1e-6)
    return iou, iou - (hull - union) / hull.clamp(min=1e-6)


def detector_losses(views: Views, maps: Maps, owner: Tensor, counts: Tensor) -> dict[str, Tensor]:
    """Quality focal loss (Li et al., 2020) of the logits, generalised IoU of the boxes; `owner` and `counts` as `assign` gives them. What a picture does not
    tell is left out: see `Views.complete`."""
    positive = owner >= 0
    whose = owner[positive]
    iou, giou = overlap(maps.boxes[positive], views.boxes[whose])
    anything = views.complete.all(1, keepdim=True)
    known = torch.cat([views.complete, anything], 1)[:, None] & counts[..., None]  # (B, P, K + 1): where nothing is, nothing of this class is
    target = torch.zeros_like(maps.logits)
    labels = views.labels[whose]
    own = torch.zeros(len(whose), target.shape[-1], device=target.device)
    own[:, -1] = iou.detach()
    named = labels >= 0
    own[named, labels[named]] = iou.detach()[named]
    target[positive] = own
    told = named[:, None].expand(-1, target.shape[-1]).clone()
    told[:, -1] = True
    known = known.clone()
    known[positive] = told
    p = maps.logits.sigmoid()
    loss = (p - target).square() * F.binary_cross_entropy_with_logits(maps.logits, target, reduction="none") * known
    return {"kind": loss.sum() / max(1, len(whose)), "box": (1 - giou).sum() / max(1, len(whose)), "iou": iou.detach().mean() if len(whose) else iou.sum()}


def displaced(boxes: Tensor, size: int, g: torch.Generator) -> Tensor:
    """Boxes (R, 4) as a detector would give them, enlarged by slim.MARGIN; every fourth is bad, most often around a part of the object only: that such a box is
    not good, and where it should have been, has to be learnt, too."""
    n = len(boxes)
    bad = torch.rand(n, 1, generator=g) < 0.25
    noise = torch.randn(n, 4, generator=g)
    shift = (noise[:, :2] * torch.where(bad, 0.15, 0.06)).clamp(-0.35, 0.35).to(boxes.device)
    scale = torch.where(bad, noise[:, 2:] * 0.3 - 0.25, noise[:, 2:] * 0.09 + 0.02).clamp(-1.1, 0.6).exp().to(boxes.device)
    center, side = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    center, side = center + shift * side, side * scale
    return slim.grow(torch.cat([center - side / 2, center + side / 2], 1), (size, size))


def as_found(views: Views, maps: Maps, owner: Tensor, index: Tensor, g: torch.Generator, share: float = 0.5) -> Tensor:
    """Boxes (n, 4) of the objects `index` (n,) for the mask heads. For a `share` of them what a random cell of the object says, as long as that is not far
    off (the paper, too, trains on predicted boxes); else `displaced` ones."""
    size = views.masks.shape[-1]
    boxes = displaced(views.boxes[index], size, g)
    luck = torch.rand(owner.shape[1], generator=g).to(owner.device)
    cell = torch.where(owner[views.picture[index]] == index[:, None], luck, -1.0)  # (n, P)
    best = cell.argmax(1)
    found = slim.clip(maps.boxes.detach()[views.picture[index], best], (size, size))
    use = (cell.amax(1) >= 0) & (overlap(found, views.boxes[index])[0] > 0.4) & (torch.rand(len(index), generator=g) < share).to(owner.device)
    return torch.where(use[:, None], slim.grow(found, (size, size)), boxes)


def inside(region: np.ndarray, rng: np.random.Generator, deep: float = 0.5) -> tuple[float, float]:
    """A place (x, y) in [0, 1] in a `region` (side, side): `deep` of the time in its middle, else anywhere."""
    if rng.random() < deep:
        depth = ndimage.distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
        at = int(depth.argmax())
    else:
        at = int(rng.choice(np.flatnonzero(region)))
    y, x = np.unravel_index(at, region.shape)
    return (x + rng.uniform(0.2, 0.8)) / region.shape[1], (y + rng.uniform(0.2, 0.8)) / region.shape[0]


@torch.no_grad()
def simulate(net: SlimPointRend, p2: Tensor, boxes: Tensor, image: Tensor, truth: Tensor, sure: Tensor, rng: np.random.Generator) -> Clicks:
    """Clicks as a person would make them on the objects in `boxes` (R, 4); `truth` and `sure` (R, 28, 28) are what is there."""
    wanted = rng.choice(len(CLICKS), len(boxes), p=CLICKS)
    grid = points.regular_grid(1, slim.SIDE, boxes)
    most = max(1, int(wanted.max(initial=0)))
    at, sign = boxes.new_zeros(len(boxes), most, 2), boxes.new_zeros(len(boxes), most)
    real, counted = (truth > 0.5).cpu().numpy(), sure.cpu().numpy()
    for turn in range(most):
        these = np.flatnonzero(wanted > turn)
        if not len(these):
            break
        where = torch.from_numpy(these).to(boxes.device)
        if turn:
            box = net.look(p2, boxes[where], Clicks(at[where], sign[where]), image[where])
            said = net.decide(p2, box, grid.expand(len(where), -1, -1), image[where]).unflatten(1, (slim.SIDE, slim.SIDE)).cpu().numpy() > 0
        for i, r in enumerate(these.tolist()):
            region = real[r] if not turn else largest_error(said[i], real[r], counted[r])
            if region is None or not region.any():
                continue
            x, y = inside(region, rng)
            at[r, turn] = boxes[r, :2] + (boxes[r, 2:] - boxes[r, :2]) * boxes.new_tensor([x, y])
            sign[r, turn] = 1 if real[r][min(int(y * slim.SIDE), slim.SIDE - 1), min(int(x * slim.SIDE), slim.SIDE - 1)] else -1
    return Clicks(at, sign)


def largest_error(said: np.ndarray, real: np.ndarray, counted: np.ndarray, least: int = 4) -> np.ndarray | None:
    """The largest connected region in which a mask is wrong in one direction; None if it has less than `least` cells."""
    best = None
    for kind in (real & ~said & counted, said & ~real & counted):
        parts, count = ndimage.label(kind)
        if count:
            areas = np.bincount(parts.ravel())[1:]
            if areas.max() >= (best[0] if best else least):
                best = areas.max(), parts == areas.argmax() + 1
    return best[1] if best else None


def code(boxes: Tensor, wanted: Tensor) -> Tensor:
    """The deltas (R, 4) that `detect.apply_deltas` needs to turn `boxes` into `wanted`, both (R, 4)."""
    size, goal = boxes[:, 2:] - boxes[:, :2], wanted[:, 2:] - wanted[:, :2]
    shift = ((wanted[:, :2] + wanted[:, 2:]) - (boxes[:, :2] + boxes[:, 2:])) / 2 / size
    return torch.cat([shift * slim.DELTA_WEIGHTS[0], (goal / size).log() * slim.DELTA_WEIGHTS[1]], 1)


class Learn(nn.Module):
    """What is minimised."""

    def __init__(self, net: SlimPointRend):
        super().__init__()
        self.net = net

    def forward(self, views: Views, seed: int) -> dict[str, Tensor]:
        self.net.trunk.eval()  # its batch statistics are ImageNet's: eight pictures have none worth learning
        views = views.to(next(self.parameters()).device)
        maps = self.net((views.images - trunk.MEAN) / trunk.STD)
        maps = replace(maps, p2=maps.p2.float())
        owner, counts = assign(views, maps)
        losses = detector_losses(views, maps, owner, counts) | self.mask_losses(views, maps, owner, seed)
        return {"loss": sum(WEIGHTS[k] * losses[k] for k in WEIGHTS), **losses}

    def chosen(self, views: Views, g: torch.Generator) -> Tensor:
        """The objects whose masks are learnt in this step, (R,): large enough, and of every picture about as many."""
        side = (views.boxes[:, 2:] - views.boxes[:, :2]).amax(1)
        order = torch.randperm(len(side), generator=g).to(side.device)
        order = order[side[order] >= SMALLEST]
        turn = torch.zeros_like(order)
        for i in range(len(views.images)):
            mine = views.picture[order] == i
            turn[mine] = torch.arange(int(mine.sum()), device=order.device)
        return order[turn.argsort(stable=True)][: BOXES * len(views.images)]

    def mask_losses(self, views: Views, maps: Maps, owner: Tensor, seed: int) -> dict[str, Tensor]:
        p2, g, rng = maps.p2, torch.Generator().manual_seed(seed), np.random.default_rng(seed)
        index = self.chosen(views, g)
        if not len(index):
            nothing = p2.sum() * 0
            return {k: nothing for k in ("coarse", "point", "quality", "deltas", "mask_iou")}
        image = views.picture[index]
        boxes = as_found(views, maps, owner, index, g)
        bitmaps, sure = views.masks[index].float(), views.sure[image].float()
        grid = points.regular_grid(len(index), slim.SIDE, boxes)
        truth, counted = (point_labels(x, boxes, grid).unflatten(1, (slim.SIDE, slim.SIDE)) for x in (bitmaps, sure))
        clicks = simulate(self.net, p2.detach(), boxes, image, truth, counted > 0.99, rng)
        box = self.net.look(p2, boxes, clicks, image)

        covered = F.avg_pool2d(truth[:, None], slim.SIDE // box.coarse.shape[-1])[:, 0]
        known = (F.avg_pool2d(counted[:, None], slim.SIDE // box.coarse.shape[-1])[:, 0] > 0.75).float()
        logits = box.coarse[:, 0]
        coarse = (F.binary_cross_entropy_with_logits(logits, (covered >= 0.5).float(), reduction="none") * known).sum() / known.sum().clamp(min=1)

        def draw(*shape):
            return torch.rand(*shape, generator=g).to(boxes.device)

        at = points.biased_points(box.guide[:, :1], lambda x: -x.abs(), TRAIN_POINTS, draw=draw)
        clicked = (clicks.at - boxes[:, None, :2]) / (boxes[:, None, 2:] - boxes[:, None, :2])
        at = torch.cat([at, clicked], 1)  # to obey is part of the task
        labels, weight = point_labels(bitmaps, boxes, at), (point_labels(sure, boxes, at) > 0.99).float()
        weight[:, TRAIN_POINTS:] *= 2 * (clicks.sign != 0)
        said = self.net.decide(p2, box, at, image)
        point = (F.binary_cross_entropy_with_logits(said, labels, reduction="none") * weight).sum() / weight.sum().clamp(min=1)

        with torch.no_grad():
            p = logits.sigmoid()
            share = truth.mean((1, 2)) * (boxes[:, 2:] - boxes[:, :2]).prod(1) / bitmaps.sum((1, 2)).clamp(min=1)  # of the object, inside the box
            shared = torch.minimum(p, covered).sum((1, 2))
            iou = shared / (torch.maximum(p, covered).sum((1, 2)) + covered.sum((1, 2)) * (1 / share.clamp(0.05, 1) - 1)).clamp(min=1e-6)
        quality = F.binary_cross_entropy(box.quality, iou)
        deltas = F.smooth_l1_loss(box.deltas, code(boxes, views.boxes[index]), reduction="none").sum(1).mean()
        return {"coarse": coarse, "point": point, "quality": quality, "deltas": deltas, "mask_iou": iou.mean()}


def quick(photos: list[Photo]):
    """The evaluation during a training, of less than a minute: some objects of each set, three clicks."""

    def test(net: nn.Module) -> dict[str, float]:
        rows = evaluate.by_clicks(net, photos, limit=16, clicks=3)
        table = evaluate.clicks_table(rows, 3)
        gain = np.mean([r["rendered"][1] - r["dense"][1] for r in rows if r["set"] != "pets"])
        return {f"{name}_{k}": v[k] for name, v in table.items() for k in ("iou1", "iou3")} | {"border_gain": float(gain)}

    return test


def export(net: SlimPointRend, photos: list[Photo], a: argparse.Namespace) -> None:
    """Measure the network as it will be shipped (rounded to float16) on all photos that were kept aside, then write weights, metrics and card.

    The input size of use is the one of SIZES at which the first click does best, on a part of the objects.
    """
    net = half(net)
    part = {s: evaluate.clicks_table(evaluate.by_clicks(net, photos, a.objects or 40, 1, s), 1) for s in SIZES}
    by_size = {str(s): {name: v["iou1"] for name, v in table.items()} for s, table in part.items()}
    size = max(SIZES, key=lambda s: sum(by_size[str(s)].values()))
    rows = evaluate.by_clicks(net, photos, a.objects, 10, size)
    clicks, borders = evaluate.clicks_table(rows), evaluate.borders_table(rows)
    told = {name: f"{v['iou1']:.1%} ({v['noc85']:.1f})" for name, v in clicks.items()}
    steps = {stage: made(a.run / stage) if getattr(a, stage) else 0 for stage in STAGES}
    draws = sum(drawn(a.run / stage) for stage in STAGES if getattr(a, stage))
    training = {"steps": steps, "batch": a.batch, "views": draws * a.batch, "command": command("pttp.pointrend.train", parser(), a, (*STAGES, "batch", "seed"), draws / max(1, sum(steps.values())))}
    training = gone_on(training, a.start)
    metrics = {
        "licence": LICENCE,
        "trained_on": f"the masks of seven collections ({len(photos):,} photos kept aside), {training['views'] / 1e3:.0f} k augmented views",
        "metrics": {
            "headline": "IoU after one click (clicks to 85 %): " + ", ".join(f"{name} {told[name]}" for name in ("pets", "horses", "cats", "coco") if name in told),
            "size": size,
            "clicks": clicks,
            "borders": borders,
            "detection": evaluate.precision(net, photos, size, a.objects),
            "points": evaluate.by_points(net, photos, size, a.objects),
            "nothing": evaluate.nothing(*evaluate.sureness(net, photos, size, a.objects)),
            "listing": evaluate.listing(net, photos, size, a.objects),
            "by_size": by_size,
        },
        "training": training,
    }
    thresholds = {"sure": metrics["metrics"]["nothing"]["sure"], "shown": metrics["metrics"]["listing"]["shown"]}
    config = {"kind": "slim", "net": net.options, "classes": list(CLASSES), "preprocess": {"longest": size, "mean": trunk.MEAN, "std": trunk.STD}, **thresholds}
    write(a.out, net, config, metrics, card(metrics, parameters(net)))
    notes = Path(__file__).with_name("NOTES.md")
    if notes.is_file() and a.out == parser().get_default("out"):
        fill(notes, table(metrics))


def table(metrics: dict) -> str:
    """The measured numbers as Markdown, for the card and for NOTES.md."""
    m = metrics["metrics"]
    lines = [f"Measured on photos kept aside (objects of at least 32 x 32 of 320 pixels; longer side of the network's picture {m['size']}). The first click is on the object's deepest pixel, each further one in the middle of the largest error; NoC is the mean number of clicks, 10 at most.", ""]
    lines += ["| set | objects | IoU, 1 click | IoU, 3 clicks | NoC@85 | NoC@90 |", "|---|---|---|---|---|---|"]
    lines += [f"| {name} | {v['objects']} | {v['iou1']:.1%} | {v['iou3']:.1%} | {v['noc85']:.1f} | {v['noc90']:.1f} |" for name, v in m["clicks"].items()]
    lines += ["", "What rendering adds to the first click's mask: the same network's dense 28 x 28 mask, enlarged, against the one subdivided to 224 x 224.", ""]
    lines += ["| objects | number | IoU dense | IoU rendered | boundary IoU dense | boundary IoU rendered |", "|---|---|---|---|---|---|"]
    lines += [f"| {name} | {v['objects']} | {v['iou_dense']:.1%} | {v['iou_rendered']:.1%} | {v['boundary_dense']:.1%} | {v['boundary_rendered']:.1%} |" for name, v in m["borders"].items()]
    if m["points"]:
        lines += ["", f"The border against the number of points asked ({m['points'][0]['objects']} horses and objects of at least 200 px, rendered to 224 x 224; the last row asks every point):", ""]
        lines += ["| points a step | points in all | IoU | boundary IoU |", "|---|---|---|---|"]
        lines += [f"| {r['per_step']:,} | {r['asked']:,} | {r['iou']:.1%} | {r['boundary']:.1%} |" for r in m["points"]]
    lines += ["", "Mask AP of what it finds without clicks (COCO's definition, the classes that a set marks completely):", ""]
    lines += precision_rows(m["detection"])
    n = m["nothing"]
    lines += ["", f"\"Nothing found here\" (below {n['sure']:.2f}): {n['objects_answered']:.0%} of first clicks on objects are answered, {n['ground_refused']:.0%} of clicks on the ground of coco photos refused. Everything (from {m['listing']['shown']:.2f}): F1 {m['listing']['f1']:.1%} on coco's objects of at least 32 x 32."]
    return "\n".join(lines)


def card(metrics: dict, count: int) -> str:
    return f"""{head("image-segmentation", "pointrend", "instance-segmentation", "interactive-segmentation")}
# PointRend on a small trunk, embedded in PTTP

The coarse head, the point head and the adaptive subdivision of PointRend (Kirillov et al., CVPR 2020, https://arxiv.org/abs/1912.08193) on a narrow feature pyramid over
EfficientNet-Lite0, with a one-stage detector and two more inputs, the clicks. {count:,} parameters, float16. These are not the authors' weights and not their
backbone: their published files can be loaded into the same room (`python -m pttp.pointrend.official`).

**Use.** `m = pttp.load("pointrend", "embedded"); m.set_image("photo.jpg"); m.click([(120, 80)], [1])`.

**Training.** On {metrics["trained_on"]}. Command: `{metrics["training"]["command"]}`. The trunk began as EfficientNet-Lite0 (ImageNet, Apache-2.0).

{MASKS} Because of the photos, take these weights as {metrics["licence"]}.

**Limits.** It knows seven kinds of things: {", ".join(CLASSES)}. It saw some 3,000 photos, many of them of cats, horses and one thing in the middle; crowded scenes and
small things are where it is weakest.

## Measured

{table(metrics)}
"""


STAGES = {"learn": 4_000, "finish": 1_000}  # about 70 minutes on one core; --start goes on from what they reached
VIEW = {"learn": 256, "finish": 320}
RATES = {"learn": 1e-3, "finish": 2e-4}
SIZES = (320, 384, 448)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", help="folder of the photo collections (default ../shared/data)")
    p.add_argument("--trunk", type=Path, help="efficientnet_lite0.safetensors (default ../shared/weights/)")
    p.add_argument("--run", type=Path, default=Path("runs/pointrend"))
    p.add_argument("--cache", type=Path, default=Path("runs/instances"), help="where the fine masks are kept once they are made")
    add_start(p)
    p.add_argument("--batch", type=int, default=8)
    for stage, steps in STAGES.items():
        p.add_argument(f"--{stage}", type=amount, default=steps, help=f"steps at {VIEW[stage]} pixels, or minutes: 12m (default {steps}; 0 leaves the stage out)")
    p.add_argument("--seed", type=int, default=0, help="of the first weights and of the batches: another one for a training that goes on")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--limit", type=int, help="use only so many photos of each collection (a quick trial)")
    p.add_argument("--objects", type=int, help="measure only about so many objects of each set at the end (a quick trial)")
    p.add_argument("--eval-every", type=int, default=1000)
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
    net = SlimPointRend()
    if a.start:
        net.load_state_dict(mean_of(a.start))
    else:
        start_trunk(net.trunk, a.trunk or root.parent / "weights" / "efficientnet_lite0.safetensors")
    freeze_trunk(net).to(here.device, memory_format=torch.channels_last)
    for stage, size in VIEW.items():
        steps = getattr(a, stage)
        if not steps:
            continue
        draw = sampler(photos, size, a.batch)
        options = {"seed": a.seed, "evaluate": quick(aside), "eval_every": a.eval_every}
        net = fit(Learn(net), net, lambda step, g, draw=draw: (draw(g), step), folder=a.run / stage, steps=steps, groups=trunk_groups(net, RATES[stage], 0.05), ema=0.998, **options)
    leave_to_main()
    export(net, aside, a)


if __name__ == "__main__":
    main()
