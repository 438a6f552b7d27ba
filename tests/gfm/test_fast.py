"""The inference form says what the network says."""
from __future__ import annotations

import pytest
import torch
from torch import nn

from pttp.gfm.fast import inference_form
from pttp.gfm.model import GFM
from pttp.gfm.slim import SlimGFM


def lived_in(net: nn.Module) -> nn.Module:
    """With statistics and gains that are not those of a fresh norm, so that folding them wrongly shows."""
    g = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for x, low, high in ((module.weight, 0.5, 1.5), (module.bias, -0.3, 0.3), (module.running_mean, -0.3, 0.3), (module.running_var, 0.5, 2)):
                x.data.uniform_(low, high, generator=g)
    return net.eval()


def norms(net: nn.Module) -> int:
    return sum(isinstance(m, nn.BatchNorm2d) for m in net.modules())


@pytest.mark.parametrize(("backbone", "rosta"), [("slim", "TT"), ("r34", "TT"), ("r34", "RIM"), ("d121", "BT"), ("r34_2b", "TT")])
@torch.inference_mode()
def test_it_says_the_same(backbone, rosta):
    torch.manual_seed(0)
    net = lived_in(SlimGFM() if backbone == "slim" else GFM(backbone, rosta))
    before = {k: v.clone() for k, v in net.state_dict().items()}
    form, x = inference_form(net), torch.rand(1, 3, 64, 96) * 255
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items()), "the network itself must stay"
    assert norms(form) == 0 or backbone == "d121" and norms(form) < norms(net)
    ours, theirs = form.encode(x), net.encode(x)
    for a, b in zip(ours[-1:], theirs[-1:], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3 * float(b.abs().max()))
    for a, b in zip((*form.glance(ours), *form.focus(ours)), (*net.glance(theirs), *net.focus(theirs)), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-3)
        assert float(b.std()) > 1e-3, "a constant answer would prove nothing"
