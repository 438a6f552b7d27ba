"""How fast makeup is put on: `python benchmarks/cagan.py`.

A portrait (scikit-image's astronaut, brought to several sizes) is made ready once, then painted in another colour every round, in turns with the views of "look
inside". Quality stands in the room's metrics.json. Writes cagan.md and cagan.json beside this file.
"""
from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

import torch  # noqa: E402
from PIL import Image  # noqa: E402

from pttp.cagan import study  # noqa: E402
from pttp.cagan.colour import TARGETS, lab_of  # noqa: E402
from pttp.cagan.predict import Predictor  # noqa: E402

import timing  # noqa: E402

SIZES = (512, 1024, 3000)


def contestants(net: Predictor, photo: Image.Image) -> dict[str, Callable[[int], object]]:
    """What is timed, by name; each takes the number of the round, so that no colour comes twice."""
    ready = net.prepare(photo)
    shades = [shade for _, shade in TARGETS]
    return {
        "find the face, make its close-ups ready": lambda i: net.prepare(photo),
        "another colour on the lips": lambda i: net.paint(ready, shades[i % len(shades)]),
        "another colour on lips and lids": lambda i: net.paint(ready, shades[i % len(shades)], shades[-1 - i % len(shades)]),
        "look inside: the step": lambda i: study.step(net, ready.parts["lips"], lab_of(shades[i % len(shades)])),
        "look inside: three sweeps of nine": lambda i: study.sweeps(net, ready.parts["lips"]),
    }


def table(result: dict) -> str:
    """The numbers as Markdown."""
    sizes = list(result["milliseconds"])
    lines = [f"| ms, median (fastest..slowest) | {' | '.join(f'{s} x {s}' for s in sizes)} |", "| --- |" + " --- |" * len(sizes)]
    for name in result["milliseconds"][sizes[0]]:
        each = (result["milliseconds"][s][name] for s in sizes)
        lines.append(f"| {name} | " + " | ".join(f"{timing.spread(t)}" for t in each) + " |")
    about = f"{result['rounds']} rounds taking turns; {timing.said(result)}. Made by `python benchmarks/cagan.py`."
    return "\n".join(["# CA-GAN's speed", "", about, "", *lines, ""])


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=9)
    p.add_argument("--out", type=Path, default=timing.HERE, help="folder for cagan.md and cagan.json")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    net = Predictor.from_pretrained("embedded")
    photo = timing.astronaut()
    times = {str(size): timing.turns(contestants(net, photo.resize((size, size), Image.Resampling.LANCZOS)), a.rounds) for size in SIZES}
    result = {"milliseconds": times, "rounds": a.rounds, **timing.machine(a.threads)}
    timing.write(a.out, "cagan", result, table(result))


if __name__ == "__main__":
    main()
