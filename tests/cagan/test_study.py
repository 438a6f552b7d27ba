"""The step and the sweeps on one close-up: they say what the networks say."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from pttp.cagan import study
from pttp.cagan.colour import lab_of, scaled, unscaled
from tests.cagan.test_predict import LIP, net, photo, told  # noqa: F401


@pytest.fixture
def part(told):  # noqa: F811
    predictor, found = told
    picture, whole = photo(12)
    found.append(whole)
    return predictor, predictor.prepare(picture).parts["lips"]


def test_step(part):
    predictor, lips = part
    one = study.step(predictor, lips, lab_of("#2d4fa3"))
    assert one.x.shape == one.changed.shape == one.back.shape == (128, 128, 3) and one.where.shape == one.difference.shape == (128, 128)
    untouched = one.where == 0
    assert np.array_equal(one.x[untouched], one.changed[untouched]) and one.difference[untouched].max() < 0.1 < one.difference[~untouched].min()
    np.testing.assert_allclose(one.own, lab_of(LIP), atol=1e-3)
    with torch.inference_mode():
        said = predictor.net.discriminator(lips.x, lips.maps, torch.tensor([0]))
    np.testing.assert_allclose(one.source[1], unscaled(said.skin)[0].numpy(), rtol=1e-4)
    np.testing.assert_allclose(one.looks.sum((1, 2)), 1, rtol=1e-4)
    assert set(one.losses) == {"color", "skin", "inside"} and one.cycle == pytest.approx(np.abs(one.back.astype(float) - one.x).mean() / 255, abs=2e-3)


def test_sweeps(part, monkeypatch):
    predictor, lips = part
    monkeypatch.setattr(type(predictor.net.generator), "own_colour", lambda self, lab, maps, region: scaled(torch.from_numpy(lab_of(LIP)).float()[None]), raising=False)
    found = study.sweeps(predictor, lips)
    assert [one.axis for one in found] == ["L*", "a*", "b*"]
    for i, one in enumerate(found):
        assert one.pictures.shape == (9, 128, 128, 3) and one.shown[4]
        others = [j for j in range(3) if j != i]
        np.testing.assert_allclose(one.asked[:, others], np.tile(lab_of(LIP)[others], (9, 1)), atol=1e-3)
        assert (np.diff(one.asked[:, i]) > 0).all()
        assert one.delta_e[one.shown].max() < 3 and (np.diff(one.got[one.shown, i]) > 0).all()
