"""The test-time strategies: sizes, the tolerant rule, and what they do without fixtures."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from pttp.errors import BadInput
from pttp.gfm import testtime
from pttp.gfm.model import GFM


@pytest.fixture(scope="module")
def nets() -> dict[str, GFM]:
    torch.manual_seed(1)
    return {rosta: GFM("r34", rosta).eval() for rosta in ("TT", "BT", "RIM")}


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("shape", [(8, 8), (1, 40), (160, 120), (97, 64)])
@pytest.mark.parametrize("strategy", ["HYBRID", "RESIZE"])
def test_small_pictures(nets, shape, strategy):
    maps = testtime.matte(nets["TT"], picture(*shape), strategy)
    for x in (maps.glance, maps.focus, maps.fusion):
        assert x.shape == shape and np.isfinite(x).all()
    assert 0 <= maps.fusion.min() and maps.fusion.max() <= 1


def test_hybrid_is_glance_of_one_pass_and_focus_of_another(nets):
    image, net = picture(200, 300), nets["TT"]
    maps = testtime.matte(net, image)
    with torch.inference_mode():
        third, half = (net(testtime.prepared(image, ratio)) for ratio in (1 / 3, 1 / 2))
    assert np.array_equal(maps.glance, testtime.resized(testtime.classes(third.glance[0].numpy()), (200, 300)) * 255.0)
    assert np.array_equal(maps.focus, testtime.resized(half.focus[0, 0].numpy(), (200, 300)))


def test_rim(nets):
    maps = testtime.matte(nets["RIM"], picture(130, 100))
    assert maps.glance is None and maps.focus is None and len(maps.parts) == 3
    assert all(x.shape == (130, 100) for x in (maps.fusion, *maps.parts))


def test_literal_rule_speckles_and_tolerant_does_not():
    glance = np.full((2, 3), 255.0)
    glance[0, 1] = np.nextafter(255, 0)
    glance[1] = 0, 100, 254.4
    focus = np.full((2, 3), 0.25)
    assert testtime.fuse("TT", glance, focus, "literal").tolist() == [[1, 0.25, 1], [0, 0.25, 0.25]]
    assert testtime.fuse("TT", glance, focus).tolist() == [[1, 1, 1], [0, 0.25, 0.25]]


@pytest.mark.parametrize(
    "call",
    [
        lambda net: testtime.matte(net, picture(64, 64), "hybrid"),
        lambda net: testtime.matte(net, picture(64, 64), hybrid="exact"),
        lambda net: testtime.matte(net, picture(64, 64)[..., 0]),
        lambda net: testtime.matte(net, picture(64, 64) / 255),
        lambda net: testtime.matte(net, picture(64, 64)[:0]),
    ],
    ids=["strategy", "rule", "grey", "float", "empty"],
)
def test_mistakes(nets, call):
    with pytest.raises(BadInput):
        call(nets["TT"])


@pytest.mark.parametrize("shape, expected", [((1080, 1080), (1080, 1080)), ((1200, 1600), (1080, 1440)), ((3000, 1500), (2160, 1080)), ((200, 5000), (200, 5000))])
def test_limited(shape, expected):
    assert testtime.limited(np.zeros((*shape, 3), np.uint8)).shape[:2] == expected


def test_limited_agrees_with_opencv():
    cv2 = pytest.importorskip("cv2", reason="OpenCV shrinks the authors' sample pictures")
    image = picture(300, 400)
    theirs = cv2.resize(image, (266, 200), interpolation=cv2.INTER_LINEAR)
    assert np.abs(testtime.limited(image, 200).astype(int) - theirs).max() <= 1
