"""Run lengths, polygons, SVG and cut-outs."""
from __future__ import annotations

import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pttp.pointrend import masks


def shapes() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    ring = np.hypot(*(np.mgrid[:60, :90] - np.array([30, 45])[:, None, None]))
    return {
        "empty": np.zeros((5, 7), bool),
        "full": np.ones((5, 7), bool),
        "one": np.ones((1, 1), bool),
        "corner": np.eye(4, dtype=bool),
        "ring": (ring < 25) & (ring > 10),
        "noise": rng.random((33, 47)) < 0.3,
        "long": np.pad(np.ones((2000, 3), bool), ((1500, 10), (40, 2))),
    }


@pytest.mark.parametrize("name", shapes())
def test_run_lengths_are_pycocotools(name):
    coco = pytest.importorskip("pycocotools.mask", reason="a development requirement")
    mask = shapes()[name]
    made = masks.rle(mask)
    assert made["size"] == list(mask.shape) and made["counts"] == coco.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()
    assert np.array_equal(coco.decode(made).astype(bool), mask)
    assert masks.runs(mask).sum() == mask.size and np.array_equal(np.repeat(np.arange(len(masks.runs(mask))) % 2, masks.runs(mask)).reshape(mask.shape, order="F"), mask)


def drawn(polygons, shape) -> np.ndarray:
    """Filled by the even-odd rule, at four times the size."""
    total = np.zeros((shape[0] * 4, shape[1] * 4), bool)
    for line in polygons:
        picture = Image.new("1", (shape[1] * 4, shape[0] * 4))
        ImageDraw.Draw(picture).polygon([tuple(p) for p in (line * 4).tolist()], fill=1)
        total ^= np.asarray(picture)
    return total.reshape(shape[0], 4, shape[1], 4).mean((1, 3)) > 0.5


def test_polygons_surround_the_mask_and_its_hole():
    mask = shapes()["ring"]
    found = masks.polygons(mask)
    assert len(found) == 2
    again = drawn(found, mask.shape)
    assert np.count_nonzero(again & mask) / np.count_nonzero(again | mask) > 0.97
    assert masks.polygons(np.zeros((4, 4), bool)) == []


@pytest.mark.parametrize("where", [(slice(0, 6), slice(0, 9)), (slice(3, 4), slice(5, 6)), (slice(0, 12), slice(0, 15))])
def test_polygons_at_borders(where):
    mask = np.zeros((12, 15), bool)
    mask[where] = True
    (line,) = masks.polygons(mask, tolerance=0)
    x0, y0, x1, y1 = masks.bounding_box(mask)
    assert line.min(0) == pytest.approx((x0, y0), abs=0.51) and line.max(0) == pytest.approx((x1, y1), abs=0.51)
    assert 0 <= line.min() and (line.max(0) <= (15, 12)).all()


def test_svg():
    ring = shapes()["ring"]
    text = masks.svg([(ring, "cat & <dog>", "red"), (~ring, "rest", "rgb(0, 1, 2)")], (60, 90))
    assert text.startswith('<svg xmlns="http://www.w3.org/2000/svg" width="90" height="60"') and "cat &amp; &lt;dog&gt;" in text
    ElementTree.fromstring(text)
    assert text.count("<path") == text.count('fill-rule="evenodd"') == 2 and not re.search(r"nan|inf", text)
    assert masks.path(ring).count("M") == masks.path(ring).count("Z") == 2 and masks.path(np.zeros((3, 3), bool)) == ""


def test_coco_is_read_by_pycocotools(tmp_path):
    module = pytest.importorskip("pycocotools.coco", reason="a development requirement")
    ring, corner = shapes()["ring"], np.zeros((60, 90), bool)
    corner[50:, 80:] = True
    (tmp_path / "a.json").write_text(json.dumps(masks.coco([(ring, "cat", 0.9), (corner, "dog", 0.5)], (60, 90), ("person", "cat", "dog"))))
    read = module.COCO(str(tmp_path / "a.json"))
    first, second = read.loadAnns(read.getAnnIds())
    assert np.array_equal(read.annToMask(first).astype(bool), ring) and read.loadCats(first["category_id"])[0]["name"] == "cat"
    assert second["bbox"] == [80, 50, 10, 10] and second["area"] == 100 and read.loadImgs(1)[0]["width"] == 90


def test_cutout():
    image, mask = np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8), shapes()["ring"]
    made = masks.cutout(image, mask)
    x0, y0, x1, y1 = masks.bounding_box(mask)
    assert made.mode == "RGBA" and made.size == (x1 - x0, y1 - y0)
    pixels = np.asarray(made)
    assert np.array_equal(pixels[..., 3] > 0, mask[y0:y1, x0:x1]) and np.array_equal(pixels[..., :3], image[y0:y1, x0:x1])
    assert masks.cutout(image, np.zeros((60, 90), bool)).getextrema()[3] == (0, 0)
