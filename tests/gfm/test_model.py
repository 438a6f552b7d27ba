"""The GFM networks: what the fixtures do not hold."""
from __future__ import annotations

import pytest
import torch

from pttp.errors import BadInput
from pttp.gfm.model import CLASSES, GFM, fuse


@pytest.fixture(scope="module")
def small() -> GFM:
    torch.manual_seed(0)
    return GFM("r34", "TT").eval()


@pytest.mark.parametrize("arguments", [("r50", "TT"), ("r34", "tt"), ("r34", "")])
def test_unknown_network(arguments):
    with pytest.raises(BadInput, match="There is no GFM"):
        GFM(*arguments)


@pytest.mark.parametrize("size", [(33, 32), (32, 48), (0, 32)])
def test_sizes_that_do_not_fit(small, size):
    with pytest.raises(BadInput, match="multiples of 32"):
        small(torch.zeros(1, 3, *size))


@pytest.mark.parametrize("size", [(32, 32), (32, 96), (64, 32)])
def test_smallest_sizes(small, size):
    with torch.inference_mode():
        said = small(torch.rand(2, 3, *size) * 255)
    assert said.glance.shape == (2, 3, *size) and said.focus.shape == said.fusion.shape == (2, 1, *size)
    assert all(0 <= x.min() and x.max() <= 1 for x in said)


def test_config_makes_the_same_network():
    with torch.device("meta"):
        for rosta in (*CLASSES, "RIM"):
            net = GFM("r34_2b", rosta)
            assert net.config == {"backbone": "r34_2b", "rosta": rosta}
            assert {k: v.shape for k, v in GFM(**net.config).state_dict().items()} == {k: v.shape for k, v in net.state_dict().items()}


@pytest.mark.parametrize(
    "rosta, glance, focus, fusion",
    [
        ("TT", [0.9, 0.5, 0.1], 0.3, 0),  # background
        ("TT", [0.1, 0.5, 0.2], 0.3, 0.3),  # transition
        ("TT", [0.1, 0.5, 0.6], 0.3, 1),  # animal
        ("TT", [1, 1, 1], 0.3, 0),  # a tie: the first class
        ("FT", [0.6, 0.4], 0.3, 0.3),
        ("FT", [0.4, 0.6], 0.3, 1),
        ("BT", [0.6, 0.4], 0.3, 0),
        ("BT", [0.4, 0.6], 0.3, 0.7),
        ("BT", [1, 1], 0.3, 0),
    ],
)
def test_fusion_of_a_pixel(rosta, glance, focus, fusion):
    g = torch.tensor(glance, dtype=torch.float32).view(1, -1, 1, 1).requires_grad_()
    f = torch.full((1, 1, 1, 1), focus).requires_grad_()
    matte = fuse(rosta, g, f)
    assert matte.item() == pytest.approx(fusion)
    if matte.requires_grad:
        matte.sum().backward()
    assert g.grad is None or not g.grad.any()  # the class is a hard choice
    assert bool(f.grad is not None and f.grad.any()) == (0 < fusion < 1)
