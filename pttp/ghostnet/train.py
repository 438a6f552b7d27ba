"""How the embedded GhostNet was made: `python -m pttp.ghostnet.train --help`.

The ImageNet photos of the paper are not at hand; 32,000 small ones of 200 classes and some 4,400 larger photos without class labels are, and
a teacher that has seen ImageNet (EfficientNet-Lite0). Four stages, each resumable, each in a folder of its own under --run:

1. `adapt`   the teacher gets used to small pictures and to symmetric padding: cross-entropy on the 200 classes, and its old self on the photos;
2. `blocks`  every stage of GhostNet learns to turn the teacher's previous feature map into the teacher's next one, all stages at once;
3. `distil`  the stages are chained: the student answers what the teacher answers on the same view (Beyer et al., "function matching"),
             mixup half of the time, plus cross-entropy where a label is known, small pictures first;
4. `finish`  the same at the size of use.

In stages 3 and 4 two teachers judge: the small pictures the adapted one, the photos the one from before stage 1, at 128 pixels, where it is at its best
with sharp pictures. Half of the photos reach the student blurred down to a random size while their teacher sees them sharp: otherwise the student tells
the two collections apart by their sharpness and looks for each one's classes there only (a sharp lion was a tiger, one of the 200 labelled classes).
`--start FOLDER` takes a student that exists instead of stage 2, and trains it on. Of several folders it takes the mean;
`--finish 0` then only measures it.

Then `evaluate` measures the moving average on tiny_imagenet val and `export` writes weights, metrics.json and MODEL_CARD.md.
"""
from __future__ import annotations

import argparse
import copy
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pttp import trunk
from pttp.ghostnet.classes import wnids
from pttp.ghostnet.model import GhostNet
from pttp.training.export import LICENCE, add_start, command, fill, gone_on, half, head, mean_of, parameters, tensors, write
from pttp.training.loop import amount, drawn, fit, leave_to_main, made, parameter_groups, processes
from pttp.training.photos import PHOTO_FOLDERS, Photos, data_root, larger_photos, photos_aside, random_views, tiny_imagenet

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
WITHOUT_FACES = [f for f in PHOTO_FOLDERS if not f.startswith(("utkface", "celebamask"))]  # ImageNet has no class for them


def for_teacher(x: Tensor) -> Tensor:
    return (x - trunk.MEAN) / trunk.STD


def for_student(x: Tensor) -> Tensor:
    return ((x - MEAN.to(x.device)) / STD.to(x.device)).contiguous(memory_format=torch.channels_last)


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    return -(target * F.log_softmax(logits.float(), 1)).sum(1).mean()


class Adapt(nn.Module):
    """Stage 1. `views` (B, 3, S, S), `labels` (B,) with -1 = unknown: there the teacher must answer as it did before."""

    def __init__(self, teacher: nn.Module):
        super().__init__()
        self.net = teacher
        self.before = copy.deepcopy(teacher).requires_grad_(False)

    def forward(self, views: Tensor, labels: Tensor, mix: Tensor, weight: float) -> dict[str, Tensor]:
        self.before.eval()
        known = labels >= 0
        target = F.one_hot(labels.clamp(min=0), 1000).float()
        with torch.no_grad():
            target[~known] = self.before(for_teacher(views[~known])).float().softmax(1)
        views = views * weight + views[mix] * (1 - weight)
        logits = self.net(for_teacher(views))
        return {"loss": soft_cross_entropy(logits, target * weight + target[mix] * (1 - weight))}


class Chain(nn.Module):
    """GhostNet as the four pieces that end where the teacher's maps do; the pieces share the student's parameters."""

    def __init__(self, student: GhostNet):
        super().__init__()
        self.student = student

    def pieces(self):
        s = self.student
        yield 4, lambda x: s.blocks[:3](s.act1(s.bn1(s.conv_stem(x))))
        yield 8, s.blocks[3:5]
        yield 16, s.blocks[5:7]
        yield 0, lambda x: s.act2(s.conv_head(s.global_pool(s.blocks[7:](x)))).flatten(1)


def teacher_maps(teacher: trunk.Lite0, views: Tensor) -> tuple[dict[int, Tensor], Tensor, Tensor]:
    """Maps by stride, the pooled 1280 features and the logits."""
    teacher.eval()
    with torch.no_grad():
        maps = trunk.Trunk.forward(teacher, for_teacher(views))
        pooled = teacher.act(teacher.bn2(teacher.conv_head(maps[32]))).mean((2, 3))
        return maps, pooled, teacher.classifier(pooled)


def unexplained(prediction: Tensor, target: Tensor) -> Tensor:
    """Share of the target's variance (per channel, over the batch) that the prediction misses."""
    dims = (0, 2, 3) if target.ndim == 4 else (0,)
    error = (prediction.float() - target.float()).square().mean(dims)
    return (error / (target.float().var(dims, unbiased=False) + 1e-3)).mean()


class Blocks(nn.Module):
    """Stage 2: each piece alone, fed with the teacher's map."""

    def __init__(self, student: GhostNet, teacher: trunk.Lite0):
        super().__init__()
        self.chain = Chain(student)
        self.teacher = teacher.requires_grad_(False)

    def forward(self, views: Tensor, labels: Tensor, mix: Tensor, weight: float) -> dict[str, Tensor]:
        maps, pooled, _ = teacher_maps(self.teacher, views)
        losses, fed = {}, for_student(views)
        for stride, piece in self.chain.pieces():
            target = maps[stride] if stride else pooled
            losses[f"stride{stride or 32}"] = unexplained(piece(fed), target)
            fed = target.contiguous(memory_format=torch.channels_last) if stride else None
        return {"loss": sum(losses.values()), **losses}


class Distil(nn.Module):
    """Stages 3 and 4: the whole student against the teachers on the same (mixed) view.

    Views with a label are answered by `adapted` at `seen` pixels, the others by `sharp` at the views' own size: adapting to enlarged small pictures
    costs a teacher its judgement of sharp photos. `hard` is the weight of the known labels, `hint` that of the teachers' maps, `pooled` that of their 1,280
    features: 1,000 probabilities of a photo say little about the classes that are not in it, the features that lead to them say more.
    """

    def __init__(self, student: GhostNet, adapted: trunk.Lite0, sharp: trunk.Lite0, size: int, seen: int, hard: float = 0.5, hint: float = 0.1, pooled: float = 1.0):
        super().__init__()
        self.chain = Chain(student)
        self.adapted, self.sharp = adapted.requires_grad_(False), sharp.requires_grad_(False)
        self.size, self.seen, self.hard, self.hint, self.pooled = size, seen, hard, hint, pooled

    def forward(self, views: Tensor, labels: Tensor, mix: Tensor, weight: float, coarse: int) -> dict[str, Tensor]:
        """`coarse`: pixels to which every second unlabelled view is blurred before the student sees it. The labelled views come first."""
        known = labels >= 0
        n = int(known.sum())
        views = views * weight + views[mix] * (1 - weight)
        judged = [teacher_maps(self.adapted, shrunk(views[:n], self.seen)), teacher_maps(self.sharp, views[n:])]
        soft = torch.cat([logits for _, _, logits in judged]).float().softmax(1)
        student_views = shrunk(views, self.size)
        student_views[n::2] = F.interpolate(shrunk(views[n::2], coarse), size=(self.size, self.size), mode="bicubic", align_corners=False).clamp(0, 1)
        x = for_student(student_views)
        hints = {}
        for stride, piece in self.chain.pieces():
            x = piece(x)
            parts = [unexplained(mine, F.adaptive_avg_pool2d(maps[stride], mine.shape[2:]) if stride else pooled) for mine, (maps, pooled, _) in zip((x[:n], x[n:]), judged, strict=True)]
            hints[f"hint{stride or 32}"] = sum(parts) / 2
        answer = self.chain.student.classifier(F.dropout(x, self.chain.student.dropout, self.training))
        log = F.log_softmax(answer.float(), 1)
        kl = F.kl_div(log, soft, reduction="none").sum(1)
        said = -(F.one_hot(labels.clamp(min=0), 1000).float() * known[:, None])  # zero rows where no label is known
        ce = ((weight * said + (1 - weight) * said[mix]) * log).sum(1).mean()
        pooled = hints["hint32"]
        loss = kl.mean() + self.hard * ce + self.hint * (sum(hints.values()) - pooled) + self.pooled * pooled
        return {"loss": loss, "kl_small": kl[:n].mean(), "kl_photos": kl[n:].mean(), "ce": ce, **hints}


def shrunk(views: Tensor, size: int) -> Tensor:
    return views.clone() if views.shape[-1] == size else F.interpolate(views, size=(size, size), mode="bilinear", antialias=True, align_corners=False)


def batches(tiny: Photos, photos: Photos, size: int, batch: int, share: float = 0.7, mixup: float = 0.5, coarse: tuple[int, int] | None = None):
    """`share` of every batch from tiny_imagenet, the rest strong crops of the larger photos; mixed half of the time; with `coarse`, a size to blur to."""
    n = round(batch * share)

    def draw(step: int, g: torch.Generator) -> tuple[Tensor, Tensor, Tensor, float]:
        a = torch.randint(len(tiny), (n,), generator=g)
        b = torch.randint(len(photos), (batch - n,), generator=g)
        views = torch.cat([random_views(tiny, a, size, g, (0.3, 1.0)), random_views(photos, b, size, g, (0.05 if coarse is None else 0.2, 1.0))])
        labels = torch.cat([tiny.labels[a.to(tiny.labels.device)], photos.labels[b.to(photos.labels.device)]])
        mix = torch.cat([torch.randperm(n, generator=g), n + torch.randperm(batch - n, generator=g)]).to(views.device)  # small with small, sharp with sharp
        u = torch.rand(2, generator=g)
        weight = float(u[1]) if float(u[0]) < mixup else 1.0
        chosen = views, labels, mix, max(weight, 1 - weight)
        return (*chosen, int(torch.randint(*coarse, (), generator=g))) if coarse else chosen

    return draw


@torch.inference_mode()
def accuracy(answer, photos: Photos, size: int, limit: int | None = None, batch: int = 100) -> dict[str, float]:
    """Top-1 and top-5 over all 1,000 classes and over the 200 that occur; `answer` maps views in [0, 1] to logits."""
    n = min(limit or len(photos), len(photos))
    order = torch.randperm(len(photos), generator=torch.Generator().manual_seed(0))[:n].to(photos.pixels.device)
    among = photos.labels.unique()
    hits = torch.zeros(4)
    for index in order.split(batch):
        x = F.interpolate(photos.pixels[index].float() / 255, size=(size, size), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        logits, y = answer(x).float(), photos.labels[index, None]
        for i, scores in enumerate((logits, torch.full_like(logits, -torch.inf).index_copy(1, among, logits[:, among]))):
            right = scores.topk(5).indices == y
            hits[2 * i] += right[:, 0].sum().cpu()
            hits[2 * i + 1] += right.any(1).sum().cpu()
    top1, top5, top1_200, top5_200 = (round(h / n, 4) for h in hits.tolist())
    return {"top1": top1, "top5": top5, "top1_200": top1_200, "top5_200": top5_200}


def load_teacher(path: Path) -> trunk.Lite0:
    teacher = trunk.Lite0()
    teacher.load_state_dict(tensors(path))
    return teacher


@torch.inference_mode()
def agreement(answer, teacher: nn.Module, photos: Photos, size: int, teacher_size: int, batch: int = 50) -> dict[str, float]:
    """How often the teacher's first answer to a whole photo (squeezed to a square) is the student's first, and among its first five."""
    teacher.eval()
    hits = torch.zeros(2)
    for index in torch.arange(len(photos)).split(batch):
        whole = [photos.pixels[i, :, : photos.sizes[i, 0], : photos.sizes[i, 1]][None].float() / 255 for i in index]

        def at(side, whole=whole):
            return torch.cat([F.interpolate(x, size=(side, side), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1) for x in whole])

        right = answer(at(size)).topk(5).indices == teacher(for_teacher(at(teacher_size))).argmax(1, keepdim=True)
        hits += torch.stack([right[:, 0].sum(), right.any(1).sum()]).cpu()
    return {"agree1": round(float(hits[0]) / len(photos), 4), "agree5": round(float(hits[1]) / len(photos), 4)}


def export(student: GhostNet, teacher: nn.Module | None, sharp: nn.Module, val: Photos, aside: Photos, a: argparse.Namespace, folder: Path) -> None:
    """Measure the network as it will be shipped (rounded to float16) on all of tiny_imagenet val, then write weights, metrics and card.

    The input size of use is the one of SIZES that measures best.
    """
    net = half(student)
    scores = {str(s): accuracy(lambda x: net(for_student(x)), val, s) for s in SIZES}
    size = max(SIZES, key=lambda s: scores[str(s)]["top1"])
    own = scores[str(size)]
    steps = {stage: made(a.run / stage) if getattr(a, stage) else 0 for stage in STAGES}
    draws = {stage: drawn(a.run / stage) if getattr(a, stage) else 0 for stage in STAGES}
    training = {"steps": steps, "batch": a.batch, "views": sum(draws[s] for s in ("blocks", "distil", "finish")) * a.batch, "command": command("pttp.ghostnet.train", parser(), a, (*STAGES, "size", "small", "large", "sharp", "share", "batch", "rate", "seed"), sum(draws.values()) / max(1, sum(steps.values())))}
    training = gone_on(training, a.start)
    metrics = {
        "licence": LICENCE,
        "trained_on": f"{len(val.labels.unique())} classes of Tiny-ImageNet and unlabelled photos, {training['views'] / 1e6:.1f} M augmented views, distilled from EfficientNet-Lite0",
        "metrics": {
            "headline": f"top-1 {own['top1']:.1%}, top-5 {own['top5']:.1%} over all 1,000 classes on {len(val):,} Tiny-ImageNet val photos",
            "sharp_photos": {"photos": len(aside), "size": size, "teacher_size": a.sharp, **agreement(lambda x: net(for_student(x)), sharp, aside, size, a.sharp)},
            "tiny_imagenet_val": {"photos": len(val), "size": size, **own},
            "by_size": scores,
        },
        "training": training,
    }
    if teacher is not None:
        metrics["metrics"]["teacher"] = {"size": a.size, **accuracy(lambda x: teacher(for_teacher(x)), val, a.size)}
    preprocess = {"size": size, "crop": 1.0, "mean": MEAN.flatten().tolist(), "std": STD.flatten().tolist()}
    config = {"num_classes": 1000, "width": 1.0, "dropout": 0.2, "ratio": 2, "preprocess": {k: [round(x, 3) for x in v] if isinstance(v, list) else v for k, v in preprocess.items()}}
    write(folder, net, config, metrics, card(metrics, parameters(net)))
    if folder == parser().get_default("out"):
        fill(Path(__file__).with_name("NOTES.md"), table(metrics))


def table(metrics: dict) -> str:
    """The measured numbers as Markdown, for the card and for NOTES.md."""
    m = metrics["metrics"]
    rows = [("EfficientNet-Lite0 after `adapt` (the teacher)", m["teacher"]["size"], m["teacher"])] if "teacher" in m else []
    rows += [("**GhostNet 1.0x, embedded**" if int(s) == m["tiny_imagenet_val"]["size"] else "GhostNet 1.0x, embedded", int(s), scores) for s, scores in m["by_size"].items()]
    lines = [f"Measured on the {m['tiny_imagenet_val']['photos']:,} photos of Tiny-ImageNet val (64 px originals, enlarged to the size in the table):", ""]
    lines += ["| network | input | top-1 of 1,000 | top-5 of 1,000 | top-1 of 200 | top-5 of 200 |", "|---|---|---|---|---|---|"]
    lines += [f"| {name} | {size} px | {v['top1']:.1%} | {v['top5']:.1%} | {v['top1_200']:.1%} | {v['top5_200']:.1%} |" for name, size, v in rows]
    lines += ["", "The paper's 1.0x, trained on all of ImageNet and measured on ImageNet val at 224 px: 73.9 % top-1 (the authors' PyTorch checkpoint: 73.98 % and 91.46 % top-5). The two columns cannot be compared: other photos, 40 times more training data."]
    if p := m.get("sharp_photos"):
        lines += ["", f"On {p['photos']} sharp photos kept aside (no class labels) its first answer is EfficientNet-Lite0's first answer for {p['agree1']:.1%} of them, and Lite0's first is among its five for {p['agree5']:.1%}."]
    return "\n".join(lines)


def card(metrics: dict, count: int) -> str:
    return f"""{head("image-classification", "ghostnet", "image-classification")}
# GhostNet 1.0x, distilled, embedded in PTTP

GhostNet (Han et al., CVPR 2020, https://arxiv.org/abs/1911.11907) with the authors' architecture and key names, {count:,} parameters, float16.

**Use.** `pttp.load("ghostnet", "embedded").predict("photo.jpg")`. It is a small network taught with little data, made so that the page works on a fresh machine
without a network; for real use take `timm/ghostnet_100.in1k` (`pttp.load("ghostnet", "hub:timm/ghostnet_100.in1k")`).

**Training.** {metrics["trained_on"]}. Command: `{metrics["training"]["command"]}`; what its stages do stands in NOTES.md.

**Data and licences.** Tiny-ImageNet (ImageNet terms: non-commercial research and education); BSDS500 (research), COCO 2017 photos (Flickr, various Creative Commons, many
non-commercial), one photo a class of ImageNet (non-commercial research), the CC0 clothing set, ECSSD (research), Oxford-IIIT Pets (CC BY-SA 4.0), Weizmann horses (research),
Caltech-101 animals (CC BY 4.0), street cats (public domain as published), Penn-Fudan (research). The teacher,
EfficientNet-Lite0, is Apache-2.0. Because of the photos, take these weights as {metrics["licence"]}.

**Limits.** Labels were known for 200 of the 1,000 classes only; the other 800 come from the teacher's opinion on unlabelled photos and are much weaker. It knows no people,
and says nothing useful about pictures that are not of one main thing.

## Measured

{table(metrics)}
"""


STAGES = {"adapt": 3000, "blocks": 3000, "distil": 30000, "finish": 5000}
SIZES = (64, 96, 128, 160)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", help="folder of the photo collections (default ../shared/data)")
    p.add_argument("--teacher", type=Path, help="efficientnet_lite0.safetensors (default ../shared/weights/)")
    p.add_argument("--run", type=Path, default=Path("runs/ghostnet"))
    p.add_argument("--size", type=int, default=96, help="side of the views that the teacher sees")
    p.add_argument("--small", type=int, default=64, help="side of what the student sees in stage 3")
    p.add_argument("--large", type=int, default=128, help="side in stage 4: the size of use")
    p.add_argument("--sharp", type=int, default=128, help="side of the photos that the unadapted teacher judges")
    p.add_argument("--share", type=float, default=0.5, help="share of small pictures in a batch of stages 3 and 4")
    add_start(p)
    p.add_argument("--batch", type=int, default=64)
    p.add_argument("--rate", type=float, default=1.0, help="times every learning rate: about the square root of how much larger the batch is")
    p.add_argument("--eval-every", type=int, default=1000)
    for stage, steps in STAGES.items():
        p.add_argument(f"--{stage}", type=amount, default=steps, help=f"steps of the stage, or minutes: 12m (default {steps}; 0 leaves it out)")
    p.add_argument("--seed", type=int, default=0, help="of the batches: another one for a training that goes on from finished weights")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--limit", type=int, help="use only so many photos of each collection (a quick trial)")
    p.add_argument("--out", type=Path, default=Path(__file__).with_name("weights"), help="where weights, metrics.json and MODEL_CARD.md go")
    return p


def main(argv: list[str] | None = None) -> None:
    a = parser().parse_args(argv)
    torch.set_num_threads(a.threads)
    device = processes().device
    root = data_root(a.data)
    tiny, photos, val = tiny_imagenet(root, "train", wnids()), larger_photos(root, folders=WITHOUT_FACES), tiny_imagenet(root, "val", wnids())
    if a.limit:
        tiny, photos = (Photos(x.pixels[: a.limit], x.sizes[: a.limit], x.labels[: a.limit]) for x in (tiny, photos))
    tiny, photos, val = tiny.to(device), photos.to(device), val.to(device)
    aside = photos_aside(root).to(device)
    teacher, sharp = (load_teacher(a.teacher or root.parent / "weights" / "efficientnet_lite0.safetensors").to(device) for _ in range(2))

    def test_student(size):
        def test(net):
            return {**accuracy(lambda x: net(for_student(x)), val, size, 1000), **agreement(lambda x: net(for_student(x)), sharp, aside, size, a.sharp)}

        return test

    def run(stage: str, objective: nn.Module, averaged: nn.Module, draw, lr: float, **options) -> nn.Module:
        steps = getattr(a, stage)
        if not steps:
            return averaged
        return fit(objective, averaged, draw, folder=a.run / stage, steps=steps, groups=parameter_groups(averaged, lr * a.rate, 0.03), eval_every=a.eval_every, seed=a.seed, **options)

    teacher = run("adapt", Adapt(teacher), teacher, batches(tiny, photos, a.size, a.batch, share=0.75), 4e-4, ema=0.998, evaluate=lambda net: accuracy(lambda x: net(for_teacher(x)), val, a.size, 1000))
    student = GhostNet()
    if a.start:
        student.load_state_dict(mean_of(a.start))
    else:
        with torch.no_grad():
            student.classifier.load_state_dict(teacher.classifier.state_dict())
    student.to(device, memory_format=torch.channels_last)
    if not a.start:
        student.classifier.requires_grad_(False)  # the pieces are hinted towards the features that this classifier reads
        student = run("blocks", Blocks(student, teacher), student, batches(tiny, photos, a.size, a.batch, mixup=0), 2e-3, ema=0.99, evaluate=test_student(a.size))
        student.requires_grad_(True)
    views = max(a.size, a.large, a.sharp)
    for stage, size, lr in (("distil", a.small, 1e-3 if a.start else 2e-3), ("finish", a.large, 5e-4)):
        draw = batches(tiny, photos, views, a.batch, a.share, coarse=(max(8, size // 2), size + 1))
        student = run(stage, Distil(student, teacher, sharp, size, a.size), student, draw, lr, evaluate=test_student(size))
    leave_to_main()
    export(student, teacher, sharp, val, aside, a, a.out)


if __name__ == "__main__":
    main()
