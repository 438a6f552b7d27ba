"""The tables of the ablations, and that NOTES.md holds what the commands would write today."""
from __future__ import annotations

import json

import pytest

from pttp.papers import paper
from pttp.polarmask import ablate, train
from pttp.training.export import MARKED
from tests import made_photos


def written(folder, rays: int = 36, options: str = "", centerness: bool = True, iou: float = 0.7):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"net": {"rays": rays}, "centerness": centerness}))
    clicks = {"cats": {"objects": 3, "iou": iou, "good": 1.0, "bound": 0.9}}
    metrics = {"metrics": {"clicks": clicks, "detection": {"cats": {"photos": 2, "ap": 0.2, "ap50": 0.6, "ar": 0.3}}}, "training": {"steps": 900, "command": f"python -m pttp.polarmask.train{options}"}}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, "36 rays, polar IoU loss, 900 steps"),
        ({"rays": 18}, "18 rays, polar IoU loss, 900 steps"),
        ({"options": " --loss smooth_l1"}, "36 rays, smooth L1 loss, 900 steps"),
        ({"centerness": False}, "36 rays, polar IoU loss, no centerness, 900 steps"),
    ],
)
def test_trainings_are_named(tmp_path, options, name):
    found, row = ablate.trained(written(tmp_path / "a", **options))
    assert found == name and row["clicks"] == {"cats": 0.7} and row["ap50"] == {"cats": 0.6}


def test_adding_and_the_table(tmp_path, capsys):
    root = made_photos.make(tmp_path / "data")
    out = tmp_path / "ablations.json"
    ablate.main(["--out", str(out), "--add", str(written(tmp_path / "a")), str(written(tmp_path / "b", rays=18, iou=0.5))])
    ablate.main(["--out", str(out), "--add", str(written(tmp_path / "c", centerness=False, iou=0.6))])
    ablate.main(["--out", str(out), "--data", str(root)])  # its objects are too small to be measured
    found = ablate.known(out)
    assert len(found["trained"]) == 3 and found["bounds"] == {}
    found["bounds"] = {"cats": {"objects": 3, "18": 0.8, "24": 0.85, "36": 0.9, "72": 0.95}}
    told = ablate.table(found)
    assert "| 72 | 95.0% |" in told and "| 18 rays, polar IoU loss, 900 steps | 50.0% | 60.0% |" in told
    assert "no centerness" in capsys.readouterr().out


def test_nothing_yet(tmp_path):
    assert ablate.table(ablate.known(tmp_path / "none.json")) == ""


def test_numbers_in_the_lesson_come_from_files():
    room = paper("polarmask").room
    metrics = paper("polarmask").measured
    told = MARKED.search((room / "NOTES.md").read_text(encoding="utf-8"))[0]
    assert ablate.notes(metrics).strip() in told
    assert train.table(metrics) in (room / "weights" / "MODEL_CARD.md").read_text(encoding="utf-8")
