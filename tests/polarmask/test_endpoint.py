"""The endpoint /polar of a running page."""
from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from gradio_client import handle_file
from gradio_client.exceptions import AppError
from PIL import Image

import pttp
from tests.browser.conftest import ROOT
from tests.test_http import client, registry, url  # noqa: F401 (fixtures)

CHELSEA = Path(importlib.util.find_spec("skimage").origin).parent / "data" / "chelsea.png"


@pytest.fixture(scope="module")
def net():
    return pttp.load("polarmask", "embedded")


def same(told: dict, found: list) -> None:
    assert told["weights"] == "embedded" and len(told["objects"]) == len(found)
    for one, other in zip(told["objects"], (f.to_dict() for f in found), strict=True):
        assert one["label"] == other["label"] and one["rays"] == pytest.approx(other["rays"], abs=0.3) and one["contour"][9] == pytest.approx(other["contour"][9], abs=0.3)


def test_a_point_and_every_object(client, net):  # noqa: F811
    same(client.predict(image=handle_file(CHELSEA), x=200, y=150, api_name="/polar"), [net.predict_at(CHELSEA, (200, 150))])
    same(client.predict(image=handle_file(CHELSEA), score=0.2, api_name="/polar"), net.predict(CHELSEA, 0.2))
    same(client.predict(image=handle_file(CHELSEA), x=0, y=0, weights="embedded", api_name="/polar"), [net.predict_at(CHELSEA, (0, 0))])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"x": 9999, "y": 5}, "outside of this picture of 451 x 300"),
        ({"x": 5}, "both x and y"),
        ({"x": "abc", "y": 5}, "two numbers in pixels"),
        ({"score": "abc"}, "a number from 0"),
        ({"score": 9}, "between 0 and 1.5"),
        ({"weights": "/etc/passwd"}, "weights that this page offers"),
    ],
)
def test_mistakes(client, given, words):  # noqa: F811
    with pytest.raises(AppError, match=words):
        client.predict(image=handle_file(CHELSEA), **given, api_name="/polar")


def test_a_tall_picture_of_one_pixel_width(client, tmp_path):  # noqa: F811
    Image.new("RGB", (1, 400), "red").save(tmp_path / "thin.png")
    (found,) = client.predict(image=handle_file(tmp_path / "thin.png"), x=0, y=399, api_name="/polar")["objects"]
    assert (found["width"], found["height"]) == (1, 400)


@pytest.mark.parametrize("point", [(200.4, 150), None])
def test_the_code_panel_works_as_it_stands(url, tmp_path, point):  # noqa: F811
    from demos.polarmask import code

    Image.open(CHELSEA).save(tmp_path / "photo.jpg")
    python, shell, http = code(point, 0.3, "embedded")
    done = subprocess.run(["bash", "-c", http.replace("http://127.0.0.1:7860", url)], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "event: complete" in done.stdout, done
    told = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("data: ["))[6:])[0]
    here = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", python], cwd=tmp_path, capture_output=True, text=True, timeout=120, env=here)
    assert done.returncode == 0 and (done.stdout.split()[0] == told["objects"][0]["label"]), done
    line = shell.splitlines()[0].removeprefix("python ")
    done = subprocess.run([sys.executable, *line.split()], cwd=tmp_path, capture_output=True, text=True, timeout=120, env=here)
    assert done.returncode == 0 and (tmp_path / "contour.svg").is_file(), done
