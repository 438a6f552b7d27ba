"""The shared loop: it learns, resumes where it was, and writes tables."""
from __future__ import annotations

import csv
import os
import signal
import threading

import pytest
import torch
from torch import nn

from pttp.training import loop


class Fit(nn.Module):
    """y = 3 x - 1, to be found."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(1, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, x, y):
        error = (self.net(x) - y).square().mean()
        return {"loss": error, "error": error}


def batch(step, generator):
    x = torch.rand(32, 1, generator=generator)
    return x, 3 * x - 1


def run(folder, steps, **options):
    objective = Fit()
    return loop.fit(objective, objective.net, batch, folder=folder, steps=steps, groups=loop.parameter_groups(objective.net, 0.05, 0.01), warmup=5, ema=0.9, log_every=10, **options)


def test_it_learns_and_the_average_is_returned(tmp_path):
    net = run(tmp_path, 300)
    x = torch.linspace(0, 1, 20)[:, None]
    assert (net(x) - (3 * x - 1)).abs().max() < 0.15
    assert not net.training
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [int(r["step"]) for r in rows] == list(range(10, 301, 10))
    assert float(rows[-1]["loss"]) < 0.3 * float(rows[0]["loss"])


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(tmp_path):
    """SIGTERM in the middle saves; the second start ends with the same weights as one that ran through."""
    whole = run(tmp_path / "whole", 40)

    class Interrupted(Fit):
        def forward(self, x, y):
            self.calls = getattr(self, "calls", 0) + 1
            if self.calls == 17:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().forward(x, y)

    objective = Interrupted()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit, match="stopped after step 1[78] of 40"):
            loop.fit(objective, objective.net, batch, folder=tmp_path / "cut", steps=40, groups=loop.parameter_groups(objective.net, 0.05, 0.01), warmup=5, ema=0.9, log_every=10)
    finally:
        signal.signal(signal.SIGTERM, handler)
    again = run(tmp_path / "cut", 40)
    for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_chance_inside_the_network_repeats_too(tmp_path):
    """Dropout draws from torch's own generator: a run in two halves drops what an uninterrupted one does."""

    class Dropped(Fit):
        def __init__(self):
            super().__init__()
            self.net.append(nn.Dropout(0.5))

    def half(folder, stop):
        objective = Dropped()

        def draw(step, generator):
            if step == stop:
                os.kill(os.getpid(), signal.SIGTERM)
            return batch(step, generator)

        return loop.fit(objective, objective.net, draw, folder=tmp_path / folder, steps=20, groups=loop.parameter_groups(objective.net, 0.05, 0.01), warmup=5, ema=0.9)

    handler = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit, match="stopped after"):
            half("cut", 9)
    finally:
        signal.signal(signal.SIGTERM, handler)
    torch.rand(100)  # what else a process draws has no part in it
    for a, b in zip(half("whole", None).state_dict().values(), half("cut", None).state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_a_finished_training_does_not_listen_any_more(tmp_path):
    """What follows it, minutes of measuring maybe, ends at SIGTERM as any process does."""
    before = signal.getsignal(signal.SIGTERM)
    heard = []
    run(tmp_path, 3, evaluate=lambda net: heard.append(signal.getsignal(signal.SIGTERM)) or {"score": 0.0})
    assert heard == [before] and signal.getsignal(signal.SIGTERM) == before


def test_batches_of_older_checkpoints(tmp_path):
    """They do not say how many were drawn: one a step."""
    assert loop.drawn(tmp_path) == 0
    run(tmp_path, 4)
    assert loop.drawn(tmp_path) == 4
    saved = torch.load(tmp_path / "last.pt", weights_only=True)
    del saved["batches"]
    torch.save(saved, tmp_path / "last.pt")
    assert loop.drawn(tmp_path) == 4
    run(tmp_path, 6)
    assert loop.drawn(tmp_path) == loop.made(tmp_path) == 6


def test_a_finished_run_is_not_trained_again(tmp_path):
    first = run(tmp_path, 20)
    began = (tmp_path / "last.pt").stat().st_mtime_ns
    second = run(tmp_path, 20)
    assert (tmp_path / "last.pt").stat().st_mtime_ns == began
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_evaluations_are_written(tmp_path):
    seen = []

    def evaluate(net):
        assert not net.training
        seen.append(threading.get_ident())
        return {"score": float(len(seen))}

    run(tmp_path, 30, evaluate=evaluate, eval_every=10)
    assert [(r["step"], r["score"]) for r in csv.DictReader((tmp_path / "eval.csv").open())] == [("10", "1"), ("20", "2"), ("30", "3")]


def test_a_broken_batch_does_not_break_the_weights(tmp_path):
    def sometimes_broken(step, generator):
        x, y = batch(step, generator)
        return (x * float("nan"), y) if step == 7 else (x, y)

    objective = Fit()
    objective.net = nn.Sequential(nn.Linear(1, 8), nn.ReLU(), nn.Linear(8, 1))
    net = loop.fit(objective, objective.net, sometimes_broken, folder=tmp_path, steps=20, groups=loop.parameter_groups(objective.net, 0.01, 0.0), warmup=5, ema=0.9)
    assert all(torch.isfinite(p).all() for p in net.parameters())


@pytest.mark.parametrize(("step", "factor"), [(0, 0.1), (9, 1.0), (10, 1.0), (55, 0.505), (100, 0.01)])
def test_cosine(step, factor):
    assert loop.cosine(step, 100, 10) == pytest.approx(factor, abs=1e-6)


def test_norms_and_biases_are_not_decayed():
    decayed, free = loop.parameter_groups(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), 1e-3, 0.1)
    assert [p.ndim for p in decayed["params"]] == [4] and decayed["weight_decay"] == 0.1
    assert [p.ndim for p in free["params"]] == [1, 1, 1] and free["weight_decay"] == 0


def test_a_budget_of_time(tmp_path):
    """The training ends when its time is up, the learning rate has come down by then, and a second start finds it finished."""
    assert loop.amount("300") == 300 and isinstance(loop.amount("300"), int)
    assert loop.made(tmp_path) == 0
    budget = loop.amount("0.05m")
    assert str(budget) == "0.05m"
    run(tmp_path, budget)
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    steps = loop.made(tmp_path)
    assert steps > 30 and torch.load(tmp_path / "last.pt", weights_only=True)["seconds"] >= 3
    assert float(rows[-1]["lr"]) < 0.5 * max(float(r["lr"]) for r in rows)
    run(tmp_path, budget)
    assert loop.made(tmp_path) == steps


def test_a_short_training_gets_less_warm_up_and_a_shorter_average(tmp_path):
    objective = Fit()
    net = loop.fit(objective, objective.net, batch, folder=tmp_path, steps=40, groups=loop.parameter_groups(objective.net, 0.05, 0.01), log_every=1)
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert float(rows[4]["lr"]) == pytest.approx(0.05, rel=0.05)
    for a, b in zip(net[0].parameters(), objective.net[0].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0.1, atol=0.05)  # an average over the default thousand steps would be the beginning
