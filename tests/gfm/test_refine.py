"""Joining, guiding and colours, each against something that is known."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pttp.gfm import refine


def disc(h: int, w: int, soft: float = 6) -> np.ndarray:
    rows, columns = np.mgrid[:h, :w]
    return np.clip((h / 3 - np.hypot(rows - h / 2, columns - w / 2)) / soft + 0.5, 0, 1).astype(np.float32)


def tensor(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.atleast_3d(x)).permute(2, 0, 1)[None].float()


def test_grown():
    classes = torch.zeros(1, 1, 9, 9, dtype=torch.long)
    classes[..., 6:, :] = 2
    classes[..., 4, 4] = 1
    grown = refine.grown(classes, 1)[0, 0]
    assert (grown == 1).sum() == 9 and (grown[3:6, 3:6] == 1).all() and torch.equal(refine.grown(classes, 0), classes)
    assert (refine.grown(classes, 2)[0, 0, 6, 2:7] == 1).all()


def test_joined_has_no_step_and_is_the_papers_rule_away_from_seams():
    classes = torch.tensor([0, 0, 1, 1, 2, 2]).repeat(6, 1)[None, None]
    focus = torch.full((1, 1, 60, 60), 0.5)
    row = refine.joined(classes, focus)[0, 0, 30]
    assert row[:14].eq(0).all() and torch.allclose(row[25:35], torch.tensor(0.5)) and row[46:].eq(1).all()
    assert row.diff().max() <= 0.0501 and row.diff().min() >= -1e-6


@pytest.mark.parametrize("radius", [0, 1, 7, 40])
def test_box_mean_is_a_mean_of_what_there_is(radius):
    x = torch.rand(1, 2, 13, 21, generator=torch.Generator().manual_seed(0))
    y = refine.box_mean(x, radius)
    r, c = 2, 20
    assert torch.allclose(y[0, :, r, c], x[0, :, max(0, r - radius) : r + radius + 1, max(0, c - radius) : c + radius + 1].mean((1, 2)), atol=1e-5)


def test_guided_finds_the_linear_function():
    """Where alpha is a linear function of the colour, the coefficients give it back, at any size."""
    g = torch.Generator().manual_seed(0)
    picture = F.interpolate(torch.rand(1, 3, 20, 30, generator=g), size=(80, 120), mode="bicubic", align_corners=False).clamp(0, 1)
    weights = torch.tensor([0.5, -0.3, 0.4]).view(1, 3, 1, 1)
    alpha = (picture * weights).sum(1, keepdim=True) + 0.2
    small = F.avg_pool2d(picture, 2)
    coefficients = refine.guided(small, F.avg_pool2d(alpha, 2), 5, 1e-7)
    large = F.interpolate(coefficients, size=(80, 120), mode="bilinear", align_corners=False)
    assert ((large[:, :3] * picture).sum(1, keepdim=True) + large[:, 3:] - alpha).abs().mean() < 0.01
    flat = refine.guided(torch.full((1, 3, 8, 8), 0.5), torch.full((1, 1, 8, 8), 0.7), 3)
    assert torch.allclose(flat[:, :3], torch.zeros(1), atol=1e-4) and torch.allclose(flat[:, 3:], torch.tensor(0.7), atol=1e-4)


@pytest.mark.parametrize(("picture", "guide", "radius"), [((160, 120), (384, 288), 2), ((320, 240), (384, 288), 2), ((900, 600), (576, 384), 4), ((3000, 4000), (432, 576), 5)])
def test_radius(picture, guide, radius):
    assert refine.radius_for(picture, guide) == radius


def test_full_size_in_bands_equals_at_once(monkeypatch):
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (301, 200, 3)).astype(np.uint8)
    guide = F.interpolate(tensor(picture) / 255, size=(96, 64), mode="bilinear", antialias=True)
    coefficients = refine.guided(guide, torch.rand(1, 1, 96, 64, generator=torch.Generator().manual_seed(0)), 5)
    at_once = refine.full_size(coefficients, guide, picture)
    monkeypatch.setattr(refine, "BAND", 37)
    in_bands = refine.full_size(coefficients, guide, picture)
    assert at_once.shape == (301, 200) and np.abs(at_once - in_bands).max() < 1e-5
    expected = refine.applied(F.interpolate(coefficients, size=(301, 200), mode="bilinear", align_corners=False), tensor(picture) / 255)[0, 0].numpy()
    assert np.abs(at_once - expected).max() < 1e-4


def test_edges_of_the_large_picture_come_back():
    """Alpha known at a quarter of the size only; the picture shows where its edge is."""
    truth = disc(400, 600, soft=2)
    picture = np.rint(255 * (truth[..., None] * (0.9, 0.6, 0.2) + (1 - truth[..., None]) * (0.1, 0.3, 0.5))).astype(np.uint8)
    guide, small = (F.interpolate(tensor(x), size=(100, 150), mode="bilinear", antialias=True) for x in (picture / 255.0, truth))
    ours = refine.full_size(refine.guided(guide, small, 5), guide, picture)
    stretched = F.interpolate(small, size=(400, 600), mode="bilinear", align_corners=False)[0, 0].numpy()
    assert np.abs(ours - truth).mean() < 0.5 * np.abs(stretched - truth).mean()


def mixture() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A picture (uint8), its alpha, and the true foreground in [0, 1]."""
    alpha = disc(120, 160, soft=30)
    columns = np.linspace(0, 1, 160)[None, :, None]
    fg = np.broadcast_to(np.array([0.9, 0.5, 0.1]) - 0.2 * columns, (120, 160, 3))
    bg = np.broadcast_to(np.array([0.1, 0.6, 0.2]) + 0.3 * columns, (120, 160, 3))
    return np.rint(255 * (alpha[..., None] * fg + (1 - alpha[..., None]) * bg)).astype(np.uint8), alpha, fg


def test_colours_without_the_old_background():
    picture, alpha, fg = mixture()
    ours = refine.foreground(picture, alpha) / 255
    soft = (alpha > 0.2) & (alpha < 0.95)
    assert np.abs(ours - fg)[soft].mean() < 0.3 * np.abs(picture / 255 - fg)[soft].mean()
    assert np.abs(ours * 255 - picture)[alpha == 1].max() <= 1


def test_colours_agree_with_pymatting():
    pymatting = pytest.importorskip("pymatting", reason="pymatting is for training and comparison")
    picture, alpha, _ = mixture()
    theirs, behind = pymatting.estimate_foreground_ml(picture / 255, alpha, return_background=True)
    front, back = (x[0].permute(1, 2, 0).numpy() for x in refine.colours(tensor(picture / 255), tensor(alpha)))
    assert np.abs(front - theirs)[alpha > 0.1].mean() < 0.01 and np.abs(back - behind)[alpha < 0.9].mean() < 0.01


def test_specks_are_dropped_and_a_second_animal_is_not():
    classes = torch.zeros(1, 1, 200, 200, dtype=torch.long)
    classes[..., 20:120, 20:120] = 2  # an animal of 10,000 pixels
    assert refine.without_specks(classes) is classes
    classes[..., 150:160, 150:160] = 2  # a hundredth of it
    classes[..., 5:9, 150:154] = 1  # a speck of 16
    classes[..., 120:123, 120:123] = 1  # as small, but it touches a corner
    kept = refine.without_specks(classes)
    assert (kept[..., 5:9, 150:154] == 0).all() and int((kept != classes).sum()) == 16
