"""What "look inside" says is what the paper's geometry says."""
from __future__ import annotations

import json
import tracemalloc
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest

from pttp.errors import BadInput
from pttp.polarmask import study
from pttp.polarmask.predict import Predictor
from pttp.polarmask.session import PolarInstance


def disc(size=(200, 220), x=100.0, y=90.0, r=60.0) -> np.ndarray:
    rows, columns = np.mgrid[: size[0], : size[1]]
    return np.hypot(columns - x, rows - y) <= r


@pytest.fixture
def found() -> PolarInstance:
    """A disc of 50 pixels around (100, 90)."""
    turn = np.arange(36) * np.pi / 18
    center = np.array([100, 90], np.float32)
    return PolarInstance(center, np.full(36, 50, np.float32), (center + 50 * np.stack([np.sin(turn), np.cos(turn)], 1)).astype(np.float32), 0.9, 0.8, "cat", 16, (200, 220))


def test_a_disc_by_its_rays():
    told = study.describe(disc())
    assert told.center.tolist() == [100, 90] and told.rays == pytest.approx(np.full(36, 60), abs=1.2)
    assert told.iou > 0.98 and told.centerness > 0.98


def test_the_bound_rises_with_the_rays():
    curve = dict(study.bound(study.shape("flower")))
    assert list(curve) == list(study.COUNTS) and curve[4] < curve[12] < curve[36] and curve[72] > 0.95


@pytest.mark.parametrize("count", [3, 73, 0])
def test_numbers_of_rays(count):
    with pytest.raises(BadInput, match="4 to 72"):
        study.describe(disc(), count)


def test_an_empty_mask():
    with pytest.raises(BadInput, match="empty"):
        study.describe(np.zeros((9, 9), bool))


@pytest.mark.parametrize("corners", [[], [(1, 1)], [(1, 1), (50, 60)]])
def test_outlines_need_three_corners(corners):
    with pytest.raises(BadInput, match=f"this one has {len(corners)}"):
        study.mask_of(corners, (100, 100))


@pytest.mark.parametrize("corners", [[(1, 1), (50, 50), (90, 90)], [(5, 5), (5, 5), (5, 5)], [(-50, -50), (-9, -50), (-9, -9)]])
def test_outlines_without_an_area(corners):
    with pytest.raises(BadInput, match="nearly nothing"):
        study.mask_of(corners, (100, 100))


def test_an_outline():
    mask = study.mask_of([(10, 20), (60, 20), (60, 50), (10, 50)], (100, 120))
    assert mask.sum() == pytest.approx(50 * 30, rel=0.05) and mask[35, 35] and not mask[60, 35]
    assert study.mask_of([(10, 10), (90, 90), (90, 10), (10, 90)], (100, 120)).any()  # crosses itself


def test_thirty_masks_take_no_more_room_than_two():
    """Of a photo of 48 megapixels each is 48 MB."""
    turn = np.arange(36) * np.pi / 18
    around = np.stack([np.sin(turn), np.cos(turn)], 1)
    middles = np.random.default_rng(0).uniform(200, 1000, (30, 2))
    many = [PolarInstance(m.astype(np.float32), np.full(36, 90, np.float32), (m + 90 * around).astype(np.float32), 0.9, 0.8, "cat", 16, (1200, 1200)) for m in middles]
    tracemalloc.start()
    covered = study.covered(many)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 3 * covered.nbytes and not any("mask" in vars(one) for one in many)
    assert np.array_equal(covered, np.logical_or.reduce([one.mask for one in many]))


def test_moving_a_ray(found):
    same = study.edit(found, {})
    assert same.polar_iou == 1 and same.mask_iou == 1
    moved = study.edit(found, {9: 80, 0: 25})
    assert moved.polar_iou == pytest.approx((35 * 50 + 25) / (35 * 50 + 80)) and moved.mask_iou < 1
    assert moved.contour[9].tolist() == pytest.approx([180, 90]) and moved.contour[0].tolist() == pytest.approx([100, 115])
    assert found.rays[9] == 50  # the network's answer stays
    assert study.edit(found, {9: 500}).contour[9].tolist() == pytest.approx([219, 90])  # kept inside of the picture


def test_rays_that_stay_end_where_they_ended(found):
    """On a photo that is shown smaller, corners computed anew differ in the last digit, which may be another pixel."""
    shown = replace(found, contour=found.contour + np.float32(0.4), rays=found.rays.copy())
    assert study.edit(shown, {}).mask_iou == 1
    moved = study.edit(shown, {9: 80})
    assert np.array_equal(np.delete(moved.contour, 9, 0), np.delete(shown.contour, 9, 0)) and not np.array_equal(moved.contour[9], shown.contour[9])


@pytest.mark.parametrize("moved", [{36: 5}, {-1: 5}, {0: -1}, {0: float("nan")}, {0: 1e9}])
def test_rays_that_cannot_be(found, moved):
    with pytest.raises(BadInput):
        study.edit(found, moved)


@pytest.mark.parametrize(("point", "ray", "length"), [((100, 140), 0, 50), ((130, 90), 9, 30), ((100, 20), 18, 70), ((90, 90), 27, 10), ((99, 150), 0, 60.01)])
def test_the_ray_that_points_there(found, point, ray, length):
    assert study.nearest_ray(found, point) == (ray, pytest.approx(length, abs=0.01))


@pytest.mark.parametrize("name", study.SHAPES)
def test_shapes_lose_what_their_bays_hold(name):
    mask = study.shape(name)
    lost = study.loss(mask)
    assert lost.right + lost.lost == mask.sum() and lost.right + lost.added == lost.told.filled.sum()
    assert lost.told.iou == pytest.approx(lost.right / (lost.right + lost.added + lost.lost))
    assert (lost.crossings % 2 == 1).all()  # from inside to outside
    if name in ("ring", "crescent", "letter U"):
        assert lost.crossings.max() >= 3 and lost.told.iou < 0.9


def test_a_disc_loses_nothing():
    lost = study.loss(disc())
    assert (lost.crossings == 1).all() and lost.added < 0.02 * lost.right and lost.lost < 0.02 * lost.right


def test_unknown_shapes():
    with pytest.raises(BadInput, match="ring"):
        study.shape("cube")


def test_heat_maps_stand_where_their_cells_look():
    session = Predictor.from_pretrained("embedded").open(np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8))
    for what in ("centerness", "object", "score"):
        for heat, size in zip(study.heats(session, what), session.maps.sizes, strict=True):
            assert heat.values.shape == size and heat.values.min() >= 0 and heat.values.max() <= 1
    heat = study.heats(session)[1]
    over = heat.over(session.size)
    row, column = 3, 5
    assert over[row * heat.stride + heat.stride // 2, column * heat.stride + heat.stride // 2] == pytest.approx(heat.values[row, column], abs=0.05)
    peak = study.Heat(np.eye(1, 20, 7, dtype=np.float32).repeat(15, 0), 16, (240, 320)).over((120, 160))
    assert peak.shape == (120, 160) and peak[60].argmax() in (59, 60)  # column 7 looks at x = 120 of 320
    with pytest.raises(BadInput, match="centerness, object, score"):
        study.heats(session, "beauty")


def test_exports(found):
    drawing = ET.fromstring(study.svg([found]))
    assert (drawing.get("width"), drawing.get("height")) == ("220", "200")
    (polygon,) = drawing.iter("{http://www.w3.org/2000/svg}polygon")
    assert len(polygon.get("points").split()) == 36 and len(list(drawing.iter("{http://www.w3.org/2000/svg}line"))) == 36
    assert "<line" not in study.svg([found], rays=False) and ET.fromstring(study.svg([])) is not None
    odd = ET.fromstring(study.svg([replace(found, label="cat & <dog>")]))
    assert next(odd.iter("{http://www.w3.org/2000/svg}title")).text.startswith("cat & <dog>, score")
    told = json.loads(study.coco([found]))
    (one,) = told["annotations"]
    assert told["image"] == {"width": 220, "height": 200} and len(one["segmentation"][0]) == 72 and one["category"] == "cat"
    x, y, w, h = one["bbox"]
    assert (x, y) == (50, 40) and (w, h) == (101, 101) and one["area"] == pytest.approx(np.pi * 2500, rel=0.01)


def test_the_page_says_what_the_room_says():
    """The page is built without importing a network, so that it repeats two things."""
    from demos import polarmask, polarmask_look
    from pttp.polarmask import session

    assert polarmask.SCORE == session.SHOWN and polarmask_look.SHAPES == study.SHAPES
