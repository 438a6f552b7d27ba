"""Shapes, what the colour reaches, and what it does not."""
from __future__ import annotations

import pytest
import torch

from pttp.cagan.colour import lab_to_rgb, rgb_to_lab, scaled, unscaled
from pttp.cagan.model import CAGAN, attend, of_region


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return CAGAN(64).eval()


@pytest.fixture
def x():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_shapes(net, x):
    region = torch.tensor([0, 1])
    change = net(x, torch.zeros(2, 3), region)
    assert change.image.shape == change.lab.shape == change.shift.shape == x.shape and change.where.shape == (2, 1, 64, 64) and change.own.shape == (2, 3)
    assert 0 <= change.image.min() and change.image.max() <= 1
    judged = net.discriminator(x, net.encode(x), region)
    assert judged.makeup.shape == judged.skin.shape == judged.inside.shape == (2, 3) and judged.real.shape == (2, 1, 8, 8) and judged.looks.shape == (2, 3, 16, 16)
    torch.testing.assert_close(judged.looks.sum((2, 3)), torch.ones(2, 3))


def test_the_change_is_what_it_says(net, x):
    change = net(x, torch.tensor([[0.1, 0.4, 0.1]] * 2), torch.tensor([0, 0]))
    lab = scaled(rgb_to_lab(x)) + change.where * change.shift
    torch.testing.assert_close(change.lab, lab)
    torch.testing.assert_close(change.image, lab_to_rgb(unscaled(lab)))


def test_the_colour_reaches_every_part_of_the_decoder(net, x):
    """StarGAN's constant planes do not, behind an instance norm: there G stays the identity."""
    c = torch.zeros(2, 3, requires_grad=True)
    change = net(x, c, torch.tensor([0, 1]))
    for part in (change.where.sum(), (change.shift - c[:, :, None, None]).sum(), change.image.mean()):
        (gradient,) = torch.autograd.grad(part, c, retain_graph=True)
        assert gradient.abs().min() > 0


def test_the_region_matters(net, x):
    c = torch.zeros(2, 3)
    a, b = (net(x, c, torch.full((2,), r)) for r in (0, 1))
    assert (a.where - b.where).abs().max() > 1e-4 and (a.own - b.own).abs().max() > 0


def test_pictures_do_not_meet(net, x):
    c, region = torch.tensor([[0.1, 0.2, 0.3], [0.0, 0.1, 0.0]]), torch.tensor([0, 1])
    both = net(x, c, region).image
    torch.testing.assert_close(both[1:], net(x[1:], c[1:], region[1:]).image, atol=1e-5, rtol=1e-4)


def test_attend():
    logits = torch.full((1, 1, 2, 2), -50.0)
    logits[0, 0, 1, 0] = 50
    values = torch.arange(8.0).view(1, 2, 2, 2)
    means, weights = attend(logits, values)
    assert means.tolist() == [[[2, 6]]] and weights[0, 0, 1, 0] == 1


def test_of_region():
    maps = torch.arange(12.0).view(2, 6, 1, 1)
    assert of_region(maps, torch.tensor([1, 0])).flatten(1).tolist() == [[3, 4, 5], [6, 7, 8]]


def test_the_trunk_keeps_its_statistics():
    net = CAGAN(64).train()
    before = net.trunk.bn1.running_mean.clone()
    net.encode(torch.rand(2, 3, 64, 64))
    assert torch.equal(net.trunk.bn1.running_mean, before) and net.generator.training
