"""What "look inside" says of a rendering is what happened."""
from __future__ import annotations

import numpy as np
import pytest
import torch

import pttp
from pttp.pointrend import points, render, study
from tests.pointrend.test_predict import PHOTOS

CLICKS = [PHOTOS["chelsea"][1], (40, 40)], [1, 0]


@pytest.fixture(scope="module")
def session():
    return pttp.load("pointrend", "embedded").open(PHOTOS["chelsea"][0])


@pytest.fixture(scope="module")
def mask(session):
    return session.click(*CLICKS, anyway=True)


def test_uncertainty_is_highest_where_points_are_asked(mask):
    for before, step in zip(mask.steps[1:], mask.steps[2:]):
        doubled = torch.nn.functional.interpolate(torch.from_numpy(study.uncertainty(before))[None, None], size=(step.size, step.size), mode="bilinear")[0, 0].numpy()
        where = study.asked(mask, step)
        assert where.sum() == len(step.points) and doubled[where].mean() > doubled[~where].mean()
    assert study.uncertainty(mask.steps[1]).max() <= 0


def test_reading_a_place(mask):
    step = mask.steps[2]
    x, y = step.points[5]
    read = study.read(mask, step, x, y)
    row, column = study.cell(mask, step, x, y)
    assert read.asked and read.logit == pytest.approx(step.logits[row, column]) and read.uncertainty == -abs(read.logit)
    assert read.probability == pytest.approx(1 / (1 + np.exp(-read.logit)))
    quiet = np.argwhere(~study.asked(mask, step))[0]
    x0, y0, x1, y1 = mask.window
    at = x0 + (quiet[1] + 0.5) / step.size * (x1 - x0), y0 + (quiet[0] + 0.5) / step.size * (y1 - y0)
    assert not study.read(mask, step, *at).asked and study.cell(mask, step, *at) == tuple(quiet)
    assert study.read(mask, step, x0 - 1, y0) is None and study.read(mask, step, x1 + 1, y1) is None


def test_macs_of_a_point_are_what_pytorch_counts(session):
    """One multiply-accumulate of the four layers is one of PyTorch's two FLOPs; reading four neighbours of 96 + 6 channels comes on top."""
    from torch.utils.flop_counter import FlopCounterMode

    net, channels = session.net, session.net.options["channels"]
    guides = net.options["codes"] + 3
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.point_head(torch.zeros(1, channels, 50), torch.zeros(1, guides, 50))
    assert study.macs_of_a_point(net) == counter.get_total_flops() // 2 // 50 + 4 * (channels + guides)


@pytest.mark.parametrize(("count", "steps", "sizes", "evaluated"), [(784, 5, [28, 56, 112, 224], [784, 1568, 2352, 3136]), (100, 3, [7, 14, 28, 56], [49, 149, 249, 349]), (784, 1, [14], [196])])
def test_costs(session, count, steps, sizes, evaluated):
    rows = study.costs(session, *CLICKS, count=count, steps=steps, rounds=1)
    assert [r.size for r in rows] == sizes and [r.points for r in rows] == evaluated
    each = study.macs_of_a_point(session.net)
    for r in rows:
        assert r.dense_points == r.size**2 and r.macs == each * r.points and r.dense_macs == each * r.size**2
        assert r.milliseconds > 0 and r.dense_milliseconds > 0
    assert [s.size for s in session.click(*CLICKS, anyway=True, count=count, steps=steps).steps] == [7, *sizes]


def test_rendering_is_quicker_than_deciding_everything(session):
    last = study.costs(session, *CLICKS, rounds=5)[-1]
    assert last.points * 15 < last.dense_points and last.milliseconds < last.dense_milliseconds


def test_dense_is_the_point_head_everywhere(session):
    box = session.look(*CLICKS)
    plain = session.net.decide(session.maps.p2, box, points.regular_grid(1, 20, box.boxes)).view(20, 20)
    torch.testing.assert_close(study.dense(session.net, session.maps.p2, box, 20)[0], plain, rtol=1e-4, atol=1e-4)
    assert study.agreement(session, *CLICKS, count=112 * 112, steps=4) == 1.0
    assert study.agreement(session, *CLICKS) > 0.9
    assert render.POINTS == 784
