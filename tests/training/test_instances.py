"""Seven collections as objects, and views in which every mask lies on its object."""
from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from pttp.training import instances
from pttp.training.instances import CLASSES, UNKNOWN, decode, encode
from tests import made_photos
from tests.made_photos import disc
from tests.shared import shared


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return made_photos.make(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def train(root):
    return instances.read(root, "train")


def of(photos, folder):
    return [p for p in photos if p.folder == folder]


def iou(a, b):
    return np.count_nonzero(a & b) / np.count_nonzero(a | b)


@pytest.mark.parametrize(
    ("folder", "train_names", "val_names", "labels", "complete"),
    [
        ("coco_mini", ["000000000000"], ["000000000001"], ["person", "vehicle"], CLASSES),
        ("feral_cats", ["cat1"], ["cat2"], ["cat", "cat"], ("cat",)),
        ("pennfudan_ped", ["Fudan1"], [], ["person", "person"], ()),
        ("oxford_pets_subset", ["pet1"], ["pet2"], ["dog"], ("cat", "dog")),
        ("weizmann_horses", ["horse1"], ["horse2"], ["horse"], ()),
        ("animals_misc", ["emu_1"], ["farm_2"], ["other animal"], ()),
        ("ecssd_salient", ["0001"], ["0002"], [None, None], ()),
    ],
)
def test_collections(root, train, folder, train_names, val_names, labels, complete):
    photos, aside = of(train, folder), of(instances.read(root, "val"), folder)
    assert [p.name for p in photos] == train_names and [p.name for p in aside] == val_names
    (photo,) = photos
    assert [CLASSES[c] if c != UNKNOWN else None for c in photo.labels] == labels
    assert photo.complete == complete
    assert photo.pixels.shape == (made_photos.H, made_photos.W, 3)
    for runs, truth in zip(photo.masks, (disc(25, 30, 16), disc(60, 25, 12)), strict=False):
        assert iou(decode(runs), truth) > 0.95


def test_a_farm_animal_is_of_an_unknown_class(root):
    (farm,) = of(instances.read(root, "val"), "animals_misc")
    assert farm.labels == (UNKNOWN,)


def test_the_open_band_is_closed_by_the_matte_in_training_and_left_open_in_validation(root, train):
    (photo,), (aside,) = of(train, "oxford_pets_subset"), of(instances.read(root, "val"), "oxford_pets_subset")
    assert photo.unsure is None and photo.sure().all()
    assert iou(decode(photo.masks[0]), disc(25, 30, 16)) > 0.97
    assert np.array_equal(decode(aside.masks[0]), disc(25, 30, 13))
    assert np.array_equal(~aside.sure(), disc(25, 30, 19) & ~disc(25, 30, 13))


def test_fine_masks_are_made_once(root, tmp_path):
    first = instances.fine_masks(root, tmp_path)
    (file,) = tmp_path.iterdir()
    assert set(first) == {("oxford_pets_subset", "pet1")}
    kept = json.loads(file.read_text())
    empty = encode(np.zeros((made_photos.H, made_photos.W), bool))
    kept["oxford_pets_subset/pet1"]["counts"] = empty["counts"].decode()
    file.write_text(json.dumps(kept))
    assert not decode(instances.fine_masks(root, tmp_path)["oxford_pets_subset", "pet1"]).any()


@pytest.mark.parametrize(
    ("name", "supercategory", "expected"),
    [("person", "person", "person"), ("cat", "animal", "cat"), ("zebra", "animal", "other animal"), ("train", "vehicle", "vehicle"), ("cup", "kitchen", "object")],
)
def test_classes(name, supercategory, expected):
    assert CLASSES[instances.class_of(name, supercategory)] == expected


@pytest.mark.parametrize(
    ("masks", "expected"),
    [
        ([disc(25, 30, 16)], 1),
        ([disc(25, 30, 16), disc(60, 25, 12)], 2),
        ([disc(25, 30, 16), disc(60, 25, 3)], 1),  # a crumb stays with the object
    ],
)
def test_parts(masks, expected):
    whole = np.any(masks, 0)
    found = instances.parts(whole)
    assert len(found) == expected
    assert np.array_equal(np.any(found, 0), whole) and sum(np.count_nonzero(p) for p in found) == np.count_nonzero(whole)


def test_deepest():
    x, y = instances.deepest(disc(25.5, 30.5, 16))
    assert abs(x - 25) <= 1 and abs(y - 30) <= 1
    corner = np.zeros((20, 20), bool)
    corner[:9, :9] = True  # the picture's border is a border, too
    assert instances.deepest(corner) == (4, 4)


def reddish(image):
    """Where a view (3, S, S) without jitter shows the first object's colour, and the second's."""
    return (image[0] > 0.6) & (image[1] < 0.4), (image[1] > 0.6) & (image[0] < 0.4)


@pytest.mark.parametrize("folder", ["coco_mini", "feral_cats", "ecssd_salient"])
def test_masks_follow_their_objects(train, folder):
    """Whatever turn, mirror, scale and stretch: a mask lies on the pixels of one colour."""
    draw = instances.sampler(of(train, folder), 64, 8, turn=0.3, jitter=0, paste=0)
    views = draw(torch.Generator().manual_seed(0))
    assert len(views.masks) >= 8
    for r, picture in enumerate(views.picture.tolist()):
        mask = views.masks[r]
        if mask.sum() > 150:
            assert max(((mask & c).sum() / (mask | c).sum()).item() for c in reddish(views.images[picture])) > 0.85


def test_boxes_are_tight_and_labels_belong(train):
    views = instances.sampler(of(train, "coco_mini"), 48, 6, jitter=0, paste=0)(torch.Generator().manual_seed(1))
    for mask, box, label, picture in zip(views.masks, views.boxes.int().tolist(), views.labels.tolist(), views.picture.tolist(), strict=True):
        x0, y0, x1, y1 = box
        assert mask[y0:y1, x0:x1].sum() == mask.sum() >= instances.LEAST
        assert mask[y0].any() and mask[y1 - 1].any() and mask[:, x0].any() and mask[:, x1 - 1].any()
        red = (reddish(views.images[picture])[0] & mask).sum() > mask.sum() / 2
        assert CLASSES[label] == ("person" if red else "vehicle")
    assert views.complete.all() and views.sure.dtype == torch.bool


def test_what_is_pasted_hides_what_was_there(train):
    photos = of(train, "coco_mini")
    assert instances.cutouts(photos) == [] and instances.cutouts(of(train, "weizmann_horses")) == []  # too small, both
    canvas = instances._Canvas(64)
    canvas.show(photos[0], instances._map(1.0, 0.0, False, (25, 30), (30, 30)))
    horse = of(train, "weizmann_horses")[0]
    canvas.paste(horse, 0, instances._map(1.0, 0.0, False, (25, 30), (42, 30)))
    (under, _, _), *_, (over, label, box) = canvas.settle()
    assert CLASSES[label] == "horse" and iou(over, np.pad(disc(42, 30, 16), ((0, 4), (0, 0)))[:, :64]) > 0.95
    assert not (under & over).any() and 200 < np.count_nonzero(under) < 700
    assert box[0] == pytest.approx(26, abs=1)


def test_crumbs_are_neither_object_nor_ground(train):
    canvas = instances._Canvas(64)
    canvas.show(of(train, "coco_mini")[0], instances._map(0.1, 0.0, False, (25, 30), (32, 32)))
    assert canvas.settle() == [] and 4 <= np.count_nonzero(~canvas.sure) <= 20


def test_the_open_band_is_not_sure_in_views(root):
    views = instances.sampler(of(instances.read(root, "val"), "oxford_pets_subset"), 64, 4, jitter=0, paste=0)(torch.Generator().manual_seed(0))
    assert all(0.02 < (~s).float().mean() < 0.6 for s in views.sure)
    assert not (views.masks & ~views.sure[views.picture]).any(0).float().mean() > 0.05


def test_views_repeat_with_their_generator(train):
    draw = instances.sampler(train, 32, 4)
    a, b, c = (draw(torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert all(torch.equal(x, y) for x, y in zip(vars(a).values(), vars(b).values(), strict=True))
    assert not torch.equal(a.images, c.images)


def test_real_data():
    """The shared collections: no photo in both splits, every object inside its photo, and the counts of their READMEs."""
    root = shared("data")
    train, val = (instances.read(root, split, folders=("coco_mini", "pennfudan_ped")) for split in ("train", "val"))
    assert not {(p.folder, p.name) for p in train} & {(p.folder, p.name) for p in val}
    people = of(train, "pennfudan_ped")
    assert (len(of(train, "coco_mini")), len(of(val, "coco_mini")), len(people), sum(len(p.masks) for p in people)) == (538, 54, 170, 423)
    for p in of(val, "coco_mini"):
        assert all(runs["size"] == list(p.pixels.shape[:2]) and decode(runs).any() for runs in p.masks)
