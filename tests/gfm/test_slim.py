"""The embedded network: the doors of the paper's network, sizes, and what its trunk is."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from pttp.errors import BadInput
from pttp.gfm import testtime
from pttp.gfm.model import fuse
from pttp.gfm.slim import SlimGFM, at_size
from pttp.training.export import parameters
from pttp.trunk import Trunk


@pytest.fixture(scope="module")
def net() -> SlimGFM:
    torch.manual_seed(0)
    return SlimGFM().eval()


@pytest.mark.parametrize("size", [(32, 32), (64, 160), (96, 32)])
def test_prediction(net, size):
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)) * 255
    with torch.inference_mode():
        said = net(x)
    assert said.glance.shape == (2, 3, *size) and said.focus.shape == said.fusion.shape == (2, 1, *size)
    assert all(0 <= v.min() and v.max() <= 1 for v in said)
    torch.testing.assert_close(said.glance.sum(1), torch.ones(2, *size))
    assert torch.equal(said.fusion, fuse("TT", said.glance, said.focus))


@pytest.mark.parametrize("size", [(33, 32), (32, 48), (0, 32)])
def test_sizes_that_do_not_fit(net, size):
    with pytest.raises(BadInput, match="multiples of 32"):
        net(torch.zeros(1, 3, *size))


def test_it_is_small(net):
    assert 2 * parameters(net) <= 20e6


def test_the_decoders_stand_on_the_trunk(net):
    """Its maps are the shared trunk's, of the picture brought to the trunk's range."""
    trunk = Trunk().eval()
    trunk.load_state_dict({k.removeprefix("trunk."): v for k, v in net.state_dict().items() if k.startswith("trunk.")})
    x = torch.rand(1, 3, 64, 96) * 255
    with torch.inference_mode():
        ours, theirs = net.encode(x), trunk((x - 127) / 128)
    for a, b in zip(ours[1:], theirs.values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_statistics_of_the_trunk_stay():
    net = SlimGFM().train()
    before = {k: v.clone() for k, v in net.named_buffers()}
    net(torch.rand(2, 3, 64, 64) * 255)
    changed = {k for k, v in net.named_buffers() if not torch.equal(v, before[k])}
    assert changed and not any(k.startswith("trunk.") for k in changed)
    assert net.pyramid.training and not net.trunk.training


def test_every_parameter_learns():
    torch.manual_seed(0)
    net = SlimGFM().train()
    maps = net.encode(torch.rand(2, 3, 64, 64) * 255)
    (net.glance_logits(maps).square().mean() + net.focus(maps)[0].square().mean()).backward()
    assert not [k for k, p in net.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]


def test_config_makes_the_same_network(net):
    for widths in ({}, {"glance": [32, 24, 16], "focus": [32, 24, 16, 16, 8, 8]}):
        one = SlimGFM(**widths)
        again = SlimGFM(**one.config)
        again.load_state_dict(one.state_dict())
        assert {"glance", "focus"} == set(one.config)


@pytest.mark.parametrize("shape, expected", [((240, 320), (256, 320)), ((4, 100), (32, 320)), ((8, 8), (320, 320)), ((2000, 1000), (320, 160))])
def test_working_size(shape, expected):
    assert at_size(torch.zeros(1, 3, *shape), 320).shape[2:] == expected


def test_the_strategies_of_the_paper_take_it(net):
    image = np.random.default_rng(0).integers(0, 256, (130, 200, 3), dtype=np.uint8)
    for strategy in ("HYBRID", "RESIZE"):
        maps = testtime.matte(net, image, strategy)
        assert maps.fusion.shape == (130, 200) and 0 <= maps.fusion.min() and maps.fusion.max() <= 1
