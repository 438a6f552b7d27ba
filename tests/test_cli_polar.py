"""`python -m pttp polar`, in processes of its own."""
from __future__ import annotations

import importlib.util
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import pttp
from tests import corpus
from tests.test_cli import run

CHELSEA = Path(importlib.util.find_spec("skimage").origin).parent / "data" / "chelsea.png"


@pytest.fixture(scope="module")
def net():
    return pttp.load("polarmask", "embedded")


def test_a_point_and_its_drawing(tmp_path, net):
    drawing = tmp_path / "contour.svg"
    result = run("polar", str(CHELSEA), "--point", "200,150", "--svg", str(drawing))
    found = net.predict_at(CHELSEA, (200, 150))
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"{CHELSEA}: {found.label} {found.score:.2f} in {found.box}\n"
    (polygon,) = ET.parse(drawing).getroot().iter("{http://www.w3.org/2000/svg}polygon")
    assert len(polygon.get("points").split()) == 36


def test_no_drawing_of_nothing(tmp_path):
    result = run("polar", str(CHELSEA), "--score", "1.5", "--svg", str(tmp_path / "a.svg"))
    assert (result.returncode, result.stdout) == (0, f"{CHELSEA}: nothing found\n") and "a.svg is not written: lower --score" in result.stderr
    assert not list(tmp_path.iterdir())


def test_json_says_what_python_says(net):
    result = run("polar", str(CHELSEA), "--json", "--score", "0.2")
    told = json.loads(result.stdout)
    expected = {"file": str(CHELSEA), "objects": [o.to_dict() for o in net.predict(CHELSEA, 0.2)], "weights": "embedded"}
    assert told["file"] == expected["file"] and told["weights"] == "embedded" and len(told["objects"]) == len(expected["objects"]) > 0
    for one, other in zip(told["objects"], expected["objects"], strict=True):
        assert one["label"] == other["label"] and one["rays"] == pytest.approx(other["rays"], abs=0.3) and one["score"] == pytest.approx(other["score"], abs=2e-3)


def test_pictures_of_every_kind(cases):
    """Bad files get their sentence, good ones an answer: one process for all."""
    chosen = {name: cases[name] for name in (*corpus.BAD, "exif6.jpg")}
    result = run("polar", *(str(case.path) for case in chosen.values()), "--json")
    assert result.returncode == 2
    for (name, case), line in zip(chosen.items(), map(json.loads, result.stdout.splitlines()), strict=True):
        assert "objects" in line if name not in corpus.BAD else case.words in line["error"], name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{photo}", "--point", "9999,5"], "outside of this picture of 451 x 300"),
        (["{photo}", "--point", "here"], "two numbers with a comma"),
        (["{photo}", "--point", "1,2,3"], "two numbers with a comma"),
        (["{photo}", "--point", "nan,1"], "outside of this picture"),
        (["{photo}", "--score", "7"], "between 0 and 1.5"),
        (["{photo}", "--score", "0.5", "--point", "1,2"], "leave it out with --point"),
        (["{photo}", "--svg", "{tmp}/a.png"], "end the name in .svg"),
        (["{photo}", "--svg", "{tmp}/no/a.svg"], "There is no folder"),
        (["{photo}", "{photo}", "--svg", "{tmp}/a.svg"], "--svg draws one picture, not 2"),
        (["{tmp}/none.png"], "There is no file"),
        (["{tmp}"], "There is no picture to work on"),
        (["{photo}", "--weights", "{tmp}/none.safetensors"], "There is no file"),
    ],
)
def test_user_mistakes(tmp_path, arguments, words):
    result = run("polar", *(a.format(photo=CHELSEA, tmp=tmp_path) for a in arguments))
    assert (result.returncode, result.stdout) == (2, "") and words in result.stderr
    assert not list(tmp_path.iterdir())
