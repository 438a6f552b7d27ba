"""Post-processing beyond the fixtures: many candidates, none, and the order of the answers."""
from __future__ import annotations

import time

import torch

from pttp.polarmask import detect
from pttp.polarmask.model import STRIDES, Level

SIZE = (768, 1280)


def levels(cls_bias: float, classes: int = 80, seed: int = 0) -> list[Level]:
    """What a network might say of the official picture size; the larger `cls_bias`, the more candidates."""
    random = torch.Generator().manual_seed(seed)
    maps = []
    for i, s in enumerate(STRIDES):
        h, w = SIZE[0] // s, SIZE[1] // s
        x = torch.randn(1, classes + 4 + 1 + 36, h, w, generator=random)
        distance = (x[:, classes + 1 :] * 0.3 + 3 + 0.5 * i).exp()
        maps.append(Level(x[:, :classes] + cls_bias, distance[:, :4], x[:, classes : classes + 1], distance[:, 4:]))
    return maps


def test_nothing_found():
    found = detect.detect(levels(-30), SIZE)
    assert found.boxes.shape == (0, 4) and found.contours.shape == (0, 36, 2) and len(found.scores) == 0


def test_every_class_of_every_cell_is_a_candidate():
    """Four thousand cells times 80 classes pass the threshold: the answer is still the best 100, and takes no square of that."""
    start = time.process_time()
    found = detect.detect(levels(5), SIZE)
    took = time.process_time() - start
    assert len(found.scores) == 100 and (found.scores[:-1] >= found.scores[1:]).all()
    assert found.scores.max() <= 1.5
    assert took < 5


def test_few_are_listed_class_by_class():
    found = detect.detect(levels(-6.5, classes=3), SIZE)
    assert 3 < len(found.scores) < 100
    assert (found.classes[:-1] <= found.classes[1:]).all()
    assert (found.scores[:-1] < found.scores[1:]).any()


def test_a_limit_is_the_best_of_the_same():
    every, few = (detect.detect(levels(-4, classes=3), SIZE, limit=limit) for limit in (10_000, 20))
    best = every.scores.sort(descending=True)
    torch.testing.assert_close(few.scores, best.values[:20], rtol=0, atol=0)
    torch.testing.assert_close(few.contours, every.contours[best.indices[:20]], rtol=0, atol=0)


def test_cells_are_told():
    found = detect.detect(levels(-4, classes=3), SIZE, torch.tensor([2.0, 2, 2, 2]))
    stride = torch.tensor(STRIDES)[found.level]
    assert torch.equal(found.centers % stride[:, None], (stride // 2)[:, None].expand(-1, 2).float())
    assert (found.contours[..., 0] <= (SIZE[1] - 1) / 2).all() and (found.contours[..., 1] <= (SIZE[0] - 1) / 2).all()
    down = found.contours[:, 0] * 2 - found.centers  # ray 0 points down
    assert torch.allclose(down[:, 0], torch.zeros(len(down)), atol=1e-3) and (down[:, 1] <= found.rays[:, 0] + 1e-3).all()
