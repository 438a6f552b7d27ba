"""Annotations as they come: degenerate polygons, empty masks, and the pixel rules against OpenCV where it is installed."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from pttp.errors import BadInput
from pttp.polarmask import losses, polar, preprocess, targets
from pttp.polarmask.model import Level


@pytest.mark.parametrize(
    ("polygons", "pixels"),
    [
        ([], 0),
        ([[]], 0),
        ([[3, 3]], 0),
        ([[3, 3, 9, 9]], 0),  # two points
        ([[3, 3, 3, 3, 3, 3]], 0),  # one point, thrice
        ([[3, 3, 3, 9, 3, 5]], 0),  # upright line: no area
        ([[2, 2, 8, 2, 5, 2]], 0),  # level line
        ([[2, 2, 6, 2, 6, 6, 2, 6]], 16),
        ([[2, 6, 6, 6, 6, 2, 2, 2]], 16),  # the other way round
        ([[2, 2, 6, 2, 6, 6, 2, 6], [4, 4, 8, 4, 8, 8, 4, 8]], 28),  # two parts that overlap
        ([[2, 2, 6, 2, 6, 6, 2, 6], [1, 1]], 16),  # one of two is degenerate
        ([[-50, -50, 500, -50, 500, 500, -50, 500]], 240),  # larger than the picture
        ([[-9, -9, -5, -9, -5, -5]], 0),  # outside
        ([[100, 100, 104, 100, 104, 104]], 0),
        ([[2, 2, 6, 2, 6, 6, 2, 6, 2, 2, 6, 2, 6, 6, 2, 6]], 0),  # twice around: even-odd
    ],
)
def test_polygons(polygons, pixels):
    mask = targets.rasterise(polygons, 12, 20)
    assert mask.shape == (12, 20) and mask.sum() == pixels


def test_a_polygon_that_crosses_itself():
    """A bow tie: two triangles, nothing beside the crossing."""
    mask = targets.rasterise([[2, 2, 18, 10, 18, 2, 2, 10]], 12, 20)
    assert mask[6, 3] and mask[6, 16] and not mask[3, 10] and not mask[9, 10]
    rim = targets.contour(mask)
    assert rim is not None and targets.area(rim) > 0


@pytest.mark.parametrize("polygon", [[1, 2, 3], [1, 2, np.nan, 4, 5, 6], [1, 2, np.inf, 4, 5, 6], ["a", "b"], [1, 2, 1e9, 3, 4, 5], None])
def test_polygons_that_are_none(polygon):
    with pytest.raises(BadInput, match="finite numbers"):
        targets.rasterise([polygon], 12, 20)


@pytest.mark.parametrize(
    ("pixels", "rim", "center"),
    [
        ([(3, 4)], [(3, 4)], (3, 4)),
        ([(3, 4), (4, 4)], [(3, 4), (4, 4)], (3, 4)),
        ([(3, 3), (4, 4), (5, 5)], [(3, 3), (4, 4), (5, 5), (4, 4)], (4, 4)),
        ([(0, 0), (0, 1), (1, 1), (1, 0)], [(0, 0), (0, 1), (1, 1), (1, 0)], (0, 0)),
    ],
)
def test_small_rims(pixels, rim, center):
    mask = np.zeros((8, 9), bool)
    for x, y in pixels:
        mask[y, x] = True
    assert [tuple(p) for p in targets.contour(mask).tolist()] == rim
    assert targets.center(targets.contour(mask)) == center


def test_an_empty_mask_has_no_rim():
    assert targets.contour(np.zeros((5, 5), bool)) is None


def test_holes_are_ignored_and_the_largest_part_counts():
    mask = np.zeros((20, 30), bool)
    mask[2:6, 2:6] = True
    mask[8:18, 8:20] = True
    mask[10:15, 10:15] = False
    rim = targets.contour(mask)
    assert rim.min(0).tolist() == [8, 8] and rim.max(0).tolist() == [19, 17] and targets.area(rim) == 11 * 9


def objects(masks: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    boxes = []
    for mask in masks:
        y, x = np.nonzero(mask)
        boxes.append([x.min(), y.min(), x.max(), y.max()] if len(x) else [40, 40, 80, 80])
    return torch.tensor(boxes, dtype=torch.float32).view(-1, 4), torch.arange(1, len(masks) + 1)


@pytest.mark.parametrize("case", ["none", "empty mask", "one pixel", "line"])
def test_degenerate_objects_are_trained_with(case):
    """Whatever the annotation, targets are finite and the losses are finite and differentiable."""
    size, mask = (128, 128), np.zeros((128, 128), bool)
    if case == "one pixel":
        mask[60, 60] = True
    if case == "line":
        mask[60, 30:100] = True
    masks = [] if case == "none" else [mask]
    aim = targets.assign(masks, *objects(masks), size)
    assert aim.labels.shape == (16 * 16 + 8 * 8 + 4 * 4 + 2 * 2 + 1,)
    assert len(aim.index) == 0  # no cell lies strictly inside of a box without area
    check_losses(aim)


def check_losses(aim: targets.Targets) -> losses.Losses:
    torch.manual_seed(0)
    maps = [(c, 128 // s, 128 // s) for s in (8, 16, 32, 64, 128) for c in (3, 4, 1, 36)]
    leaves = [torch.randn(1, *shape).requires_grad_() for shape in maps]
    levels = [Level(leaves[i], leaves[i + 1].exp(), leaves[i + 2], leaves[i + 3].exp()) for i in range(0, len(leaves), 4)]
    told = losses.losses(levels, [aim])
    sum(told).backward()
    assert all(loss.isfinite() for loss in told) and all(x.grad.isfinite().all() for x in leaves)
    return told


def test_thin_objects_miss_rays():
    """Three pixels high: most rays of a cell inside meet the contour nowhere near their degree, and say so with a tiny distance."""
    mask = np.zeros((128, 128), bool)
    mask[59:62, 20:100] = True
    aim = targets.assign([mask], *objects([mask]), (128, 128))
    assert len(aim.index) > 0
    assert (aim.rays == targets.MISSED).any(1).all() and (aim.rays > 10).any(1).all()
    check_losses(aim)


def test_sides_that_do_not_fit():
    with pytest.raises(BadInput, match="multiples of 128"):
        targets.assign([], *objects([]), (256, 320))


@pytest.mark.parametrize(
    ("box", "area", "pixels", "used"),
    [
        ((0, 0, 20, 20), 400, 400, True),
        ((0, 0, 20, 20), 15, 400, False),
        ((0, 0, 9, 9), 81, 81, False),
        ((0, 0, 9, 10), 90, 90, True),
        ((0, 0, 20, 20), 400, 14, False),
    ],
)
def test_which_objects_are_used(box, area, pixels, used):
    mask = np.zeros((30, 30), bool)
    mask.flat[:pixels] = True
    assert targets.usable(box, area, mask) is used


@pytest.fixture(scope="module")
def cv2():
    return pytest.importorskip("cv2", reason="OpenCV is not installed: its pixel rules cannot be compared with ours")


def test_rims_are_those_of_opencv(cv2):
    rng = np.random.default_rng(0)
    for _ in range(200):
        mask = ndimage.gaussian_filter(rng.standard_normal(rng.integers(3, 60, 2)), rng.uniform(0, 3)) > 0
        if not mask.any():
            continue
        found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_NONE)
        theirs = sorted(found, key=cv2.contourArea, reverse=True)[0][:, 0]
        assert targets.contour(mask).tolist() == theirs.tolist()


@pytest.mark.parametrize("rays", [3, 4, 36, 37])
def test_filling_is_that_of_opencv(cv2, rays):
    rng = np.random.default_rng(rays)
    for _ in range(50):
        h, w = rng.integers(5, 150, 2).tolist()
        corners = (rng.uniform(0, 1, (rays, 2)) * [w - 1, h - 1]).astype(np.int64)
        theirs = np.zeros((h, w), np.uint8)
        cv2.drawContours(theirs, [corners[:, None].astype(np.int32)], -1, 1, -1)
        assert (polar.fill(corners, (h, w)) == theirs.astype(bool)).all()


@pytest.mark.parametrize(
    ("corners", "pixels"),
    [
        ([(-5, -5), (25, -5), (25, 25), (-5, 25)], 120),
        ([(-9, -9), (-5, -9), (-5, -5)], 0),
        ([(3, 4)] * 5, 1),
        ([(2, 3), (6, 3), (4, 3)], 5),
        ([(30, 3), (40, 3), (35, 9)], 0),
    ],
    ids=["larger than the picture", "outside", "a point", "a line", "right of it"],
)
def test_filling_degenerate_polygons(corners, pixels):
    assert polar.fill(np.array(corners), (10, 12)).sum() == pixels


@pytest.mark.parametrize("shape", ["any", "half", "half as wide", "the same"])
def test_resizing_is_that_of_opencv(cv2, shape):
    rng = np.random.default_rng(0)
    for _ in range(30):
        h, w, height, width = rng.integers(1, 80, 4).tolist()
        if shape == "half":
            h, w = 2 * height, 2 * width
        elif shape == "half as wide":
            h, w = height, 2 * width
        elif shape == "the same":
            h, w = height, width
        image = rng.integers(0, 256, (h, w, 3), dtype=np.uint8)
        assert (preprocess.resize(image, width, height) == cv2.resize(image, (width, height))).all()
