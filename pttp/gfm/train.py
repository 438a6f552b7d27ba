"""How the embedded GFM was made: `python -m pttp.gfm.train --help`.

The mattes are those of pttp/training/mattes.py: hand-made masks say what is animal, a network's soft mattes (or closed-form matting, where there are none)
how the border fades. Most views show a photo as it is, some have the animal put in front of another photo by the RSSN route, and a few show no animal at all.
Every batch has its own side, larger views come in smaller batches, so that neither a thumbnail nor a large picture is a surprise.

The losses are the paper's with two exceptions, both so that a short training gets further: glance learns from plain cross-entropy (the released code squashes
its probabilities twice), and the fused matte is the expected one, transition x focus + animal, so that its errors teach glance as well. At use it is the
paper's hard choice.

The moving average is then measured at three working sizes on the validation photos; `export` keeps the best size and writes weights, metrics.json and MODEL_CARD.md.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from pttp import trunk
from pttp.gfm import losses
from pttp.gfm.data import trimap
from pttp.gfm.slim import SlimGFM, at_size
from pttp.gfm.testtime import limited
from pttp.training import mattes
from pttp.training.export import LICENCE, add_start, command, fill, gone_on, half, head, mean_of, parameters, tensors, write
from pttp.training.loop import amount, drawn, fit, leave_to_main, made, processes, trunk_groups
from pttp.training.mattes import Mattes, Views, compose, iou, matte_views
from pttp.training.photos import Photos, data_root, random_views

CANVAS = 320  # the photos' own long side
SIDES = (192, 224, 256, 288, 320)  # of the views
SHARES = {"oxford_pets_subset": 0.27, "weizmann_horses": 0.19, "animals_misc": 0.25, "ecssd_salient": 0.15, "feral_cats": 0.14}  # of the views
SIZES = (320, 384, 512)  # working sizes that are measured
SMALL = 160


class Matting(nn.Module):
    """The objective: `Views` in, losses by name out. The pyramid is linear, so that the laplacian losses need one, of the differences, instead of four."""

    def __init__(self, net: SlimGFM):
        super().__init__()
        self.net = net

    def forward(self, image: Tensor, alpha: Tensor, fg: Tensor, bg: Tensor) -> dict[str, Tensor]:
        maps = self.net.encode(image * 255)
        logits, (focus,) = self.net.glance_logits(maps).float(), self.net.focus(maps)
        focus = focus.float()
        image, alpha, fg, bg = (255 * x for x in (image, alpha, fg, bg))
        truth = losses.Truth(image, alpha, fg, bg, areas(alpha), alpha, alpha)
        p = logits.softmax(1)
        fusion = p[:, 1:2] * focus + p[:, 2:]
        wrong = torch.cat([(focus - alpha / 255) * (truth.trimap == losses.TRANSITION), fusion - alpha / 255])
        laplacians = sum(level.abs().unflatten(0, (2, -1)).mean((1, 2, 3, 4)) for level in losses.laplacian_pyramid(wrong))
        lost = {
            "glance_ce": F.cross_entropy(logits, losses.labels(truth.trimap, 3)),
            "focus_alpha": losses.alpha_loss(focus, alpha, truth.trimap),
            "focus_laplacian": laplacians[0],
            "fusion_alpha": losses.alpha_loss(fusion, alpha),
            "fusion_laplacian": laplacians[1],
            "fusion_composition": losses.composition_loss(fusion, image, fg, bg),
        }
        return {"loss": sum(lost.values()) / 4, **lost}


def areas(alpha: Tensor) -> Tensor:
    """`alpha` (B, 1, H, W) 0..255 -> its trimap: 128 within reach (a 75th of the side) of anything in between, as the authors' at their size."""
    reach = max(1, round(alpha.shape[-1] / 75))
    some, all_ = (F.max_pool2d(x, 2 * reach + 1, stride=1, padding=reach) for x in ((alpha > 2).float(), (alpha < 253).float()))
    return torch.where(all_ == 0, 255.0, torch.where(some > 0, 128.0, 0.0))


def count(pixels: int, side: int) -> int:
    """Views of a batch of about `pixels` pixels; at least two, for the sake of batch normalisation."""
    return max(2, round(pixels / side**2))


def batches(data: Mattes, others: Photos, pixels: int, share: float, empty: float, sides: tuple[int, ...] = SIDES):
    """Batches of about `pixels` pixels: `share` of the views composed onto `others`, a share `empty` shows nothing but those."""
    weights = torch.zeros(len(data))
    for rank, folder in enumerate(mattes.EVERY):
        here = data.folders.cpu() == rank
        weights[here] = SHARES[folder] / max(1, int(here.sum()))

    def draw(step: int, g: torch.Generator) -> Views:
        size = sides[int(torch.randint(len(sides), (), generator=g))]
        n = count(pixels, size)
        views = matte_views(data, torch.multinomial(weights, n, replacement=True, generator=g), size, g, cover=(0.5, 1.3))
        behind = random_views(others, torch.randint(len(others), (n,), generator=g), size, g).to(views.image.device)
        views = compose(views, behind, g, share)
        nothing = (torch.rand(n, generator=g) < empty).to(behind.device).view(-1, 1, 1, 1)
        return Views(torch.where(nothing, behind, views.image), views.alpha * ~nothing, views.fg, torch.where(nothing, behind, views.bg))

    return draw


@torch.inference_mode()
def matte(net: SlimGFM, image: Tensor, long_side: int) -> np.ndarray:
    """`image` (3, H, W) uint8 -> alpha (H, W) in [0, 1], worked at `long_side`."""
    x = image[None].to(next(net.parameters()).device).float()
    fusion = net(at_size(x, long_side)).fusion
    return F.interpolate(fusion, size=x.shape[2:], mode="bilinear", antialias=True, align_corners=False)[0, 0].cpu().numpy()


def evaluate(net: SlimGFM, data: Mattes, index: list[int], long_side: int, shrink_to: int | None = None) -> dict[str, dict[str, float]]:
    """Scores by folder of `EVERY`, and of "all": IoU of alpha > .5 with the masks (sure pixels), MAD, SAD (thousands) in the transition area, both against the
    repaired mattes, and the share of empty mattes (less than a hundredth of the animal). `shrink_to`: the network gets thumbnails of that long side."""
    rows: dict[str, list[tuple[float, ...]]] = {}
    for i in index:
        h, w = data.sizes[i].tolist()
        image, alpha, mask = (x[i, :, :h, :w].cpu() for x in (data.pixels, data.alpha, data.mask))
        truth, mask = alpha[0].numpy(), mask[0].numpy()
        if shrink_to:
            scale = shrink_to / max(h, w)
            image = F.interpolate(image[None].float(), size=[max(1, round(s * scale)) for s in (h, w)], mode="bilinear", antialias=True, align_corners=False)[0].round()
        said = matte(net, image, long_side)
        if shrink_to:
            said = F.interpolate(torch.from_numpy(said)[None, None], size=(h, w), mode="bilinear", align_corners=False)[0, 0].numpy()
        d = np.abs(said - truth / 255)
        row = iou(said, mask), float(d.mean()), float(d[trimap(truth, 9) == 128].sum() / 1000), float(said.sum() < 0.01 * truth.sum() / 255)
        for name in (mattes.EVERY[int(data.folders[i])], "all"):
            rows.setdefault(name, []).append(row)
    return {name: {"photos": len(r), **dict(zip(("iou", "mad", "sad_transition", "empty"), np.mean(r, 0).round(4).tolist(), strict=True))} for name, r in rows.items()}


def fixed_subset(data: Mattes, most: int = 24) -> list[int]:
    """At most `most` photos of every folder, spread evenly."""
    picked = []
    for rank in data.folders.unique().tolist():
        here = torch.nonzero(data.folders == rank).flatten().tolist()
        picked += here[:: max(1, len(here) // most)][:most]
    return picked


def short(scores: dict[str, dict[str, float]]) -> dict[str, float]:
    """One row of the log."""
    ious = {f"iou_{NAMES[k].split(' (')[0].replace(' ', '_')}": v["iou"] for k, v in scores.items()}
    return {**ious, "mad": scores["all"]["mad"], "sad": scores["all"]["sad_transition"]}


def samples(net: SlimGFM, folder: Path, long_side: int) -> list[float]:
    """MAD of each of the authors' sample photos (`folder`/original/*.jpg) against their published mattes (`folder`/result_alpha/*.png)."""
    found = []
    for photo in sorted((folder / "original").glob("*.jpg")):
        theirs = np.asarray(Image.open(folder / "result_alpha" / f"{photo.stem}.png").convert("L"))
        image = limited(np.asarray(Image.open(photo).convert("RGB")))
        found.append(round(float(np.abs(matte(net, torch.from_numpy(image.copy()).permute(2, 0, 1), long_side) - theirs / 255).mean()), 4))
    return found


def export(net: SlimGFM, val: Mattes, a: argparse.Namespace, folder: Path, official: Path | None) -> None:
    """Measure the network as it will be shipped (rounded to float16) on every validation photo, at each of SIZES, then write weights, metrics and card.

    The working size of use is the one with the lowest mean absolute difference.
    """
    net = half(net)
    index = list(range(len(val)))
    scores = {str(s): evaluate(net, val, index, s) for s in SIZES}
    size = min(SIZES, key=lambda s: scores[str(s)]["all"]["mad"])
    own = scores[str(size)]
    measured = {
        "headline": f"MAD {own['all']['mad']:.4f} against the repaired mattes of {own['all']['photos']} photos kept aside; IoU of alpha > 0.5: "
        + ", ".join(f"{NAMES[k]} {own[k]['iou']:.3f}" for k in mattes.FOLDERS[:3] if k in own),
        "size": size,
        "by_size": scores,
        "thumbnails": {"long_side": SMALL, **evaluate(net, val, index, size, SMALL)["all"]},
    }
    if official and official.is_dir():
        by_size = {str(s): samples(net, official, s) for s in SIZES}
        measured["official_samples"] = {"mad": round(float(np.mean(by_size[str(size)])), 4), "by_size": by_size}
    steps, draws = (made(a.run), drawn(a.run)) if a.steps else (0, 0)
    training = {"steps": steps, "views": round(draws * sum(count(a.pixels, side) for side in SIDES) / len(SIDES)), "command": command("pttp.gfm.train", parser(), a, ("steps", "pixels", "lr", "share", "empty", "frozen", "seed"), draws / max(1, steps))}
    training = gone_on(training, a.start)
    metrics = {
        "licence": LICENCE,
        "trained_on": f"mended mattes of animal photos, {training['views'] / 1e3:.0f} k views of about 256 px, from an ImageNet trunk (EfficientNet-Lite0)",
        "metrics": measured,
        "training": training,
    }
    write(folder, net, {**net.config, "size": size}, metrics, card(metrics, parameters(net)))
    notes = Path(__file__).with_name("NOTES.md")
    if notes.is_file() and folder == parser().get_default("out"):
        fill(notes, table(metrics))


NAMES = {"oxford_pets_subset": "pets (sure pixels)", "weizmann_horses": "horses", "animals_misc": "other animals", "ecssd_salient": "salient animals", "all": "all"}


def table(metrics: dict) -> str:
    """The measured numbers as Markdown, for the card and for NOTES.md."""
    m = metrics["metrics"]
    lines = [f"Measured on photos kept aside, worked at a long side of {m['size']} pixels and brought back to the photo's own size. IoU is that of alpha > 0.5 with the"]
    lines += ["hand-made mask; MAD and SAD (in thousands, in the transition area) are against the repaired mattes.", ""]
    lines += ["| photos | number | IoU | MAD | SAD |", "|---|---|---|---|---|"]
    lines += [f"| {NAMES[k]} | {v['photos']} | {v['iou']:.3f} | {v['mad']:.4f} | {v['sad_transition']:.3f} |" for k, v in m["by_size"][str(m["size"])].items()]
    more = (" MAD on the authors' five samples |", "---|") if "official_samples" in m else ("", "")
    lines += ["", "| working size | IoU | MAD | SAD |" + more[0], "|---|---|---|---|" + more[1]]
    for size, scores in m["by_size"].items():
        v = scores["all"]
        own = f" {np.mean(m['official_samples']['by_size'][size]):.4f} |" if "official_samples" in m else ""
        lines.append(f"| {size} px | {v['iou']:.3f} | {v['mad']:.4f} | {v['sad_transition']:.3f} |{own}")
    t = m["thumbnails"]
    lines += ["", f"Given as thumbnails of {t['long_side']} pixels, the same photos reach an IoU of {t['iou']:.3f}; {t['empty']:.1%} of their mattes are empty."]
    if "official_samples" in m:
        lines += ["", "The authors' five sample photos are compared with the mattes that they published, made by their 126 M parameter model."]
    return "\n".join(lines)


def card(metrics: dict, count: int) -> str:
    return f"""{head("image-segmentation", "gfm", "image-matting", "animal-matting")}
# GFM-TT on a small trunk, embedded in PTTP

Glance and Focus Matting (Li et al., IJCV 2022, https://arxiv.org/abs/2010.16188), RoSTa TT, with slim decoders on EfficientNet-Lite0: {count:,} parameters, float16.

**Use.** `pttp.load("gfm", "embedded").predict("photo.jpg")`. It is a small network taught with little data, made so that the page works on a fresh machine without a network.

**Training.** On {metrics["trained_on"]}. Command: `{metrics["training"]["command"]}`.

**Data and licences.** Oxford-IIIT Pets (CC BY-SA 4.0), Weizmann horses (research), Caltech-101 and other animals (CC BY 4.0), the animals of ECSSD (research), street cats (public domain as
published), with masks made by people and, except for the cats, soft mattes made by ISNet; as backgrounds photos of BSDS500 (research), COCO 2017 (Flickr, various Creative Commons, many
non-commercial) and ImageNet (non-commercial research). The trunk, EfficientNet-Lite0, is Apache-2.0. Because of the photos, take these weights as {metrics["licence"]}.

**Limits.** Mammals and large birds, mostly. It knows no people and no things; a photo without an animal should give an empty matte, but need not. Against the authors' own network it misses fine fur.

## Measured

{table(metrics)}
"""


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", help="folder of the photo collections (default ../shared/data)")
    p.add_argument("--trunk", type=Path, help="efficientnet_lite0.safetensors (default ../shared/weights/)")
    p.add_argument("--official", type=Path, help="the authors' sample photos and mattes, to be measured against (default ../shared/oracles/gfm/samples)")
    p.add_argument("--run", type=Path, default=Path("runs/gfm"))
    p.add_argument("--cache", type=Path, help="where the prepared photos are kept (default RUN/cache)")
    p.add_argument("--steps", type=amount, default=3000, help="or minutes: 12m")
    p.add_argument("--pixels", type=int, default=8 * 256**2, help="pixels of a batch, about")
    p.add_argument("--lr", type=float, default=1e-3, help="of the decoders; the trunk's is a fifth")
    p.add_argument("--share", type=float, default=0.3, help="share of the views whose animal is put in front of another photo")
    p.add_argument("--empty", type=float, default=0.05, help="share of the views without an animal")
    p.add_argument("--frozen", type=int, default=2, help="stages of the trunk, from the picture on, that stay as ImageNet made them: a sixth of the time")
    add_start(p)
    p.add_argument("--eval-every", type=int, default=500)
    p.add_argument("--seed", type=int, default=0, help="of the first weights and of the batches")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--out", type=Path, default=Path(__file__).with_name("weights"), help="where weights, metrics.json and MODEL_CARD.md go")
    return p


def prepared(root: Path, lite0: dict[str, Tensor], cache: Path) -> tuple[Mattes, Mattes, Photos]:
    """Training mattes, validation mattes (those with a soft matte), backgrounds."""
    classifier = trunk.Lite0()
    classifier.load_state_dict(lite0)
    found = {split: mattes.of_animals(mattes.sources(root, split, mattes.EVERY), classifier, cache) for split in ("train", "val")}
    train = mattes.mattes(root, "train", cache, CANVAS, chosen=found["train"])
    val = mattes.mattes(root, "val", cache, CANVAS, chosen=[source for source in found["val"] if source.soft])
    return train, val, mattes.backgrounds(root, classifier, cache, CANVAS)


def main(argv: list[str] | None = None) -> None:
    a = parser().parse_args(argv)
    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    here = processes()
    root = data_root(a.data)
    lite0 = tensors(a.trunk or root.parent / "weights" / "efficientnet_lite0.safetensors")
    with here.main_process_first():
        data, val, others = prepared(root, lite0, a.cache or a.run / "cache")
    net = SlimGFM()
    net.trunk.load_state_dict(trunk.trunk_tensors(lite0))
    if a.start:
        net.load_state_dict(mean_of(a.start))
    for part in (net.trunk.conv_stem, net.trunk.bn1, net.trunk.blocks[: a.frozen]) if a.frozen else ():
        part.requires_grad_(False)
    net.to(here.device, memory_format=torch.channels_last)
    subset = fixed_subset(val)
    net = fit(
        Matting(net),
        net,
        batches(data.to(here.device), others.to(here.device), a.pixels, a.share, a.empty, SIDES),
        folder=a.run,
        steps=a.steps,
        groups=trunk_groups(net, a.lr, 1e-4),
        warmup=50,
        ema=0.998,
        seed=a.seed,
        evaluate=lambda net: short(evaluate(net, val, subset, CANVAS)),
        eval_every=a.eval_every,
    )
    leave_to_main()
    export(net, val, a, a.out, a.official or root.parent / "oracles" / "gfm" / "samples")


if __name__ == "__main__":
    main()
