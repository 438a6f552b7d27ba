"""Mattes mended from masks and soft mattes, and pictures composed from them."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from pttp.training import mattes, photos
from pttp.trunk import Lite0
from tests.shared import shared


def animal(h: int = 120, w: int = 160) -> tuple[np.ndarray, np.ndarray]:
    """A made photo of an orange disc with a tail on blue, and its mask (0 or 255)."""
    y, x = np.mgrid[:h, :w]
    mask = (np.hypot(y - h / 2, x - w / 3) < h / 3) | ((abs(y - h / 2) < 6) & (x > w / 3) & (x < w - 10))
    rng = np.random.default_rng(0)
    photo = np.where(mask[..., None], (230, 130, 20), (20, 40, 120)) + rng.integers(-15, 16, (h, w, 3))
    return photo.clip(0, 255).astype(np.uint8), np.where(mask, 255, 0).astype(np.uint8)


def soft_matte(mask: np.ndarray) -> np.ndarray:
    return np.rint(gaussian_filter(mask.astype(float), 1)).astype(np.uint8)


def test_border_is_a_band_around_the_edge():
    _, mask = animal()
    band = mattes.border(mask, 0.04) == mattes.UNSURE
    grown = np.zeros_like(band)
    for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
        grown |= np.roll(mask, (dy, dx), (0, 1)) != mask
    assert band[grown].all() and 0.02 < band.mean() < 0.2
    assert not band[60, 53] and not band[5, 150]
    narrow = mattes.border(mask, 0.0) == mattes.UNSURE
    assert np.array_equal(narrow, grown)


@pytest.mark.parametrize("value", [0, 255])
def test_border_of_a_mask_without_one(value):
    mask = np.full((20, 30), value, np.uint8)
    assert np.array_equal(mattes.border(mask), mask)
    photo = np.zeros((20, 30, 3), np.uint8)
    assert np.array_equal(mattes.repaired(photo, mask, np.full_like(mask, 100)), mask)


def test_repair_takes_the_object_from_the_mask_and_the_edge_from_the_matte():
    photo, mask = animal()
    soft = soft_matte(mask)
    broken = soft.copy()
    broken[50:70, 40:60] = 30  # hollow
    broken[:20, 120:] = 255  # something else
    repaired = mattes.repaired(photo, mask, broken)
    assert (repaired[50:70, 40:60] == 255).all() and not repaired[:20, 120:].any()
    band = mattes.border(mask) == mattes.UNSURE
    assert np.array_equal(repaired[band], soft[band])


def test_repair_brings_an_overlooked_tail_back_at_its_width():
    photo, mask = animal()
    soft = soft_matte(mask)
    soft[:, 100:] = 0
    repaired = mattes.repaired(photo, mask, soft)
    tail = mask[:, 110:145] == 255
    assert (repaired[:, 110:145][tail] > 100).all()
    assert repaired[:, 110:145][~tail].max() < 150
    simple = np.where(mattes.border(mask) == mattes.UNSURE, soft, mask)
    assert (simple[:, 110:145][tail] == 0).any()  # what it would be without looking where the two disagree


def test_repair_of_an_open_band_and_without_a_matte():
    photo, mask = animal()
    trimap = mattes.border(mask, 0.06)
    for soft in (np.zeros_like(mask), None):  # a matte that saw nothing, and none at all
        repaired = mattes.repaired(photo, trimap, soft)
        assert np.array_equal(repaired[trimap != mattes.UNSURE], trimap[trimap != mattes.UNSURE])
        assert np.abs(repaired.astype(int) - mask).mean() < 2  # closed-form matting finds the edge in the colours
    trusted = mattes.repaired(photo, trimap, soft_matte(mask))
    assert np.array_equal(trusted[trimap == mattes.UNSURE], soft_matte(mask)[trimap == mattes.UNSURE])


def test_foreground_loses_the_old_background():
    y, x = np.mgrid[:60, :80]
    alpha = np.clip((x - 20) / 40, 0, 1)
    own, old = np.array([220.0, 120, 30]), np.array([10.0, 60, 200])
    photo = np.rint(alpha[..., None] * own + (1 - alpha[..., None]) * old).astype(np.uint8)
    fg = mattes.foreground(photo, np.rint(255 * alpha).astype(np.uint8))
    assert fg.shape == photo.shape and fg.dtype == np.uint8
    half = (alpha > 0.4) & (alpha < 0.6)
    assert np.abs(fg[half] - own).mean() < 15 < np.abs(photo[half] - own).mean()


def test_iou():
    mask = np.array([[255, 255, 0, 0, mattes.UNSURE]], np.uint8)
    assert mattes.iou(np.array([[0.9, 0.2, 0.7, 0, 1.0]]), mask) == pytest.approx(1 / 3)
    assert mattes.iou(np.zeros((1, 5)), np.zeros((1, 5), np.uint8)) == 0


@pytest.fixture
def root(tmp_path) -> Path:
    """A small made collection: two pets, one of them for validation, and three horses, one for validation and one without a soft matte."""
    photo, mask = animal()
    folders = {"oxford_pets_subset": ("a", "b"), "weizmann_horses": ("h1", "h2", "h3")}
    for folder, names in folders.items():
        for kind in ("images", "masks", "alpha"):
            (tmp_path / folder / kind).mkdir(parents=True)
        for name in names:
            Image.fromarray(photo).save(tmp_path / folder / "images" / f"{name}.jpg", quality=95)
            pets = np.where(mattes.border(mask, 0.06) == mattes.UNSURE, 3, np.where(mask == 255, 1, 2)).astype(np.uint8)
            stored = Image.fromarray(pets) if folder == "oxford_pets_subset" else Image.fromarray(mask).convert("1")
            stored.save(tmp_path / folder / "masks" / f"{name}.png")
            if name != "h3":
                Image.fromarray(soft_matte(mask)).save(tmp_path / folder / "alpha" / f"{name}.png")
    (tmp_path / "oxford_pets_subset" / "index.csv").write_text("name,breed,species,official_split\na,x,cat,trainval\nb,x,cat,test\n")
    (tmp_path / "weizmann_horses" / "val.txt").write_text("h2\n")
    (tmp_path / "general_photos" / "images").mkdir(parents=True)
    for i, colour in enumerate(((250, 250, 250), (10, 200, 10))):
        Image.new("RGB", (300, 200), colour).save(tmp_path / "general_photos" / "images" / f"{i}.jpg")
    return tmp_path


def test_splits_stay_apart(root):
    train, val = ([(s.folder, s.photo.stem, bool(s.soft)) for s in mattes.sources(root, split)] for split in ("train", "val"))
    assert train == [("oxford_pets_subset", "a", True), ("weizmann_horses", "h1", True), ("weizmann_horses", "h3", False)]
    assert val == [("oxford_pets_subset", "b", True), ("weizmann_horses", "h2", True)]


def test_reading(root):
    _, mask = animal()
    pet, horse, bare = mattes.sources(root, "train")
    assert set(np.unique(pet.read()[1])) == {0, 128, 255}
    assert np.array_equal(horse.read()[1], mask)
    assert bare.read()[2] is None


@pytest.mark.parametrize("canvas", [160, 64])
def test_prepared_once_then_read(root, canvas, tmp_path):
    said: list[str] = []
    first = mattes.mattes(root, "train", tmp_path / "cache", canvas, said.append)
    assert len(first) == 2 and first.sizes.tolist() == [[120 * canvas // 160, canvas]] * 2
    assert first.folders.tolist() == [0, 1]
    (file,) = (tmp_path / "cache").iterdir()
    stamp = file.stat().st_mtime_ns
    again = mattes.mattes(root, "train", tmp_path / "cache", canvas, said.append)
    assert file.stat().st_mtime_ns == stamp
    assert all(torch.equal(v, vars(again)[k]) for k, v in vars(first).items())
    h, w = first.sizes[0].tolist()
    assert not first.alpha[:, :, h:].any() and not first.pixels[:, :, h:].any()
    photo, alpha, fg = (x[1, :, :h, :w].float() / 255 for x in (first.pixels, first.alpha, first.foreground))
    assert (alpha * fg - alpha * photo).abs().mean() < 0.02


@pytest.fixture
def data(root) -> mattes.Mattes:
    return mattes.prepare([s for s in mattes.sources(root, "train") if s.soft], 160)


def test_views_are_their_foreground_over_their_background(data):
    views = mattes.matte_views(data, torch.tensor([0, 1] * 8), 48, torch.Generator().manual_seed(0))
    assert [tuple(x.shape) for x in views] == [(16, 3, 48, 48), (16, 1, 48, 48), (16, 3, 48, 48), (16, 3, 48, 48)]
    assert all(0 <= x.min() and x.max() <= 1 for x in views)
    again = views.alpha * views.fg + (1 - views.alpha) * views.bg
    assert (again - views.image).abs().mean() < 0.01
    assert views.alpha.mean() > 0.1
    # the orange disc is where alpha is, after every turn, mirror and stretch
    warm = (views.image[:, 0] > views.image[:, 2]).float()
    assert ((views.alpha[:, 0] > 0.5).float() - warm).abs().mean() < 0.02


def test_views_do_not_show_the_canvas(data):
    views = mattes.matte_views(data, torch.zeros(32, dtype=torch.long), 32, torch.Generator().manual_seed(3), cover=(1.2, 1.5), jitter=0)
    assert views.image.amax(1).min() > 0.2  # every pixel of the photo is lighter than that, the empty canvas is black


def test_views_repeat_with_their_generator(data):
    a, b, c = (mattes.matte_views(data, torch.arange(2), 32, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(a.image, b.image) and not torch.equal(a.image, c.image)


@pytest.mark.parametrize("share, changed", [(0.0, 0), (1.0, 24)])
def test_composition(data, share, changed):
    views = mattes.matte_views(data, torch.zeros(24, dtype=torch.long), 48, torch.Generator().manual_seed(0))
    green = torch.tensor([0.1, 0.9, 0.2]).view(1, 3, 1, 1).expand(24, 3, 48, 48)
    made = mattes.compose(views, green, torch.Generator().manual_seed(1), share)
    assert torch.equal(made.alpha, views.alpha)
    assert sum(not torch.equal(a, b) for a, b in zip(made.image, views.image, strict=True)) == changed
    if changed:
        empty, full = made.alpha < 0.01, made.alpha > 0.99
        noisy = [i for i in range(24) if not torch.equal(made.fg[i], views.fg[i])]
        assert 4 < len(noisy) < 20
        for i in range(24):
            tolerance = 0.2 if i in noisy else 0.02
            assert (made.image[i] - green[i])[empty[i].expand(3, -1, -1)].abs().max() <= tolerance
            assert (made.image[i] - views.fg[i])[full[i].expand(3, -1, -1)].abs().max() <= tolerance


def test_backgrounds_and_batch(root, data, tmp_path):
    torch.manual_seed(0)
    classifier, cache = Lite0(), tmp_path / "cache"
    everything = mattes.backgrounds(root, classifier, cache, 64, most=1.0, say=lambda _: None)
    assert everything.sizes.tolist() == [[43, 64]] * 2
    shares = json.loads((cache / "animal_share.json").read_text())
    assert set(shares) == {"0.jpg", "1.jpg"} and all(0 <= v <= 1 for v in shares.values())
    (cache / "animal_share.json").write_text(json.dumps({"0.jpg": 0.9, "1.jpg": 0.1}))
    calm = mattes.backgrounds(root, classifier, cache, 64, say=lambda _: None)
    assert len(calm) == 1 and calm.pixels[0, 1, 5, 5] > 180
    views = mattes.batch(data, calm, 5, 32, torch.Generator().manual_seed(0))
    assert views.image.shape == (5, 3, 32, 32) and torch.isfinite(views.image).all()


def test_real_photos_keep_apart_and_mend():
    root = shared("data", "weizmann_horses").parent
    train, val = (mattes.sources(root, split) for split in ("train", "val"))
    assert not {s.photo for s in train} & {s.photo for s in val}
    held = photos.held_out(root)
    assert {s.photo for s in val} <= held and not {s.photo for s in train} & held
    assert {s.folder for s in train} == {s.folder for s in val} == set(mattes.FOLDERS)
    before, after = [], []
    for source in [s for s in val if s.folder != "oxford_pets_subset" and s.soft][::6]:
        photo, mask, soft = source.read()
        before.append(mattes.iou(soft / 255, mask))
        after.append(mattes.iou(mattes.repaired(photo, mask, soft) / 255, mask))
    assert all(b <= a for b, a in zip(before, after, strict=True))
    assert np.mean(after) > np.mean(before) + 0.03


def test_cut_out():
    photo, mask = animal()
    alone = np.asarray(mattes.cut_out(photo, mask))
    assert alone.shape[0] == alone.shape[1] == round(1.1 * np.ptp(np.flatnonzero(mask.any(0))) + 1.1)
    grey = (alone == 127).all(2)
    assert (~grey).sum() == pytest.approx(np.count_nonzero(mask), rel=0.01)
    assert (alone[..., 0] > alone[..., 2])[~grey].mean() > 0.97
    assert np.asarray(mattes.cut_out(photo, np.zeros_like(mask))).std() == 0


def test_only_animals_are_kept(root, tmp_path):
    """A classifier's opinion counts for ecssd_salient alone, is asked once and then read."""
    for kind in ("images", "masks"):
        (root / "ecssd_salient" / kind).mkdir(parents=True)
    photo, mask = animal()
    for name in ("beast", "book"):
        Image.fromarray(photo).save(root / "ecssd_salient" / "images" / f"{name}.jpg")
        Image.fromarray(mask).save(root / "ecssd_salient" / "masks" / f"{name}.png")
    everything, cache = mattes.sources(root, "train", mattes.EVERY), tmp_path / "cache"
    assert len(mattes.of_animals(everything, Lite0(), cache, least=0)) == 5
    shares = json.loads((cache / "animal_share_ecssd.json").read_text())
    assert set(shares) == {"beast.jpg", "book.jpg"}
    (cache / "animal_share_ecssd.json").write_text(json.dumps({"beast.jpg": 0.9, "book.jpg": 0.1}))
    assert [s.photo.stem for s in mattes.of_animals(everything, Lite0(), cache)] == ["a", "h1", "h3", "beast"]


def test_street_cats_have_instances_for_a_mask(root):
    for kind in ("images", "instances"):
        (root / "feral_cats" / kind).mkdir(parents=True)
    photo, mask = animal()
    Image.fromarray(photo).save(root / "feral_cats" / "images" / "c.jpg")
    Image.fromarray(mask // 255 * 2).save(root / "feral_cats" / "instances" / "c.png")
    (cat,) = mattes.sources(root, "train", [mattes.CATS])
    assert cat.soft is None and np.array_equal(cat.read()[1], mask)


def test_classifier_knows_an_animal():
    from safetensors.torch import load_file

    classifier = Lite0().eval()
    classifier.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in load_file(shared("weights", "efficientnet_lite0.safetensors")).items()})
    cat = Image.open(shared("data", "oxford_pets_subset", "images", "Abyssinian_1.jpg")).convert("RGB")
    assert mattes.animal_share(cat, classifier) > 0.8
    assert mattes.animal_share(Image.new("RGB", (300, 200), (120, 130, 140)), classifier) < 0.3
