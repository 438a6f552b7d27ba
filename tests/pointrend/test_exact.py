"""The authors' networks behind the same door: converted weights find objects, and clicks on them are obeyed. The networks here are small and untrained."""
from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import pttp
from pttp.errors import BadInput
from pttp.pointrend import detect, official, render
from pttp.pointrend.exact import COCO, ExactSession, class_names
from pttp.pointrend.predict import NothingFound
from pttp.pointrend.preprocess import normalise, resize
from tests.pointrend.test_official import arrays_of, small, write

PHOTO = np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8)


def certain():
    """One that finds something: its class logits are far from the background's."""
    net = small()
    with torch.no_grad():
        net.box_head.cls_score.bias.copy_(torch.tensor([3.0, 2.0, 1.0, -4.0]))
    return net


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    folder = tmp_path_factory.mktemp("converted")
    official.save(write(folder / "model.pkl", {"model": arrays_of(certain()), "__author__": "a"}), folder / "w")
    return pttp.load("pointrend", folder / "w")


@pytest.fixture(scope="module")
def session(net):
    return net.open(PHOTO)


def test_it_sees_what_the_networks_parts_see(net, session):
    plain = certain().eval()
    assert isinstance(session, ExactSession) and session.size == (800, 1200)
    with torch.no_grad():
        maps = plain.backbone(normalise(resize(PHOTO)))
        found = detect.detect(plain, maps, (800, 1200))
        masks = render.masks(plain, maps["p2"], found.boxes[:3], found.classes[:3])
    assert len(found.boxes) and len(session.maps.found.boxes) == len(found.boxes)
    torch.testing.assert_close(session.maps.found.boxes[:3], found.boxes[:3], rtol=1e-3, atol=0.1)
    for i in range(3):
        ours = net.exact.masks(session.maps.p2, session._box(i))[0].sigmoid()
        assert ((ours > 0.5) == (masks[i] > 0.5)).float().mean() > 0.99


def test_clicks_are_obeyed(session):
    points, labels = [(45, 30), (50, 20), (10, 10), (80, 50)], [1, 0, 0, 1]
    for n in (1, 2, 4):
        made = session.click(points[:n], labels[:n], anyway=True)
        assert made.mask.shape == (60, 90) and all(made.mask[y, x] == bool(k) for (x, y), k in zip(points[:n], labels[:n]))
    assert [s.size for s in made.steps] == [7, 28, 56, 112, 224] and made.label in session.classes
    look = session.look(points, labels)
    assert np.array_equal(made.steps[0].logits, look.coarse[0, session.classes.index(made.label)].numpy())
    json.dumps(made.to_dict())


def test_nothing_found(net):
    blank = small()
    with torch.no_grad():
        blank.box_head.cls_score.bias.copy_(torch.tensor([-9.0, -9, -9, 9]))
    empty = ExactSession(type(net.exact)(blank, {"preprocess": {"mean": [0, 0, 0], "std": [1, 1, 1]}}), PHOTO)
    assert empty.instances == []
    with pytest.raises(NothingFound):
        empty.click([(40, 30)], [1])
    assert empty.click([(40, 30)], [1], anyway=True).mask[30, 40]


def test_names():
    assert class_names(80) == COCO and len(set(COCO)) == 80 and class_names(8)[1] == "rider" and class_names(3)[2] == "class 2"


def test_semantic_weights_are_no_objects(tmp_path):
    from pttp import checkpoints
    from pttp.pointrend.model import SemanticPointRend

    net = SemanticPointRend(num_classes=4, depths=(1, 1, 1, 1))
    checkpoints.save(net.state_dict(), official.config_of(net.state_dict()), tmp_path)
    with pytest.raises(BadInput, match="label every pixel"):
        pttp.load("pointrend", tmp_path).open(PHOTO)


@pytest.mark.parametrize("shape", [(1, 3000), (5000, 1), (1, 1), (2, 4000)])
def test_a_thin_picture_keeps_a_pixel(shape):
    seen = resize(np.zeros((*shape, 3), np.uint8))
    assert min(seen.shape[:2]) >= 1 and normalise(seen).shape[-2] % 32 == 0
