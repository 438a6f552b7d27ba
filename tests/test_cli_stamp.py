"""`python -m pttp stamp encode|decode`, in processes of its own."""
from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pttp
from pttp.stegastamp import links
from tests import corpus
from tests.test_cli import run

COFFEE = Path(importlib.util.find_spec("skimage").origin).parent / "data" / "coffee.png"
LINK = "https://example.org/on/the/command?line"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A registry, links.sqlite, and two stamped files: text.png holds a text, link.jpg a link."""
    folder = tmp_path_factory.mktemp("stamps")
    text = run("stamp", "encode", str(COFFEE), "Hello!", "-o", str(folder / "text.png"), "--one-pass", PTTP_LINKS=str(folder / "links.sqlite"))
    assert (text.returncode, text.stderr) == (0, "") and text.stdout.startswith(f"{folder / 'text.png'}: 'Hello!', PSNR ")
    link = run("stamp", "encode", str(COFFEE), LINK, "-o", str(folder / "link.jpg"), "--quality", "95", "--strength", "1.5", "--json", PTTP_LINKS=str(folder / "links.sqlite"))
    assert (link.returncode, link.stderr) == (0, "")
    told = json.loads(link.stdout)
    assert told["verified"] and told["link"] == LINK and told["strength"] == 1.5 and told["out"] == str(folder / "link.jpg") and told["weights"] == "embedded"
    return folder


@pytest.fixture(scope="module")
def net(folder):
    predictor = pttp.load("stegastamp", "embedded")
    predictor.links = links.Links(folder / "links.sqlite")
    return predictor


def test_encode_writes_what_python_writes(folder, net):
    assert np.array_equal(np.asarray(Image.open(folder / "text.png")), np.asarray(net.encode(COFFEE, "Hello!", steps=0).image))
    assert Image.open(folder / "link.jpg").format == "JPEG" and net.decode(folder / "link.jpg").link == LINK


def test_decode_a_folder(folder):
    result = run("stamp", "decode", str(folder), PTTP_LINKS=str(folder / "links.sqlite"))
    assert (result.returncode, result.stderr) == (0, "")
    first, second = result.stdout.splitlines()
    assert first.startswith(f"{folder / 'link.jpg'}: {LINK} (code ") and "bits repaired, confidence " in first
    assert second.startswith(f"{folder / 'text.png'}: 'Hello!', ")


def test_json_says_what_python_says(folder, net):
    result = run("stamp", "decode", str(folder / "text.png"), "--json", PTTP_LINKS=str(folder / "links.sqlite"))
    told = json.loads(result.stdout)
    expected = {"file": str(folder / "text.png"), **net.decode(folder / "text.png").to_dict(), "weights": "embedded"}
    assert told.pop("confidence") == pytest.approx(expected.pop("confidence"), abs=2e-3)
    assert told == expected


def test_pictures_of_every_kind(cases, folder):
    """Bad files get their sentence, a good one without a stamp a verdict, and a stamped one after them is read: one process for all."""
    chosen = {name: cases[name] for name in (*corpus.BAD, "exif6.jpg")}
    result = run("stamp", "decode", *(str(case.path) for case in chosen.values()), str(folder / "text.png"), "--json", PTTP_LINKS=str(folder / "links.sqlite"))
    *lines, last = map(json.loads, result.stdout.splitlines())
    assert result.returncode == 2 and last["message"] == "Hello!"
    for (name, case), line in zip(chosen.items(), lines, strict=True):
        assert set(line) == {"file", "error"} and (case.words if name in corpus.BAD else "No stamp can be read here") in line["error"], name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["encode", "{photo}", "12345678", "-o", "{tmp}/a.png"], "takes 8 bytes and a stamp holds 7"),
        (["encode", "{photo}", "", "-o", "{tmp}/a.png"], "message is empty"),
        (["encode", "{photo}", "https://", "-o", "{tmp}/a.png"], "names no host"),
        (["encode", "{photo}", "a", "-o", "{tmp}/a.png", "--strength", "3"], "between 0.3 and 2"),
        (["encode", "{photo}", "a", "-o", "{tmp}/a.bmp"], "end the name in .png, .jpg or .webp"),
        (["encode", "{photo}", "a", "-o", "{tmp}/no/a.png"], "There is no folder"),
        (["encode", "{photo}", "a", "-o", "{tmp}/a.jpg", "--quality", "0"], "--quality"),
        (["encode", "{photo}", "a"], "Missing option"),
        (["encode", "{tmp}/none.png", "a", "-o", "{tmp}/a.png"], "There is no file"),
        (["decode", "{tmp}"], "There is no picture to work on"),
        (["decode", "https://example.org/a.png"], "download the picture first"),
        (["paint"], "No such command"),
    ],
)
def test_user_mistakes(tmp_path, arguments, words):
    result = run("stamp", *(a.format(photo=COFFEE, tmp=tmp_path) for a in arguments), PTTP_LINKS=str(tmp_path / "links" / "l.sqlite"))
    assert (result.returncode, result.stdout) == (2, "") and words in result.stderr
    assert not [f for f in tmp_path.iterdir() if f.suffix in (".png", ".jpg", ".part")]


def test_a_file_that_does_not_read_back_is_said_to_be_so(tmp_path):
    result = run("stamp", "encode", str(COFFEE), "Hello!", "-o", str(tmp_path / "a.jpg"), "--quality", "1", "--strength", "0.3", "--json")
    told = json.loads(result.stdout)
    assert (result.returncode, told["verified"]) == (2, False) and "does not read back" in result.stderr and (tmp_path / "a.jpg").is_file()
