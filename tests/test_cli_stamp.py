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


def test_encode_a_folder(tmp_path):
    """Every picture of it; one that is none gets its sentence, and what is there already stays."""
    photos, out, registry = tmp_path / "photos", tmp_path / "out", {"PTTP_LINKS": str(tmp_path / "links.sqlite")}
    (photos / "below").mkdir(parents=True)
    Image.open(COFFEE).save(photos / "below" / "cup.jpg")
    Image.open(COFFEE).resize((200, 150)).save(photos / "small.png")
    (photos / "text.png").write_text("no picture")
    first = run("stamp", "encode", str(photos), "Hello!", "-o", str(out), "--one-pass", "--json", **registry)
    told = {Path(line["file"]).name: line for line in map(json.loads, first.stdout.splitlines())}
    assert first.returncode == 2 and "not a picture" in first.stderr and "error" in told["text.png"]
    assert {p.relative_to(out).as_posix() for p in out.rglob("*.png")} == {"below/cup.png", "small.png"}
    assert told["cup.jpg"]["message"] == "Hello!" and told["cup.jpg"]["out"] == str(out / "below" / "cup.png") and told["cup.jpg"]["weights"] == "embedded"
    assert told["cup.jpg"]["verified"] and Image.open(out / "below" / "cup.png").size == Image.open(COFFEE).size
    (photos / "text.png").unlink()
    (out / "small.png").unlink()
    kept = (out / "below" / "cup.png").stat().st_mtime_ns
    second = run("stamp", "encode", str(photos), "other", "-o", str(out), "--one-pass", **registry)
    assert "1 of 2 results are already there" in second.stderr and (out / "below" / "cup.png").stat().st_mtime_ns == kept
    assert second.stdout.startswith(f"{photos / 'small.png'}: {out / 'small.png'}: 'other', PSNR ") and second.stdout.count("\n") == 1


def test_files_of_a_batch_that_do_not_read_back_are_said_to_be_so(tmp_path):
    for name in ("a.png", "b.png"):
        Image.open(COFFEE).resize((64, 64)).save(tmp_path / name)
    result = run("stamp", "encode", str(tmp_path / "a.png"), str(tmp_path / "b.png"), "Hello!", "-o", str(tmp_path / "out"), "--strength", "0.3", "--one-pass", "--json")
    told = [json.loads(line) for line in result.stdout.splitlines()]
    assert (result.returncode, [line["verified"] for line in told]) == (2, [False, False]) and result.stderr.count("does not read back") == 2


def test_what_cannot_be_hidden_is_said_once(tmp_path):
    result = run("stamp", "encode", str(COFFEE), str(COFFEE.with_name("chelsea.png")), "12345678", "-o", str(tmp_path / "out"))
    assert (result.returncode, result.stdout, result.stderr.count("takes 8 bytes")) == (2, "", 1) and not list(tmp_path.iterdir())


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


def test_pictures_of_every_kind(cases, folder, tmp_path):
    """Bad files get their sentence, a good one without a stamp a verdict, and a stamped one after them is read: one process for all."""
    chosen = {name: cases[name] for name in (*corpus.BAD, "exif6.jpg")}
    Image.new("RGB", (8, 8)).save(tmp_path / "small.png")
    result = run("stamp", "decode", *(str(case.path) for case in chosen.values()), str(tmp_path / "small.png"), str(folder / "text.png"), "--json", PTTP_LINKS=str(folder / "links.sqlite"))
    *lines, small, last = map(json.loads, result.stdout.splitlines())
    assert "too small to hold a stamp" in small["error"]
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
