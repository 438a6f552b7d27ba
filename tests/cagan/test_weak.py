"""The weak colour models: where they look, and what they say."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from pttp.cagan import weak
from tests.cagan import made_closeups


def test_lips():
    _, labels = made_closeups.lips()
    found = weak.areas(labels, "lips")
    assert np.array_equal(found.makeup, np.isin(labels, (11, 12))) and np.array_equal(found.inside, labels == 10)
    assert not (found.skin & (labels != 1)).any()
    assert not found.skin[76, 26] and found.skin[76, 10], "skin keeps its distance from the lips"


def test_eye_shadow_lies_above_the_eye_and_near_it():
    _, labels = made_closeups.eye()
    found = weak.areas(labels, "eyes")
    assert found.makeup[74, 72] and not found.makeup[110, 72] and not found.makeup[20, 72] and not found.makeup[90, 72]
    assert not found.makeup[labels == 6].any() and not found.makeup[90, 135]
    y, _ = np.nonzero(found.makeup)
    assert y.max() <= 90 + 3


@pytest.mark.parametrize("region", weak.REGIONS)
def test_nothing_to_see(region):
    assert weak.areas(np.ones((64, 64), np.uint8), region) is None
    assert weak.areas(np.zeros((64, 64), np.uint8), region) is None


def test_two_eyes_are_no_closeup():
    _, labels = made_closeups.eye()
    labels[80:100, 120:140] = 5
    assert weak.areas(labels, "eyes") is None


def test_median_shrugs_at_a_highlight():
    lab = torch.full((1, 3, 10, 10), 40.0)
    lab[:, 0, :3] = 95
    area = torch.ones(1, 10, 10, dtype=torch.bool)
    assert weak.median_colour(lab, area).tolist() == [[40, 40, 40]]
    assert weak.mean_colour(lab, area[:, None].float())[0, 0] == pytest.approx(40 + 0.3 * 55)
    assert weak.median_colour(lab, ~area).isnan().all()
