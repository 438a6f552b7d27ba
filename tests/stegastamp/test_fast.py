"""The inference form is the same function as the network, faster, and safe to share."""
from __future__ import annotations

import copy
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from pttp.stegastamp import fast
from pttp.stegastamp.detect import Detector
from pttp.stegastamp.fast import inference_form
from pttp.stegastamp.model import StegaStamp, he_init


def random_net(size: int = 64, bits: int = 100, grid: int | None = 4, detector: bool = False) -> StegaStamp:
    """Biases, statistics and a spatial transformer that are not those of a fresh network, so that leaving one out shows."""
    g = torch.Generator().manual_seed(size)
    net = StegaStamp(size, bits, grid, detector)
    he_init(net.encoder), he_init(net.decoder)
    with torch.no_grad():
        for name, p in net.named_parameters():
            if name.endswith("bias") and not name.startswith("decoder.theta"):
                p.add_(torch.randn(p.shape, generator=g) * 0.2)
        net.decoder.theta.weight.copy_(torch.randn(net.decoder.theta.weight.shape, generator=g) * 0.01)
        net.decoder.theta.bias.copy_(torch.tensor([0.8, 0.05, 0, 0, 0.8, 0.02]))  # inside of the picture: at its border the transformer jumps, whatever computes it
        for m in net.modules():
            if isinstance(m, torch.nn.BatchNorm2d):
                m.running_mean.copy_(torch.randn(m.running_mean.shape, generator=g) * 0.2)
                m.running_var.copy_(torch.rand(m.running_var.shape, generator=g) + 0.5)
                m.weight.copy_(torch.rand(m.weight.shape, generator=g) + 0.5)
    return net.eval()


def inputs(net: StegaStamp, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(batch)
    return torch.rand(batch, 3, net.size, net.size, generator=g), torch.randint(2, (batch, net.n_bits), generator=g).float()


@pytest.fixture(params=[True, False], ids=["packed", "unpacked"])
def layout(request, monkeypatch):
    """Both ways to run a convolution: with weights in oneDNN's layout, and without, as where torch does not offer that."""
    if request.param and not fast.packs():
        pytest.skip("this build of torch does not take packed weights")
    monkeypatch.setattr(fast, "packs", lambda: request.param)


# 64: even down to the last map; 80 and 400: an odd one before the last convolution; 112: its localiser's map is pooled unevenly
@pytest.mark.parametrize(("size", "bits", "grid", "batch"), [(64, 100, None, 1), (64, 32, 4, 5), (80, 100, 8, 2), (96, 100, 8, 4), (112, 100, 4, 1), (256, 100, 8, 1), (400, 100, 8, 1)])
def test_same_residual_and_logits(size, bits, grid, batch, layout):
    net = random_net(size, bits, grid)
    image, secret = inputs(net, batch)
    form = inference_form(net)
    assert (form.size, form.n_bits, form.detector) == (size, bits, None)
    with torch.inference_mode():
        for ours, plain in ((form.encoder(image, secret), net.encoder(image, secret)), (form.decoder(image), net.decoder(image))):
            assert plain.std() > 0.02  # else 1e-4 would say nothing
            assert ours.shape == plain.shape and ours.is_contiguous()
            assert (ours - plain).abs().max() <= 1e-4


@pytest.mark.parametrize("shape", [(1, 288, 512), (2, 64, 96), (1, 16, 48)])
def test_same_maps(shape, layout):
    net = random_net(detector=True).detector
    frame = torch.rand(shape[0], 3, *shape[1:], generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for ours, plain in zip(fast.FastDetector(net)(frame), net(frame), strict=True):
            assert plain.std() > 1e-3
            torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4 * float(plain.std()))


def test_the_detectors_form_finds_what_the_detector_finds():
    from pttp.stegastamp.detect import find_quads

    torch.manual_seed(3)
    net = Detector().eval()
    torch.nn.init.constant_(net.centre.bias, 2.0)  # finds something everywhere
    frame = torch.randint(256, (90, 160, 3), dtype=torch.uint8).numpy()
    plain, ours = find_quads(net, frame, threshold=0.01), find_quads(fast.FastDetector(net), frame, threshold=0.01)
    assert len(plain) == len(ours)
    for a, b in zip(plain, ours, strict=True):
        assert a.quad == pytest.approx(b.quad, abs=1e-2) and a.score == pytest.approx(b.score, abs=1e-4)


def test_input_layout_does_not_matter(layout):
    net = random_net()
    form, (x, _) = inference_form(net), inputs(net, 2)
    wide = torch.randn(2, 3, 64, 128)
    wide[..., ::2] = x
    for same in (x.contiguous(memory_format=torch.channels_last), wide[..., ::2]):
        before = same.clone()
        assert torch.allclose(form.decoder(same), form.decoder(x), atol=1e-5)
        assert torch.equal(same, before)


def test_other_types():
    net = random_net().double()
    x, secret = (t.double() for t in inputs(net, 2))
    form = inference_form(net)
    with torch.inference_mode():
        assert torch.allclose(form.decoder(x), net.decoder(x), atol=1e-12)
        assert torch.allclose(form.encoder(x, secret), net.encoder(x, secret), atol=1e-12)


def test_no_gradients_and_no_part_of_the_network(layout):
    net = random_net(detector=True)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    form, (x, secret) = inference_form(net), inputs(net, 1)
    answer = form.decoder(x.requires_grad_()), form.encoder(x, secret), form.detector(x).mask
    assert not any(y.requires_grad for y in answer)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    with torch.no_grad():
        for value in net.state_dict().values():
            value.fill_(1)
    again = form.decoder(x), form.encoder(x, secret), form.detector(x).mask
    assert all(torch.equal(a, b) for a, b in zip(answer, again, strict=True))


def test_threads_may_share_it(layout):
    net = random_net()
    form = inference_form(net)
    pictures = [inputs(net, 1 + i % 3) for i in range(8)]
    alone = [(form.encoder(x, s), form.decoder(x)) for x, s in pictures]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            together = list(pool.map(lambda p: (form.encoder(*p), form.decoder(p[0])), pictures))
            assert all(torch.allclose(a, b, atol=1e-5) for one, two in zip(alone, together, strict=True) for a, b in zip(one, two, strict=True))


def test_it_can_be_part_of_what_is_copied():
    net = random_net()
    form, (x, _) = inference_form(net), inputs(net, 1)
    assert torch.equal(copy.deepcopy(form).decoder(x), form.decoder(x))


@pytest.mark.parametrize("part", ["encoder", "decoder", "detector"])
def test_faster_than_the_plain_network(part):
    """In processor time, taking turns: what else the machine does counts little."""
    if not fast.packs():
        pytest.skip("this build of torch does not take packed weights")
    net = random_net(256, 100, 8, detector=True)
    form, (x, secret) = inference_form(net), inputs(net, 1)
    arguments = {"encoder": (x, secret), "decoder": (x,), "detector": (torch.rand(1, 3, 288, 512),)}[part]
    taken = {"plain": [], "form": []}
    with torch.inference_mode():
        for _ in range(12):
            for name, owner in (("plain", net), ("form", form)):
                began = time.process_time()
                getattr(owner, part)(*arguments)
                taken[name].append(time.process_time() - began)
    assert sorted(taken["form"])[5] < sorted(taken["plain"])[5]
