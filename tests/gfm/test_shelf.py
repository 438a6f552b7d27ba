"""The page keeps the last mattes and no more."""
from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from demos.gfm_shelf import Shelf
from pttp.errors import BadInput


def matte(pixels: int):
    return SimpleNamespace(alpha=np.zeros(pixels))


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
