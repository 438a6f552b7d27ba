"""What the look inside shows."""
from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pttp.errors import BadInput
from pttp.gfm import study
from pttp.gfm.predict import Predictor

CHELSEA = Path(importlib.util.find_spec("skimage").origin).parent / "data" / "chelsea.png"


@pytest.fixture(scope="module")
def net() -> Predictor:
    return Predictor.from_pretrained("embedded")


@pytest.fixture(scope="module")
def matte(net):
    return net.predict(CHELSEA)


def disc(h: int, w: int, soft: float = 6) -> np.ndarray:
    rows, columns = np.mgrid[:h, :w]
    return np.clip((h / 3 - np.hypot(rows - h / 2, columns - w / 2)) / soft + 0.5, 0, 1).astype(np.float32)


def test_panels(matte):
    shown = study.panels(matte)
    h, w = matte.alpha.shape
    assert shown.glance.shape == shown.focus.shape == shown.fusion.shape == (h, w, 3)
    assert shown.background + shown.transition + shown.animal == pytest.approx(1)
    assert 0 < shown.by_focus < 1 and shown.changed is None
    colours = {tuple(c) for c in shown.glance.reshape(-1, 3)}
    assert colours == {tuple(c) for c in study.CLASSES}
    assert np.array_equal(shown.fusion[..., 0], np.rint(255 * matte.alpha))
    sure = (shown.glance == study.CLASSES[2]).all(2)
    assert np.median(shown.fusion[sure]) == 255


def test_widening_shows_in_the_panels(net, matte):
    before, after = study.panels(matte), study.panels(net.matte(matte.look, 0.05), matte)
    assert after.transition > before.transition and after.by_focus > before.by_focus and after.changed > 0


def test_panels_of_a_part(net):
    """What was looked at from nearer by stands at its place, with background around it."""
    canvas = Image.new("RGB", (1800, 1200), (120, 140, 120))
    canvas.paste(Image.open(CHELSEA), (1100, 700))
    shown = study.panels(net.predict(canvas))
    assert shown.glance.shape == (320, 480, 3)
    assert (shown.glance[:120] == study.CLASSES[0]).all() and (shown.glance[200:270, 300:400] == study.CLASSES[2]).all(2).any()


@pytest.mark.parametrize("name", study.RULES)
def test_every_rosta_gives_the_matte_back(name):
    """Perfect answers to what each asks for, joined by its rule, are the truth: the three differ in what is asked, not in what can be said."""
    alpha = disc(200, 300)
    one = study.rosta(alpha, name)
    assert one.off < 1e-6 and np.array_equal(one.fusion[..., 0], np.rint(255 * alpha))
    assert one.name == name and 0 < one.asked < 0.5
    assert len({tuple(c) for c in one.glance.reshape(-1, 3)}) == (3 if name == "TT" else 2)


def test_what_the_rostas_ask_for():
    alpha = disc(200, 300)
    asked = {name: study.rosta(alpha, name) for name in study.RULES}
    middle = 100, 150
    assert asked["FT"].focus[middle].tolist() == asked["BT"].focus[middle].tolist() == asked["TT"].focus[middle].tolist() == [0, 0, 0]
    rim = 100, 150 + 67 + 6  # just outside: BT has called it animal and must take it away again
    assert alpha[rim] == 0 and asked["BT"].focus[rim][0] == 255 and asked["FT"].focus[rim][0] == 0
    with pytest.raises(BadInput, match="RoSTa"):
        study.rosta(alpha, "RIM")


def test_errors():
    alpha = disc(120, 160)
    truth = Image.fromarray(np.rint(255 * alpha).astype(np.uint8))
    same = study.errors(np.asarray(truth) / np.float32(255), truth)
    assert same.sad == same.mad == same.mse == same.grad == 0 and (same.picture == study.CLASSES[1]).all() and same.size == (160, 120)
    more = alpha.copy()
    more[:10, :10], more[60, 80] = 1, 0
    off = study.errors(more, truth)
    assert off.sad == pytest.approx(0.101, abs=0.01) and off.mad == pytest.approx(1000 * off.sad / alpha.size, rel=1e-5)
    assert off.picture[5, 5].tolist() == study.CLASSES[2].tolist() and off.picture[60, 80].tolist() == study.CLASSES[0].tolist()
    assert off.sad_transition < off.sad


def test_a_true_matte_of_another_size_is_stretched_and_of_another_aspect_refused():
    alpha = disc(120, 160)
    small = Image.fromarray(np.rint(255 * alpha).astype(np.uint8)).resize((80, 60), Image.Resampling.BOX)
    assert study.errors(alpha, small).mad < 0.01
    cut = Image.new("RGBA", (160, 120), "white")
    cut.putalpha(Image.fromarray(np.rint(255 * alpha).astype(np.uint8)))
    assert study.errors(alpha, cut).mad < 0.01
    with pytest.raises(BadInput, match="same aspect"):
        study.errors(alpha, Image.new("L", (100, 120)))
