"""Our GhostNet against what the authors' code computes: every fixture of the folder `ghostnet`."""
from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from pttp.ghostnet import model, study
from pttp.ghostnet.fast import inference_form
from pttp.ghostnet.predict import IMAGENET_MEAN, IMAGENET_STD
from tests.oracles.common import GRADIENT, assert_near, assert_within, facts, fill, keys, tensors

LOGITS = 2e-5


@cache
def network(width: str) -> model.GhostNet:
    return fill("ghostnet", model.GhostNet(width=float(width)))


@cache
def picture() -> Tensor:
    pixels = tensors("ghostnet", "network")["image_u8_hwc"].permute(2, 0, 1)[None].float() / 255
    return (pixels - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1)


@pytest.mark.parametrize("width", keys("ghostnet", "keys"))
def test_names_order_shapes_and_types(width):
    ours = [(k, list(v.shape), str(v.dtype).removeprefix("torch.")) for k, v in model.GhostNet(width=float(width)).state_dict().items()]
    theirs = [(k, shape, dtype) for k, (shape, dtype) in facts("ghostnet", "keys")[width].items()]
    assert ours == theirs


def module(case: str) -> tuple[torch.nn.Module, dict, dict[str, Tensor]]:
    """The module of a case with the recipe's weights, what the JSON says of it, and its tensors."""
    told = facts("ghostnet", "modules")[case]
    ours = fill("ghostnet", getattr(model, told["cls"])(**told["kwargs"]))
    return ours, told, {k.removeprefix(f"{case}."): v.clone() for k, v in tensors("ghostnet", "modules").items() if k.startswith(f"{case}.")}


@pytest.mark.parametrize("case", keys("ghostnet", "modules"))
def test_module_in_evaluation_mode(case):
    ours, told, theirs = module(case)
    assert {k: list(v.shape) for k, v in ours.state_dict().items()} == told["keys"]
    assert list(theirs["x"].shape) == told["in_shape"]
    y = ours(theirs["x"])
    assert list(y.shape) == told["out_shape"]
    assert_near(y, theirs["y_eval"])


@pytest.mark.parametrize("case", keys("ghostnet", "modules"))
def test_module_in_training_mode(case):
    ours, _, theirs = module(case)
    x = theirs["x"].requires_grad_()
    y = ours.train()(x)
    assert_near(y, theirs["y_train"])
    (y * theirs["cotangent"]).sum().backward()
    assert_near(x.grad, theirs["grad_x"], GRADIENT, "gradient of x")
    gradients = {k.removeprefix("gradabs."): v for k, v in theirs.items() if k.startswith("gradabs.")}
    assert set(gradients) == {k for k, _ in ours.named_parameters()}
    for name, parameter in ours.named_parameters():
        assert_near(parameter.grad.double().abs().sum().view(1), gradients[name], GRADIENT, f"gradient of {name}")
    after = {k.removeprefix("after."): v for k, v in theirs.items() if k.startswith("after.")}
    buffers = dict(ours.named_buffers())
    assert set(after) == {k for k in buffers if not k.endswith("num_batches_tracked")}
    for name, statistic in after.items():
        assert_near(buffers[name], statistic, what=name)
    assert {int(v) for k, v in buffers.items() if k.endswith("num_batches_tracked")} == {1}


@pytest.mark.parametrize("form", [lambda net: net, inference_form], ids=["plain", "inference form"])
@pytest.mark.parametrize("width", keys("ghostnet", "network"))
def test_logits(width, form):
    theirs, net = tensors("ghostnet", "network"), form(network(width))
    with torch.inference_mode():
        assert_within(net(picture()), theirs[f"w{width}.logits"], LOGITS)
        assert_within(net(theirs["x_97x129"]), theirs[f"w{width}.logits_97x129"], LOGITS, "97 x 129")


@pytest.mark.parametrize("width", keys("ghostnet", "network"))
def test_layers(width):
    told, theirs, net = facts("ghostnet", "network")[width], tensors("ghostnet", "network"), network(width)
    seen: dict[str, Tensor] = {}
    hooks = [net.get_submodule(layer).register_forward_hook(lambda m, i, y, layer=layer: seen.update({layer: y.clone()})) for layer in told["shapes"]]
    try:
        with torch.inference_mode():
            net(picture())
    finally:
        for hook in hooks:
            hook.remove()
    assert {layer: list(y.shape) for layer, y in seen.items()} == told["shapes"]
    means = {k.removeprefix(f"w{width}.mean."): v for k, v in theirs.items() if k.startswith(f"w{width}.mean.")}
    assert set(means) == set(seen)
    for layer, y in seen.items():
        assert_near(y.mean((0, 2, 3)), means[layer], what=layer)
        assert y.std().item() == pytest.approx(told["stats"][layer]["std"], rel=1e-5), layer
        # a mean near zero is a difference of large sums: it can be compared on the scale of the values only
        assert y.mean().item() == pytest.approx(told["stats"][layer]["mean"], abs=1e-5 * told["stats"][layer]["std"]), layer
        assert y.abs().mean().item() == pytest.approx(told["stats"][layer]["absmean"], rel=1e-5), layer
    assert_near(seen["act2"].flatten(1), theirs[f"w{width}.act2_full"], what="act2")


@pytest.mark.parametrize("width", keys("ghostnet", "flops_params"))
def test_cost(width):
    told, net = facts("ghostnet", "flops_params")[width], model.GhostNet(width=float(width))
    cost = study.count(net)
    assert (cost.macs_conv, cost.macs_linear, cost.macs, cost.parameters) == tuple(told[k] for k in ("macs_conv", "macs_linear", "macs_total", "params"))
    state = net.state_dict()
    assert len(state) == told["n_keys"]
    assert sum(v.numel() for v in state.values() if v.is_floating_point()) == told["params_with_buffers_float"]


@pytest.mark.parametrize("name", [k for k in keys("ghostnet", "timm_compare") if k != "timm_version"])
def test_equals_timm(name, timm):
    told = facts("ghostnet", "timm_compare")[name]
    assert told["same_key_set"] and told["same_order"] and told["same_shapes"]
    width = f"{int(name.removeprefix('ghostnet_')) / 100:.1f}"
    theirs = timm.create_model(name).eval()
    ours = network(width)
    assert [(k, v.shape) for k, v in theirs.state_dict().items()] == [(k, v.shape) for k, v in ours.state_dict().items()]
    theirs.load_state_dict(ours.state_dict(), strict=True)
    with torch.inference_mode():
        assert_within(ours(picture()), theirs(picture()), max(told["max_abs_logit_diff"], LOGITS))
