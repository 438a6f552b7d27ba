"""What the benchmarks share: the photo, the clock, the turns, the machine, the two files that are written."""
from __future__ import annotations

import importlib.util
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

HERE = Path(__file__).resolve().parent
SIZE = (480, 640)  # height, width of the photo


def astronaut() -> Image.Image:
    """The portrait that scikit-image ships, 512 x 512."""
    return Image.open(Path(importlib.util.find_spec("skimage").origin).parent / "data" / "astronaut.png").convert("RGB")


def photo() -> np.ndarray:
    """The same, stretched to SIZE."""
    return np.asarray(astronaut().resize(SIZE[::-1], Image.Resampling.BICUBIC))


def summary(milliseconds: list[float]) -> dict[str, float]:
    return {"median": statistics.median(milliseconds), "fastest": min(milliseconds), "slowest": max(milliseconds)}


def spread(t: dict[str, float], digits: int = 0, unit: float = 1) -> str:
    """A `summary` for a table: median (fastest..slowest), in `unit` milliseconds."""
    return f"{t['median'] / unit:.{digits}f} ({t['fastest'] / unit:.{digits}f}..{t['slowest'] / unit:.{digits}f})"


def alone(work: Callable[[], object], rounds: int) -> dict:
    """Milliseconds of the wall clock, and the processor's own (all threads, median), of `rounds` after one that does not count."""
    work()
    wall, own = [], []
    for _ in range(rounds):
        began, used = time.perf_counter(), time.process_time()
        work()
        wall.append(1e3 * (time.perf_counter() - began))
        own.append(1e3 * (time.process_time() - used))
    return {**summary(wall), "processor": statistics.median(own), "rounds": rounds}


def turns(contestants: dict[str, Callable[[int], object]], rounds: int) -> dict[str, dict[str, float]]:
    """{name: milliseconds} after two rounds that do not count; the contestants take turns, and each is told the number of the round."""
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for i in range(rounds + 2):
        for name, work in contestants.items():
            began = time.perf_counter()
            work(i)
            if i >= 2:
                taken[name].append((time.perf_counter() - began) * 1e3)
    return {name: summary(t) for name, t in taken.items()}


def processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")] if info.is_file() else []
    return names[0] if names else platform.processor() or platform.machine()


def machine(threads: int) -> dict:
    """Where and how it was measured; to be asked for after the measuring, for the load."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    return {"threads": threads, "torch": torch.__version__, "processor": processor(), "cores": os.cpu_count(), "load": load}


def said(result: dict) -> str:
    """A `machine` in words."""
    return f"float32, {result['threads']} threads, torch {result['torch']}, {result['processor']} with {result['cores']} cores; load of the machine {result['load']:.1f}"


def write(folder: Path, name: str, result: dict, table: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (folder / f"{name}.md").write_text(table, encoding="utf-8")
    print(table)
