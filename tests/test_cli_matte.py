"""`python -m pttp matte`, in processes of its own."""
from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pttp
from tests import corpus
from tests.test_cli import run

SKIMAGE = Path(importlib.util.find_spec("skimage").origin).parent / "data"
CHELSEA, COFFEE = SKIMAGE / "chelsea.png", SKIMAGE / "coffee.png"


@pytest.fixture(scope="module")
def net():
    return pttp.load("gfm", "embedded")


@pytest.fixture
def photos(tmp_path) -> Path:
    """cat.jpg, cat.png (the same name twice), below/cup.png, and a text that calls itself a picture."""
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    Image.open(CHELSEA).save(folder / "cat.jpg", quality=95)
    Image.open(CHELSEA).save(folder / "cat.png")
    Image.open(COFFEE).save(folder / "below" / "cup.png")
    return folder


def test_one_file(net, tmp_path):
    done = run("matte", str(CHELSEA), "-o", str(tmp_path / "cat.png"))
    matte = net.predict(CHELSEA)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout == f"{CHELSEA}: {tmp_path / 'cat.png'}: {matte.alpha.mean():.0%} of the picture\n"
    assert np.abs(np.asarray(Image.open(tmp_path / "cat.png")).astype(int) - np.asarray(matte.cutout())).max() <= 2


def test_widened(net, tmp_path):
    done = run("matte", str(CHELSEA), "-o", str(tmp_path / "cat.png"), "--widen", "0.05")
    said = np.asarray(Image.open(tmp_path / "cat.png"))[..., 3] / 255
    assert done.returncode == 0 and np.abs(said - net.predict(CHELSEA, 0.05).alpha).max() < 0.01 < np.abs(said - net.predict(CHELSEA).alpha).max()
    assert run("matte", str(CHELSEA), "-o", str(tmp_path / "cat.png"), "--widen", "3").returncode == 2
    again = run("matte", str(CHELSEA), "-o", str(tmp_path / "cat.png"), "--alpha-only")
    assert (again.returncode, again.stderr) == (0, "") and Image.open(tmp_path / "cat.png").mode == "L", "a result that is named is made anew"


def test_a_folder_and_on_from_where_it_was_broken_off(photos, tmp_path):
    out = tmp_path / "out"
    (photos / "zero.png").write_text("no picture")
    first = run("matte", str(photos), "-o", str(out), "--json")
    assert first.returncode == 2 and f"{photos / 'zero.png'}: " in first.stderr and "not a picture" in first.stderr
    told = {Path(line["file"]).name: line for line in map(json.loads, first.stdout.splitlines())}
    assert {p.relative_to(out).as_posix() for p in out.rglob("*.png")} == {"cat.jpg.png", "cat.png.png", "below/cup.png"}
    assert told["cat.jpg"]["found"] and told["cat.jpg"]["out"] == str(out / "cat.jpg.png") and told["cat.jpg"]["weights"] == "embedded"
    assert not told["cup.png"]["found"] and "No animal" in told["cup.png"]["notes"][0] and "error" in told["zero.png"]
    (photos / "zero.png").unlink()
    (out / "cat.jpg.png").unlink()
    kept = (out / "cat.png.png").stat().st_mtime_ns
    again = run("matte", str(photos), "-o", str(out))
    assert again.returncode == 0 and again.stderr.startswith("2 of 3 results are already there")
    assert again.stdout.count("\n") == 1 and (out / "cat.jpg.png").is_file() and (out / "cat.png.png").stat().st_mtime_ns == kept
    nothing = run("matte", str(photos), "-o", str(out))
    assert (nothing.returncode, nothing.stdout) == (0, "") and "3 of 3" in nothing.stderr


def test_backgrounds_and_the_matte_alone(net, photos, tmp_path):
    matte = net.predict(CHELSEA)
    for name, options, expected in (
        ("colour.png", ["--background", "#b01030"], matte.over("#b01030")),
        ("blur.png", ["--background", "blur"], matte.over("blur")),
        ("image.png", ["--background", str(COFFEE)], matte.over(COFFEE)),
        ("alpha.png", ["--alpha-only"], matte.mask()),
    ):
        done = run("matte", str(CHELSEA), "-o", str(tmp_path / name), *options)
        assert (done.returncode, done.stderr) == (0, "")
        got = Image.open(tmp_path / name)
        assert got.mode == expected.mode and np.abs(np.asarray(got).astype(int) - np.asarray(expected)).max() <= 2, name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-o", "cat.jpg"], "could not be transparent"),
        (["-o", "cat.png", "--background", "#12"], "no colour"),
        (["-o", "cat.png", "--background", "nowhere.png"], "There is no file"),
        (["-o", "cat.png", "--background", "red", "--alpha-only"], "leave one of the two away"),
        (["-o", "nowhere/cat.png"], "no folder"),
    ],
)
def test_mistakes_are_sentences(tmp_path, arguments, words):
    done = run("matte", str(CHELSEA), *arguments, cwd=tmp_path)
    assert done.returncode == 2 and words in done.stderr and not list(tmp_path.iterdir())


def test_the_whole_corpus(cases, tmp_path):
    """Good files get an answer, bad ones a sentence; one process for all."""
    files: list[corpus.Case] = [case for case in cases.values() if case.is_file]
    done = run("matte", *(str(case.path) for case in files), "-o", str(tmp_path), "--alpha-only", "--json")
    told = {line["file"]: line for line in map(json.loads, done.stdout.splitlines())}
    for case in files:
        line = told[str(case.path)]
        assert ("error" not in line) == case.ok, (case.name, line)
        if not case.ok:
            assert case.words.lower() in line["error"].lower()
