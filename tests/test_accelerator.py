"""What predictors do on a device other than the CPU, as far as that can be told without one: see pretended.py."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import pttp
from pttp import resnet, weights
from pttp.gfm import refine
from pttp.ghostnet import study
from tests.pretended import DEVICE, Accelerator

PHOTO = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)


@pytest.fixture
def accelerator(monkeypatch):
    monkeypatch.setattr(weights, "device", lambda gradients: DEVICE)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: False)  # asked for a device that it does not know, torch raises
    with Accelerator():
        yield


def test_the_pretended_accelerator_has_gaps(accelerator):
    bytes_ = torch.zeros(1, 3, 8, 8, dtype=torch.uint8, device=DEVICE)
    with pytest.raises(TypeError, match="no float64"):
        bytes_.double()
    with pytest.raises(NotImplementedError, match="bytes"):
        F.interpolate(bytes_, size=(4, 4), mode="bilinear", antialias=True)


def test_ghostnet(accelerator):
    net = pttp.load("ghostnet", "embedded")
    assert len(net.predict(PHOTO).names) == 5
    assert study.ghost_pairs(net.net, torch.zeros(1, 3, 64, 64, device=DEVICE), "blocks.3.0").correlation.shape == (36,)


def test_stegastamp(accelerator):
    net = pttp.load("stegastamp", "embedded")
    assert net.encode(PHOTO, "a", steps=0).bits.shape == (100,)
    assert net.find(PHOTO) == []


def test_cagan_and_polarmask(accelerator):
    assert pttp.load("cagan", "embedded").faces(PHOTO) == []
    assert pttp.load("polarmask", "embedded").predict_at(PHOTO, (5, 5)).contour.shape == (36, 2)


def test_mattes_at_full_size(accelerator):
    guide = torch.zeros(1, 3, 96, 128, device=DEVICE)
    assert refine.full_size(torch.zeros(1, 4, 96, 128, device=DEVICE), guide, PHOTO).shape == (300, 400)
    assert refine.foreground(PHOTO, np.ones((300, 400), np.float32), DEVICE).shape == PHOTO.shape


def test_the_authors_backbone(accelerator):
    net = resnet.inference_form(resnet.ResNetFPN((1, 1, 1, 1)).to(DEVICE))
    assert net(torch.zeros(1, 3, 64, 64, device=DEVICE))["p2"].shape == (1, 256, 16, 16)


@pytest.mark.parametrize("gradients", [False, True])
def test_a_device_is_used_if_it_has_what_is_needed(monkeypatch, gradients):
    """MPS of a PyTorch that lacks an operator, or its way back, is passed over."""
    serves = weights.serves.__wrapped__
    assert serves("cpu", gradients) and serves("meta", False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(weights, "serves", lambda kind, back: not back)
    assert weights.device(gradients).type == ("cpu" if gradients else "mps")

    def border(*args, **options):
        raise RuntimeError("MPS: Unsupported Border padding mode")

    monkeypatch.setattr(F, "grid_sample", border)
    assert not serves("cpu", gradients)
