"""The endpoint /matte of a running page."""
from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from gradio_client import handle_file
from gradio_client.exceptions import AppError
from PIL import Image

import pttp
from tests.test_http import client, registry, url  # noqa: F401 (fixtures)

CHELSEA = Path(importlib.util.find_spec("skimage").origin).parent / "data" / "chelsea.png"


@pytest.fixture(scope="module")
def made():
    return pttp.load("gfm", "embedded").predict(CHELSEA)


def test_widening_equals_python(client, made):  # noqa: F811
    file, told = client.predict(image=handle_file(CHELSEA), widen=0.05, weights="embedded", api_name="/matte")
    expected = pttp.load("gfm", "embedded").matte(made.look, 0.05)
    assert close(file, expected.cutout()) and not np.array_equal(expected.alpha, made.alpha) and told["weights"] == "embedded"


@pytest.mark.parametrize(("given", "words"), [({"widen": 0.5}, "between 0 and 0.1"), ({"widen": "abc"}, "a number from 0"), ({"weights": "/etc/passwd"}, "weights that this page offers")])
def test_mistakes(client, given, words):  # noqa: F811
    with pytest.raises(AppError, match=words):
        client.predict(image=handle_file(CHELSEA), **given, api_name="/matte")


def close(file: str, expected: Image.Image) -> bool:
    got = Image.open(file)
    return got.mode == expected.mode and np.abs(np.asarray(got).astype(int) - np.asarray(expected)).max() <= 2


def test_it_equals_python(client, made):  # noqa: F811
    for arguments, expected in (({}, made.cutout()), ({"background": "#b01030"}, made.over("#b01030")), ({"background": "blur"}, made.over("blur")), ({"alpha_only": True}, made.mask())):
        file, told = client.predict(image=handle_file(CHELSEA), **arguments, api_name="/matte")
        assert close(file, expected), arguments
        assert told["weights"] == "embedded" and told["found"] and told["width"] == 451 and told["coverage"] == pytest.approx(float(made.alpha.mean()), abs=1e-3)


@pytest.mark.parametrize("background", ["/etc/hostname", str(CHELSEA), "https://example.org/a.png", "#12"])
def test_no_path_and_no_address_is_opened(client, background):  # noqa: F811
    with pytest.raises(AppError, match="colour"):
        client.predict(image=handle_file(CHELSEA), background=background, api_name="/matte")


def test_no_animal_is_an_answer(client, tmp_path):  # noqa: F811
    Image.new("RGB", (64, 48), "gray").save(tmp_path / "grey.png")
    file, told = client.predict(image=handle_file(tmp_path / "grey.png"), api_name="/matte")
    assert not told["found"] and "No animal" in told["notes"][0] and Image.open(file).getchannel("A").getextrema() == (0, 0)


def test_the_code_panel_works_as_it_stands(url, tmp_path):  # noqa: F811
    from demos.gfm import code

    Image.open(CHELSEA).save(tmp_path / "photo.jpg")
    _, _, http = code("colour", "#b01030", "auto", 3)
    done = subprocess.run(["bash", "-c", http.replace("http://127.0.0.1:7860", url)], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "event: complete" in done.stdout, done
    told = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("data: ["))[6:])[1]
    assert told["found"] and told["weights"] == "embedded"
