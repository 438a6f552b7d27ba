"""The numbers of README.md, from the files that commands wrote: `python -m pttp.training.readme`."""
from __future__ import annotations

import re
from pathlib import Path

from pttp.papers import papers
from pttp.training.export import fill

ROOT = Path(__file__).resolve().parents[2]


def numbers() -> str:
    """Quality of every paper's embedded weights (weights/metrics.json), then the speed tables (benchmarks/*.md), folded, their headings made bold lines."""
    lines = ["| paper | embedded weights | measured |", "|---|---|---|"]
    for paper in papers():
        size = (paper.room / "weights" / "model.safetensors").stat().st_size
        lines.append(f"| {paper.short} | {size / 1e6:.1f} MB, trained on {paper.measured['trained_on']} | {paper.measured['metrics']['headline']} |")
    for paper in papers():
        bench = ROOT / "benchmarks" / f"{paper.name}.md"
        if bench.is_file():
            title, body = bench.read_text(encoding="utf-8").split("\n", 1)
            body = re.sub(r"^#+ (.+)$", r"**\1**", body.strip(), flags=re.M)
            lines += ["", f"<details><summary>{title.lstrip('# ').rstrip('.')}</summary>", "", body, "", "</details>"]
    return "\n".join(lines)


if __name__ == "__main__":
    fill(ROOT / "README.md", numbers())
