"""From quads to the maps that the network learns, and from maps back to quads; and the scenes that it learns from."""
from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from pttp.errors import BadInput
from pttp.stegastamp import detect, geometry, scenes
from pttp.stegastamp.detect import Detector, Maps
from pttp.training.photos import Photos

H, W = 288, 512


def turned(cx: float, cy: float, w: float, h: float, degrees: float, lean: float = 0.0) -> np.ndarray:
    """A rectangle about (cx, cy), turned, its right side shorter by `lean`."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = np.array([[-w, -h], [w, -h * (1 - lean)], [w, h * (1 - lean)], [-w, h]]) / 2
    return corners @ np.array([[c, s], [-s, c]]) + (cx, cy)


QUADS = {
    "upright": turned(250, 140, 200, 150, 0),
    "tilted": turned(260, 150, 220, 160, 12, 0.3),
    "on a corner": turned(250, 144, 150, 150, 45),
    "nearly on a corner": turned(250, 144, 160, 150, 44),
    "upside down": turned(200, 120, 150, 100, 180, 0.2),
    "large": turned(256, 144, 470, 262, 1),
    "small": turned(60, 200, 50, 40, 20),
    "narrow": turned(256, 140, 60, 230, 5),
}


def unordered_error(found: np.ndarray, true: np.ndarray) -> float:
    """Largest distance of a corner, for the best of the four ways to number them."""
    return min(np.linalg.norm(np.roll(found, k, 0) - true, axis=1).max() for k in range(4))


@pytest.mark.parametrize("quad", QUADS.values(), ids=QUADS)
@pytest.mark.parametrize("start", range(4))
def test_a_quad_survives_its_maps(quad, start):
    t = detect.targets(np.roll(quad, start, 0)[None], H, W)
    (found,) = detect.decode(t.mask, t.centre, t.corners)
    assert unordered_error(found.quad, quad) < 0.25
    assert found.quad.dtype == np.float32 and found.score > 0.9
    assert np.array_equal(found.quad, geometry.clockwise(found.quad).astype(np.float32))


@pytest.mark.parametrize("quad", QUADS.values(), ids=QUADS)
def test_corners_that_are_wrong_by_eight_percent_are_moved_to_the_mask(quad):
    """Also where the frame ends just beyond the picture ("large")."""
    t = detect.targets(quad[None], H, W)
    off = 0.08 * detect.mean_side(quad) / detect.UNIT * np.array([1, -1, -1, 0.5, 0.5, 1, -0.7, 0.7]) / math.sqrt(2)
    (found,) = detect.decode(t.mask, t.centre, t.corners + off[:, None, None].astype(np.float32))
    assert unordered_error(found.quad, quad) < 0.5


def test_corners_that_are_far_off_are_replaced_by_those_of_the_region():
    quad = QUADS["tilted"]
    t = detect.targets(quad[None], H, W)
    wild = np.random.default_rng(0).normal(0, 0.5 * detect.mean_side(quad) / detect.UNIT, (8, 1, 1)).astype(np.float32)
    (found,) = detect.decode(t.mask, t.centre, t.corners + wild)
    assert unordered_error(found.quad, quad) < 0.5


def test_agreement_knows_too_small_too_large_and_right():
    quad = QUADS["upright"]
    mask = detect.targets(quad[None], H, W).mask
    middle = quad.mean(0)
    right, small, large = (detect.agreement(middle + k * (quad - middle), mask) for k in (1.0, 0.8, 1.25))
    assert right > 0.95 and small < 0.8 and large < 0.8
    assert detect.agreement(quad + 400, mask) == 0


def test_a_side_that_the_frame_cuts_off_stays_where_the_network_puts_it():
    quad = turned(20, 140, 200, 150, 0)  # from -80 to 120
    t = detect.targets(quad[None], H, W)
    (found,) = detect.decode(t.mask, t.centre, t.corners)
    assert unordered_error(found.quad, quad) < 0.5


def test_a_bite_out_of_a_side_bends_nothing():
    """A network that takes a finger for background breaks the mask; the side is still the line that most of its border lies on."""
    quad = QUADS["upright"]  # 150 .. 350 x 65 .. 215
    t = detect.targets(quad[None], H, W)
    mask = t.mask.copy()
    mask[: 90 // 4, 220 // 4 : 260 // 4] = 0  # 40 of the 200 pixels of the upper side, 25 deep
    (found,) = detect.decode(mask, t.centre, t.corners)
    assert unordered_error(found.quad, quad) < 1.0


def test_a_lost_corner_is_where_the_sides_meet():
    quad = QUADS["upright"]
    t = detect.targets(quad[None], H, W)
    mask = t.mask.copy()
    mask[: 85 // 4, : 175 // 4] = 0
    (found,) = detect.decode(mask, t.centre, t.corners)
    assert unordered_error(found.quad, quad) < 1.0


def test_two_pictures_side_by_side_are_two():
    pair = np.stack([turned(140, 140, 160, 160, 0), turned(340, 140, 200, 160, 0)])  # 20 pixels apart
    t = detect.targets(pair, H, W)
    found = detect.decode(t.mask, t.centre, t.corners)
    assert len(found) == 2
    for quad in pair:
        assert min(unordered_error(f.quad, quad) for f in found) < 0.5
    assert len(detect.decode(t.mask, t.centre, t.corners, most=1)) == 1


def test_an_empty_frame_has_no_quads():
    t = detect.targets(np.zeros((0, 4, 2)), H, W)
    assert not t.mask.any() and not t.centre.any() and not t.scale.any()
    assert detect.decode(t.mask, t.centre, t.corners) == []


def test_a_centre_without_a_picture_around_it_is_refused():
    t = detect.targets(QUADS["upright"][None], H, W)
    assert detect.decode(np.zeros_like(t.mask), t.centre, t.corners) == []


@pytest.mark.parametrize(
    "a, b, iou",
    [
        (geometry.square(2), geometry.square(2), 1.0),
        (geometry.square(2), geometry.square(2) + (1, 0), 1 / 3),
        (geometry.square(2), geometry.square(2) + (5, 0), 0.0),
        (geometry.square(4), geometry.square(2) + 1, 0.25),
        (geometry.square(2), np.roll(geometry.square(2), 1, 0), 1.0),
        (turned(0, 0, 2, 2, 0), turned(0, 0, 2, 2, 45), 2 * (math.sqrt(2) - 1) / (2 - (math.sqrt(2) - 1) * 2)),  # a regular octagon
    ],
)
def test_quad_iou(a, b, iou):
    assert detect.quad_iou(a, b) == pytest.approx(iou, abs=1e-9)
    assert detect.quad_iou(b, a) == pytest.approx(iou, abs=1e-9)


def test_targets_put_a_half_on_the_border():
    t = detect.targets(np.array([[[100, 60], [300, 60], [300, 200], [100, 200]]]), H, W)
    x = np.array([100.0, 300.0, 200.0, 200.0])
    y = np.array([120.0, 120.0, 60.0, 200.0])
    assert detect.sample(t.mask, np.stack([x, y], -1), 4) == pytest.approx(np.full(4, 0.5), abs=1e-6)
    assert t.mask[30, 50] == 1 and t.mask[5, 5] == 0 and t.centre.max() == 1
    row, col = np.unravel_index(t.centre.argmax(), t.centre.shape)
    assert abs(col * 16 + 7.5 - 200) <= 8 and abs(row * 16 + 7.5 - 130) <= 8


# ---- the network


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Detector().eval()


def test_shapes_and_size(net):
    maps = net(torch.rand(2, 3, 96, 208))
    assert maps.mask.shape == (2, 1, 24, 52) and maps.centre.shape == (2, 1, 6, 13) and maps.corners.shape == (2, 8, 6, 13)
    assert sum(t.numel() for t in net.state_dict().values()) * 2 <= 4 * 2**20
    with pytest.raises(BadInput, match="multiples of 16"):
        net(torch.rand(1, 3, 100, 96))


def test_training_leaves_the_trunks_statistics_alone(net):
    net.train()
    try:
        before = {k: v.clone() for k, v in net.named_buffers()}
        net(torch.rand(2, 3, 64, 64))
        changed = {k.split(".")[0] for k, v in net.named_buffers() if not torch.equal(v, before[k])}
        assert "trunk" not in changed and {"enter", "context", "last4"} <= changed
    finally:
        net.eval()
        net.load_state_dict(before, strict=False)


class Perfect(nn.Module):
    """Answers with the maps of known quads, given in pixels of the picture that the network sees."""

    def __init__(self, quads):
        super().__init__()
        self.quads, self.anchor, self.seen = quads, nn.Parameter(torch.zeros(())), None

    def forward(self, x):
        self.seen = tuple(x.shape)
        t = detect.targets(self.quads, *x.shape[-2:])
        mask, centre = (torch.from_numpy(m).clamp(1e-4, 1 - 1e-4).logit()[None, None] for m in (t.mask, t.centre))
        return Maps(mask, centre, torch.from_numpy(t.corners)[None])


@pytest.mark.parametrize(
    "height, width, seen",
    [(720, 1280, (288, 512)), (480, 640, (384, 512)), (1280, 720, (512, 288)), (300, 500, (320, 512)), (90, 160, (288, 512))],
)
def test_find_quads_answers_in_pixels_of_the_frame(height, width, seen):
    side = np.array([0.3 * width, 0.4 * height])
    true = np.stack([turned(0.3 * width, 0.4 * height, *side, 10), turned(0.75 * width, 0.6 * height, *side, -8, 0.2)])
    h, w = (round(n * 512 / max(height, width)) for n in (height, width))
    scale = np.array([width / w, height / h])
    perfect = Perfect((true + 0.5) / scale - 0.5)
    found = detect.find_quads(perfect, np.zeros((height, width, 3), np.uint8))
    assert perfect.seen == (1, 3, *seen) and len(found) == 2
    assert found[0].score >= found[1].score
    for quad in true:
        assert min(unordered_error(f.quad, quad) for f in found) < 0.002 * max(height, width)


@pytest.mark.parametrize("frame", [np.zeros((64, 64), np.uint8), np.zeros((64, 64, 4), np.uint8), np.zeros((64, 64, 3), np.float32), np.zeros((8, 64, 3), np.uint8)])
def test_what_is_no_frame_is_refused(net, frame):
    with pytest.raises(BadInput, match="frame"):
        detect.find_quads(net, frame)


def test_an_untrained_network_answers_with_a_list(net):
    frame = np.random.default_rng(0).integers(0, 256, (120, 200, 3), dtype=np.uint8)
    assert isinstance(detect.find_quads(net, frame, long_side=256), list)


# ---- scenes


@pytest.fixture(scope="module")
def photos():
    g = torch.Generator().manual_seed(0)
    pixels = nn.functional.interpolate(torch.rand(5, 3, 9, 9, generator=g), size=160, mode="bicubic").clamp(0, 1)
    sizes = torch.tensor([[160, 160], [120, 160], [160, 90], [107, 160], [160, 120]])
    return Photos((pixels * 255).byte(), sizes, torch.full((5,), -1))


@pytest.mark.parametrize("seed", range(3))
def test_a_scene_is_its_generators(photos, seed):
    (a, qa), (b, qb) = (scenes.scene(photos, photos, torch.Generator().manual_seed(seed), 112, 192) for _ in range(2))
    assert a.shape == (112, 192, 3) and a.dtype == np.uint8
    assert np.array_equal(a, b) and np.array_equal(qa, qb)
    other, _ = scenes.scene(photos, photos, torch.Generator().manual_seed(seed + 100), 112, 192)
    assert not np.array_equal(a, other)


def test_scenes_hold_what_was_asked(photos):
    g = torch.Generator().manual_seed(5)
    for counts, least, most in (((1.0,), 0, 0), ((0, 1.0), 1, 1), ((0, 0, 1.0), 1, 2)):
        for _ in range(6):
            frame, quads = scenes.scene(photos, photos, g, 180, 320, counts=counts, fill=(0.3, 0.9), tilt=45, outside=0)
            assert least <= len(quads) <= most
            for quad in quads:
                assert (quad > -1.5).all() and (quad < np.array([320, 180]) + 0.5).all()
                assert detect._sound(quad)
            if len(quads) == 2:
                assert detect.quad_iou(*quads) == 0


@pytest.mark.parametrize(
    "tilt, roll, aspect",
    [(0, 0, 1.5), (0, 30, 1.0), (45, 10, 4 / 3), (45, 180, 0.75), (30, 95, 16 / 9)],
)
def test_a_pose_is_a_camera(tilt, roll, aspect):
    """The outline is as wide as asked; the quad is what a pinhole camera sees of a rectangle with that aspect and that tilt."""
    pose = scenes.Pose(math.radians(tilt), 0.7, math.radians(roll), 1.0, 0.5, 0.5, 0.4)
    m = pose.matrix(aspect, 720, 1280)
    quad = geometry.transform_points(m, geometry.square(1))
    extent = quad.max(0) - quad.min(0)
    assert extent[0] == pytest.approx(0.4 * 1280, rel=0.01) or extent[1] == pytest.approx(0.96 * 720, rel=0.01)
    # the columns of K^-1 H are the sides of the rectangle in space
    k = np.array([[1280, 0, 639.5], [0, 1280, 359.5], [0, 0, 1]])
    right, down, corner = (np.linalg.inv(k) @ m).T
    assert right @ down == pytest.approx(0, abs=1e-6 * (right @ right))
    assert np.linalg.norm(right) / np.linalg.norm(down) == pytest.approx(aspect, rel=1e-6)
    normal, sight = np.cross(right, down), corner + (right + down) / 2
    assert normal @ sight / np.linalg.norm(normal) / np.linalg.norm(sight) == pytest.approx(math.cos(math.radians(tilt)), abs=0.02)


def test_the_picture_is_where_the_quad_says(photos, monkeypatch):
    """Cut out again by its quad, a picture on a plain ground is itself."""
    picture = scenes.picture_of(photos, 1)
    frame = torch.full((3, 300, 400), 0.5)
    quad = turned(200, 150, 220, 165, 20, 0.2)
    matrix = geometry.homography(geometry.square(1), quad)
    monkeypatch.setattr(scenes, "SHARES", dict.fromkeys(scenes.SHARES, 0.0))  # no border, no glare: the drawing itself is under test
    scenes.hang(frame, picture, matrix, scenes.Dice(torch.Generator().manual_seed(0)), 1.0)
    h, w = picture.shape[-2:]
    middles = (geometry.square(1) * (w - 1, h - 1) + 0.5) / (w, h)  # of the corner pixels
    to_frame = geometry.homography(geometry.square(1) * (w - 1, h - 1), geometry.transform_points(matrix, middles))
    back = geometry.warp(frame[None], torch.from_numpy(to_frame)[None], (h, w))[0]
    inner = (slice(None), slice(8, -8), slice(8, -8))
    for channel in range(3):  # brightness and tint are random
        assert np.corrcoef(back[inner][channel].flatten(), picture[inner][channel].flatten())[0, 1] > 0.995


def test_stamped_photos(photos):
    """Band-limited patterns of 30 to 33 dB times a strength of .7 to 1.3, or nothing."""
    a, secrets = scenes.stamp_photos(photos, None, torch.Generator().manual_seed(3), plain=0.0)
    b, _ = scenes.stamp_photos(photos, None, torch.Generator().manual_seed(3), plain=1.0)
    assert secrets.shape == (5, 100) and set(secrets.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(a.sizes, b.sizes)
    for i in range(5):
        h, w = b.sizes[i].tolist()
        assert torch.equal(b.pixels[i, :, :h, :w], photos.pixels[i, :, :h, :w])
        mse = (scenes.picture_of(a, i) - scenes.picture_of(b, i)).square().mean()
        assert 27 < -10 * math.log10(float(mse)) < 38


def test_a_film_moves_and_keeps_the_picture_in_the_frame(photos):
    picture = scenes.picture_of(photos, 1)
    frames, quads = scenes.film(picture, photos, torch.Generator().manual_seed(2), frames=3, height=180, width=320)
    assert len(frames) == 3 and quads.shape == (3, 4, 2) and frames[0].shape == (180, 320, 3)
    assert (quads > -1.5).all() and (quads < np.array([320, 180]) + 0.5).all()
    step = np.linalg.norm(np.diff(quads, axis=0), axis=-1)
    assert 0 < step.max() < 32
    again, _ = scenes.film(picture, photos, torch.Generator().manual_seed(2), frames=3, height=180, width=320)
    assert all(np.array_equal(x, y) for x, y in zip(frames, again, strict=True))
