"""How fast GhostNet answers beside its peers: `python benchmarks/ghostnet.py`.

All networks run in one process and take turns, at 224 x 224, with random weights (which changes no time). Writes ghostnet.md and ghostnet.json beside this file.
"""
from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

import torch  # noqa: E402

from pttp.ghostnet import study  # noqa: E402
from pttp.ghostnet.fast import inference_form  # noqa: E402
from pttp.ghostnet.model import GhostNet  # noqa: E402
from pttp.vision import torchvision  # noqa: E402

import timing  # noqa: E402

BASELINE = "timm ghostnet_100"


def contestants() -> dict[str, torch.nn.Module]:
    models = torchvision().models
    import timm  # only after torchvision, which it imports

    plain = GhostNet().eval()
    return {
        BASELINE: timm.create_model("ghostnet_100").eval(),
        "GhostNet, plain": plain,
        "GhostNet, inference form": inference_form(plain),
        "torchvision MobileNetV3-Large": models.mobilenet_v3_large().eval(),
        "torchvision MobileNetV3-Small": models.mobilenet_v3_small().eval(),
    }


def table(result: dict) -> str:
    """The numbers as Markdown."""
    batches = list(result["milliseconds"])
    head = ["network", "MACs", "parameters"]
    for b in batches:
        head += [f"batch {b}: ms a picture, median (min..max)", f"to {BASELINE}"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for name, cost in result["cost"].items():
        cells = [name, f"{cost['macs'] / 1e6:.1f} M", f"{cost['parameters'] / 1e6:.2f} M"]
        for b in batches:
            t, base = (result["milliseconds"][b][n] for n in (name, BASELINE))
            cells += [f"{timing.spread(t, 2, int(b))}", f"{t['median'] / base['median']:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    rounds = ", ".join(f"{next(iter(result['milliseconds'][b].values()))['rounds']} rounds at batch {b}" for b in batches)
    about = f"224 x 224, {rounds}, the networks taking turns; {timing.said(result)}. Made by `python benchmarks/ghostnet.py`."
    return "\n".join(["# GhostNet's speed", "", about, "", *lines, ""])


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=100, help="rounds at batch 1; larger batches get a tenth of them, at least 5 (default 100)")
    p.add_argument("--batches", type=int, nargs="+", default=[1, 32])
    p.add_argument("--out", type=Path, default=timing.HERE, help="folder for ghostnet.md and ghostnet.json")
    a = p.parse_args()

    torch.set_num_threads(a.threads)
    nets = contestants()
    cost = {name: asdict(study.count(net)) for name, net in nets.items() if name != "GhostNet, inference form"}
    cost = {name: cost.get(name, cost["GhostNet, plain"]) for name in nets}
    milliseconds = {}
    for batch in a.batches:
        x = torch.randn(batch, 3, 224, 224)
        timings = study.latency(nets, x, a.rounds if batch == 1 else max(5, a.rounds // 10))
        milliseconds[str(batch)] = {t.name: t.to_dict() for t in timings}
    result = {**timing.machine(a.threads), "cost": cost, "milliseconds": milliseconds}
    timing.write(a.out, "ghostnet", result, table(result))


if __name__ == "__main__":
    main()
