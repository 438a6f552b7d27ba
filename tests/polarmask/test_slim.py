"""The embedded network: what its parts promise each other, before any training."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from pttp import trunk
from pttp.polarmask import polar, slim
from pttp.polarmask.slim import Maps, SlimPolarMask


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    net = SlimPolarMask().eval()
    for name in ("polar_cls", "polar_centerness", "polar_quality", "polar_mask"):  # a fresh network says the same everywhere: differences must show
        torch.nn.init.normal_(getattr(net, name).weight, std=0.1)
    return net


@pytest.fixture(scope="module")
def maps(net):
    with torch.no_grad():
        return net(torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1)))


def test_shapes(maps):
    cells = 8 * 12 + 4 * 6 + 2 * 3
    assert maps.sizes == ((8, 12), (4, 6), (2, 3))
    assert (maps.classes.shape, maps.quality.shape, maps.centerness.shape, maps.rays.shape, maps.at.shape) == ((1, cells, 7), (1, cells), (1, cells), (1, cells, 36), (cells, 2))
    level = slim.levels(maps)
    for i, stride in enumerate(slim.STRIDES):
        at = maps.at[level == i]
        assert at[0].tolist() == [stride // 2] * 2 and at[-1].tolist() == [96 - stride // 2, 64 - stride // 2]
    assert (maps.rays > 0).all()


def test_an_untrained_network_expects_nothing_and_draws_rough_discs():
    torch.manual_seed(0)
    with torch.no_grad():
        maps = SlimPolarMask().eval()(torch.randn(1, 3, 64, 64))
    assert maps.classes.sigmoid().mean() == pytest.approx(0.01, rel=0.5)
    for level, stride in enumerate(slim.STRIDES):
        assert maps.rays[0, slim.levels(maps) == level].mean().item() == pytest.approx(slim.UNIT * stride, rel=0.3)


def test_it_is_small_enough():
    net = SlimPolarMask()
    assert sum(2 * v.numel() for v in net.state_dict().values()) <= 16e6
    assert SlimPolarMask(**net.options).load_state_dict(net.state_dict(), strict=True)


def test_its_trunk_takes_the_shared_weights():
    assert SlimPolarMask().trunk.load_state_dict(trunk.trunk_tensors(trunk.Lite0().state_dict()), strict=True)


@pytest.mark.parametrize("rays", [18, 72])
def test_other_numbers_of_rays(rays):
    with torch.no_grad():
        maps = SlimPolarMask(rays=rays).eval()(torch.randn(1, 3, 32, 32))
    found = slim.answer(maps, (32, 32), (10, 10))
    assert maps.rays.shape[-1] == found.rays.shape[-1] == rays and found.contours.shape == (1, rays, 2)


@pytest.mark.parametrize("shape", [(60, 90), (90, 60), (300, 17)])
def test_prepare(shape):
    x, size = slim.prepare(np.full((*shape, 3), 127, np.uint8), 96)
    assert max(size) == 96 and min(size) == max(1, round(min(shape) * 96 / max(shape)))
    assert x.shape[2] % 32 == x.shape[3] % 32 == 0 and x.shape[2] - size[0] < 32 and x.shape[3] - size[1] < 32
    assert x.abs().max() < 1e-6  # mid grey and padding are the trunk's zero
    white, size = slim.prepare(np.full((*shape, 3), 255, np.uint8), 96)
    assert white[0, :, size[0] - 1, size[1] - 1].tolist() == pytest.approx([1, 1, 1])


def test_the_mirror_sees_the_same_mirrored(net):
    """Of a mirrored picture every cell's mirror image says the same, its rays mirrored, too: exactly so when both are averaged."""
    x = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        maps, other, plain = slim.see(net, x), slim.see(net, x.flip(3)), slim.see(net, x, mirror=False)
    assert torch.equal(plain.rays, net(x).rays) and (maps.rays - plain.rays).abs().max() > 1e-3
    row, column = 3, 1
    cell, mirrored = row * 12 + column, row * 12 + 11 - column
    torch.testing.assert_close(maps.rays[0, cell, [0, 1, 9, 18]], other.rays[0, mirrored, [0, 35, 27, 18]])
    last = len(maps.at) - 1  # of the last row of stride 32, of three
    torch.testing.assert_close(maps.classes[0, last], other.classes[0, last - 2])
    torch.testing.assert_close(maps.quality[0, last - 1], other.quality[0, last - 1])


def test_levels_vote(net):
    """Two levels that are equally sure are averaged; one that is less sure counts by the power of what it expects."""
    maps = quiet()
    a, b = say(maps, 0, 1, 1, 0, 2, 10), say(maps, 1, 0, 0, 0, 2, 14)  # at (12, 12) and (8, 8)
    maps.at[a] = maps.at[b] = torch.tensor([8.0, 8.0])
    point = (12, 12)
    def rays(sharp):
        return float(slim.answer(maps, (64, 64), point, sharp).rays.mean())
    weights = [w[i == cell].sum() for (i, w), cell in zip(slim.around(maps, point)[:2], (a, b))]
    share = float(weights[1] / weights[0])  # what is expected is the same but for the distance
    assert rays(1.0) == pytest.approx((10 + 14 * share) / (1 + share), rel=0.01)
    assert rays(60) == pytest.approx(10, rel=0.01)


def quiet(size=(64, 64), classes=2, rays=36) -> Maps:
    """A network that sees nothing in a picture of `size`: to be written into."""
    sizes = tuple((size[0] // s, size[1] // s) for s in slim.STRIDES)
    at = torch.cat([slim.cells(*n, s, torch.zeros(1)) for n, s in zip(sizes, slim.STRIDES)])
    low = torch.full((1, len(at)), -9.0)
    return Maps(torch.full((1, len(at), classes), -9.0), low.clone(), low.clone(), torch.full((1, len(at), rays), 5.0), at, sizes)


def say(maps: Maps, level: int, column: int, row: int, kind: int, logit: float, length: float, centerness: float = 3.0) -> int:
    """Let one cell see a disc."""
    cell = sum(h * w for h, w in maps.sizes[:level]) + row * maps.sizes[level][1] + column
    maps.classes[0, cell, kind] = maps.quality[0, cell] = logit
    maps.centerness[0, cell] = centerness
    maps.rays[0, cell] = length
    return cell


def test_detect():
    maps = quiet()
    best = say(maps, 0, 2, 2, 0, 3, 12)  # at (20, 20)
    say(maps, 0, 3, 2, 0, 3, 12, centerness=0)  # the same object, from a worse centre
    other = say(maps, 1, 0, 0, 1, 2, 12)  # at (8, 8), of another class
    edge = say(maps, 0, 7, 7, 0, 1, 30)  # at (60, 60), reaches beyond the picture
    found = slim.detect(maps, (64, 60))
    assert found.classes.tolist() == [0, 1, 0] and found.level.tolist() == [0, 1, 0]
    assert torch.equal(found.centers, maps.at[[best, other, edge]]) and (found.scores.diff() <= 0).all() and (found.scores <= 1).all()
    torch.testing.assert_close(found.contours[0], polar.contours(maps.at[[best]], maps.rays[0, [best]])[0])
    assert found.contours[2].amax(0).tolist() == [59, 63]
    assert len(slim.detect(maps, (64, 60), limit=1).scores) == 1
    assert len(slim.detect(maps, (64, 60), iou=1.0).scores) == 4
    assert len(slim.detect(maps, (64, 60), score=0.99).scores) == 0
    assert slim.detect(quiet(), (64, 64)).contours.shape == (0, 36, 2)


def test_without_centerness_a_bad_centre_is_as_good():
    maps = quiet()
    say(maps, 0, 2, 2, 0, 3, 12, centerness=-6)
    assert slim.detect(maps, (64, 64), score=0.5, use_centerness=False).scores.tolist() == pytest.approx([torch.tensor(3.0).sigmoid().item()])
    assert not len(slim.detect(maps, (64, 64), score=0.5).scores)


def test_a_thing_is_not_two_things():
    maps = quiet()
    say(maps, 0, 2, 2, 0, 3, 12)
    say(maps, 0, 3, 2, 1, 2, 12)  # nearly the same extent, of another class
    assert slim.detect(maps, (64, 64), across=0.5).classes.tolist() == [0]
    assert slim.detect(maps, (64, 64), across=1.0).classes.tolist() == [0, 1]


def test_very_many_answers_are_cut_to_the_best():
    maps = quiet((512, 512))
    maps.classes[:], maps.quality[:], maps.centerness[:] = 3, 3, 3
    best = say(maps, 0, 10, 10, 1, 6, 5)
    found = slim.detect(maps, (512, 512))
    assert len(found.scores) == 100 and torch.equal(found.centers[0], maps.at[best])


def test_a_click_on_a_cell_gets_its_answer():
    maps = quiet()
    cell = say(maps, 1, 1, 2, 1, 4, 17)
    found = slim.answer(maps, (64, 64), tuple(maps.at[cell].tolist()))
    assert found.level.item() == 1 and found.classes.item() == 1
    torch.testing.assert_close(found.centers[0], maps.at[cell])
    torch.testing.assert_close(found.rays[0], maps.rays[0, cell])
    assert found.quality.item() == pytest.approx(torch.tensor(4.0).sigmoid().item()) == found.scores.item()


def test_between_cells_contours_are_averaged_by_how_good_they_think_they_are():
    maps = quiet()
    a, b = say(maps, 0, 2, 2, 0, 4, 10), say(maps, 0, 3, 2, 0, 4, 14)
    found = slim.answer(maps, (64, 64), (24, 20))
    assert found.centers[0].tolist() == pytest.approx([24, 20], abs=0.01)
    torch.testing.assert_close(found.contours[0], polar.contours(maps.at[[a, b]], maps.rays[0, [a, b]]).mean(0), rtol=0, atol=0.01)
    maps.quality[0, b] = -9  # the neighbour looks at something else
    found = slim.answer(maps, (64, 64), (24, 20))
    assert found.rays[0].tolist() == pytest.approx([10] * 36, abs=0.01)


@pytest.mark.parametrize("point", [(0, 0), (63, 63), (63, 0), (31.5, 63)])
def test_clicks_at_the_border(maps, point):
    near = slim.around(quiet(), point)
    for level, (index, weight) in enumerate(near):
        assert weight.sum().item() == pytest.approx(1)
        assert (slim.levels(quiet())[index][weight > 0] == level).all()
    found = slim.answer(maps, (64, 96), point)
    assert torch.isfinite(found.contours).all() and (found.contours >= 0).all() and (found.contours[0] <= torch.tensor([95, 63])).all()
