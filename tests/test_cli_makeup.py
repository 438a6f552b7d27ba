"""`python -m pttp makeup`, in processes of its own."""
from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pttp
from pttp.cagan.colour import hex_of
from tests.test_cli import run

SKIMAGE = Path(importlib.util.find_spec("skimage").origin).parent / "data"
ASTRONAUT, COFFEE = SKIMAGE / "astronaut.png", SKIMAGE / "coffee.png"


@pytest.fixture(scope="module")
def net():
    return pttp.load("cagan", "embedded")


def test_one_file(net, tmp_path):
    out = tmp_path / "a.png"
    done = run("makeup", str(ASTRONAUT), "--lips", "#b01030", "-o", str(out))
    made = net.apply(ASTRONAUT, lips="#b01030")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{ASTRONAUT}: {out}: lips #b01030 asked, {hex_of(made.achieved['lips'])} reached, Delta E {made.delta_e['lips']:.1f}\n"
    assert np.abs(np.asarray(Image.open(out)).astype(int) - np.asarray(made.image)).max() <= 2


def test_a_folder_as_json(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.open(ASTRONAUT).save(photos / "face.jpg", quality=95)
    Image.open(COFFEE).save(photos / "cup.png")
    done = run("makeup", str(photos), "--lips", "#7d2e5d", "--eyes", "#5b7fc4", "--strength", "0.6", "-o", str(tmp_path / "out"), "--json")
    assert done.returncode == 2 and "No face was found" in done.stderr
    told = {Path(line["file"]).name: line for line in map(json.loads, done.stdout.splitlines())}
    assert set(told["face.jpg"]["regions"]) == {"lips", "eyes"} and told["face.jpg"]["strength"] == 0.6 and told["face.jpg"]["weights"] == "embedded" and "error" in told["cup.png"]
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["face.png"]
    made = (tmp_path / "out" / "face.png").stat().st_mtime_ns
    (photos / "cup.png").unlink()
    done = run("makeup", str(photos), "--lips", "#2d4fa3", "-o", str(tmp_path / "out"))
    assert (done.returncode, done.stdout) == (0, "") and "1 of 1 results are already there" in done.stderr and (tmp_path / "out" / "face.png").stat().st_mtime_ns == made
    done = run("makeup", str(photos), "--lips", "#2d4fa3", "-o", str(tmp_path / "out"), "--again")
    assert "lips #2d4fa3 asked" in done.stdout and (tmp_path / "out" / "face.png").stat().st_mtime_ns > made


def test_the_colour_of_another_face(net, tmp_path):
    done = run("makeup", str(ASTRONAUT), "--like", str(ASTRONAUT), "-o", str(tmp_path / "a.png"), "--json")
    asked = json.loads(done.stdout)["regions"]["lips"]["requested"]["hex"]
    assert done.returncode == 0 and asked == hex_of(net.estimate(ASTRONAUT).lips)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--lips", "reddish"), "is not a colour"),
        ((), "Choose a colour"),
        (("--lips", "#b01030", "--strength", "2"), "between 0 and 1"),
        (("--lips", "#b01030", "--side", "up"), "left or right"),
        (("--lips", "#b01030", "--face", "7"), "There is no face 7"),
    ],
)
def test_mistakes_are_sentences(tmp_path, options, sentence):
    done = run("makeup", str(ASTRONAUT), "-o", str(tmp_path / "a.png"), *options)
    assert done.returncode == 2 and sentence in done.stderr and "Traceback" not in done.stderr and not (tmp_path / "a.png").exists()
