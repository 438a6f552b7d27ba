"""How fast stamps are written and read: `python benchmarks/stegastamp.py [--tensorflow PYTHON]`.

With `--tensorflow`, the interpreter of an environment that has TensorFlow, the authors' deployment graph runs beside ours in a process of its own; all take turns,
one call each, so that what else the machine does hits all alike. Weights are random there, which changes no time. `--doors` measures anew only what a person waits
for: the embedded predictor with its own weights, fitting and reading back included. Writes stegastamp.md and stegastamp.json beside this file.
"""
from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

import numpy as np  # noqa: E402
import torch  # noqa: E402

import pttp  # noqa: E402
from pttp.stegastamp import message, reading  # noqa: E402
from pttp.stegastamp.detect import find_quads  # noqa: E402
from pttp.stegastamp.fast import inference_form  # noqa: E402
from pttp.stegastamp.model import StegaStamp, he_init  # noqa: E402

import timing  # noqa: E402

TASKS = {"encode": "encode", "decode": "decode", "turns": "decode, four rotations", "frame": "find and decode in 1280 x 720"}
Timer = Callable[[], float]  # does the thing once and says the milliseconds


def timed(work: Callable[[], object]) -> Timer:
    def once() -> float:
        with torch.inference_mode():
            began = time.perf_counter()
            work()
            return (time.perf_counter() - began) * 1e3

    return once


class TensorFlow:
    """The authors' graph in another process: asked for one call at a time."""

    def __init__(self, python: str, threads: int):
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(
            [python, str(timing.HERE / "stegastamp_tensorflow.py"), str(threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
        )
        self.version = self._line()

    def _line(self) -> str:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("the TensorFlow process ended: is TensorFlow installed for that interpreter?")
        return line.strip()

    def timer(self, what: str) -> Timer:
        def once() -> float:
            print(what, file=self.process.stdin, flush=True)
            return float(self._line())

        return once

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(30)


def network(size: int, locator_grid: int | None) -> StegaStamp:
    net = StegaStamp(size, message.BITS, locator_grid, detector=True).eval()
    he_init(net.encoder), he_init(net.decoder)
    return net


def tasks(net) -> dict[str, Timer]:
    """What `net`, a StegaStamp or its inference form, is timed at. The frame has one quad to decode, whatever a detector with random weights finds."""
    rng = np.random.default_rng(0)
    picture, four = torch.rand(1, 3, net.size, net.size), torch.rand(4, 3, net.size, net.size)
    secret = torch.randint(2, (1, message.BITS)).float()
    frame = np.kron(rng.integers(0, 255, (45, 80, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    quad = np.array([[[340, 120], [900, 150], [870, 610], [330, 640]]], np.float64)

    def look() -> None:
        find_quads(net.detector, frame)
        reading.looks(net, reading.tensor(frame, "cpu"), quad, lenient=False)

    return {"encode": timed(lambda: net.encoder(picture, secret)), "decode": timed(lambda: net.decoder(picture)), "turns": timed(lambda: net.decoder(four)), "frame": timed(look)}


def measure(contestants: dict[str, dict[str, Timer]], rounds: int) -> dict[str, dict[str, dict]]:
    """{name: {task: median, fastest, slowest}} in milliseconds, after two rounds that do not count."""
    taken: dict[str, dict[str, list[float]]] = {name: {task: [] for task in timers} for name, timers in contestants.items()}
    for i in range(rounds + 2):
        for task in TASKS:
            for name, timers in contestants.items():
                if task in timers:
                    milliseconds = timers[task]()
                    if i >= 2:
                        taken[name][task].append(milliseconds)
    return {name: {task: timing.summary(t) for task, t in by_task.items()} for name, by_task in taken.items()}


def doors(threads: int, rounds: int) -> dict:
    """The embedded predictor on a photo of timing.SIZE, from the array to the stamped picture, and back."""
    s, photo = pttp.load("stegastamp", "embedded"), timing.photo()
    stamped = s.encode(photo, "aB3dE9x").image
    work = {
        "`encode`: fitted in eight steps, read back": lambda i: s.encode(photo, "aB3dE9x"),
        "`encode(steps=0)`: the paper's single pass, read back": lambda i: s.encode(photo, "aB3dE9x", steps=0),
        "`decode`": lambda i: s.decode(stamped),
    }
    taken = timing.turns(work, rounds)
    return {**timing.machine(threads), "rounds": rounds, "milliseconds": taken}


def table(result: dict) -> str:
    """The numbers as Markdown."""
    base = result["baseline"]
    lines = ["| | " + " | ".join(TASKS.values()) + " |", "| --- |" + " --- |" * len(TASKS)]
    for name, by_task in result["milliseconds"].items():
        cells = []
        for task in TASKS:
            t, b = by_task.get(task), result["milliseconds"][base].get(task)
            share = f", {t['median'] / b['median']:.2f}x" if t and b and name != base else ""
            cells.append(f"{timing.spread(t, 1)}{share}" if t else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    about = (
        f"Milliseconds, median (fastest..slowest) of {result['rounds']} rounds taking turns, and the median against \"{base}\"; "
        f"{timing.said(result)}. The networks alone, with random weights. Made by `python benchmarks/stegastamp.py`."
    )
    lines = ["# StegaStamp's speed", "", about, "", *lines, ""]
    if d := result.get("doors"):
        h, w = timing.SIZE
        lines += [f"What a person waits for, with the embedded weights, {w} x {h}; {d['rounds']} rounds; {timing.said(d)}. Made by `python benchmarks/stegastamp.py --doors`.", ""]
        lines += ["| | ms, median (fastest..slowest) |", "| --- | --- |", *(f"| {name} | {timing.spread(t)} |" for name, t in d["milliseconds"].items()), ""]
    return "\n".join(lines)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--tensorflow", metavar="PYTHON", help="interpreter of an environment with TensorFlow")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=25)
    p.add_argument("--doors", action="store_true", help="only the embedded predictor; the rest stays as it was measured")
    p.add_argument("--size", type=int, default=256, help="of the embedded network (default 256)")
    p.add_argument("--out", type=Path, default=timing.HERE, help="folder for stegastamp.md and stegastamp.json")
    a = p.parse_args()

    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    if a.doors:
        result = json.loads((a.out / "stegastamp.json").read_text(encoding="utf-8")) | {"doors": doors(a.threads, a.rounds)}
        timing.write(a.out, "stegastamp", result, table(result))
        return
    contestants: dict[str, dict[str, Timer]] = {}
    theirs = TensorFlow(a.tensorflow, a.threads) if a.tensorflow else None
    if theirs:
        contestants[f"authors' graph, 400 px, TensorFlow {theirs.version}"] = {task: theirs.timer(what) for task, what in (("encode", "encode 1"), ("decode", "decode 1"), ("turns", "decode 4"))}
    for label, size, grid in (("the authors' network", 400, None), ("embedded network", a.size, 8)):
        net = network(size, grid)
        contestants[f"{label}, {size} px, plain"] = tasks(net)
        contestants[f"{label}, {size} px, inference form"] = tasks(inference_form(net))
    milliseconds = measure(contestants, a.rounds)
    if theirs:
        theirs.close()
    result = {**timing.machine(a.threads), "rounds": a.rounds, "baseline": next(iter(contestants)), "milliseconds": milliseconds, "doors": doors(a.threads, a.rounds)}
    timing.write(a.out, "stegastamp", result, table(result))


if __name__ == "__main__":
    main()
