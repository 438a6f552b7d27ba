"""What the tab keeps of an object that is done."""
from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from demos.pointrend import Finished


@pytest.mark.parametrize(("window", "size"), [((3, 5, 40, 17), (30, 50)), ((0, 0, 50, 30), (30, 50)), ((7, 7, 8, 8), (9, 9)), (None, (4, 6))])
def test_a_finished_mask_is_kept_as_bits(window, size):
    mask = np.zeros(size, bool)
    if window:
        x0, y0, x1, y1 = window
        mask[y0:y1, x0:x1] = np.random.default_rng(0).random((y1 - y0, x1 - x0)) < 0.6
        mask[y0, x0] = mask[y1 - 1, x1 - 1] = True
    kept = Finished.of(SimpleNamespace(mask=mask, label="cat", score=0.5))
    assert np.array_equal(kept.mask, mask) and kept.mask.dtype == bool and (kept.label, kept.score) == ("cat", 0.5)
    assert kept.bits.nbytes <= mask.size / 8 + 1 and Finished.of(kept) is kept
