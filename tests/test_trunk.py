"""pttp.trunk is timm's efficientnet_lite0."""
from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pttp.trunk import CHANNELS, Lite0, Trunk, trunk_tensors
from tests.shared import shared

TOLERANCE = 1e-11  # of the tensor's standard deviation, in float64: in float32 the layouts of the two networks already round differently


def random_state(seed: int = 0) -> dict[str, Tensor]:
    """Weights and statistics that keep every map near 1, with batch norms that do something."""
    g = torch.Generator().manual_seed(seed)
    state = Lite0().state_dict()
    for name, value in state.items():
        if name.endswith("running_var"):
            state[name] = torch.rand(value.shape, generator=g) + 0.5
        elif value.ndim > 1:
            state[name] = torch.randn(value.shape, generator=g) * (2 / value[0].numel()) ** 0.5
        elif value.is_floating_point():
            state[name] = 0.2 * torch.randn(value.shape, generator=g) + (0 if name.endswith(("bias", "running_mean")) else 1)
    return state


def imagenet_state() -> dict[str, Tensor]:
    return load_file(shared("weights", "efficientnet_lite0.safetensors"))


def assert_near(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= TOLERANCE * theirs.std()


def loaded(net: torch.nn.Module, state: dict[str, Tensor]) -> torch.nn.Module:
    net.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()}, strict=True)
    return net.eval().double()


def test_names_and_shapes_are_timms(timm):
    theirs = timm.create_model("efficientnet_lite0").state_dict()
    assert {k: (v.shape, v.dtype) for k, v in Lite0().state_dict().items()} == {k: (v.shape, v.dtype) for k, v in theirs.items()}


@pytest.mark.parametrize("weights", [random_state, imagenet_state])
@pytest.mark.parametrize("shape", [(1, 3, 224, 224), (2, 3, 97, 130), (1, 3, 33, 64)])
def test_logits_and_features_are_timms(timm, weights, shape):
    state = weights()
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    theirs = loaded(timm.create_model("efficientnet_lite0"), state)
    features = timm.create_model("efficientnet_lite0", features_only=True, out_indices=(0, 1, 2, 3, 4))
    assert list(CHANNELS.items()) == list(zip(features.feature_info.reduction(), features.feature_info.channels()))
    features = loaded(features, {k: v for k, v in state.items() if k in features.state_dict()})
    with torch.inference_mode():
        assert_near(loaded(Lite0(), state)(x), theirs(x))
        ours = loaded(Trunk(), trunk_tensors(state))(x)
        assert list(ours) == [2, 4, 8, 16, 32]
        for (stride, a), b in zip(ours.items(), features(x), strict=True):
            assert a.shape[1:] == (CHANNELS[stride], -(-shape[2] // stride), -(-shape[3] // stride))
            assert_near(a, b)


def test_the_head_completes_the_trunk():
    state, x = random_state(), torch.randn(2, 3, 64, 96, dtype=torch.float64)
    with torch.inference_mode():
        whole = loaded(Lite0(), state)
        assert torch.equal(whole.head(loaded(Trunk(), trunk_tensors(state))(x)[32]), whole(x))


@pytest.mark.parametrize("max_stride", [2, 4, 8, 16])
def test_a_shorter_trunk_is_the_beginning_of_the_whole(max_stride):
    state, x = random_state(), torch.randn(1, 3, 65, 96, dtype=torch.float64)
    short = Trunk(max_stride)
    kept = {k: v for k, v in trunk_tensors(state).items() if k in short.state_dict()}
    assert list(kept) == list(short.state_dict())
    loaded(short, kept)
    with torch.inference_mode():
        maps, whole = short(x), loaded(Trunk(), trunk_tensors(state))(x)
    assert list(maps) == [s for s in whole if s <= max_stride]
    assert all(torch.equal(maps[s], whole[s]) for s in maps)


def test_size_as_documented():
    """Stored values, in millions: parameters and batch norm's statistics."""
    stored = {s: sum(v.numel() for v in Trunk(s).state_dict().values() if v.is_floating_point()) for s in (16, 32)}
    assert (round(stored[16] / 1e6, 2), round(stored[32] / 1e6, 2)) == (0.72, 3.00)


def test_layout_of_the_input_does_not_matter():
    net, x = loaded(Trunk(8), {k: v for k, v in random_state().items() if k in Trunk(8).state_dict()}), torch.randn(2, 3, 40, 56, dtype=torch.float64)
    with torch.inference_mode():
        a, b = net(x), net(x.contiguous(memory_format=torch.channels_last))
    assert all(torch.equal(a[s], b[s]) for s in a)
    assert all(y.is_contiguous(memory_format=torch.channels_last) for y in a.values())


def test_the_head_is_left_out_and_half_precision_widened():
    tensors = trunk_tensors({k: v.half() if v.is_floating_point() else v for k, v in Lite0().state_dict().items()})
    assert set(tensors) == set(Trunk().state_dict())
    assert {v.dtype for v in tensors.values()} == {torch.float32, torch.int64}
