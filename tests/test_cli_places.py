"""Where results go: nothing of the user's is written over, and what cannot be written is said before a model is loaded."""
from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from PIL import Image

from pttp.cli import app
from pttp.cli_places import is_one, places, spare, targets, waiting
from pttp.errors import BadInput


@pytest.fixture
def photos(tmp_path) -> Path:
    """Beside it a.png, once more under the name link.png, and a file where a folder would have to be; in it a.png and b.jpg."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", "photos/a.png", "photos/b.jpg"):
        Image.new("RGB", (20, 20), "red").save(tmp_path / name)
    os.link(tmp_path / "a.png", tmp_path / "link.png")
    (tmp_path / "file").touch()
    return folder


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["matte", "a.png", "-o", "a.png"], "a.png is one of the pictures"),
        (["matte", "a.png", "-o", "photos/../a.png", "--again"], "one of the pictures"),
        (["matte", "photos/b.jpg", "--background", "a.png", "-o", "a.png", "--again"], "a.png is one of the pictures"),
        (["matte", "photos", "-o", "photos"], "photos/a.png is one of the pictures"),
        (["makeup", "a.png", "--lips", "#b01030", "-o", "link.png"], "link.png is one of the pictures"),
        (["makeup", "photos", "--lips", "#b01030", "-o", "photos/../photos"], "a.png is one of the pictures"),
        (["makeup", "photos/a.png", "--like", "a.png", "-o", "a.png"], "a.png is one of the pictures"),
        (["stamp", "encode", "a.png", "hi", "-o", "a.png"], "a.png is one of the pictures"),
        (["stamp", "encode", "photos", "hi", "-o", "photos"], "a.png is one of the pictures"),
        (["segment", "a.png", "--point", "1,2", "-o", "a.png"], "a.png is one of the pictures"),
        (["segment", "a.png", "--point", "1,2", "--cutout", "link.png"], "link.png is one of the pictures"),
        (["segment", "a.png", "--point", "1,2", "-o", "new.png", "--cutout", "photos/../new.png"], "a file of its own"),
        (["matte", "photos", "-o", "file/below"], "could not be made"),
        (["matte", "a.png", "-o", "x" * 300 + "/"], "could not be made"),
        (["makeup", "photos", "--lips", "#b01030", "-o", "file/below"], "could not be made"),
        (["makeup", "a.png", "--lips", "#b01030", "-o", "nowhere/b.png"], "There is no folder"),
        (["makeup", "a.png", "--lips", "#b01030", "-o", "b.bmp"], "end the name in .png, .jpg or .webp"),
        (["stamp", "encode", "photos", "hi", "-o", "file"], "is a file: give a folder"),
        (["segment", "a.png", "--point", "1,2", "--rle", "nowhere/a.json"], "There is no folder"),
        (["segment", "a.png", "--point", "1,2", "--rle", "file/a.json"], "There is no folder"),
        (["polar", "a.png", "--svg", "nowhere/a.svg"], "There is no folder"),
    ],
)
def test_said_before_a_model_is_loaded(photos, tmp_path, monkeypatch, arguments, words):
    """Otherwise the missing weights would be what is said. In this process: two dozen of their own would take minutes."""
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=re.escape(words)):
        app([*arguments, "--weights", "missing.safetensors"], standalone_mode=False)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before


def test_targets(photos, tmp_path):
    out = tmp_path / "out"
    assert targets(["a.jpg"], tmp_path / "b.png") == {Path("a.jpg"): tmp_path / "b.png"}
    assert targets([str(photos)], out) == {photos / "a.png": out / "a.png", photos / "b.jpg": out / "b.png"} and out.is_dir()
    assert targets(["a.jpg"], out) == {Path("a.jpg"): out / "a.png"}
    assert is_one(["a.jpg"], Path("b.png")) and not is_one(["a.jpg"], out) and not is_one(["a.jpg", "b.jpg"], Path("b.png")) and not is_one([str(photos)], Path("b.png"))
    assert not is_one(["x" * 300], out)  # a name that no disk can hold


def test_spare(photos, tmp_path):
    spare([tmp_path / "new.png", photos / "a.png", None], [tmp_path / "a.png", "missing.png", None])
    with pytest.raises(BadInput, match="link.png is one of the pictures"):
        spare([tmp_path / "link.png"], ["missing.png", tmp_path / "a.png"])


def test_waiting(photos, tmp_path, capsys):
    found = {Path("one"): photos / "a.png", Path("two"): photos / "new.png"}
    assert waiting(found, again=False) == [Path("two")] and capsys.readouterr().err.startswith("1 of 2 results are already there")
    assert waiting(found, again=True) == list(found) and capsys.readouterr().err == ""


def test_places(tmp_path):
    (tmp_path / "a" / "deep").mkdir(parents=True)
    found = [tmp_path / "a" / "x.jpg", tmp_path / "a" / "deep" / "x.jpg", Path("loose.webp")]
    out = tmp_path / "out"
    assert list(places([str(tmp_path / "a"), "loose.webp"], found, out).values()) == [out / "x.png", out / "deep" / "x.png", out / "loose.png"]
    with pytest.raises(BadInput, match="same name"):
        places(["one/x.jpg", "two/x.jpg"], [Path("one/x.jpg"), Path("two/x.jpg")], out)
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="is a file"):
        places(["one/x.jpg"], [Path("one/x.jpg")], tmp_path / "file")
