"""Scores of masks, checked on masks whose scores can be counted by hand."""
from __future__ import annotations

import numpy as np
import pytest

from pttp.training import scores


def square(x0, y0, x1, y1, side=40):
    mask = np.zeros((side, side), bool)
    mask[y0:y1, x0:x1] = True
    return mask


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [(square(0, 0, 10, 10), square(0, 0, 10, 10), 1), (square(0, 0, 10, 10), square(5, 0, 15, 10), 1 / 3), (square(0, 0, 10, 10), square(20, 20, 30, 30), 0), (square(0, 0, 0, 0), square(0, 0, 0, 0), 0)],
)
def test_iou(a, b, expected):
    assert scores.iou(a, b) == pytest.approx(expected)


def test_iou_counts_sure_pixels_only():
    a, b = square(0, 0, 10, 10), square(0, 0, 10, 20)
    assert scores.iou(a, b) == 0.5
    assert scores.iou(a, b, ~square(0, 10, 40, 20)) == 1


def test_boundary_iou_sees_the_border_only():
    a, b = square(5, 5, 35, 35), square(5, 5, 35, 36)
    width = round(scores.BAND * np.hypot(40, 40))  # 1 pixel
    assert width == 1 and np.count_nonzero(scores.rim(a, width)) == 4 * 29
    assert scores.boundary_iou(a, a) == 1
    assert scores.boundary_iou(a, b) < 0.7 < 0.9 < scores.iou(a, b)
    hollow = a & ~square(15, 15, 25, 25)
    assert scores.boundary_iou(a, hollow) < 1  # a hole has a border


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (square(10, 10, 30, 30), None),
        (square(10, 10, 30, 21), (25, True)),  # the lower half is missing
        (square(10, 10, 30, 39), (34, False)),  # too much below
        (square(12, 10, 30, 39), (34, False)),  # of two errors the larger
    ],
)
def test_next_click(mask, expected):
    click = scores.next_click(mask, square(10, 10, 30, 30))
    if expected is None:
        assert click is None
    else:
        (x, y), inside = click
        assert (y, inside) == (pytest.approx(expected[0], abs=1), expected[1])
        assert 13 <= x < 27 and mask[y, x] != inside


def test_clicking_through():
    truth = square(10, 10, 30, 30)
    asked = []

    def segment(points, labels):
        asked.append((list(points), list(labels)))
        return square(10, 10, 30, 10 + 6 * len(points))

    reached = scores.click_through(segment, truth, limit=10, enough=0.9)
    assert reached == pytest.approx([0.3, 0.6, 0.9])
    assert asked[0] == ([(19, 19)], [1]) and asked[2][1] == [1, 1, 1] and len(asked) == 3
    assert (scores.clicks_to(reached, 0.5), scores.clicks_to(reached, 0.85), scores.clicks_to(reached, 0.99)) == (2, 3, 10)
    assert (scores.after(reached, 1), scores.after(reached, 5)) == pytest.approx((0.3, 0.9))
    stubborn = scores.click_through(lambda points, labels: ~truth, truth, limit=4)
    assert stubborn == [0, 0, 0, 0]


def test_average_precision():
    a, b, elsewhere = square(0, 0, 10, 10), square(20, 20, 35, 35), square(0, 25, 10, 35)
    truth = [[(a, 0), (b, 1)], [(a, 0)]]
    perfect = [[(a, 0, 0.9), (b, 1, 0.8)], [(a, 0, 0.7)]]
    assert scores.average_precision(truth, perfect, [0, 1]) == pytest.approx({"ap": 1, "ap50": 1, "ar": 1})
    half = [[(a, 0, 0.9), (elsewhere, 0, 0.95), (b, 1, 0.8)], []]
    # class 0: first answer wrong, second right, one of two objects never found: precision 1/2 up to recall 1/2, that is over 51 of 101 recalls
    assert scores.average_precision(truth, half, [0, 1])["ap50"] == pytest.approx((51 / 101 / 2 + 1) / 2)
    assert scores.average_precision(truth, [[], []], [0, 1])["ap"] == 0


def test_an_object_of_unknown_class_is_ignored():
    a, b = square(0, 0, 10, 10), square(20, 20, 35, 35)
    truth = [[(a, 0), (b, -1)]]
    assert scores.average_precision(truth, [[(b, 0, 0.99), (a, 0, 0.5)]], [0])["ap"] == pytest.approx(1)
