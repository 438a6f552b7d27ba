"""How fast makeup is put on: `python benchmarks/cagan.py`.

A portrait (scikit-image's astronaut, brought to several sizes) is made ready once, then painted in another colour every round, in turns with the views of "look
inside". Quality stands in the room's metrics.json. Writes cagan.md and cagan.json beside this file.
"""
from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import torch  # noqa: E402
from PIL import Image  # noqa: E402

from pttp.cagan import study  # noqa: E402
from pttp.cagan.colour import TARGETS, lab_of  # noqa: E402
from pttp.cagan.predict import Predictor  # noqa: E402

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


def measure(work: dict[str, Callable[[int], object]], rounds: int) -> dict[str, dict[str, float]]:
    """{name: median, fastest, slowest} in milliseconds, after two rounds that do not count."""
    taken: dict[str, list[float]] = {name: [] for name in work}
    for i in range(rounds + 2):
        for name, once in work.items():
            began = time.perf_counter()
            once(i)
            if i >= 2:
                taken[name].append((time.perf_counter() - began) * 1e3)
    return {name: {"median": statistics.median(t), "fastest": min(t), "slowest": max(t)} for name, t in taken.items()}


def processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")] if info.is_file() else []
    return names[0] if names else platform.processor() or platform.machine()


def table(result: dict) -> str:
    """The numbers as Markdown."""
    sizes = list(result["milliseconds"])
    lines = [f"| ms, median (fastest..slowest) | {' | '.join(f'{s} x {s}' for s in sizes)} |", "| --- |" + " --- |" * len(sizes)]
    for name in result["milliseconds"][sizes[0]]:
        each = (result["milliseconds"][s][name] for s in sizes)
        lines.append(f"| {name} | " + " | ".join(f"{t['median']:.0f} ({t['fastest']:.0f}..{t['slowest']:.0f})" for t in each) + " |")
    about = f"{result['rounds']} rounds taking turns; float32, {result['threads']} threads, torch {result['torch']}, {result['processor']} with {result['cores']} cores; load of the machine {result['load']:.1f}. Made by `python benchmarks/cagan.py`."
    return "\n".join(["# CA-GAN's speed", "", about, "", *lines, ""])


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=9)
    p.add_argument("--out", type=Path, default=HERE, help="folder for cagan.md and cagan.json")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    net = Predictor.from_pretrained("embedded")
    photo = Image.open(Path(importlib.util.find_spec("skimage").origin).parent / "data" / "astronaut.png").convert("RGB")
    times = {str(size): measure(contestants(net, photo.resize((size, size), Image.Resampling.LANCZOS)), a.rounds) for size in SIZES}
    result = {"milliseconds": times, "rounds": a.rounds, "threads": a.threads, "torch": torch.__version__, "processor": processor(), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    (a.out / "cagan.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    (a.out / "cagan.md").write_text(table(result), encoding="utf-8")
    print(table(result))


if __name__ == "__main__":
    main()
