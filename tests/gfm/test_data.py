"""Trimaps and composition: against plain definitions."""
from __future__ import annotations

import random

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from pttp.gfm import data


@pytest.mark.parametrize("size", [1, 2, 3, 9, 24, 25])
@pytest.mark.parametrize("shape", [(1, 1), (7, 30), (40, 23)])
def test_dilate_and_erode(size, shape):
    mask = np.random.default_rng(size).random(shape) < 0.05
    element = data.ellipse(size)
    # scipy mirrors the element and puts the centre of an even one elsewhere: an odd element around the same centre says the same to both
    centred = np.zeros((2 * (size // 2) + 1,) * 2, bool)
    centred[: element.shape[0], : element.shape[1]] = element
    grown = binary_dilation(mask, centred[::-1, ::-1])
    assert np.array_equal(data.dilate(mask, size), grown)
    assert np.array_equal(data.erode(~mask, size), ~grown)


def test_trimap_of_a_disc():
    y, x = np.mgrid[:100, :100]
    alpha = np.where(np.hypot(y - 50, x - 50) < 30, 255, 0).astype(np.uint8)
    trimap = data.trimap(alpha, 11)
    assert set(np.unique(trimap)) == {0, 128, 255}
    assert trimap[50, 50] == 255 and trimap[50, 83] == 128 and trimap[50, 77] == 128 and trimap[50, 88] == 0
    assert np.array_equal(trimap == 255, data.erosion(alpha, 11) == 255)
    assert np.array_equal(trimap != 0, data.dilation(alpha, 11) == 255)


def test_noise_clips_or_wraps():
    image = np.array([[[250, 5, 100]]], np.uint8)
    noise = np.full((1, 1, 3), 10.0)
    assert data.add_noise(noise, image, clip=True)[0].ravel().tolist() == [255, 15, 110]
    assert data.add_noise(noise, image, clip=False)[0].ravel().tolist() == [4, 15, 110]
    assert data.add_noise(-noise, image, clip=False)[0].ravel().tolist() == [240, 251, 90]


def test_rssn_of_another_size_keeps_the_animal():
    rng = np.random.default_rng(0)
    fg, bg = (rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in ((60, 40), (33, 90)))
    alpha = np.zeros((60, 40), np.uint8)
    alpha[20:40, 10:30] = 255
    untouched = 0
    for seed in range(12):
        image, used, behind = data.rssn(fg, bg, alpha, choose=random.Random(seed), normal=np.random.RandomState(seed))
        assert image.dtype == np.uint8 and image.shape == used.shape == behind.shape == fg.shape
        assert np.array_equal(image[alpha == 255], used[alpha == 255])
        if behind.dtype != np.uint8:  # no noise was added
            untouched += 1
            assert np.array_equal(used, fg)
            assert np.array_equal(image[alpha == 0], behind[alpha == 0].astype(np.uint8))
    assert 0 < untouched < 12
