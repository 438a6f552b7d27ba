"""`python -m pttp segment` and `weights convert`, in processes of their own."""
from __future__ import annotations

import importlib.util
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pttp
from pttp.pointrend import masks
from tests.pointrend.test_official import arrays_of, small, write
from tests.test_cli import run

CHELSEA = Path(importlib.util.find_spec("skimage").origin).parent / "data" / "chelsea.png"


@pytest.fixture(scope="module")
def session():
    return pttp.load("pointrend", "embedded").open(CHELSEA)


def test_the_files_are_what_python_gives(session, tmp_path):
    result = run("segment", str(CHELSEA), "--point", "200,150", "--point", "300,160", "--negative", "30,30", "-o", str(tmp_path / "m.png"), "--rle", str(tmp_path / "m.json"), "--cutout", str(tmp_path / "c.png"), "--anyway")
    assert (result.returncode, result.stderr) == (0, "")
    made = session.click([(200, 150), (300, 160), (30, 30)], [1, 1, 0], anyway=True)
    mask = Image.open(tmp_path / "m.png")
    assert mask.mode == "L" and np.array_equal(np.asarray(mask), 255 * made.mask.astype(np.uint8))
    told = json.loads((tmp_path / "m.json").read_text())
    assert told["annotations"][0]["segmentation"] == masks.rle(made.mask) and told["images"][0]["file_name"] == "chelsea.png"
    cut = Image.open(tmp_path / "c.png")
    assert cut.mode == "RGBA" and cut.size == (made.box[2] - made.box[0], made.box[3] - made.box[1])
    assert result.stdout.startswith(f"{CHELSEA}: {made.label} ") and f"{made.mask.sum()} pixels" in result.stdout


def test_json(session):
    result = run("segment", str(CHELSEA), "--point", "200,150", "--anyway", "--json")
    made = session.click([(200, 150)], [1], anyway=True)
    assert result.returncode == 0 and json.loads(result.stdout) == {"file": str(CHELSEA), **made.to_dict(), "rle": masks.rle(made.mask), "weights": "embedded"}


def test_everything_in_a_folder(session, tmp_path):
    Image.open(CHELSEA).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no picture")
    result = run("segment", str(tmp_path), "--all", "--json")
    good, bad = map(json.loads, result.stdout.splitlines())
    assert result.returncode == 2 and "not a picture" in bad["error"]
    assert [{k: i[k] for k in ("label", "score", "box", "area")} for i in good["instances"]] == [i.to_dict() for i in session.instances]
    assert all(i["rle"]["size"] == [300, 451] for i in good["instances"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{photo}"], "Say where the object is"),
        (["{photo}", "--negative", "3,4"], "Say where the object is"),
        (["{photo}", "--point", "900,20"], "outside of this picture of 451 x 300"),
        (["{photo}", "--point", "12;4"], "is not a point"),
        (["{photo}", "--point", "1,2,3"], "is not a point"),
        (["{photo}", "{photo}", "--point", "1,2"], "give one file"),
        (["{photo}", "--all", "--point", "1,2"], "leave the points"),
        (["{photo}", "--point", "1,2", "-o", "{tmp}/a.jpg"], "end the name in .png"),
        (["{photo}", "--point", "1,2", "--rle", "{tmp}/no/a.json", "--anyway"], "There is no folder"),
        (["{tmp}/none.png", "--point", "1,2"], "There is no file"),
        (["{tmp}", "--all"], "There is no picture to work on"),
        (["{sky}", "--point", "100,100"], "Nothing was found here"),
    ],
)
def test_user_mistakes(tmp_path, arguments, words):
    sky = tmp_path / "folder" / "sky.bmp"
    if any("{sky}" in a for a in arguments):
        sky.parent.mkdir()
        Image.linear_gradient("L").resize((320, 240)).convert("RGB").point(lambda v: 180 + v // 8).save(sky)
    result = run("segment", *(a.format(photo=CHELSEA, tmp=tmp_path, sky=sky) for a in arguments))
    assert (result.returncode, result.stdout) == (2, "") and words in result.stderr
    assert not list(tmp_path.glob("a.*"))


def test_contradictions_are_said(tmp_path):
    result = run("segment", str(CHELSEA), "--point", "200,150", "--point", "50,60", "--negative", "50,60", "--anyway")
    assert result.returncode == 0 and "the last click counts" in result.stderr


def test_convert(tmp_path):
    """A small checkpoint in the authors' format becomes a folder; one that would execute something is refused."""
    file = write(tmp_path / "model_final.pkl", {"model": arrays_of(small()), "__author__": "someone"})
    result = run("weights", "convert", "pointrend", str(file))
    assert (result.returncode, result.stderr) == (0, "") and result.stdout.strip() == f"Written: {file.with_suffix('')}"
    assert {p.name for p in file.with_suffix("").iterdir()} == {"model.safetensors", "config.json"}
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps({"model": print}))
    bad = run("weights", "convert", "pointrend", str(tmp_path / "bad.pkl"))
    assert (bad.returncode, bad.stdout) == (2, "") and "cannot be read safely" in bad.stderr
    full = run("weights", "convert", "pointrend", str(file), str(tmp_path / "bad.pkl" / "below"))
    assert (full.returncode, full.stdout) == (2, "") and "could not be made" in full.stderr
    for room in ("polarmask", "gfm", "ghostnet", "stegastamp"):
        other = run("weights", "convert", room, str(tmp_path / "bad.pkl"), str(tmp_path / "out"))
        assert (other.returncode, other.stdout) == (2, "") and "bad.pkl" in other.stderr and "Traceback" not in other.stderr, room
    other = run("weights", "convert", "cagan", str(file))
    assert other.returncode == 2 and "not converted here" in other.stderr
    other = run("weights", "convert", "pointrend", str(file), str(tmp_path / "out"), "--rosta", "TT")
    assert other.returncode == 2 and "question of GFM" in other.stderr
    other = run("weights", "convert", "cake", str(file))
    assert other.returncode == 2 and "not converted here" in other.stderr
