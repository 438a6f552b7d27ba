"""The page keeps the last mattes and no more, and none of them for longer than an hour."""
from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest

import pttp
from demos.gfm_shelf import KEPT, Shelf, held
from pttp.errors import BadInput


def matte(size: int, **more):
    return SimpleNamespace(alpha=np.zeros(size, np.uint8), **more)


def test_the_longest_unasked_goes_first():
    shelf, made = Shelf(room=100), [matte(40) for _ in range(3)]
    first, second = shelf.put(made[0]), shelf.put(made[1])
    assert shelf.get(first) is made[0]
    third = shelf.put(made[2])
    assert shelf.get(first) is made[0] and shelf.get(third) is made[2]
    with pytest.raises(BadInput, match="give the photo again"):
        shelf.get(second)


def test_one_always_fits():
    shelf, large = Shelf(room=100), matte(1000)
    old, key = shelf.put(matte(10)), shelf.put(large)
    assert shelf.get(key) is large
    with pytest.raises(BadInput):
        shelf.get(old)


def test_keys_are_not_guessed():
    assert len({Shelf().put(matte(1)) for _ in range(50)}) == 50
    with pytest.raises(BadInput):
        Shelf().get("0")


def test_bytes_are_counted_as_they_are_held():
    look = SimpleNamespace(picture=np.zeros((10, 10, 3), np.uint8), own=None, guide=np.zeros((3, 5, 5), np.float32), box=(0, 0, 10, 10))
    two = [matte(100, look=look), matte(100, look=look)]
    assert held(two) == 2 * 100 + 300 + 300  # the look once
    two[0].foreground = np.zeros((10, 10, 3), np.uint8)  # drawn when a download asks for it
    assert held(two) == 1100
    shelf = Shelf(room=1000)
    first, second = shelf.put(matte(100, look=look)), shelf.put(large := matte(100, look=look))
    large.foreground = np.zeros(300, np.uint8)
    assert shelf.get(second) is large
    with pytest.raises(BadInput):
        shelf.get(first)


def test_a_real_matte_is_all_counted():
    made = pttp.load("gfm", "embedded").predict(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8))
    look = made.look
    arrays = made.alpha, made.transition, look.picture, look.glance, look.focus, look.guide
    assert held([made]) == sum(a.nbytes for a in arrays)
    assert held([made]) + made.foreground.nbytes + made.glance.nbytes == held([made])


def test_there_are_never_more_than_so_many():
    shelf = Shelf(most=3)
    keys = [shelf.put(matte(1)) for _ in range(5)]
    assert len(shelf) == 3 and shelf.get(keys[-1])
    with pytest.raises(BadInput):
        shelf.get(keys[0])


def test_nothing_is_kept_for_longer_than_an_hour():
    now = [0.0]
    shelf = Shelf(clock=lambda: now[0])
    old = shelf.put(matte(1))
    now[0] = KEPT - 10
    new = shelf.put(matte(1))
    assert shelf.get(old)  # being asked for does not make it younger
    now[0] = KEPT + 1
    shelf.forget()  # which a timer does, so that nobody need come
    assert len(shelf) == 1 and shelf.get(new)
    with pytest.raises(BadInput, match="an hour is over"):
        shelf.get(old)


def test_nobody_need_come_for_that(monkeypatch):
    monkeypatch.setattr("demos.gfm_shelf.EVERY", 0.01)
    now = [0.0]
    shelf = Shelf(clock=lambda: now[0])
    shelf.put(matte(1))
    now[0] = KEPT + 1
    until = time.monotonic() + 10
    while len(shelf) and time.monotonic() < until:
        time.sleep(0.01)
    assert len(shelf) == 0
