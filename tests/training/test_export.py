"""What a finished training says of itself."""
from __future__ import annotations

import argparse
import json

import pytest
import torch
from safetensors.torch import save_file

from pttp.training import export


@pytest.mark.parametrize(
    ("given", "processes", "said"),
    [
        ([], 1, "python -m pttp.x.train"),
        (["--steps", "7", "--run", "somewhere"], 1, "python -m pttp.x.train --steps 7"),
        (["--start", "somewhere", "--locator-grid", "0"], 0, "python -m pttp.x.train --start FOLDER --locator-grid 0"),
        (["--steps", "7"], 4, "accelerate launch --num_processes 4 -m pttp.x.train --steps 7"),
        ([], 3.6, "accelerate launch --num_processes 4 -m pttp.x.train"),  # some of its time with fewer
    ],
)
def test_command(given, processes, said):
    parser = argparse.ArgumentParser()
    for name, default in (("--run", "runs/x"), ("--start", None), ("--steps", 5), ("--locator-grid", 8)):
        parser.add_argument(name, default=default, type=type(default) if isinstance(default, int) else str)
    assert export.command("pttp.x.train", parser, parser.parse_args(given), ("steps", "locator_grid"), processes) == said


def test_views_of_a_mean_count_a_shared_beginning_once():
    first = {"views": 100}
    left, right = ({"views": 100 + n, "started_from": first} for n in (10, 20))
    assert export.views_of([left, right]) == 130 and export.views_of([left, first]) == 110
    assert export.views_of([{"views": 135, "started_from": [left, right]}, left]) == 135


@pytest.fixture
def folders(tmp_path):
    """Two trainings that went on from one start of 100 views."""
    made = []
    for i, (views, weight) in enumerate(((110, 1.0), (120, 4.0))):
        folder = tmp_path / str(i)
        folder.mkdir()
        save_file({"w": torch.full((2,), weight).half(), "batches": torch.tensor(i + 5)}, folder / "model.safetensors")
        (folder / "metrics.json").write_text(json.dumps({"training": {"views": views, "started_from": {"views": 100}}}))
        made.append(folder)
    return made


def test_mean_of_weights(folders):
    mean = export.mean_of(folders)
    assert mean["w"].tolist() == [2.5, 2.5] and mean["w"].dtype == torch.float32 and mean["batches"] == 5
    assert export.mean_of(folders[1:])["w"].tolist() == [4.0, 4.0]


def test_what_a_training_went_on_from_is_told(folders):
    left, right = map(export.started_from, folders)
    own = {"steps": 3, "views": 8}
    assert export.gone_on(own, None) == own
    assert export.gone_on(own, folders[:1]) == {"steps": 3, "views": 118, "started_from": left}
    assert export.gone_on(own, folders) == {"steps": 3, "views": 138, "started_from": [left, right]}
    assert export.gone_on({"steps": 0, "views": 0}, folders[:1]) == left  # measured anew, and not trained
    assert export.gone_on({"steps": 0, "views": 0}, folders) == {"steps": 0, "views": 130, "started_from": [left, right]}
    assert own == {"steps": 3, "views": 8}
