"""From faces to maps and back, squares and what is cut out of them, and the scenes that the localiser learns from."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from pttp import trunk
from pttp.cagan import locate, train_locate
from pttp.cagan.locate import Face, Locator, Square
from pttp.errors import BadInput

UPRIGHT = np.array([(-30, 0), (-14, 1), (14, 1), (30, 0), (-20, 45), (20, 45), (0, 40), (0, 52)], float)


def face(middle=(150.0, 140.0), size: float = 1.0, degrees: float = 0.0) -> np.ndarray:
    t = np.radians(degrees)
    turn = np.array([[np.cos(t), np.sin(t)], [-np.sin(t), np.cos(t)]])
    return (UPRIGHT - [0, 23]) * size @ turn + middle


@pytest.mark.parametrize("size", [0.3, 1, 2.5])
@pytest.mark.parametrize("degrees", [-30, 0, 25])
def test_targets_decode_to_the_same_face(size, degrees):
    points = face((150, 140), size, degrees)
    maps = locate.targets([(points, np.array([True, False, True]))], 288, 320)
    assert maps.centre.shape == (18, 20) and maps.centre.max() == 1 and (maps.known[:4, maps.core] > 0).all() and (maps.known[4:8] == 0).all()
    (found,) = locate.decode(maps.centre, maps.points, maps.shown)
    assert np.abs(found.points - points).max() < 1e-3 and found.shown.tolist() == [1, 0, 1] and found.score == 1
    assert np.degrees(found.angle) == pytest.approx(degrees, abs=1e-3)
    assert found.height == pytest.approx(np.linalg.norm(points[4:].mean(0) - points[:4].mean(0)))


def test_two_faces_and_none():
    both = [(face((70, 80), 0.7), np.ones(3, bool)), (face((220, 150), 1.2), np.ones(3, bool))]
    maps = locate.targets(both, 288, 320)
    found = locate.decode(maps.centre, maps.points, maps.shown)
    assert sorted(round(f.height) for f in found) == sorted(round(locate.height_of(p)) for p, _ in both)
    empty = locate.targets([], 288, 320)
    assert empty.centre.max() == 0 and not empty.core.any() and not locate.decode(empty.centre, empty.points, empty.shown)


def test_square_there_and_back():
    square = Square((40.0, 70.0), 55.0, 0.4)
    points = np.random.default_rng(0).uniform(0, 100, (7, 2))
    np.testing.assert_allclose(square.to_picture(square.to_square(points, 64), 64), points)
    np.testing.assert_allclose(square.to_picture([[31.5, 31.5]], 64), [[40, 70]])
    right = square.to_picture([[63.5, 31.5]], 64)[0] - square.centre
    np.testing.assert_allclose(right, 27.5 * np.array([np.cos(0.4), np.sin(0.4)]))


@pytest.mark.parametrize("angle", [0.0, 0.5])
def test_cut_shows_what_to_picture_says(angle):
    """A smooth picture whose two channels are x and y: the cut holds the coordinates that `to_picture` gives."""
    y, x = np.mgrid[:200, :260].astype(np.float32)
    whole = torch.from_numpy(np.stack([x, y, x]))[None]
    square = Square((120.0, 100.0), 90.0, angle)
    for size in (32, 90):
        cut = square.cut(whole, size)[0].permute(1, 2, 0).numpy()
        j, i = np.mgrid[:size, :size]
        expected = square.to_picture(np.stack([i, j], -1), size)
        assert np.abs(cut[..., :2] - expected).max() < 1e-2


def test_closeups_are_framed_as_in_training():
    for degrees in (0, 20):
        whole = Face(face((150, 140), 1, degrees), np.ones(3), 1.0)
        lips = locate.closeup(whole, "lips")
        at = lips.to_square(whole.points, 1)
        assert np.degrees(lips.angle) == pytest.approx(degrees, abs=1e-6) and at[5, 0] - at[4, 0] == pytest.approx(locate.WIDE["lips"])
        for part, inner in (("left_eye", 1), ("right_eye", 2)):
            own = locate.closeup(whole, part).to_square(whole.points, 144)
            outer = {1: 0, 2: 3}[inner]
            np.testing.assert_allclose((own[inner] + own[outer]) / 2 + 0.5, np.array(locate.MIDDLE[part]) * 144)


def test_network():
    torch.manual_seed(0)
    net = Locator()
    assert sum(p.numel() for p in net.parameters()) * 2 < 3e6
    maps = net.eval()(torch.rand(1, 3, 64, 96))
    assert maps.centre.shape == (1, 1, 4, 6) and maps.points.shape == (1, 16, 4, 6) and maps.shown.shape == (1, 3, 4, 6)
    with pytest.raises(BadInput, match="32"):
        net(torch.rand(1, 3, 64, 80))
    assert locate.find_faces(net, np.zeros((50, 700, 3), np.uint8)) == []


class Knows(Locator):
    """Says the truth about a picture whose red is x / 2 and whose green is y / 2 of a face that it knows."""

    def __init__(self, points):
        super().__init__()
        self.truth, self.sizes = points, []

    def forward(self, picture):
        h, w = picture.shape[-2:]
        self.sizes.append((h, w))
        # where in the original this view lies: least squares on its coordinates, without the grey border
        grid = np.stack(np.mgrid[:h, :w][::-1], -1).reshape(-1, 2)
        colours = picture[0].permute(1, 2, 0).reshape(-1, 3).numpy().astype(float)
        inside = colours[:, 2] > 0.9
        a, b = np.c_[colours[inside][:, :2] * 510, np.ones(inside.sum())], grid[inside]
        back = np.linalg.lstsq(a, b, rcond=None)[0]
        points = np.c_[self.truth, np.ones(8)] @ back
        maps = locate.targets([(points, np.ones(3, bool))], h, w)
        logit = torch.logit(torch.from_numpy(maps.centre).clamp(1e-4, 1 - 1e-4))[None, None]
        return locate.Maps(logit, torch.from_numpy(maps.points)[None], torch.from_numpy(maps.shown)[None] * 20 - 10)


@pytest.mark.parametrize("degrees", [0, -28])
def test_find_faces_gives_points_of_the_picture(degrees):
    y, x = np.mgrid[:400, :500]
    picture = np.stack([x // 2, y // 2, np.full_like(x, 255)], -1).astype(np.uint8)
    points = face((240, 190), 1.3, degrees)
    net = Knows(points)
    (found,) = locate.find_faces(net, picture)
    assert len(net.sizes) == 2 and net.sizes[1] == (224, 224)
    assert np.abs(found.points - points).max() < 1.5


def labels(tilt: bool = False) -> np.ndarray:
    m = np.ones((256, 256), np.uint8)
    m[95:105, 70:100], m[95:105, 150:181] = 5, 4
    m[180:190, 95:160], m[190:200, 100:155] = 11, 12
    m[5:8, 5:8] = 11  # a stray stroke
    return m


def test_parts():
    points, visible = train_locate.parts(labels())
    assert visible.all() and points[:4, 0].tolist() == [70, 99, 150, 180] and points[4:6, 0].tolist() == [95, 159] and points[6:, 1].tolist() == [180, 199]
    one_label = np.where(labels() == 5, 4, labels())
    np.testing.assert_array_equal(train_locate.parts(one_label)[0], points)
    hidden = np.where(labels() == 5, 13, labels())
    assert train_locate.parts(hidden)[1].tolist() == [False, True, True]
    assert not train_locate.parts(np.ones((64, 64), np.uint8))[1].any()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for split in ("train", "test"):
        for kind in ("faces", "masks"):
            (root / "celebamask_mini" / split / kind).mkdir(parents=True)
        for i in range(2):
            photo = np.full((256, 256, 3), 150, np.uint8)
            for k, (x, y) in enumerate(train_locate.parts(labels())[0]):
                photo[int(y) - 4 : int(y) + 5, int(x) - 4 : int(x) + 5] = (255, 0, 0) if k < 4 else (0, 0, 255)
            Image.fromarray(photo).save(root / "celebamask_mini" / split / "faces" / f"{i}.jpg", quality=98, subsampling=0)
            Image.fromarray(labels()).save(root / "celebamask_mini" / split / "masks" / f"{i}.png")
    for folder in ("oxford_pets_subset", "general_photos"):
        (root / folder / "images").mkdir(parents=True)
        Image.new("RGB", (300, 200), (40, 120, 40)).save(root / folder / "images" / "0.jpg")
    torch.manual_seed(0)
    save_file({k: v.contiguous() for k, v in trunk.Lite0().state_dict().items()}, root / "lite0.safetensors")
    return root


def test_laid_faces_carry_their_points(root):
    faces = train_locate.read(root, "train")
    for seed in range(8):
        g = torch.Generator().manual_seed(seed)
        picture, points, visible = train_locate.laid(torch.full((3, 240, 300), 0.2), faces, 0, g, (150, 240), seed % 2 == 0)
        for k, (x, y) in enumerate(points.round().astype(int)):
            if 3 <= x < 297 and 3 <= y < 237:
                r, _, b = picture[:, y, x].tolist()
                assert (r > b + 0.4) if k < 4 else (b > r + 0.4), (seed, k)
        assert (points[1, 0] - points[0, 0]) > 0 and points[5, 0] > points[4, 0], "left is left, mirrored or not"


def test_scores():
    true = [[(face(), np.ones(3, bool))], [], [(face((80, 80), 0.5), np.array([True, False, True]))]]
    right = Face(face() + 1, np.ones(3), 1.0)
    s = train_locate.scores([[right], [right], []], true)
    assert s["recall"] == 0.5 and s["false"] == pytest.approx(1 / 3) and s["angle_median"] == pytest.approx(0, abs=1e-6)
    assert s["points_median"] == pytest.approx(100 * np.sqrt(2) / right.height)


def test_the_recipe(root, tmp_path):
    words = ["--data", root, "--trunk", root / "lite0.safetensors", "--run", tmp_path, "--steps", 2, "--batch", 2, "--size", 96, "--scenes", 2, "--eval-every", 1]
    train_locate.main([str(w) for w in words])
    Locator().load_state_dict(load_file(tmp_path / "locator.safetensors"))
    assert len((tmp_path / "eval.csv").read_text().splitlines()) == 3


def test_losses_fall_with_the_truth():
    points = face((140, 140), 1.2)
    maps = locate.targets([(points, np.array([True, True, False]))], 288, 288)

    class Says(Locator):
        def forward(self, pictures):
            logit = torch.logit(torch.from_numpy(maps.centre).clamp(1e-6, 1 - 1e-6))[None, None]
            return locate.Maps(logit, torch.from_numpy(maps.points)[None] + self.off, torch.from_numpy(maps.shown)[None] * 40 - 20)

    batch = [torch.from_numpy(field)[None] for field in maps]
    lost = []
    for off in (0.0, 0.5):
        net = Says()
        net.off = off
        lost.append(train_locate.Point(net)(torch.rand(1, 3, 288, 288), *batch))
    assert lost[0]["points"] == 0 and lost[0]["shown"] < 1e-6
    assert lost[1]["points"] == pytest.approx(0.5 * 64 / locate.height_of(points), rel=1e-4)


def test_what_is_hidden_is_not_shown():
    points = face((140, 140), 1.2)
    picture, visible = train_locate.hidden(torch.full((3, 288, 288), 0.5), points, np.ones(3, bool), 2, torch.Generator().manual_seed(0))
    assert visible.tolist() == [True, True, False]
    changed = (picture - 0.5).abs().amax(0) > 1e-3
    assert all(changed[int(y), int(x)] for x, y in points[4:]) and not any(changed[int(y), int(x)] for x, y in points[:4])
