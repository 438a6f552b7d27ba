"""What a finished training says of itself."""
from __future__ import annotations

import argparse

import pytest

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
