"""Fitting a stamp to its picture: quieter, surer, repeatable, and rescuing pictures of which the encoder alone makes nothing."""
from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import pttp
from pttp import images
from pttp.stegastamp import message, reading, tune

SKIMAGE = Path(importlib.util.find_spec("skimage").origin).parent / "data"


@pytest.fixture(scope="module")
def net():
    return pttp.load("stegastamp", "embedded")


def given(net, picture, text="aB3dE9x", strength=1.0):
    """A cover at the network's size, the encoder's residual for it, and the bits."""
    bits = message.pack(text)
    cover = F.interpolate(reading.tensor(picture, "cpu")[None], size=(net.form.size,) * 2, mode="area")
    with torch.inference_mode():
        return cover, strength * net.form.encoder(cover, torch.from_numpy(bits)[None].float()), bits


def loss(net, cover, residual, bits):
    with torch.no_grad():
        return float(F.softplus((1 - 2 * torch.from_numpy(bits).float()) * net.net.decoder((cover + residual).clamp(0, 1))).mean())


def power(cover, residual):
    return float(((cover + residual).clamp(0, 1) - cover).square().mean())


@pytest.mark.parametrize("strength", [0.5, 1.0])
@pytest.mark.parametrize("name", ["coffee.png", "chelsea.png"])
def test_quieter_and_surer(net, name, strength):
    cover, residual, bits = given(net, images.read(SKIMAGE / name), strength=strength)
    fitted = tune.tuned(net.net.decoder, cover, residual, bits, strength)
    budget = min(tune.QUIETER * power(cover, residual), tune.LOUDEST * strength**2)
    assert power(cover, fitted) <= 1.02 * budget and fitted.shape == residual.shape
    assert loss(net, cover, fitted, bits) < 0.5 * loss(net, cover, residual, bits)
    assert not fitted.requires_grad and all(p.grad is None for p in net.net.parameters())


def test_no_steps_no_change_and_the_same_again(net):
    cover, residual, bits = given(net, images.read(SKIMAGE / "coffee.png"))
    assert tune.tuned(net.net.decoder, cover, residual, bits, steps=0) is residual
    one, two = (tune.tuned(net.net.decoder, cover, residual, bits, steps=2) for _ in range(2))
    assert torch.equal(one, two) and not torch.equal(one, residual)


@pytest.mark.parametrize("colour", [(4, 4, 4), (252, 252, 252), (250, 6, 6)], ids=["black", "white", "red"])
def test_pictures_near_the_end_of_the_scale(net, colour):
    """Half of what the encoder adds is clipped there, or it adds far too much: a shadow of a photo is all that such a picture shows."""
    photo = np.asarray(images.read(SKIMAGE / "coffee.png").resize((300, 200)), np.float32)
    picture = Image.fromarray(np.clip(np.array(colour) + (photo - 128) * 0.06, 0, 255).astype(np.uint8))
    stamp = net.encode(picture, "aB3dE9x")
    seen = reading.squares(reading.tensor(stamp.image, "cpu"), reading.whole(*picture.size)[None], net.form.size)
    assert not ((reading.decode(net.form, seen)[0] > 0) != stamp.bits).any() and stamp.psnr > 29.5
