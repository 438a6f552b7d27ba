"""The embedded network: what its parts promise each other, before any training."""
from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from pttp import trunk
from pttp.pointrend import points, render, slim
from pttp.pointrend.detect import apply_deltas
from pttp.pointrend.slim import Clicks, Maps, SlimPointRend


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    net = SlimPointRend(width=64, point_width=32).eval()
    for module in (net.coarse_head, net.point_head):  # larger answers than a fresh network gives: differences must show
        for p in module.parameters():
            p.data.mul_(2)
    return net


@pytest.fixture(scope="module")
def maps(net):
    with torch.no_grad():
        return net(torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1)))


def boxes(*rows):
    return torch.tensor(rows, dtype=torch.float32)


def test_shapes(maps):
    cells = 8 * 12 + 4 * 6 + 2 * 3
    assert maps.p2.shape == (1, slim.CHANNELS, 16, 24)
    assert (maps.logits.shape, maps.boxes.shape, maps.at.shape, maps.strides.shape) == ((1, cells, 8), (1, cells, 4), (cells, 2), (cells,))
    for stride, first in ((8, (4, 4)), (16, (8, 8)), (32, (16, 16))):
        assert tuple(maps.at[maps.strides == stride][0].tolist()) == first
    assert ((maps.boxes[0, :, :2] < maps.at) & (maps.boxes[0, :, 2:] > maps.at)).all()


def test_an_untrained_network_expects_nothing(maps):
    assert maps.logits.sigmoid().mean() == pytest.approx(slim.PRIOR, rel=0.5)


def test_it_is_small_enough():
    net = SlimPointRend()
    assert sum(2 * v.numel() for v in net.state_dict().values()) <= 20e6
    assert SlimPointRend(**net.options).load_state_dict(net.state_dict(), strict=True)


def test_its_trunk_takes_the_shared_weights():
    weights = trunk.trunk_tensors(trunk.Lite0().state_dict())
    assert SlimPointRend().trunk.load_state_dict(weights, strict=True)


@pytest.mark.parametrize(
    ("at", "sign", "channel", "peak"),
    [((30, 20), 1, 0, (7, 7)), ((30, 20), -1, 1, (7, 7)), ((10.5, 10.2), 1, 0, (0, 0)), ((49, 29.9), -1, 1, (13, 13))],
)
def test_click_maps(at, sign, channel, peak):
    """In a box from (10, 10) to (50, 30): a bump of height 1 at the click, in the map of its sign."""
    drawn = Clicks.of([at], [sign], 1, boxes((0, 0, 1, 1))).maps(boxes((10, 10, 50, 30)), 14)
    assert drawn.shape == (1, 2, 14, 14)
    x, y = peak
    assert drawn[0, channel].argmax() == y * 14 + x and drawn[0, channel].max() > 0.7
    assert not drawn[0, 1 - channel].any()


def test_click_maps_of_several_and_of_none():
    b = boxes((0, 0, 28, 28), (0, 0, 28, 28))
    clicks = Clicks(torch.tensor([[[7.0, 7.0], [21.0, 21.0]], [[7.0, 7.0], [0.0, 0.0]]]), torch.tensor([[1.0, 1.0], [1.0, 0.0]]))
    both, one = clicks.maps(b, 28)
    assert both[0, 7, 7] > 0.9 and both[0, 21, 21] > 0.9 and one[0, 21, 21] < 1e-3
    assert torch.equal(both[0, :14, :14], one[0, :14, :14])
    assert not Clicks.none(2, b).maps(b, 28).any()
    assert torch.equal(clicks[1:].maps(b[1:], 14), clicks.maps(b, 14)[1:])


def test_masks_are_what_decide_says(net, maps):
    """The fast rendered form against the paper's, at every cell: the first grid, and with as many points as cells the last one, too."""
    b = boxes((10, 5, 70, 60), (30.5, 20, 96, 64))
    with torch.no_grad():
        box = net.look(maps.p2, b, Clicks.of([(40, 30), (50, 20)], [1, -1], 2, b), torch.zeros(2, dtype=torch.long))
        seen = []
        net.masks(maps.p2, box, watch=seen.append)
        assert [s.side for s in seen] == [28, 56, 112, 224]
        dense = net.decide(maps.p2, box, points.regular_grid(2, 28, b), torch.zeros(2, dtype=torch.long))
        torch.testing.assert_close(seen[0].logits[:, 0].flatten(1), dense, rtol=1e-4, atol=1e-4)
        all_of_it = net.masks(maps.p2, box, count=56 * 56, steps=3)
        direct = net.decide(maps.p2, box, points.regular_grid(2, 56, b))
        torch.testing.assert_close(all_of_it.flatten(1), direct, rtol=1e-4, atol=1e-4)


def test_a_click_changes_coarse_mask_quality_and_box(net, maps):
    b = boxes((10, 5, 70, 60))
    torch.nn.init.normal_(net.coarse_head.deltas.weight, std=0.1)
    with torch.no_grad():
        without, yes, no = (net.look(maps.p2, b, c) for c in (Clicks.none(1, b), Clicks.of([(40, 30)], [1], 1, b), Clicks.of([(40, 30)], [-1], 1, b)))
    for one, other in ((without, yes), (without, no), (yes, no)):
        assert (one.coarse - other.coarse).abs().max() > 1e-3
        assert (one.quality - other.quality).abs() > 1e-5
        assert (one.better - other.better).abs().max() > 1e-3


def test_a_box_of_a_batch_is_read_from_its_picture(net):
    with torch.no_grad():
        p2 = net(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))).p2
        b = boxes((10, 5, 60, 60), (10, 5, 60, 60))
        clicks = Clicks.none(2, b)
        both = net.look(p2, b, clicks, torch.tensor([0, 1]))
        second = net.look(p2[1:], b[:1], clicks[:1])
    torch.testing.assert_close(both.coarse[1:], second.coarse)
    assert (both.coarse[0] - both.coarse[1]).abs().max() > 1e-3
    torch.testing.assert_close(both[1:].better, second.better)


def test_better_boxes_follow_their_deltas(net, maps):
    b = boxes((10, 5, 70, 60))
    with torch.no_grad():
        box = net.look(maps.p2, b, Clicks.none(1, b))
    torch.testing.assert_close(box.better, apply_deltas(b, box.deltas, slim.DELTA_WEIGHTS))


@pytest.mark.parametrize(
    ("box", "expected"),
    [((40, 40, 60, 80), (38.5, 37, 61.5, 83)), ((0, 0, 100, 100), (0, 0, 100, 100)), ((50, 50, 50, 50), (47.7, 47.7, 52.3, 52.3))],
)
def test_grow(box, expected):
    assert slim.grow(boxes(box), (100, 100))[0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("places", "signs", "expected"),
    [([(20, 20)], [1], (10, 10, 30, 30)), ([(20, 20), (50, 5)], [1, 1], (10, 5, 50, 30)), ([(20, 20), (50, 5)], [1, -1], (10, 10, 30, 30))],
)
def test_reach(places, signs, expected):
    assert tuple(slim.reach(torch.tensor([10.0, 10, 30, 30]), places, signs).tolist()) == expected


def crafted(*cells):
    """Maps of which each cell is (x, y, stride, box, logits)."""
    x, y, strides, b, logits = zip(*cells)
    return Maps(torch.zeros(1, 96, 16, 16), torch.tensor(logits, dtype=torch.float32)[None], boxes(*b)[None], torch.tensor(list(zip(x, y)), dtype=torch.float32), torch.tensor(strides))


CELLS = crafted(
    (12, 12, 8, (0, 0, 30, 30), (3, -9, 2)),
    (20, 12, 8, (1, 0, 30, 31), (2, -9, 3)),  # the same object once more
    (12, 12, 8, (4, 4, 20, 20), (-9, 4, 1)),  # a part of it, of another class
    (52, 52, 8, (44, 44, 64, 70), (4, -9, 4)),
    (36, 12, 8, (30, 0, 50, 20), (-9, -9, -9)),
)


def test_detect():
    found = slim.detect(CELLS, (64, 64))
    assert found.classes.tolist() == [0, 0, 1]
    assert found.boxes[0].tolist() == [44, 44, 64, 64]  # clipped
    assert found.scores[0] == pytest.approx(torch.tensor(4.0).sigmoid().item())
    assert (found.scores.diff() <= 0).all()
    assert len(slim.detect(CELLS, (64, 64), limit=1).boxes) == 1


def test_candidates_are_those_around_the_point():
    b, score = slim.candidates(CELLS, (64, 64), (14, 13))
    assert b.tolist() == [[1, 0, 30, 31], [4, 4, 20, 20]] and score.tolist() == pytest.approx([torch.tensor(v).sigmoid().item() for v in (3.0, 1.0)])
    b, _ = slim.candidates(CELLS, (64, 64), (53, 50))
    assert b.tolist() == [[44, 44, 64, 64]]


def test_after_obeying_the_point_head_says_what_the_clicks_say(net, maps):
    """Measured by the plain form at the clicked places, in the corrected maps; a click outside of the box asks for nothing."""
    b, places, signs = boxes((10, 5, 70, 60)), [(20, 20), (60, 20), (40, 50), (90, 60)], [1, -1, 1, 1]
    clicks = Clicks.of(places, signs, 1, b)
    at = (clicks.at - b[:, None, :2]) / (b[:, None, 2:] - b[:, None, :2])
    net = copy.deepcopy(net)
    net.point_head.predictor.weight.data[0, 32] = 1.0  # it listens to the coarse mask, as a trained one does: what nobody hears cannot be corrected
    with torch.no_grad():
        box = net.look(maps.p2, b, clicks)
        before, after = (net.decide(maps.p2, x, at) * clicks.sign for x in (box, slim.obey(net, maps.p2, box, clicks, steps=60)))
    assert (before[0, :3] < 0).any() and (after[0, :3] > 0.5).all()
    assert not any(p.grad is not None for p in net.parameters())


def test_who_agrees_is_left_alone(net, maps):
    b = boxes((10, 5, 70, 60))
    with torch.no_grad():
        box = net.look(maps.p2, b, Clicks.of([(40, 30)], [1], 1, b))
        at = torch.tensor([[[0.5, 0.5]]])
        sign = 1.0 if net.decide(maps.p2, box, at) > 0 else -1.0
        again = slim.obey(net, maps.p2, box, Clicks(boxes((40, 32.5))[None], torch.tensor([[sign]])), margin=0.0)
    assert torch.equal(again.guide, box.guide)


@pytest.mark.parametrize("shape", [(60, 90), (90, 60), (300, 17)])
def test_prepare(shape):
    x, size = slim.prepare(np.full((*shape, 3), 127, np.uint8), 96)
    assert max(size) == 96 and x.shape[2] % 32 == x.shape[3] % 32 == 0
    assert x.shape[2] - size[0] < 32 and x.shape[3] - size[1] < 32
    assert x.abs().max() < 1e-6  # mid grey and padding are the trunk's zero
    white, size = slim.prepare(np.full((*shape, 3), 255, np.uint8), 96)
    assert white[0, :, size[0] - 1, size[1] - 1].tolist() == pytest.approx([1, 1, 1])


def test_answers_are_finite_and_hold_every_positive_click(net, maps):
    with torch.no_grad():
        first = slim.answer(net, maps, (64, 96), [(40, 30)], [1])
        steps = []
        second = slim.answer(net, maps, (64, 96), [(40, 30), (95, 63), (2, 2)], [1, 1, -1], first.box, watch=steps.append)
    assert first.logits.shape == (224, 224) and torch.isfinite(first.logits).all() and 0 <= first.quality <= 1
    x0, y0, x1, y1 = second.box.tolist()
    assert x0 <= 40 and y0 <= 30 and x1 >= 95 and y1 >= 63
    assert [s.side for s in steps] == [28, 56, 112, 224] and steps[1].points.shape == (1, render.POINTS, 2)
