"""The weights that are shipped, on a portrait that training never saw."""
from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pttp
from pttp.cagan import locate
from pttp.cagan.colour import delta_e, lab_of
from pttp.errors import NoFaceFound

SKIMAGE = Path(importlib.util.find_spec("skimage").origin).parent / "data"
EYES, MOUTH = np.array([[207, 103], [241, 104]]), np.array([225, 148])  # of the astronaut, by eye


@pytest.fixture(scope="module")
def net():
    return pttp.load("cagan", "embedded")


@pytest.fixture(scope="module")
def astronaut() -> Image.Image:
    return Image.open(SKIMAGE / "astronaut.png").convert("RGB")


@pytest.mark.parametrize("box", [(0, 0, 512, 512), (150, 40, 300, 190), (175, 55, 275, 175), (100, 0, 400, 511)], ids=["whole", "head", "face fills it", "portrait"])
@pytest.mark.parametrize("scale", [0.8, 1, 3])
def test_the_face_is_found_at_any_size(net, astronaut, box, scale):
    picture = astronaut.crop(box)
    picture = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS)
    first, *_ = locate.find_faces(net.net.locator, np.asarray(picture))
    corner = np.array(box[:2])
    assert np.abs(first.eyes / scale + corner - EYES).max() < 6 and np.abs(first.mouth / scale + corner - MOUTH).max() < 6


@pytest.mark.parametrize("degrees", [-25, 25])
def test_a_tilted_face(net, astronaut, degrees):
    turned = astronaut.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=(128, 128, 128))
    face = locate.find_faces(net.net.locator, np.asarray(turned))[0]
    assert abs(np.degrees(face.angle) + degrees) < 6


@pytest.mark.parametrize("shade", ["#b01030", "#6a2a4f", "#b5766a"])
def test_the_colour_arrives_and_nothing_else_moves(net, astronaut, shade):
    made = net.apply(astronaut, lips=shade)
    assert made.delta_e["lips"] < 8 < delta_e(lab_of(shade), net.estimate(astronaut).lips)
    before, after = np.asarray(astronaut).astype(int), np.asarray(made.image)
    y, x = np.nonzero((before != after).any(2))
    assert np.hypot(x - MOUTH[0], y - MOUTH[1]).max() < 40


@pytest.mark.parametrize("name", ["coffee.png", "rocket.jpg", "chelsea.png"])
def test_no_face(net, name):
    with pytest.raises(NoFaceFound):
        net.apply(SKIMAGE / name, lips="#b01030")
