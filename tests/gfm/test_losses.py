"""Losses and metrics: properties that the fixtures do not show."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from pttp.gfm import losses, metrics
from pttp.gfm.model import Integrated, Prediction


def truth() -> losses.Truth:
    generator = torch.Generator().manual_seed(0)
    alpha = (torch.rand(1, 1, 32, 32, generator=generator) * 3 - 1).clamp(0, 1).mul(255).round()
    fg, bg = (torch.rand(1, 3, 32, 32, generator=generator) * 255 for _ in range(2))
    trimap = torch.where(alpha == 0, 0.0, torch.where(alpha == 255, 255.0, 128.0))
    return losses.Truth(alpha / 255 * fg + (1 - alpha / 255) * bg, alpha, fg, bg, trimap, (alpha > 0) * 255.0, (alpha == 255) * 255.0)


def exact(rosta: str, t: losses.Truth) -> Prediction:
    """The prediction that `t` asks of the consistent rule."""
    target, focus = {"TT": (t.trimap, t.alpha), "FT": (t.erosion, t.alpha - t.erosion), "BT": (t.dilation, t.dilation - t.alpha)}[rosta]
    glance = torch.nn.functional.one_hot(losses.labels(target, 3 if rosta == "TT" else 2)).permute(0, 3, 1, 2).float()
    return Prediction(glance, focus / 255, t.alpha / 255)


@pytest.mark.parametrize("rosta", ["TT", "FT", "BT"])
def test_a_perfect_prediction_costs_next_to_nothing(rosta):
    t = truth()
    lost = losses.parts(rosta, exact(rosta, t), t, as_released=False)
    # cross-entropy of sigmoids cannot reach zero: log(1 + (n - 1) / e)
    assert lost.pop("glance_ce").item() == pytest.approx(np.log(1 + (2 if rosta == "TT" else 1) / np.e), rel=1e-5)
    assert all(v.item() < 1e-5 for v in lost.values()), lost


@pytest.mark.parametrize("rosta", ["FT", "BT"])
def test_released_targets_contradict_the_fusion(rosta):
    t = truth()
    said = exact(rosta, t)
    consistent, released = (losses.parts(rosta, said, t, as_released=rule)["glance_ce"] for rule in (False, True))
    assert released > consistent + 0.05


@pytest.mark.parametrize("as_released", [True, False])
def test_rim(as_released):
    t = truth()
    three = [Prediction(*(x.clone().requires_grad_() for x in exact(rosta, t))) for rosta in ("TT", "FT", "BT")]
    said = Integrated(*three, (t.alpha / 255).requires_grad_())
    lost = losses.rim_loss(said, t, as_released)
    assert len(lost) == 1 + 3 * 6 + 3
    assert lost["loss"].item() == pytest.approx(sum(v.item() for k, v in lost.items() if k != "loss"), rel=1e-6)
    lost["loss"].backward()
    assert (said.bt.glance.grad is None) == as_released  # released, BT's own prediction is never read
    assert said.tt.glance.grad is not None and said.ft.focus.grad is not None


def test_metrics_of_equal_and_other_mattes():
    alpha = np.zeros((30, 40))
    alpha[5:20, 5:30] = 1
    trimap = np.full((30, 40), 128, np.uint8)
    for score in (metrics.gradient_error, metrics.connectivity_error):
        assert score(alpha, alpha) == 0
        assert score(np.roll(alpha, 3, 0), alpha) > 0
    assert metrics.connectivity_error(1 - alpha, alpha) == 0  # nothing in common at any level: as released, nothing is cut off
    assert metrics.sad_mse_mad(alpha, alpha, trimap) == (0, 0, 0)
    assert metrics.sad_mse_mad(1 - alpha, alpha) == pytest.approx((1.2, 1, 1))
    assert np.isnan(metrics.sad_mse_mad(alpha, alpha, np.zeros_like(trimap))[2])


def test_connectivity_punishes_an_island():
    alpha = np.zeros((20, 40))
    alpha[5:15, 2:20] = 1
    island = alpha.copy()
    island[8:12, 30:34] = 1
    assert metrics.connectivity_error(island, alpha) == pytest.approx(16 / 1000)
