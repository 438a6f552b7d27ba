"""The inference form is the same function as the network, faster, and safe to share."""
from __future__ import annotations

import copy
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from pttp.ghostnet import fast, study
from pttp.ghostnet.fast import inference_form
from tests.ghostnet.nets import assert_unchanged, random_net, snapshot


@pytest.fixture(params=[True, False], ids=["packed", "unpacked"])
def layout(request, monkeypatch):
    """Both ways to run a convolution: with weights in oneDNN's layout, and without, as where torch does not offer that."""
    if request.param and not fast.packs():
        pytest.skip("this build of torch does not take packed weights")
    monkeypatch.setattr(fast, "packs", lambda: request.param)


@pytest.mark.parametrize("shape", [(1, 224, 224), (3, 97, 129), (2, 33, 200), (5, 32, 32), (1, 31, 1)])
@pytest.mark.parametrize(("width", "ratio"), [(0.5, 2), (1.0, 2), (1.3, 2), (1.0, 3), (0.5, 4)])
def test_same_logits(width, ratio, shape, layout):
    net = random_net(width, ratio)
    x = torch.randn(shape[0], 3, *shape[1:], generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        theirs = net(x)
        assert theirs.std() > 0.1  # else 1e-4 would say nothing
        assert (inference_form(net)(x) - theirs).abs().max() <= 1e-4


def test_input_layout_does_not_matter(layout):
    form = inference_form(random_net())
    x = torch.randn(2, 3, 64, 80)
    wide = torch.randn(2, 3, 64, 160)
    wide[..., ::2] = x
    for same in (x.contiguous(memory_format=torch.channels_last), wide[..., ::2]):
        before = same.clone()
        assert torch.allclose(form(same), form(x), atol=1e-5)
        assert torch.equal(same, before)


def test_other_types_and_class_counts():
    net = random_net(num_classes=7).double()
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.inference_mode():
        assert torch.allclose(inference_form(net)(x), net(x), atol=1e-12)


def test_a_net_in_training_mode_is_folded_with_its_statistics_and_left_alone():
    net = random_net().train()
    before = snapshot(net)
    form = inference_form(net)
    x = torch.randn(2, 3, 64, 64, requires_grad=True)
    y = form(x)
    assert not y.requires_grad
    assert_unchanged(net, before)
    assert torch.allclose(y, net.eval()(x), atol=1e-4)


def test_later_changes_of_the_network_do_not_reach_the_form(layout):
    net = random_net()
    form, x = inference_form(net), torch.randn(1, 3, 64, 64)
    before = form(x)
    with torch.no_grad():
        for value in net.state_dict().values():
            value.fill_(1)
    assert torch.equal(form(x), before)


def test_threads_may_share_it(layout):
    form = inference_form(random_net(0.5))
    pictures = [torch.randn(1 + i % 3, 3, 64 + 8 * i, 96) for i in range(8)]
    alone = [form(x) for x in pictures]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            together = list(pool.map(form, pictures))
            assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(alone, together))


def test_it_can_be_part_of_what_is_copied():
    form, x = inference_form(random_net(0.5)), torch.randn(1, 3, 64, 64)
    assert torch.equal(copy.deepcopy(torch.nn.Sequential(form))(x), form(x))


def test_quick_to_build():
    net = random_net()
    inference_form(net)
    began = time.process_time()
    inference_form(net)
    assert time.process_time() - began < 1


def test_faster_than_the_plain_network():
    net = random_net()
    x = torch.randn(1, 3, 224, 224)
    plain, form = study.latency({"plain": net, "form": inference_form(net)}, x, 15)
    assert form.median < plain.median
