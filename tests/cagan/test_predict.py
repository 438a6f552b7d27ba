"""The predictor around a localiser and a generator that are known: what changes, what must not, and what is said when nothing can be done."""
from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from pttp.cagan import locate, predict
from pttp.cagan.colour import delta_e, hex_of, lab_of
from pttp.cagan.locate import Face
from pttp.cagan.model import CAGAN, Change
from pttp.cagan.predict import Colours, Makeup, Predictor
from pttp.errors import BadImage, BadInput, NoFaceFound
from pttp.training.export import write
from tests.cagan.test_locate import face

SKIN, LIP = (200, 160, 140), (170, 80, 90)


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    plain = CAGAN(128, locator=True)
    write(folder, plain, plain.config, {"licence": "none", "trained_on": "nothing", "metrics": {}}, "# card")
    return Predictor.from_pretrained(folder)


def photo(degrees: float = 0.0, size: float = 2.0, seed: int = 0) -> tuple[Image.Image, Face]:
    """Skin with grain, and lips where the face's mouth is."""
    points = face((200, 180), size, degrees)
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:360, :400]
    middle, t = points[4:6].mean(0), np.radians(degrees)
    along, across = (x - middle[0]) * np.cos(t) + (y - middle[1]) * np.sin(t), (y - middle[1]) * np.cos(t) - (x - middle[0]) * np.sin(t)
    mouth = (along / (20 * size)) ** 2 + (across / (7 * size)) ** 2 < 1
    pixels = np.where(mouth[..., None], LIP, SKIN) + rng.integers(-8, 9, (360, 400, 1))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), Face(points, np.ones(3), 0.9)


class Told(torch.nn.Module):
    """A generator that knows lips by their colour, whatever it is asked."""

    def forward(self, x, maps, c, region):
        from pttp.cagan.colour import lab_to_rgb, rgb_to_lab, scaled, unscaled

        lab = scaled(rgb_to_lab(x))
        own = scaled(torch.from_numpy(lab_of(LIP)).float()[None])
        where = ((lab - own[:, :, None, None]).abs().amax(1, keepdim=True) < 0.09).float()
        shift = (c - own)[:, :, None, None].expand_as(lab)
        changed = lab + where * shift
        return Change(lab_to_rgb(unscaled(changed)), changed, where, shift, own)


@pytest.fixture
def told(net, monkeypatch):
    """`net` with a generator and a localiser that are right."""
    found: list[Face] = []
    monkeypatch.setitem(net.net._modules, "generator", Told())
    monkeypatch.setattr(locate, "find_faces", lambda locator, pixels, threshold=0.4: list(found))
    return net, found


@pytest.mark.parametrize("degrees", [0, 25, -30])
def test_lips_take_the_colour_and_nothing_else_changes(told, degrees):
    net, found = told
    picture, whole = photo(degrees)
    found.append(whole)
    before = np.asarray(picture)
    made = net.apply(picture, lips="#7d2e5d")
    assert isinstance(made, Makeup) and made.image.size == picture.size and set(made.regions) == {"lips"}
    after, lips = np.asarray(made.image), np.abs(before.astype(int) - LIP).max(2) < 10
    assert (before[~_grown(lips, 6)] == after[~_grown(lips, 6)]).all()
    well_inside = ~_grown(~lips, 2)
    assert (made.regions["lips"] > 0.9)[well_inside].all()
    assert np.array_equal((before != after).any(2) & (made.regions["lips"] == 0), np.zeros_like(lips))
    assert made.delta_e["lips"] < 2 and delta_e(made.before["lips"], lab_of(LIP)) < 2
    assert delta_e(lab_of(tuple(np.median(after[lips], 0))), lab_of("#7d2e5d")) < 2.5
    assert np.corrcoef(after[well_inside].mean(1), before[well_inside].mean(1))[0, 1] > 0.95, "grain stays"


def _grown(mask: np.ndarray, by: int) -> np.ndarray:
    from scipy.ndimage import binary_dilation

    return binary_dilation(mask, iterations=by)


def test_strength(told):
    net, found = told
    picture, whole = photo()
    found.append(whole)
    portrait = net.prepare(picture)
    distances = [net.paint(portrait, "#2d4fa3", strength=s).delta_e["lips"] for s in (0, 0.3, 0.6, 1)]
    assert distances == sorted(distances, reverse=True) and distances[0] > 20
    assert np.array_equal(np.asarray(net.paint(portrait, "#2d4fa3", strength=0).image), np.asarray(picture))
    assert np.array_equal(portrait.pixels, np.asarray(picture)), "painting leaves the portrait as it was"


def test_finish(told):
    net, found = told
    picture, whole = photo()
    found.append(whole)
    portrait = net.prepare(picture)
    spread = []
    for finish in (-1, 0, 1):
        made = net.paint(portrait, "#b01030", finish=finish)
        spread.append(np.asarray(made.image)[made.regions["lips"] > 0.9].astype(float).mean(1).std())
        assert made.delta_e["lips"] < 4
    assert spread[0] < 0.6 * spread[1] < spread[1] < 0.95 * spread[2]


@pytest.mark.parametrize("side", ["left", "right"])
def test_one_side(told, side):
    net, found = told
    picture, whole = photo(10)
    found.append(whole)
    region = net.apply(picture, "#b01030", side=side).regions["lips"]
    _, x = np.nonzero(region > 0.5)
    middle = whole.mouth[0]
    assert (x < middle + 3).all() if side == "left" else (x > middle - 3).all()


def test_alpha_comes_back(told):
    net, found = told
    picture, whole = photo()
    found.append(whole)
    alpha = Image.linear_gradient("L").resize(picture.size)
    picture.putalpha(alpha)
    made = net.apply(picture, "#b01030")
    assert made.image.mode == "RGBA" and np.array_equal(np.asarray(made.image.getchannel("A")), np.asarray(alpha))
    assert net.apply(picture.convert("RGB"), "#b01030").image.mode == "RGB"


def test_other_faces(told):
    net, found = told
    picture, whole = photo()
    found += [whole, Face(face((60, 60), 0.6), np.ones(3), 0.8)]
    made = net.apply(picture, "#b01030")
    assert made.face == 0 and len(made.faces) == 2
    portrait = net.choose(net.prepare(picture), 1)
    assert portrait.face == 1 and portrait.parts["lips"].square.side < 60
    with pytest.raises(BadInput, match="has 2, counted from 0"):
        net.prepare(picture, 2)


@pytest.mark.parametrize(
    ("faces", "eyes", "sentence"),
    [
        ([], None, "No face was found"),
        ([Face(face((60, 60), 0.3), np.ones(3), 0.9)], None, "27 pixels wide, and 48"),
        ([Face(face((200, 180), 2), np.zeros(3), 0.9)], None, "Neither eyes nor mouth"),
        ([Face(face((200, 180), 2), np.array([1.0, 1, 0]), 0.9)], None, "mouth of this face cannot be seen"),
        ([Face(face((200, 180), 2), np.array([0.0, 0, 1]), 0.9)], "#2d4fa3", "eyes of this face cannot be seen"),
        ([Face(face((80, 40), 1), np.ones(3), 0.9)], None, "No lips could be told apart"),
    ],
)
def test_faces_that_cannot_be_painted(told, faces, eyes, sentence):
    net, found = told
    found += faces
    with pytest.raises(NoFaceFound, match=sentence):
        net.apply(photo()[0], *((None, eyes) if eyes else ("#b01030",)))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "Choose a colour"),
        ({"lips": ""}, "Choose a colour"),
        ({"lips": "red"}, "#rrggbb"),
        ({"lips": (1, 2)}, "#rrggbb"),
        ({"lips": (float("inf"), 2, 3)}, "#rrggbb"),
        ({"eyes": (1, 2, 300)}, "0 to 255"),
        ({"eyes": np.array([1, 2, 300])}, "0 to 255"),
        ({"lips": "#b01030", "strength": 1.5}, "between 0 and 1"),
        ({"lips": "#b01030", "strength": float("nan")}, "between 0 and 1"),
        ({"lips": "#b01030", "finish": 2}, "matte"),
        ({"lips": "#b01030", "side": "top"}, "left or right"),
    ],
)
def test_bad_input(net, options, sentence):
    with pytest.raises(BadInput, match=sentence):
        net.apply(photo()[0], **options)


def test_no_picture(net):
    with pytest.raises(BadImage):
        net.apply("nowhere.jpg", "#b01030")


def test_untrained_weights_find_no_face(net):
    with pytest.raises(NoFaceFound, match="No face"):
        net.estimate(photo()[0])


def test_estimates_lie_within_the_picture(told):
    """D's colours are means of the picture's own pixels: of a picture with two colours, something between them."""
    net, found = told
    picture, whole = photo()
    found.append(whole)
    said = net.estimate(picture)
    assert isinstance(said, Colours)
    low, high = np.minimum(lab_of(SKIN), lab_of(LIP)) - 5, np.maximum(lab_of(SKIN), lab_of(LIP)) + 5
    for lab in (said.lips, said.eyes, said.skin):
        assert (lab >= low).all() and (lab <= high).all()
    assert said.hex == {name: hex_of(lab) for name, lab in (("lips", said.lips), ("eyes", said.eyes), ("skin", said.skin))}
    assert {name: one["hex"] for name, one in json.loads(json.dumps(said.to_dict())).items()} == said.hex


def test_a_part_that_cannot_be_seen_has_no_colour():
    said = Colours(lab_of("#b01030"), None, lab_of("#c8a08c"))
    assert said.hex == {"lips": "#b01030", "eyes": None, "skin": "#c8a08c"} and said.to_dict()["eyes"] is None


def test_json(told):
    net, found = told
    picture, whole = photo()
    found.append(whole)
    said = json.loads(json.dumps(net.apply(picture, (176, 16, 48)).to_dict()))
    assert said["regions"]["lips"]["requested"]["hex"] == "#b01030" and said["regions"]["lips"]["pixels"] > 500 and said["faces"][0][2] > said["faces"][0][0]


def test_both_eyes_are_painted(told):
    net, found = told
    _, whole = photo()
    found.append(whole)
    picture = Image.new("RGB", (400, 360), LIP)
    region = net.apply(picture, eyes="#3f8f5a").regions["eyes"]
    for eye in whole.eyes:
        x, y = eye.round().astype(int)
        assert region[y, x] > 0.9
    assert region[int(whole.mouth[1]), int(whole.mouth[0])] == 0


def test_portraits_are_measured_under_their_labels(told, monkeypatch, tmp_path):
    """A localiser and a generator that are right: every face is found, the colour is reached, no other pixel changes."""
    from pttp.cagan import evaluate

    net, _ = told
    for kind in ("faces", "masks"):
        (tmp_path / "celebamask_mini" / "test" / kind).mkdir(parents=True)
    picture, whole = photo()
    square = Image.new("RGB", (400, 400), SKIN)
    square.paste(picture)
    lips = np.abs(np.asarray(square).astype(int) - LIP).max(2) < 10
    square.save(tmp_path / "celebamask_mini" / "test" / "faces" / "a.jpg", quality=95, subsampling=0)
    Image.fromarray(np.where(lips, 11, 1).astype(np.uint8)).save(tmp_path / "celebamask_mini" / "test" / "masks" / "a.png")
    for find, found in ((lambda locator, pixels, threshold=0.4: [whole], 1), (lambda locator, pixels, threshold=0.4: [], 0)):
        monkeypatch.setattr(locate, "find_faces", find)
        said = evaluate.portraits(net, tmp_path)
        assert said["faces"] == 1 and said["found"] == found and said["touched"] == 0
        if found:
            assert said["delta_e_median"] < 3 and said["drift"] < 0.5


def test_pieces_that_are_no_part_of_the_mouth_are_dropped():
    mouth = predict.around(np.array([[40.0, 70], [90, 70], [65, 60], [65, 84]]), 128)
    assert mouth[71, 65] and mouth[71, 42] and not mouth[50, 65] and not mouth[71, 95] and 0.1 < mouth.mean() * 128**2 / (50 * 24) < 1
    where = np.zeros((128, 128), np.float32)
    where[60:66, 42:88] = where[75:83, 42:88] = 0.9  # lips
    assert (predict.anchored(where, mouth) == 1).all(), "both lips are the mouth's"
    where[20:30, 50:60] = 0.8  # a nostril
    where[30:60, 54:56] = 0.1  # and a veil from there to the lip
    kept = where * predict.anchored(where, mouth)
    assert kept[21:29, 51:59].max() == 0 and kept[31:40, 54:56].max() == 0
    assert np.allclose(kept[60:66, 42:88], 0.9) and np.allclose(kept[75:83, 42:88], 0.9)
    assert (predict.anchored(where, np.zeros_like(mouth)) == 1).all(), "where nothing lies at the points, nothing is dropped"


def test_a_lid_belongs_to_its_eye():
    eye = predict.around(np.array([[40.0, 80], [80, 80]]), 128)
    assert eye[66, 60] and not eye[50, 60]
    turned = predict.around(np.array([[60.0, 60], [60, 100]]), 128)
    assert turned[80, 45] and turned[62, 60] and not turned[55, 60]
