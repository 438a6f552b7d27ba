"""The weights of the losses follow what is measured, by region and skin tone."""
from __future__ import annotations

import pytest
import torch

from pttp.cagan.balance import MOST, Balance

LIPS, EYES = 0, 1
DARK, MEDIUM, LIGHT = 40.0, 57.0, 80.0


def group(region, lightness, n=4):
    return torch.full((n,), region), torch.full((n,), lightness)


def told(balance, kind, steps, measured):
    """`measured`: {(region, lightness): value or a function of the weight}."""
    for _ in range(steps):
        for (region, lightness), value in measured.items():
            r, tone = group(region, lightness)
            weight = float(balance(kind, r, tone)[0])
            balance.listen(kind, r, tone, torch.full((4,), value(weight) if callable(value) else value))


def test_all_tones_weigh_the_same_at_first():
    balance = Balance(("weak", "keep"))
    lightness = torch.tensor([20.0, 49.9, 50.0, 64.9, 65.0, 99.0, torch.nan])
    assert balance.tone(lightness).tolist() == [0, 0, 1, 1, 2, 2, 1]
    assert balance("keep", torch.zeros(7, dtype=torch.long), lightness).tolist() == [1] * 7


def test_the_worst_served_tone_gains_weight_in_its_region_and_kind_alone():
    balance = Balance(("weak", "keep"))
    told(balance, "keep", 40, {(LIPS, DARK): 2.0, (LIPS, MEDIUM): 1.0, (LIPS, LIGHT): 1.0, (EYES, DARK): 1.0, (EYES, MEDIUM): 1.0, (EYES, LIGHT): 1.0})
    dark, medium, light = (float(balance("keep", *group(LIPS, tone))[0]) for tone in (DARK, MEDIUM, LIGHT))
    assert dark > 1.5 > 1 > medium == pytest.approx(light)
    assert dark * medium * light == pytest.approx(1, rel=0.01)
    assert balance("weak", *group(LIPS, DARK)).tolist() == balance("keep", *group(EYES, DARK)).tolist() == [1] * 4


def test_it_settles_where_all_are_served_alike():
    """A measure that falls with the weight, as a loss does: at the end the three agree, however differently they began."""
    balance = Balance(("keep",))
    start = {DARK: 2.0, MEDIUM: 1.2, LIGHT: 0.8}
    told(balance, "keep", 600, {(LIPS, tone): lambda w, s=s: s / w for tone, s in start.items()})
    reached = [s / float(balance("keep", *group(LIPS, tone))[0]) for tone, s in start.items()]
    assert max(reached) / min(reached) < 1.05


def test_a_tone_that_has_hardly_been_seen_moves_nothing():
    balance = Balance(("keep",))
    told(balance, "keep", 200, {(LIPS, DARK): 5.0, (LIPS, LIGHT): 1.0})
    told(balance, "keep", 3, {(LIPS, MEDIUM): 1.0})
    assert balance.log_weight.abs().max() == 0


def test_weights_are_bounded_and_unknown_measures_ignored():
    balance = Balance(("keep",))
    told(balance, "keep", 2000, {(LIPS, DARK): 9.0, (LIPS, MEDIUM): 0.1, (LIPS, LIGHT): 0.1})
    assert 1 < float(balance("keep", *group(LIPS, DARK))[0]) <= MOST * 1.001
    before = balance.log_weight.clone(), balance.total.clone()
    balance.listen("keep", *group(EYES, DARK), torch.full((4,), torch.nan))
    assert torch.equal(before[1], balance.total)
    assert balance.log_weight.isfinite().all()
