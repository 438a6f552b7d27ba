"""The rules of the house that can be checked without running a model."""
from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import pttp
from demos import notes
from pttp.papers import paper, papers

ROOT = Path(__file__).resolve().parents[1]
NOTES = sorted(ROOT.glob("pttp/*/NOTES.md"))


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True, timeout=120).stdout.strip()


@pytest.mark.parametrize("code", ["import pttp", "import pttp.weights, pttp.images, pttp.cli", "import app; app.create()"])
def test_no_torch_before_a_model_is_used(code):
    loaded = run(f"import sys\n{code}\nprint([m for m in ('torch', 'torchvision', 'timm', 'skimage') if m in sys.modules])")
    assert loaded.splitlines()[-1] == "[]"


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{a.name}" for a in node.names}
    return found


def test_arrows_go_one_way():
    """demos -> pttp.<paper> -> pttp.{weights, images}; rooms do not import each other."""
    rooms = [p.name for p in papers() if p.room.is_dir()]
    for file in ROOT.glob("pttp/**/*.py"):
        used = imports(file)
        assert not {m for m in used if m.split(".")[0] in ("demos", "gradio")}, file
        room = file.relative_to(ROOT / "pttp").parts[0]
        for other in rooms:
            if room in rooms and other != room:
                assert not {m for m in used if m.startswith(f"pttp.{other}")}, f"{file} uses the room {other}"


@pytest.mark.parametrize("file", sorted([*ROOT.glob("pttp/**/*.py"), *ROOT.glob("demos/*.py"), *ROOT.glob("tests/**/*.py"), ROOT / "app.py"]), ids=lambda f: str(f.relative_to(ROOT)))
def test_files_stay_short(file):
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 500


@pytest.mark.parametrize("file", NOTES, ids=lambda f: f.parent.name)
def test_notes_point_at_the_lines_they_name(file):
    links = list(notes.CODE_LINK.finditer(file.read_text(encoding="utf-8")))
    assert links, "a lesson points at its code"
    for link in links:
        first, last = notes.lines_of(file.parent / link["file"], link["symbol"])
        assert (int(link["first"]), int(link["last"])) == (first, last), f"{link['symbol']} stands at {link['file']}#L{first}-L{last}: see demos.notes.refresh"


@pytest.mark.parametrize("file", NOTES, ids=lambda f: f.parent.name)
def test_notes_show_the_code_itself(file):
    page = notes.render(file)
    assert "```python\n" in page and "](model.py#L" not in page


def test_papers_are_six_in_order():
    assert [p.number for p in pttp.papers()] == [6, 5, 4, 3, 2, 1]
    assert [p.name for p in pttp.papers()] == ["pointrend", "polarmask", "gfm", "ghostnet", "stegastamp", "cagan"]
    for p in pttp.papers():
        assert p.links[0].url.startswith("https://arxiv.org/abs/")
        assert len(p.abstract) > 200


def test_an_unknown_paper_is_said_to_be_so():
    with pytest.raises(pttp.BadInput, match="no paper called 'resnet'"):
        pttp.load("resnet")


def test_readme_is_a_space_card():
    front = (ROOT / "README.md").read_text(encoding="utf-8").split("---")[1]
    keys = dict(re.findall(r"^(\w+): *(.*)$", front, re.M))
    assert keys["sdk"] == "gradio" and keys["app_file"] == "app.py"
    assert (ROOT / keys["app_file"]).is_file()
    assert {"title", "sdk_version", "python_version", "models", "preload_from_hub", "license", "short_description"} <= set(keys)
    assert len(keys["short_description"].strip("\"'")) <= 60
    major = re.search(r"gradio>=(\d+)", (ROOT / "requirements.txt").read_text())[1]
    assert keys["sdk_version"].strip("\"'").split(".")[0] == major


@pytest.mark.parametrize("paper", papers(), ids=lambda p: p.name)
def test_every_paper_ships_its_weights(paper):
    folder = paper.room / "weights"
    assert {f.name for f in folder.iterdir()} >= {"model.safetensors", "config.json", "metrics.json", "MODEL_CARD.md"}
    assert (folder / "model.safetensors").stat().st_size <= 25e6
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["licence"] and metrics["trained_on"] and metrics["metrics"]["headline"]


def test_all_weights_together_stay_small():
    assert sum(f.stat().st_size for f in ROOT.glob("pttp/*/weights/*")) <= 90e6


# What fills a room's card, and what fills its NOTES.md
TABLES = {room: ("train.table", "train.table") for room in ("pointrend", "gfm", "ghostnet", "cagan")} | {
    "stegastamp": ("evaluate.table", "evaluate.table"),
    "polarmask": ("train.table", "ablate.notes"),
}


def test_numbers_in_prose_come_from_files():
    """README.md and every NOTES.md hold what the commands would write into them today."""
    from pttp.training import export, readme

    def marked(file: Path) -> str:
        return export.MARKED.search(file.read_text(encoding="utf-8"))[0].split("\n", 1)[1].rsplit("\n", 1)[0].strip()

    def made(room: str, function: str) -> str:
        module, name = function.split(".")
        return getattr(import_module(f"pttp.{room}.{module}"), name)(paper(room).measured)

    assert marked(ROOT / "README.md") == readme.numbers().strip()
    for room, (card, notes_) in TABLES.items():
        assert marked(ROOT / "pttp" / room / "NOTES.md") == made(room, notes_).strip()
        assert made(room, card) in (ROOT / "pttp" / room / "weights" / "MODEL_CARD.md").read_text(encoding="utf-8")
