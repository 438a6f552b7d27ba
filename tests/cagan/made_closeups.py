"""Close-ups drawn by hand: a skin-coloured square with lips, or with an eye and its brow, and the label map of each."""
from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 144
SKIN = {"dark": (92, 60, 45), "light": (226, 190, 170)}


def _ellipse(cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
    y, x = np.mgrid[:SIDE, :SIDE]
    return ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1


def lips(tone: str = "light", shade: tuple[int, int, int] = (170, 80, 90), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Photo (SIDE, SIDE, 3) uint8 and labels (SIDE, SIDE) uint8: lips with an open mouth."""
    rng = np.random.default_rng(seed)
    photo = np.broadcast_to(np.array(SKIN[tone], float), (SIDE, SIDE, 3)) + rng.normal(0, 4, (SIDE, SIDE, 1))
    labels = np.ones((SIDE, SIDE), np.uint8)
    mouth, inside = _ellipse(72, 76, 42, 22), _ellipse(72, 76, 26, 7)
    labels[mouth], labels[mouth & (np.mgrid[:SIDE, :SIDE][0] > 76)], labels[inside] = 11, 12, 10
    photo = np.where(mouth[..., None], np.array(shade) + rng.normal(0, 12, (SIDE, SIDE, 1)), photo)
    photo = np.where(inside[..., None], (225, 220, 210), photo)
    return np.clip(photo, 0, 255).astype(np.uint8), labels


def eye(tone: str = "light", label: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """The same for an eye, `label` 4 or 5, with its brow above."""
    photo = np.broadcast_to(np.array(SKIN[tone]), (SIDE, SIDE, 3)).astype(np.uint8).copy()
    labels = np.ones((SIDE, SIDE), np.uint8)
    ball, brow = _ellipse(72, 90, 30, 12), _ellipse(72, 45, 45, 8)
    labels[ball], labels[brow] = label, label + 2
    photo[ball], photo[brow] = (235, 235, 235), (60, 40, 30)
    return photo, labels


def write(root: Path) -> None:
    """celebamask_mini under `root`: three pictures of each kind to learn from, two to be tested on."""
    for split, count in (("train", 3), ("test", 2)):
        for folder in ("lips", "eye_left", "eye_right"):
            place = root / "celebamask_mini" / split / "closeups" / folder
            place.mkdir(parents=True)
            for i in range(count):
                tone = ("light", "dark")[i % 2]
                photo, labels = lips(tone, seed=i) if folder == "lips" else eye(tone, 4 if folder == "eye_left" else 5)
                Image.fromarray(photo).save(place / f"{i}.jpg", quality=95)
                Image.fromarray(labels).save(place / f"{i}.png")
