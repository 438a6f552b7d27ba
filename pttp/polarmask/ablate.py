"""The paper's ablations on our photos: `python -m pttp.polarmask.ablate` measures what N rays can reach at all, `--add FOLDER` notes what a training reached.

    python -m pttp.polarmask.ablate
    for n in 18 24 72; do python -m pttp.polarmask.train --rays $n --run runs/polarmask-$n --out runs/polarmask-$n/weights; done
    python -m pttp.polarmask.train --loss smooth_l1 --run runs/polarmask-l1 --out runs/polarmask-l1/weights
    python -m pttp.polarmask.train --no-centerness --run runs/polarmask-free --out runs/polarmask-free/weights
    python -m pttp.polarmask.ablate --add runs/polarmask-*/weights

Trainings are compared only if they are equally long: give each the same --steps. The results stand in ablations.json, from which `table` writes NOTES.md.
"""
from __future__ import annotations

import argparse
import json
from pathlib import Path

from pttp.training.export import fill, write_json

COUNTS = (18, 24, 36, 72)
FILE = Path(__file__).with_name("ablations.json")
SETS = ("pets", "horses", "cats", "coco", "ecssd", "animals_misc")


def known(file: Path = FILE) -> dict:
    """{"bounds": {set: {"objects", "18", ...}}, "trained": {name: {"command", "steps", "objects": {set: number}, "clicks": {set: IoU}, "ap50": {set: AP50}}}}, as far as it has been measured."""
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"bounds": {}, "trained": {}}


def trained(folder: Path) -> tuple[str, dict]:
    """Name and numbers of the training that wrote `folder`."""
    config, metrics = (json.loads((folder / name).read_text(encoding="utf-8")) for name in ("config.json", "metrics.json"))
    command = metrics["training"]["command"]
    loss = "smooth L1 loss" if "--loss smooth_l1" in command else "polar IoU loss"
    name = ", ".join([f"{config['net']['rays']} rays", loss, *([] if config["centerness"] else ["no centerness"])])
    m = metrics["metrics"]
    row = {"command": command, "steps": metrics["training"]["steps"], "objects": {k: v["objects"] for k, v in m["clicks"].items()}, "clicks": {k: v["iou"] for k, v in m["clicks"].items()}, "ap50": {k: v["ap50"] for k, v in m["detection"].items()}}
    return f"{name}, {row['steps']:,} steps", row


def table(found: dict) -> str:
    """Markdown: the upper bounds, and what trainings reached beside each other."""
    lines = []
    if found["bounds"]:
        sets = [s for s in SETS if s in found["bounds"]]
        lines += ["What N rays can reach at all (IoU of the polygon through the true ray ends, from the centre of mass, with the mask):", ""]
        lines += ["| rays | " + " | ".join(sets) + " |", "|---|" + "---|" * len(sets)]
        lines += [f"| {n} | " + " | ".join(f"{found['bounds'][s][str(n)]:.1%}" for s in sets) + " |" for n in COUNTS]
    if found["trained"]:
        sets = [s for s in SETS if all(s in row["clicks"] for row in found["trained"].values())]
        aps = [s for s in ("cats", "pets", "coco") if all(s in row["ap50"] for row in found["trained"].values())]
        lines += ["", "What trainings reached (IoU of the contour around a click; AP50):", ""]
        count = next(iter(found["trained"].values()))["objects"]
        lines += ["| training (objects measured) | " + " | ".join([*(f"{s} ({count[s]})" for s in sets), *(f"AP50 {s}" for s in aps)]) + " |", "|---|" + "---|" * (len(sets) + len(aps))]
        for name, row in sorted(found["trained"].items()):
            lines.append(f"| {name} | " + " | ".join([f"{row['clicks'][s]:.1%}" for s in sets] + [f"{row['ap50'][s]:.1%}" for s in aps]) + " |")
    return "\n".join(lines).strip()


def notes(metrics: dict) -> str:
    """What stands between the number marks of NOTES.md: the recipe's table and the ablations."""
    from pttp.polarmask import train

    return train.table(metrics) + "\n\n" + table(known())


def main(argv: list[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", help="folder of the photo collections (default ../shared/data)")
    p.add_argument("--add", type=Path, nargs="+", metavar="FOLDER", help="what these trainings wrote: metrics.json and config.json")
    p.add_argument("--objects", type=int, help="measure only about so many objects of each set (a quick trial)")
    p.add_argument("--out", type=Path, default=FILE)
    a = p.parse_args(argv)
    found = known(a.out)
    if a.add:
        found["trained"] |= dict(map(trained, a.add))
    else:
        from pttp.polarmask import evaluate
        from pttp.training.instances import read
        from pttp.training.photos import data_root

        found["bounds"] = evaluate.bounds(read(data_root(a.data), "val"), COUNTS, a.objects)
    write_json(a.out, found)
    print(table(found))
    here = Path(__file__).parent
    if a.out == FILE and (here / "NOTES.md").is_file() and (here / "weights" / "metrics.json").is_file():
        fill(here / "NOTES.md", notes(json.loads((here / "weights" / "metrics.json").read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
