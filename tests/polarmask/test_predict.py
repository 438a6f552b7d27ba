"""The predictor's doors: pictures of every kind, points, what comes back; the authors' network behind the same doors."""
from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import pttp
from pttp.errors import BadImage, BadInput
from pttp.polarmask import detect, preprocess, slim
from pttp.polarmask.model import PolarMask
from pttp.polarmask.predict import Predictor
from pttp.training.export import half
from tests import corpus
from tests.made_photos import disc, painted


@pytest.fixture(scope="module")
def net() -> Predictor:
    return Predictor.from_pretrained("embedded")


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return np.asarray(Image.fromarray(painted((disc(25, 30, 16), (230, 20, 20)), (disc(60, 25, 12), (20, 230, 20)))).resize((480, 360), Image.Resampling.BICUBIC))


def test_an_instance_fits_together(net, photo):
    found = net.predict_at(photo, (150, 180))
    assert found.mask.shape == (360, 480) and found.mask.dtype == bool and found.rays.shape == (36,) and found.contour.shape == (36, 2)
    free = found.center + found.rays[:, None] * np.stack([np.sin(np.arange(36) * np.pi / 18), np.cos(np.arange(36) * np.pi / 18)], 1)
    assert found.contour == pytest.approx(free.clip(0, (479, 359)), abs=0.02)
    rows, columns = np.flatnonzero(found.mask.any(1)), np.flatnonzero(found.mask.any(0))
    assert found.box == (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    assert found.area == pytest.approx(found.mask.sum(), rel=0.05)
    assert 0 <= found.score <= 1 and 0 <= found.centerness <= 1 and found.label in net.config["classes"] and found.stride in slim.STRIDES
    assert np.abs(found.center - (150, 180)).max() < found.stride * 480 / net.options["longest"]
    told = found.to_dict()
    assert json.loads(json.dumps(told)) == told and len(told["rays"]) == 36 and told["width"] == 480


def test_predict_is_sorted_capped_and_follows_the_score(net, photo):
    session = net.open(photo)
    many = session.instances(0)
    assert 0 < len(many) <= 100 and all(a.score >= b.score for a, b in zip(many, many[1:]))
    assert [f.to_dict() for f in net.predict(photo, many[0].score)] == [many[0].to_dict()]
    assert net.predict(photo, 1.5) == []


def test_a_session_sees_once_and_answers_as_the_predictor(net, photo, monkeypatch):
    session = net.open(photo)
    expected = net.predict_at(photo, (360, 150)).to_dict()
    monkeypatch.setattr(net.form, "forward", None)
    assert session.at((360, 150)).to_dict() == expected


def test_a_path_an_image_and_an_array_are_the_same(net, photo, tmp_path):
    Image.fromarray(photo).save(tmp_path / "photo.png")
    answers = [net.predict_at(given, (100, 100)).to_dict() for given in (photo, Image.fromarray(photo), tmp_path / "photo.png", str(tmp_path / "photo.png"))]
    assert all(a == answers[0] for a in answers)


def test_twice_as_large_is_twice_as_long(net, photo):
    small, large = net.predict_at(photo, (150, 180)), net.predict_at(np.kron(photo, np.ones((2, 2, 1), np.uint8)), (300.5, 360.5))
    assert large.rays == pytest.approx(2 * small.rays, rel=0.05, abs=2)


@pytest.mark.parametrize("point", [(-1, 5), (5, 360), (480, 5), (float("nan"), 3), (float("inf"), 3), (1e9, 1)])
def test_points_outside(net, photo, point):
    with pytest.raises(BadInput, match="outside of this picture of 480 x 360"):
        net.predict_at(photo, point)


@pytest.mark.parametrize("point", [(), (1,), (1, 2, 3), ("a", "b"), None, 7, (10**400, 1)])
def test_points_that_are_none(net, photo, point):
    with pytest.raises(BadInput, match="two numbers in pixels"):
        net.predict_at(photo, point)


@pytest.mark.parametrize("score", [-0.1, 2, float("nan")])
def test_scores_that_are_none(net, photo, score):
    with pytest.raises(BadInput, match="between 0 and 1.5"):
        net.predict(photo, score)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 2), (40, 4000)])
def test_odd_shapes(net, shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    found = net.predict_at(image, (shape[1] - 1, shape[0] - 1))
    assert np.isfinite(found.contour).all() and (found.contour >= 0).all() and (found.contour <= np.array(shape[::-1]) - 1).all() and found.mask.shape == shape
    assert all(f.mask.shape == shape for f in net.predict(image, 0)[:3])


def test_the_whole_corpus(net, cases):
    for case in cases.values():
        if case.ok:
            assert net.predict(case.path) is not None
        elif case.name in corpus.BAD:
            with pytest.raises(BadImage, match=re.escape(case.words)):
                net.predict(case.path)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """A folder in Hub format with a network of the authors' kind, with few classes and random weights that find something."""
    torch.manual_seed(0)
    net = PolarMask(num_classes=5)
    torch.nn.init.normal_(net.head.polar_cls.weight, std=0.2)
    torch.nn.init.constant_(net.head.polar_cls.bias, -1)
    torch.nn.init.constant_(net.head.polar_mask.bias, 3)
    torch.nn.init.constant_(net.head.polar_reg.bias, 3)
    folder = tmp_path_factory.mktemp("theirs")
    save_file({k: v.contiguous() for k, v in half(net).state_dict().items()}, folder / "model.safetensors")
    config = {"net": {"num_classes": 5, "depths": [3, 4, 6, 3], "rays": 36}, "preprocess": {"mean": list(preprocess.MEAN), "scale": [256, 128], "keep_ratio": False}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_the_authors_network_behind_the_same_doors(theirs, photo):
    """What it finds is what `detect` says of the plain network; a click gets the rays of a cell near it, stretched back."""
    net = Predictor.from_pretrained(theirs)
    session = net.open(photo)
    with torch.no_grad():
        x, size, stretched = preprocess.prepare(photo, (256, 128))
        levels = net.net(x)
        found = detect.detect(levels, size, stretched)
    assert len(found.scores) > 3 and len(session.everything) == len(found.scores)
    best = int(found.scores.argmax())
    assert session.everything[0].score == pytest.approx(float(found.scores[best]), abs=1e-3) and session.everything[0].label == f"class {int(found.classes[best]) + 1}"
    edge = (np.array(size[::-1]) - 1) / stretched[:2].numpy()  # theirs stop at the last pixel of the stretched picture, ours at the photo's
    assert session.everything[0].contour.clip(0, edge) == pytest.approx(found.contours[best].numpy(), abs=0.05)
    clicked = session.at((240, 180))
    assert clicked.stride in (8, 16, 32, 64, 128) and np.isfinite(clicked.contour).all()
    maps = session.maps
    assert maps.rays.shape[1] == sum(h * w for h, w in maps.sizes) and torch.equal(maps.at, torch.cat([slim.cells(*n, s, x) for n, s in zip(maps.sizes, maps.strides)]))


def test_it_runs_once_the_record_says_so():
    assert pttp.load("polarmask", "embedded").weights.source == "embedded"


@pytest.mark.parametrize("shape", [(1, 3000), (5000, 1), (1, 1)])
def test_a_thin_picture_keeps_a_pixel(shape):
    x, size, _ = preprocess.prepare(np.zeros((*shape, 3), np.uint8), (1280, 768), keep_ratio=True)
    assert min(size) >= 1 and min(x.shape[-2:]) >= 32
