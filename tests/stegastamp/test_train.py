"""The training recipe: gates that open and fall back, a loss that trains what it should, and a run that resumes where it was."""
from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch

from pttp.stegastamp import losses, train
from pttp.stegastamp.model import StegaStamp, he_init
from pttp.training.loop import fit, parameter_groups
from pttp.training.photos import Photos

STAGE = replace(train.STAGES["small"], size=64, steps=6, batch=3)


@pytest.fixture(scope="module")
def photos():
    g = torch.Generator().manual_seed(0)
    pixels = torch.nn.functional.interpolate(torch.rand(6, 3, 8, 8, generator=g), size=96, mode="bicubic").clamp(0, 1)
    return Photos((pixels * 255).byte(), torch.full((6, 2), 96), torch.full((6,), -1))


def hide(stage: train.Stage = STAGE, perceptual: bool = False, **gates: float) -> train.Hide:
    torch.manual_seed(0)
    features = None
    if perceptual:
        from pttp.trunk import Trunk

        features = train.Perceptual(Trunk(16).state_dict())
    objective = train.Hide(he_init(StegaStamp(stage.size, 100, 4)), stage, features)
    for name, value in gates.items():
        getattr(objective, name).fill_(value)
    return objective


@pytest.mark.parametrize(
    "accuracy, bound, image, noise, after",
    [
        (0.50, 1.00, 0.0, 0.0, dict(bound=1.00, image=0.0, noise=0.0)),  # nothing is read: nothing moves
        (0.95, 1.00, 0.0, 0.0, dict(bound=0.99, image=0.0, noise=0.0)),  # read, but still loud
        (0.95, 0.50, 0.0, 0.0, dict(bound=0.495, image=0.202, noise=0.004)),  # quiet enough: both begin
        (0.95, 0.05, 10.0, 0.3, dict(bound=0.05, image=10.1, noise=0.304)),
        (0.95, 0.05, 80.0, 0.6, dict(bound=0.05, image=80.0, noise=0.6)),  # the limits
        (0.85, 0.20, 10.0, 0.3, dict(bound=0.20, image=10.0, noise=0.3)),  # between the gates: wait
        (0.70, 0.20, 10.0, 0.3, dict(bound=0.20, image=9.9, noise=0.3)),  # lost: fall back
    ],
)
def test_gates(accuracy, bound, image, noise, after):
    objective = hide(accuracy=accuracy, bound=bound, image=image, noise=noise)
    objective.move_gates(accuracy)
    for name, value in after.items():
        assert float(getattr(objective, name)) == pytest.approx(value, rel=1e-5), name


def batch(n: int = 3) -> tuple[torch.Tensor, torch.Tensor, int]:
    g = torch.Generator().manual_seed(1)
    return torch.rand(n, 3, 64, 64, generator=g) * 0.8 + 0.1, torch.randint(2, (n, 100), generator=g).float(), 5


def test_the_hinge_holds_a_loud_residual():
    quiet, loud = hide(bound=50.0)(*batch()), hide(bound=0.001)(*batch())
    assert loud["loss"] > quiet["loss"] and loud["secret"] == quiet["secret"]
    assert quiet["loss"] == quiet["secret"]


def test_everything_of_the_network_is_trained():
    objective = hide(image=1.0, noise=0.5, bound=0.1)
    objective(*batch())["loss"].backward()
    still = {n for n, p in objective.net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    # theta starts with zero weights, so the localiser behind it waits for the first step
    assert still <= {n for n, _ in objective.net.named_parameters() if n.startswith("decoder.locator")}
    assert objective.net.decoder.theta.weight.grad.abs().sum() > 0


def test_evaluation_mode_leaves_the_gates_alone():
    objective = hide(accuracy=0.95, bound=0.4, image=1.0).eval()
    objective(*batch())
    assert (float(objective.accuracy), float(objective.bound), float(objective.image)) == pytest.approx((0.95, 0.4, 1.0))


def test_the_same_columns_at_every_step():
    stage = replace(STAGE, perceptual=0.02, critic=1e-4)
    closed, opened = hide(stage, True)(*batch()), hide(stage, True, image=2.0, noise=0.3)(*batch())
    assert list(closed) == list(opened)
    assert opened["perceived"] > 0 and closed["perceived"] == 0


def test_critic_and_encoder_pull_in_opposite_directions():
    objective = hide(replace(STAGE, critic=1e-4), image=2.0)
    with torch.no_grad():
        for p in objective.critic.parameters():
            p.add_(torch.randn_like(p))
    views, stamped = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64, requires_grad=True)
    fooled, told_apart = objective.judge(stamped, views)
    assert max(p.abs().max() for p in objective.critic.parameters()) <= 0.01
    fooled.backward(retain_graph=True)
    assert stamped.grad is not None and all(p.grad is None for p in objective.critic.parameters())
    stamped.grad = None
    told_apart.backward()
    assert stamped.grad is None and all(p.grad is not None for p in objective.critic.parameters())
    assert told_apart.item() == pytest.approx((objective.critic(views) - fooled).item(), abs=1e-7)


def test_a_resumed_run_finds_its_gates(photos, tmp_path):
    """Two steps and two more end where four do, gates and weights alike."""

    def run(folder, *steps):
        for stop in steps:
            objective = hide(accuracy=0.95, bound=0.4, image=1.0, noise=0.2)
            draw = train.batches(photos, STAGE, 100)

            def stopping(step, g, stop=stop, draw=draw):
                if step >= stop:
                    raise KeyboardInterrupt
                return draw(step, g)

            try:
                groups = parameter_groups(objective.net, 1e-3, 0.0)
                fit(objective, objective.net, stopping, folder=folder, steps=4, groups=groups, ema=0.5, save_seconds=-1, log_every=1, say=lambda _: None)
            except KeyboardInterrupt:
                pass
        return objective

    whole, parts = run(tmp_path / "whole", 4), run(tmp_path / "parts", 2, 4)
    for name in ("accuracy", "bound", "image", "noise"):
        assert torch.equal(getattr(whole, name), getattr(parts, name)), name
    assert float(whole.noise) > 0.2
    for (name, a), b in zip(whole.net.named_parameters(), parts.net.parameters(), strict=True):
        torch.testing.assert_close(a, b, msg=name)
    with (tmp_path / "parts" / "log.csv").open() as f:
        rows = list(csv.DictReader(f))
    assert [int(r["step"]) for r in rows] == [1, 2, 3, 4]


def test_evaluation_counts_read_messages():
    class Perfect(StegaStamp):
        """Writes the bits into the top row, where the decoder finds them again when nothing happened in between."""

        def __init__(self):
            super().__init__(112, 100, 4)
            self.encoder.forward = lambda image, secret: torch.nn.functional.pad((secret * 0.4 - 0.2)[:, None, None], (0, 12, 0, 111))
            self.decoder.forward = lambda image: (image[:, 0, 0, :100] - 0.5) * 100

    scores = train.evaluate(Perfect(), torch.full((5, 3, 112, 112), 0.5), noise=0.0)
    assert scores["clean_bits"] == scores["clean_read"] == scores["camera_read"] == 1.0
    assert scores["psnr"] == pytest.approx(-10 * np.log10(0.2**2 * 100 / 112**2), abs=0.1)
    blind = train.evaluate(he_init(StegaStamp(64, 100, 4)), torch.full((3, 3, 64, 64), 0.5))
    assert blind["clean_read"] == 0.0 and 0.3 < blind["clean_bits"] < 0.7


def test_the_authors_schedule():
    s = losses.Schedule()
    assert s.weights(0) == (0, 0, 0, 0) and s.weights(1) == (2 / 15_000, 1.5 / 15_000, 1.5, 0.5 / 15_000)
    assert s.weights(140_000) == (2.0, 1.5, 1.5, 0.5)
    assert [s.edge(i) for i in (0, 79_999, 85_000, 90_000, 140_000)] == [0, 0, 5.0, 10.0, 10.0]
