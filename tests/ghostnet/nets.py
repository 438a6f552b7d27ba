"""Networks for tests: weights and statistics that are random, but of a size that keeps every layer's output near 1."""
from __future__ import annotations

import torch

from pttp.ghostnet.model import GhostNet


def random_net(width: float = 1.0, ratio: int = 2, seed: int = 0, **options) -> GhostNet:
    """A GhostNet in evaluation mode whose batch norms do something."""
    g = torch.Generator().manual_seed(seed)
    net = GhostNet(width=width, ratio=ratio, **options)
    state = net.state_dict()
    for name, value in state.items():
        if name.endswith("running_var"):
            state[name] = torch.rand(value.shape, generator=g) + 0.5
        elif value.ndim > 1:
            state[name] = torch.randn(value.shape, generator=g) / value[0].numel() ** 0.5
        elif value.is_floating_point():
            state[name] = 0.2 * torch.randn(value.shape, generator=g) + (0 if name.endswith(("bias", "running_mean")) else 1)
    net.load_state_dict(state)
    return net.eval()


def snapshot(net: torch.nn.Module) -> dict:
    """Everything that a careless look could change."""
    return {
        "state": {k: v.clone() for k, v in net.state_dict().items()},
        "training": [m.training for m in net.modules()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules()],
    }


def assert_unchanged(net: torch.nn.Module, before: dict) -> None:
    after = snapshot(net)
    assert after["training"] == before["training"]
    assert after["hooks"] == before["hooks"]
    for name, value in before["state"].items():
        assert torch.equal(after["state"][name], value), name
