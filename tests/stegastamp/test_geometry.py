"""Homographies, rectified squares, and corners found in masks."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from pttp.stegastamp import geometry

TILTED = np.array([[120.0, 60], [300, 90], [280, 260], [90, 230]])


def mask_of(*quads: np.ndarray, shape: tuple[int, int] = (360, 480)) -> np.ndarray:
    from skimage.draw import polygon

    mask = np.zeros(shape, bool)
    for q in quads:
        mask[polygon(q[:, 1], q[:, 0], shape)] = True
    return mask


def turned(degrees: float, side: float = 140, centre: tuple[float, float] = (240, 180)) -> np.ndarray:
    a = np.deg2rad(degrees)
    return (geometry.square(side) - side / 2) @ np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]]) + centre


def test_homography_maps_corners_and_back():
    h = geometry.homography(geometry.square(99), TILTED)
    np.testing.assert_allclose(geometry.transform_points(h, geometry.square(99)), TILTED, atol=1e-9)
    back = geometry.homography(TILTED, geometry.square(99))
    np.testing.assert_allclose(back @ h / (back @ h)[2, 2], np.eye(3), atol=1e-9)


def test_batches_of_homographies():
    quads = np.stack([TILTED, TILTED[::-1], TILTED + 5])
    for one, quad in zip(geometry.homography(quads, geometry.square(1)), quads, strict=True):
        np.testing.assert_allclose(one, geometry.homography(quad, geometry.square(1)))


def test_corners_on_a_line_have_no_homography():
    with pytest.raises(np.linalg.LinAlgError):
        geometry.homography(np.array([[0, 0], [1, 1], [2, 2], [3, 3]]), geometry.square(1))


def test_a_warp_there_is_undone_by_rectifying():
    y, x = torch.meshgrid(torch.linspace(0, 1, 120), torch.linspace(0, 1, 120), indexing="ij")
    picture = torch.stack([x, y, (x * 6).sin() * (y * 5).cos() / 2 + 0.5])[None]
    to_picture = geometry.homography(TILTED, geometry.square(119))
    frame = geometry.warp(picture, torch.from_numpy(to_picture)[None], (360, 480))
    out = geometry.rectify(frame[0], TILTED, 120)
    assert out.shape == (1, 3, 120, 120)
    assert (out - picture)[..., 3:-3, 3:-3].abs().max() < 0.02


def test_eight_numbers_mean_that_the_ninth_is_one():
    picture, h = torch.rand(2, 3, 20, 30), np.stack([geometry.homography(geometry.square(9), geometry.square(9) + d) for d in ([1, 2], [3, 0.5])])
    long, short = torch.from_numpy(h), torch.from_numpy(h.reshape(2, 9)[:, :8])
    torch.testing.assert_close(geometry.warp(picture, long), geometry.warp(picture, short))


@pytest.mark.parametrize("degrees", [3, 17, 30, 44, 46, 61, 80, 88])
def test_the_quad_of_a_turned_square(degrees):
    quad = turned(degrees)
    (found,) = geometry.quads_in_mask(mask_of(quad))
    distance = np.linalg.norm(found[:, None] - quad[None], axis=-1)
    assert distance.min(1).max() < 3 and len(set(distance.argmin(1))) == 4


def test_several_stamps_and_specks():
    quads = [turned(20, 90, (100, 90)), turned(50, 120, (330, 220))]
    mask = mask_of(*quads)
    mask[300:310, 20:30] = True  # too small
    mask[200:240, 320:340] = False  # a finger's hole inside of the second
    found = geometry.quads_in_mask(mask)
    centres = sorted(q.mean(0).tolist() for q in found)
    np.testing.assert_allclose(centres, [[100, 90], [330, 220]], atol=2)


def test_a_disc_is_no_more_than_its_area_allows():
    y, x = np.mgrid[:300, :300]
    (points, area), = geometry.regions((x - 150) ** 2 + (y - 150) ** 2 < 100**2)
    assert area == pytest.approx(np.pi * 99.5**2, rel=0.02)
    quad = geometry.quad_of(points, area)
    assert quad is None or geometry.polygon_area(quad) <= 1.5 * area


def test_nothing_in_an_empty_mask():
    assert geometry.quads_in_mask(np.zeros((50, 60), bool)) == []


@pytest.mark.parametrize("degrees", range(0, 360, 15))
def test_clockwise_keeps_all_four_corners(degrees):
    quad = turned(degrees)
    rng = np.random.default_rng(degrees)
    ordered = geometry.clockwise(quad[rng.permutation(4)])
    assert sorted(map(tuple, ordered)) == sorted(map(tuple, quad))
    x, y = ordered.T
    assert (x * np.roll(y, -1) - y * np.roll(x, -1)).sum() > 0  # clockwise where y points down
    assert ordered[0].sum() == pytest.approx(quad.sum(1).min())


def test_regions_and_extremes_are_opencvs():
    """Area and the eight extreme points of random quads, next to OpenCV's contours and hulls, whose order decides between equally far points."""
    cv2 = pytest.importorskip("cv2", reason="compares with OpenCV")
    rng = np.random.default_rng(0)
    for _ in range(60):
        angles = rng.uniform(0, 2 * np.pi) + np.arange(4) * np.pi / 2 + rng.uniform(0, 0.5, 4)
        quad = rng.uniform(150, 210, 2) + rng.uniform(60, 140) * np.column_stack([np.cos(angles), np.sin(angles)])
        mask = np.zeros((360, 360), np.uint8)
        cv2.fillConvexPoly(mask, quad.astype(np.int32), 255)
        contours, _ = cv2.findContours(mask, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
        hull = cv2.convexHull(contours[0])[:, 0].astype(float)
        x, y = hull.T
        theirs = [hull[np.argmax(reach)] for reach in (x, x + y, y, y - x, -x, -x - y, -y, x - y)]
        ((points, area),) = geometry.regions(mask > 0)
        assert area == cv2.contourArea(contours[0])
        np.testing.assert_array_equal(geometry.extreme_points(points), theirs)
