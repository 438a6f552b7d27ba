"""The networks at every size, carrying weights from one size to another, and reading the authors' variables."""
from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from pttp.errors import BadInput, WeightsError
from pttp.stegastamp import official
from pttp.stegastamp.model import Conv, Critic, Decoder, StegaStamp, bilinear, he_init, resized, spatial_transform

IDENTITY = torch.tensor([[1.0, 0, 0, 0, 1, 0]])


@pytest.mark.parametrize("size, bits, grid", [(64, 100, None), (96, 100, 8), (128, 32, None), (160, 100, 8), (256, 100, 8), (400, 100, 8), (400, 200, 4)])
def test_shapes(size, bits, grid):
    net = StegaStamp(size, bits, grid).eval()
    with torch.inference_mode():
        residual, logits = net(torch.rand(1, 3, size, size), torch.randint(2, (1, bits)).float())
    assert residual.shape == (1, 3, size, size) and logits.shape == (1, bits)
    assert StegaStamp(**net.config).state_dict().keys() == net.state_dict().keys()


def test_the_authors_network_is_the_default():
    with torch.device("meta"):
        net, critic = StegaStamp(), Critic()
    shapes = {k: tuple(v.shape) for k, v in net.state_dict().items()}
    assert shapes["encoder.secret.weight"] == (7500, 100)
    assert shapes["decoder.locator_hidden.weight"] == (128, 320_000) and shapes["decoder.hidden.weight"] == (512, 21_632)
    assert sum(p.numel() for p in critic.parameters()) == 224 + 1168 + 4640 + 18_496 + 577


@pytest.mark.parametrize("size", [0, 48, 63, 100, 250, 399])
def test_sizes_that_do_not_fit(size):
    with pytest.raises(BadInput, match="multiple of 16"):
        StegaStamp(size)


@pytest.mark.parametrize("n, kernel, stride, before, after", [(400, 3, 2, 0, 1), (25, 3, 2, 1, 1), (13, 3, 1, 1, 1), (50, 2, 1, 0, 1), (50, 1, 1, 0, 0)])
def test_same_padding(n, kernel, stride, before, after):
    conv, x = Conv(2, 3, kernel, stride), torch.rand(1, 2, n, n + stride)
    side = before, after
    wide = side if (n + stride) % stride == n % stride else (1, 1)
    expected = F.conv2d(F.pad(x, (*wide, *side)), conv.weight, conv.bias, stride)
    assert conv(x).shape[2:] == (-(-n // stride), -(-(n + stride) // stride))
    torch.testing.assert_close(conv(x), expected)


def test_identity_shrinks_by_one_pixel():
    """Coordinate 1 is pixel W - 2: the last output pixel shows the last but one of the input."""
    x = torch.arange(20.0).expand(1, 1, 20, 20)
    out = spatial_transform(x, IDENTITY)
    torch.testing.assert_close(out[0, 0, 5], torch.linspace(0, 18, 20))


def test_outside_is_zero_at_once():
    x = torch.ones(1, 1, 10, 10)
    out = spatial_transform(x, torch.tensor([[1.0, 0, 1.0, 0, 1, 0]]))[0, 0, 0]  # shifted by half of the width
    assert set(out.tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("seed", range(3))
def test_taps_and_grid_sample_agree(seed):
    g = torch.Generator().manual_seed(seed)
    x, theta = torch.rand(2, 3, 17, 23, generator=g), IDENTITY + 0.4 * torch.randn(2, 6, generator=g)
    fast = spatial_transform(x, theta, (19, 11))
    torch.testing.assert_close(spatial_transform(x, theta.requires_grad_(), (19, 11)).detach(), fast, atol=3e-6, rtol=0)


def test_gradient_of_the_taps():
    g = torch.Generator().manual_seed(0)
    x = torch.rand(1, 2, 6, 7, generator=g, dtype=torch.float64, requires_grad=True)
    px, py = (torch.rand(1, 4, 4, generator=g, dtype=torch.float64) * n for n in (5.9, 4.9))
    assert torch.autograd.gradcheck(bilinear, (x, px.requires_grad_(), py.requires_grad_()))


def test_a_decoder_starts_with_the_identity():
    decoder = he_init(Decoder(64, locator_grid=4))
    torch.testing.assert_close(decoder.locate(torch.rand(3, 3, 64, 64)), IDENTITY.expand(3, 6))


def test_he_start_keeps_the_signal_alive():
    """Logits must differ from picture to picture: with PyTorch's default start they hardly do, and the message is not learnt."""
    torch.manual_seed(0)
    decoder, default, x = he_init(Decoder(96, locator_grid=8)), Decoder(96, locator_grid=8), torch.rand(8, 3, 96, 96)
    with torch.inference_mode():
        assert decoder(x).std(0).mean() > 10 * default(x).std(0).mean()


@pytest.mark.parametrize("old, new, grid", [(64, 96, None), (96, 160, 8), (160, 96, 8), (128, 128, None)])
def test_another_size_keeps_convolutions_and_stretches_maps(old, new, grid):
    torch.manual_seed(0)
    net = he_init(StegaStamp(old, 100, grid))
    big = resized(net, new)
    a, b = net.state_dict(), big.state_dict()
    kept = [k for k in a if a[k].shape == b[k].shape]
    assert all(torch.equal(a[k], b[k]) for k in kept)
    assert {k for k in a if k not in kept} <= {"encoder.secret.weight", "encoder.secret.bias", "decoder.hidden.weight", "decoder.locator_hidden.weight"}
    secret = torch.randint(2, (2, 100)).float()
    maps = [n.encoder.secret(secret - 0.5).view(2, 3, n.encoder.grid, n.encoder.grid) for n in (net, big)]
    torch.testing.assert_close(F.interpolate(maps[0], size=maps[1].shape[2:], mode="bilinear", align_corners=False), maps[1])
    g = -(-new // 32)
    features = torch.rand(2, 128, g, g)
    old_features = F.interpolate(features, size=(-(-old // 32),) * 2, mode="bilinear", antialias=True, align_corners=False)
    torch.testing.assert_close(big.decoder.hidden(features.flatten(1)), net.decoder.hidden(old_features.flatten(1)), atol=1e-4, rtol=1e-4)


def as_tensorflow(net: StegaStamp, critic: Critic, first: int = 0) -> dict[str, np.ndarray]:
    """Our weights under the authors' names and layouts; `first` is the number that TensorFlow gave the first convolution."""
    out: dict[str, np.ndarray] = {}

    def layer(name: str, kernel: Tensor, bias: Tensor) -> None:
        out[f"{name}/kernel:0"], out[f"{name}/bias:0"] = kernel.numpy(), bias.numpy()

    def rows(weight: Tensor, chs: int) -> Tensor:
        side = round((weight.shape[1] / chs) ** 0.5)
        return weight.view(-1, chs, side, side).permute(2, 3, 1, 0).reshape(-1, len(weight))

    def number(i: int) -> str:
        return f"conv2d_{i}" if i else "conv2d"

    e, d = net.encoder.state_dict(), net.decoder.state_dict()
    for i, our in enumerate(official.ENCODER):
        if our:
            layer(f"stega_stamp_encoder/{number(first + i)}", e[f"{our}.weight"].permute(2, 3, 1, 0), e[f"{our}.bias"])
        else:
            layer(f"stega_stamp_encoder/{number(first + i)}", torch.zeros(3, 3, 32, 32), torch.zeros(32))
    g = net.encoder.grid
    kernel, bias = e["secret.weight"].view(3, g, g, -1).permute(3, 1, 2, 0).flatten(1), e["secret.bias"].view(3, g, g).permute(1, 2, 0).flatten()
    layer("stega_stamp_encoder/dense", kernel, bias)
    for i, our in enumerate(official.LOCATOR + official.READER):
        part = "sequential" if our.startswith("locator") else "sequential_1"
        layer(f"stega_stamp_decoder/{part}/{number(first + 15 + i)}", d[f"{our}.weight"].permute(2, 3, 1, 0), d[f"{our}.bias"])
    layer("stega_stamp_decoder/sequential/dense_1", rows(d["locator_hidden.weight"], 128), d["locator_hidden.bias"])
    layer("stega_stamp_decoder/sequential_1/dense_2", rows(d["hidden.weight"], 128), d["hidden.bias"])
    layer("stega_stamp_decoder/sequential_1/dense_3", d["bits.weight"].T, d["bits.bias"])
    out["W_fc1:0"], out["b_fc1:0"] = d["theta.weight"].T.numpy(), d["theta.bias"].numpy()
    c = critic.state_dict()
    for i, our in enumerate(official.CRITIC):
        layer(f"discriminator/sequential_2/{number(first + 25 + i)}", c[f"{our}.weight"].permute(2, 3, 1, 0), c[f"{our}.bias"])
    return out


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    net = he_init(StegaStamp(64, 40))
    torch.nn.init.normal_(net.decoder.theta.weight, std=0.01)
    return net, Critic()


@pytest.mark.parametrize("first", [0, 7])
def test_variables_there_and_back(small, first):
    net, critic = small
    variables = as_tensorflow(*small, first)
    again = official.network(variables)
    assert again.config == {"size": 64, "bits": 40, "locator_grid": None, "detector": False}
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in net.state_dict().items())
    assert all(torch.equal(v, official.critic_state_dict(variables)[k]) for k, v in critic.state_dict().items())


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda v: v.pop("W_fc1:0"), "W_fc1 is missing"),
        (lambda v: v.pop("stega_stamp_encoder/conv2d_4/kernel:0"), "15 conv2d kernels are expected"),
        (lambda v: v.pop("stega_stamp_decoder/sequential_1/dense_3/bias:0"), "dense_3/bias is missing"),
        (lambda v: v.update({"stega_stamp_decoder/sequential_1/dense_3/kernel:0": np.zeros((512, 41), np.float32)}), "do not fit together"),
        (lambda v: v.clear(), "not a StegaStamp"),
    ],
)
def test_variables_that_do_not_fit(small, change, says):
    variables = as_tensorflow(*small)
    change(variables)
    with pytest.raises(WeightsError, match=says):
        official.network(variables)


def test_conversion_command(small, tmp_path):
    np.savez(tmp_path / "variables.npz", **as_tensorflow(*small))
    folder = official.save(tmp_path / "variables.npz", tmp_path / "out")
    state = load_file(folder / "model.safetensors")
    assert json.loads((folder / "config.json").read_text()) == json.loads(json.dumps(small[0].config))
    assert all(torch.equal(v, state[k]) for k, v in small[0].state_dict().items())


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was executed",))


@pytest.mark.parametrize("kind", ["pickle", "text", "npy", "none"])
def test_files_that_are_no_variables(tmp_path, kind):
    path = tmp_path / "variables.npz"
    if kind == "pickle":
        np.savez(path, W_fc1=np.array([Trap()], dtype=object))
    elif kind == "text":
        path.write_text("W_fc1")
    elif kind == "npy":
        with path.open("wb") as f:
            np.save(f, np.zeros(3))
    with pytest.raises(WeightsError, match="not an .npz file of plain arrays"):
        official.read_npz(path)
    with pytest.raises(WeightsError, match="plain arrays"):
        official.save(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
