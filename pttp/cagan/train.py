"""How the embedded CA-GAN was made: `python -m pttp.cagan.train --help`.

The paper's three-part step, one generator for lips and eyes (it is told the region):
1. x' = G(x, c) for a colour c drawn over the whole picker;
2. D(x') -> makeup colour (L_color against c), skin colour (L_bg against C_s(x)), real/fake (L_adv);
3. x'' = G(x', C_m(x)), back with the source's own colour (L_cycle against x).
D learns to regress the weak colours of real crops and to tell them from generated ones. It also learns the colours of the generated crops, re-measured by the
weak models: otherwise G learns to please D instead of changing the colour.

Ours, because an hour on one core has to do: the weak model speaks to G directly too (L_weak), what lies outside of the labelled area is to stay (L_keep), inside it
everything but the colour (L_texture) and the spread of its lightness (L_gloss), and no edge is to appear around it (L_border). Label maps are used in these losses
alone: G never sees one. Both networks read one ImageNet trunk.

The close-ups are those of celebamask_mini; --faces adds some that are cut from other faces, whose label maps label.py draws.

G and D are updated in one step of one optimiser. Each is held fixed in the other's losses, so this is the usual pair of updates, made at the same time.
"""
from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from pttp import trunk
from pttp.cagan import data, evaluate, losses, weak
from pttp.cagan.colour import rgb_to_lab, scaled, unscaled
from pttp.cagan.model import CAGAN
from pttp.training.export import LICENCE, add_start, command, fill, gone_on, half, head, mean_of, parameters, start_trunk, tensors, write
from pttp.training.loop import amount, drawn, fit, leave_to_main, made, processes, trunk_groups
from pttp.training.photos import data_root

CARE = (1.5, 3.0)  # how much a change beside the lips, beside the eyes weighs: eye shadow has a wide border, which lets more through
FAIR = 60.0  # L* of skin for which that holds; it grows with the cube of how much darker a skin is: there the same spill moves the measured colour farther
CRITIC = 0.05  # of D's real/fake loss: its gradient is some forty times any other, and the trunk is not there for it
EDGE = (3.0, 0.5)  # how much a new edge around lips, around eyes weighs: the shadow of the training pictures has none
INNER = 40.0  # more that a change of teeth, tongue or eyeball weighs than one of skin: they are small
WEIGHTS = {"color": 2.0, "bg": 2.0, "adv": 0.02, "cycle": 1.0, "weak": 5.0, "own": 2.0, "keep": 10.0, "texture": 6.0, "gloss": 0.3, "border": 1.0}


class Game(nn.Module):
    """What is minimised: the losses of G and of D, each with the other held fixed."""

    def __init__(self, net: CAGAN, weights: dict[str, float] = WEIGHTS):
        super().__init__()
        self.net, self.weights = net, weights

    def forward(self, x: Tensor, areas: Tensor, c: Tensor, region: Tensor) -> dict[str, Tensor]:
        """`x` (B, 3, S, S) RGB in [0, 1]; `areas` (B, 3, S, S) in [0, 1], makeup, skin, inside; `c` (B, 3) scaled Lab; `region` (B,)."""
        net = self.net
        lab, inside = scaled(rgb_to_lab(x)), areas[:, :1]
        hard = areas > 0.5
        own, skin, inner = before = weak_colours(x, hard)
        seen = net.encode(x)
        change = net.generator(x, seen, c, region)
        seen_again = self.fixed(net.trunk, (change.image - trunk.MEAN) / trunk.STD)
        judged = self.fixed(net.discriminator, change.image, seen_again, region)
        back = net.generator(change.image, seen_again, own.nan_to_num(), region)

        shown = scaled(rgb_to_lab(change.image))
        mean = weak.mean_colour(shown, inside)
        middle = (own - weak.mean_colour(lab, inside)).detach()  # highlights pull a mean up: what is measured later is the median
        lightness = unscaled(skin)[:, 0].nan_to_num(FAIR).clamp(min=FAIR / 2)
        care = x.new_tensor(CARE)[region] * (FAIR / lightness).pow(3)
        outside = (1 - F.max_pool2d(inside, 5, 1, 2)) * (1 + INNER * areas[:, 2:])
        grown, shrunk = F.max_pool2d(inside, 5, 1, 2) > 0.5, -F.max_pool2d(-inside, 5, 1, 2) > 0.5
        band = (grown & ~shrunk).float() * (1 - F.max_pool2d(areas[:, 2:], 9, 1, 4))  # towards teeth and eyeball the border has to be sharp
        parts = {
            "color": losses.color(judged.makeup, c),
            "bg": losses.background(judged.skin, skin) + losses.background(judged.inside, inner),
            "adv": losses.adversarial(judged.real),
            "cycle": losses.cycle(back.image, x),
            "weak": losses.weak(mean + middle, c),
            "own": losses.colour_distance(change.own, own),
            "keep": losses.keep(change.image, x, outside, care),
            "texture": losses.texture(change.lab, lab, inside),
            "gloss": losses.gloss(shown, lab, inside),
            "border": losses.border(shown, lab, band, x.new_tensor(EDGE)[region]),
        }
        generator = sum(self.weights[k] * v for k, v in parts.items())
        fake = change.image.detach()
        estimate, real_fake = self.judge([(x, seen, before), (fake, {s: m.detach() for s, m in seen_again.items()}, weak_colours(fake, hard))], region)
        shift = (c - own).nan_to_num().square().mean()
        return {"loss": generator + estimate + CRITIC * real_fake, **parts, "d_colours": estimate, "d_real_fake": real_fake, "asked": shift}

    def fixed(self, part: nn.Module, *inputs):
        """`part` with its weights held fixed: what reaches G is how the picture should change. The trunk therefore learns from real crops alone."""
        weights = {k: p.detach() for k, p in part.named_parameters()}
        return functional_call(part, weights, inputs)

    def judge(self, pictures: list[tuple[Tensor, dict[int, Tensor], list[Tensor]]], region: Tensor) -> tuple[Tensor, Tensor]:
        """D's own losses on real and on generated `pictures`, each with the trunk's maps and its weak colours: those colours, and which is which."""
        judged = [self.net.discriminator(x, maps, region) for x, maps, _ in pictures]
        estimates = [(said.makeup, said.skin, said.inside) for said in judged]
        colours = sum(losses.colour_distance(a, b) for said, (_, _, true) in zip(estimates, pictures, strict=True) for a, b in zip(said, true, strict=True))
        return colours, losses.real_fake(judged[0].real, judged[1].real)


def weak_colours(x: Tensor, hard: Tensor) -> list[Tensor]:
    """The weak colours of `x` (B, 3, S, S) under its areas (B, 3, S, S) bool: makeup, skin, inside, (B, 3) each, scaled."""
    lab = rgb_to_lab(x)
    return [scaled(weak.median_colour(lab, hard[:, i])) for i in range(3)]


def with_locator(net: CAGAN, file: Path) -> CAGAN:
    """The same networks beside the localiser of `file`, a locator.safetensors of train_locate.py."""
    both = CAGAN(net.size, locator=True)
    both.load_state_dict(net.state_dict() | {f"locator.{k}": v for k, v in tensors(file).items()})
    return both.eval()


def export(net: CAGAN, a: argparse.Namespace, root: Path, test: data.Closeups, others: data.Closeups | None, seen: int) -> None:
    """Measure the network as it will be shipped (rounded to float16) on the test faces, then write weights, metrics.json and MODEL_CARD.md."""
    from pttp.cagan.predict import Predictor

    net = half(net)
    measured = evaluate.measure(net, test)
    lips = measured.get("lips") or next(iter(measured.values()))
    m = lips["methods"]["CA-GAN"]
    measured = {
        "headline": f"lips: CIEDE2000 between asked and reached {m['cosmetic_median']:.1f} median, {m['cosmetic_p90']:.1f} at the 90th percentile of cosmetic colours; skin drift {m['drift']:.2f}",
        **measured,
        **({"other_faces": evaluate.elsewhere(net, others)} if others else {}),
    }
    steps, draws = (made(a.run), drawn(a.run)) if a.steps else (0, 0)
    training = {"steps": steps, "batch": a.batch, "views": draws * a.batch, "command": command("pttp.cagan.train", parser(), a, ("steps", "batch", "size", "lr", "frozen", "seed", "region"), draws / max(1, steps))}
    if a.weights:
        training["command"] += f" --weights '{json.dumps(a.weights)}'"
    if a.faces:
        training["command"] += " --faces PHOTOS LABELS"
    training = gone_on(training, a.start)
    metrics = {
        "licence": LICENCE,
        "trained_on": f"{training['views'] / 1e3:.0f} k views of {seen:,} close-ups of lips and eyes from CelebAMask-HQ{' and UTKFace' if a.faces else ''}, on an ImageNet trunk (EfficientNet-Lite0)",
        "metrics": measured,
        "training": training,
    }
    write(a.out, net, net.config, metrics, card(metrics, parameters(net)))
    if net.locator is not None:  # the whole way, from a photo, with the files as they lie there
        measured["portraits"] = evaluate.portraits(Predictor.from_pretrained(a.out), root)
        write(a.out, net, net.config, metrics, card(metrics, parameters(net)))
    notes = Path(__file__).with_name("NOTES.md")
    if notes.is_file() and a.out == parser().get_default("out"):
        fill(notes, table(metrics))


COLUMNS = {
    "cosmetic_median": "Delta E, cosmetic: median",
    "cosmetic_p90": "p90",
    "tail_median": "Delta E, tail: median",
    "tail_p90": "p90",
    "drift": "skin drift",
    "spill": "spill",
    "inner": "inside drift",
    "gloss": "gloss",
    "gloss_within_10": "gloss within 10 %",
    "seam": "seam",
}


def table(metrics: dict) -> str:
    """The measured numbers as Markdown, for the card and for NOTES.md."""
    m = {k: v for k, v in metrics["metrics"].items() if k in weak.REGIONS}
    lines = ["Close-ups of faces kept aside, 24 colours asked of each. Delta E is CIEDE2000, between the colour asked for and the one measured on the result, or, for drifts, between before and after"]
    lines += ["(skin drift: of its median colour; inside: inner mouth, or eyeball); spill is the mean over the skin's pixels. Gloss is the standard deviation of L* over the region, after / before; seam is how much steeper (Delta E a pixel) the region's border became.", ""]
    lines += [f"| region | method | {' | '.join(COLUMNS.values())} |", "|---|---|" + "---|" * len(COLUMNS)]
    for region, scores in m.items():
        for name, s in scores["methods"].items():
            lines.append(f"| {region} ({scores['pictures']}) | {name} | " + " | ".join(_number(k, s) for k in COLUMNS) + " |")
    lines += ["", "The baselines are given the hand-drawn mask of each test picture, and the colour under it; CA-GAN is given neither.", ""]
    lines += ["| region | family | median Delta E |", "|---|---|---|"]
    lines += [f"| {region} | {family} | {v:.1f} |" for region, scores in m.items() for family, v in scores["families"].items()]
    lines += ["", "By skin tone. In brackets: where nine of ten other choices of as many such pictures would put the median (bootstrap).", ""]
    lines += ["| region | skin tone | pictures | Delta E median | p90 | skin drift | spill |", "|---|---|---|---|---|---|---|"]
    for region, scores in m.items():
        for tone, s in scores["tones"].items():
            lines.append(f"| {region} | {tone} | {s['pictures']} | {_number('cosmetic_median', s)} | {_number('cosmetic_p90', s)} | {_number('drift', s)} | {_number('spill', s)} |")
    lines += ["", "| region | Spearman L* | a* | b* | no-op MAD | cycle MAD | cycle MS-SSIM | D's makeup estimate | D's skin estimate |", "|---|---|---|---|---|---|---|---|---|"]
    for region, s in m.items():
        rho = " | ".join(f"{s['spearman'][axis]:.3f}" for axis in evaluate.AXES)
        lines.append(f"| {region} | {rho} | {s['noop_mad']:.4f} | {s['cycle_mad']:.4f} | {s['cycle_ms_ssim']:.4f} | {s['estimate_makeup']:.1f} | {s['estimate_skin']:.1f} |")
    if "other_faces" in metrics["metrics"]:
        lines += ["", "Faces of UTKFace that were kept aside, 200 pixels wide, which do not flatter; their label maps are drawn by MediaPipe (`python -m pttp.cagan.label`).", ""]
        lines += ["| region | skin tone | pictures | Delta E median | p90 | skin drift | spill | gloss | seam |", "|---|---|---|---|---|---|---|---|---|"]
        for region, scores in metrics["metrics"]["other_faces"].items():
            for tone, s in scores.items():
                lines.append(f"| {region} | {tone} | {s['pictures']} | " + " | ".join(_number(k, s) for k in ("cosmetic_median", "cosmetic_p90", "drift", "spill", "gloss", "seam")) + " |")
    if "portraits" in metrics["metrics"]:
        p = metrics["metrics"]["portraits"]
        lines += ["", f"The whole way, from a portrait ({p['faces']} test faces of 128 to 512 pixels, two thirds of them tilted by 25 degrees): {p['found']:.0%} found and painted, lips, Delta E {p['delta_e_median']:.1f} median and"]
        lines += [f"{p['delta_e_p90']:.1f} at the 90th percentile, skin drift {p['drift']:.2f}; pictures with a pixel changed outside of the painted regions: {p['touched']}."]
    return "\n".join(lines)


def _number(key: str, scores: dict) -> str:
    text = "-" if key not in scores else f"{scores[key]:.0%}" if key == "gloss_within_10" else f"{scores[key]:.2f}"
    low, high = scores.get(f"{key}_between", (None, None))
    return text if low is None else f"{text} ({low:.2f}..{high:.2f})"


def card(metrics: dict, count: int) -> str:
    return f"""{head("image-to-image", "cagan", "makeup", "gan")}
# CA-GAN on a small trunk, embedded in PTTP

Color Aware GAN (Kips et al., AIM workshop at ECCV 2020, https://arxiv.org/abs/2008.10298), from the paper: no code and no weights were ever published. {count:,} parameters, float16.

**What is the paper's and what is ours.** The paper's: a colour-conditioned generator, one discriminator that judges makeup colour, skin colour and realism, weak colour models as the only
teacher, the cycle with the source's own colour. Ours, because the paper is silent or an hour on one core has to do: both networks stand on EfficientNet-Lite0; G says where and by how much Lab
moves; D's colours are weighted means of the picture's pixels; the losses L_weak, L_keep, L_texture, L_gloss and L_border; all weights and target colours.

**Use.** `pttp.load("cagan", "embedded").apply("portrait.jpg", lips="#b01030")`.

**Training.** {metrics["trained_on"]}. Command: `{metrics["training"]["command"]}`.

**Data and licences.** CelebAMask-HQ (non-commercial research and education) and UTKFace (non-commercial research), its label maps drawn by MediaPipe 0.10.21 (Apache-2.0). The trunk, EfficientNet-Lite0, is Apache-2.0. Because of the faces, take these weights as {metrics["licence"]}.

**Limits.** Celebrities on red carpets, and smaller photos of other people. Hands, microphones and glasses in front of the region are painted over or left out as it happens. The tones below are the measured
L* of the skin in the picture (dark below 50, light above 65), which light and exposure change too; some groups are small.

## Measured

{table(metrics)}
"""


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", help="folder of the photo collections (default ../shared/data)")
    p.add_argument("--trunk", type=Path, help="efficientnet_lite0.safetensors (default ../shared/weights/)")
    p.add_argument("--locator", type=Path, help="locator.safetensors of train_locate.py, to be shipped with the networks (a finished training is only exported again)")
    p.add_argument("--run", type=Path, default=Path("runs/cagan"))
    add_start(p)
    p.add_argument("--faces", type=Path, nargs=2, metavar=("PHOTOS", "LABELS"), help="learn from these faces too: photos, and the label maps that python -m pttp.cagan.label drew")
    p.add_argument("--region", choices=weak.REGIONS, help="learn, and measure, only this one: is one generator for both worse?")
    p.add_argument("--steps", type=amount, default=3000, help="or minutes: 12m; with --start, 0 only measures")
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--size", type=int, default=128)
    p.add_argument("--lr", type=float, default=1e-3)
    p.add_argument("--frozen", type=int, default=2, help="stages of the trunk, from the picture on, that stay as ImageNet made them")
    p.add_argument("--eval-every", type=int, default=600)
    p.add_argument("--seed", type=int, default=0, help="of the first weights and of the batches")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--out", type=Path, default=Path(__file__).with_name("weights"), help="where weights, metrics.json and MODEL_CARD.md go")
    p.add_argument("--weights", type=json.loads, default={}, help='other weights of the losses, e.g. \'{"weak": 0}\' for the paper\'s own supervision')
    return p


def main(argv: list[str] | None = None) -> None:
    a = parser().parse_args(argv)
    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    device = processes().device
    root = data_root(a.data)
    closeups, test, others = data.read(root, "train"), data.read(root, "test"), None
    if a.faces:
        closeups, others = closeups + data.from_faces(*a.faces, "train"), data.from_faces(*a.faces, "test")
    if a.region:
        closeups, test, others = (c and c.only(a.region) for c in (closeups, test, others))
    net = CAGAN(a.size)
    if a.start:
        net.load_state_dict({k: v for k, v in mean_of(a.start).items() if not k.startswith("locator.")})
    else:
        start_trunk(net.trunk, a.trunk or root.parent / "weights" / "efficientnet_lite0.safetensors")
    for part in (net.trunk.conv_stem, net.trunk.bn1, net.trunk.blocks[: a.frozen]):
        part.requires_grad_(False)
    net.to(device, memory_format=torch.channels_last)
    net = fit(
        Game(net, WEIGHTS | a.weights),
        net,
        data.batches(closeups.to(device), a.batch, a.size),
        folder=a.run,
        steps=a.steps,
        groups=trunk_groups(net, a.lr, 1e-4),
        ema=0.998,
        seed=a.seed,
        bf16=False,  # colours are asked for more exactly than its eight bits
        evaluate=lambda net: evaluate.short(copy.deepcopy(net).cpu(), test),
        eval_every=a.eval_every,
    )
    leave_to_main()
    export(with_locator(net.cpu(), a.locator) if a.locator else net.cpu(), a, root, test, others, len(closeups))


if __name__ == "__main__":
    main()
