"""Label maps from a face mesh, and the close-ups that are cut from whole faces with them."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from pttp.cagan import data, label, weak


def mesh(size: int = 200) -> np.ndarray:
    """Points of a made-up face: every outline an ellipse at its place, wider ones first, so that points two outlines share stay with the later one."""
    points = np.zeros((478, 2))

    def ring(outline, cx, cy, rx, ry, first=0.0):
        for i, at in enumerate(outline):
            t = first + 2 * np.pi * i / len(outline)
            points[at] = (size * (cx + rx * np.cos(t)), size * (cy + ry * np.sin(t)))

    ring(label.OVAL, 0.5, 0.5, 0.4, 0.48, -np.pi / 2)
    ring(label.NOSE, 0.5, 0.52, 0.07, 0.12, -np.pi / 2)
    for outline, x in zip(label.EYES, (0.33, 0.67), strict=True):
        ring(outline, x, 0.4, 0.08, 0.03, np.pi)
    for outline, x in zip(label.BROWS, (0.33, 0.67), strict=True):
        ring(outline, x, 0.3, 0.1, 0.02, np.pi)
    ring(label.MOUTH, 0.5, 0.78, 0.1, 0.02, np.pi)
    for outline, way in ((label.UPPER, -1), (label.LOWER, 1)):  # from the left corner to the right one over eleven points, and back along the mouth
        for i, at in enumerate(outline[:11]):
            t = np.pi * i / 10
            points[at] = (size * (0.5 - 0.15 * np.cos(t)), size * (0.78 + way * 0.06 * np.sin(t)))
    points[1] = (size * 0.5, size * 0.58)
    return points


def test_a_mesh_is_drawn():
    drawn = label.drawn(mesh(), (200, 200))
    assert drawn.shape == (200, 200) and drawn.dtype == np.uint8
    at = {(100, 40): 1, (100, 110): 2, (66, 80): 4, (134, 80): 5, (66, 60): 6, (134, 60): 7, (100, 156): 10, (100, 148): 11, (100, 165): 12, (5, 5): 0}
    assert {where: drawn[where[1], where[0]] for where in at} == at


def test_a_shut_mouth_has_no_inside():
    points = mesh()
    middle = points[list(label.MOUTH), 1].mean()
    points[list(label.MOUTH), 1] = middle + 0.2 * (points[list(label.MOUTH), 1] - middle)
    drawn = label.drawn(points, (200, 200))
    assert not (drawn == 10).any() and drawn[156, 100] == 12


def test_faces_from_the_side_are_left_out():
    points = mesh()
    assert label.from_the_front(points)
    points[1, 0] = 150  # the nose points to the right
    assert not label.from_the_front(points)


@pytest.fixture
def folders(tmp_path):
    photos, labels = tmp_path / "photos", tmp_path / "labels"
    photos.mkdir(), labels.mkdir()
    drawn = label.drawn(mesh(), (200, 200))
    shades = np.zeros((20, 3), np.uint8)
    shades[[1, 2, 10, 11, 12]] = (200, 160, 140), (190, 150, 130), (240, 235, 230), (180, 60, 70), (180, 60, 70)
    for i in range(data.ASIDE + 1):
        Image.fromarray(shades[drawn]).save(photos / f"{i:03d}.jpg", quality=95)
        Image.fromarray(drawn).save(labels / f"{i:03d}.png")
    return photos, labels


def test_closeups_are_cut_from_faces(folders):
    train, aside = (data.from_faces(*folders, split) for split in ("train", "test"))
    assert len(train) == 3 * (data.ASIDE - 1) and len(aside) == 3 * 2, "lips and two eyes of each face; the first and every eighth after it kept aside"
    assert train.pixels.shape[1:] == train.areas.shape[1:] == (3, data.SIDE, data.SIDE)
    lips, eyes = train.only("lips"), train.only("eyes")
    assert (weak.median_colour(_lab((180, 60, 70)), torch.ones(1, 1, 1, dtype=torch.bool)) - lips.makeup).abs().max() < 4
    assert (weak.median_colour(_lab((200, 160, 140)), torch.ones(1, 1, 1, dtype=torch.bool)) - lips.skin).abs().max() < 4
    makeup = lips.areas[0, 0].nonzero().float()
    assert abs(makeup[:, 1].mean() / data.SIDE - 0.5) < 0.02 and abs(np.ptp(makeup[:, 1].numpy()) / data.SIDE - 0.59) < 0.05, "framed as the others are"
    assert torch.equal(eyes.areas[0].any((1, 2)), eyes.areas[1].any((1, 2)))
    # the picture's left eye is mirrored: both lie on the same side
    middle = [e[2].nonzero().float()[:, 1].mean() for e in eyes.areas[:2]]
    assert abs(middle[0] - middle[1]) < 3 and abs(middle[0] / data.SIDE - 0.444) < 0.03
    both = train + aside
    assert len(both) == len(train) + len(aside) and torch.equal(both.region[len(train) :], aside.region)


def test_no_labels(tmp_path):
    with pytest.raises(SystemExit, match="pttp.cagan.label"):
        data.from_faces(tmp_path, tmp_path, "train")


def _lab(rgb):
    from pttp.cagan.colour import rgb_to_lab

    return rgb_to_lab(torch.tensor(rgb).view(1, 3, 1, 1) / 255)
