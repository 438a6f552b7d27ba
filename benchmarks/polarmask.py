"""How fast PolarMask answers: `python benchmarks/polarmask.py`.

The embedded model end to end in Python, from picture to contours; and the authors' network (R50-FPN, 1333 x 800, random weights, which change no time) from
picture to 100 objects with their masks, once with as many scores above the threshold as a photo has, and once with all of them above it. Writes polarmask.md
and polarmask.json beside this file.
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

import torch  # noqa: E402

import pttp  # noqa: E402
from pttp.polarmask.model import PolarMask  # noqa: E402
from pttp.polarmask.session import Session  # noqa: E402
from pttp.resnet import inference_form  # noqa: E402

import timing  # noqa: E402

ABOUT = (
    f"{timing.SIZE[1]} x {timing.SIZE[0]} photo, {{}} (where that is above the number of threads, the clock also counts what others did, and the processor's own time is the fairer number). "
    "Made by `python benchmarks/polarmask.py`."
)
SCALE = (1333, 800)
ANCHOR = 2.18  # seconds: the authors' code on another 2-core machine, 2 threads, measured in a quiet hour on a picture of SIZE, 100 objects
CLASSES = [f"class {i + 1}" for i in range(80)]


def embedded(rounds: int) -> dict[str, dict]:
    net, image = pttp.load("polarmask", "embedded"), timing.photo()
    session = net.open(image)

    def everything():
        return [found.mask for found in net.open(image).instances()]

    return {
        "whole picture: every object with its mask": timing.alone(everything, rounds),
        "open(image): the heavy part": timing.alone(lambda: net.open(image), rounds),
        "a click on an open picture, with its mask": timing.alone(lambda: session.at((300, 300)).mask, rounds),
    }


def network(bias: float) -> PolarMask:
    """The authors' network with random weights; `bias` of the classes says how many scores are above the threshold."""
    torch.manual_seed(0)
    net = PolarMask().eval()
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if name.endswith("bn3.weight"):
                weight.fill_(0.2)  # else sixteen residual blocks of random weights blow up
        net.head.polar_cls.weight.normal_(std=0.1)
        net.head.polar_cls.bias.fill_(bias)
        net.head.polar_mask.bias.fill_(3)  # rays of some twenty pixels
        net.head.polar_reg.bias.fill_(3)
    return net


def exact(rounds: int) -> dict[str, dict]:
    image, rows = timing.photo(), {}
    for name, bias in (("as in a photo", -13.0), ("all of them", 3.0)):
        plain = network(bias)
        net, passing = inference_form(plain), 0

        def whole(net=net):
            session = Session(net, image, CLASSES, scale=SCALE)
            found = session.everything
            if len(found) != 100:
                raise SystemExit(f"{len(found)} objects in place of 100: nothing to compare")
            return [f.mask for f in found], session

        session = whole()[1]
        passing = int((session.maps.classes.sigmoid() > 0.05).sum())
        rows[f"100 objects, scores above 0.05: {passing:,} ({name})"] = timing.alone(whole, rounds)
        if bias < 0:
            rows["the same in the plain form"] = timing.alone(lambda p=plain: whole(p), rounds)
    return rows


def table(result: dict) -> str:
    lines = ["# PolarMask's speed", "", ABOUT.format(timing.said(result)), "", "## The embedded model", "", "| what | ms, median (min..max) | ms of processor |", "|---|---|---|"]
    lines += [f"| {name} | {timing.spread(t, 1)} | {t['processor']:.1f} |" for name, t in result["embedded"].items()]
    if result["exact"]:
        lines += ["", "## The authors' network, R50-FPN at 1333 x 800, random weights", "", "| what | s, median (min..max) | s of processor | to the anchor |", "|---|---|---|---|"]
        lines += [f"| {name} | {timing.spread(t, 2, 1e3)} | {t['processor'] / 1e3:.2f} | {t['median'] / 1e3 / ANCHOR:.2f} |" for name, t in result["exact"].items()]
        lines += ["", f"Anchor: the authors' code on another 2-core machine with 2 threads in a quiet hour: {ANCHOR} s."]
    return "\n".join([*lines, ""])


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=20, help="of the embedded model; the authors' network gets a quarter of them (default 20)")
    p.add_argument("--no-exact", action="store_true", help="leave the authors' network out")
    p.add_argument("--out", type=Path, default=timing.HERE, help="folder for polarmask.md and polarmask.json")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    exactly = {} if a.no_exact else exact(max(1, a.rounds // 4))
    parts = {"embedded": embedded(a.rounds), "exact": exactly}
    result = {**timing.machine(a.threads), "anchor": ANCHOR, **parts}
    timing.write(a.out, "polarmask", result, table(result))


if __name__ == "__main__":
    main()
