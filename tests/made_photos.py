"""Small made-up collections in the layout of ../shared/data: discs of one colour each on a dark ground, so that a mask can be told from its picture."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from pttp import trunk

H, W = 60, 80
GROUND = (20, 30, 40)


def disc(x: float, y: float, r: float) -> np.ndarray:
    """bool (H, W)."""
    rows, columns = np.mgrid[:H, :W] + 0.5
    return np.hypot(columns - x, rows - y) < r


def painted(*objects: tuple[np.ndarray, tuple[int, int, int]]) -> np.ndarray:
    photo = np.full((H, W, 3), GROUND, np.uint8)
    for mask, colour in objects:
        photo[mask] = colour
    return photo


def save(path: Path, array: np.ndarray, mode: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(array)
    (picture.convert(mode) if mode else picture).save(path, **({"quality": 98, "subsampling": 0} if path.suffix == ".jpg" else {}))


def circle(x: float, y: float, r: float, corners: int = 40) -> list[float]:
    angles = np.arange(corners) * 2 * np.pi / corners
    return np.stack([x + r * np.cos(angles), y + r * np.sin(angles)], 1).flatten().tolist()


def make(root: Path) -> Path:
    """One photo or two of each collection and split; the objects are red, or the second one green."""
    red, green = (230, 20, 20), (20, 230, 20)
    one, two = disc(25, 30, 16), disc(60, 25, 12)
    categories = [{"id": 1, "name": "person", "supercategory": "person"}, {"id": 3, "name": "car", "supercategory": "vehicle"}, {"id": 20, "name": "sheep", "supercategory": "animal"}, {"id": 47, "name": "cup", "supercategory": "kitchen"}]
    for number, split in enumerate(("train", "val")):
        name = f"{number:012d}.jpg"
        save(root / "coco_mini" / "images" / name, painted((one, red), (two, green)))
        objects = [(1, circle(25, 30, 16)), (3, circle(60, 25, 12)), (47, [1, 1, 2, 2])]  # the last encloses nothing
        annotations = [{"id": i, "image_id": 9, "category_id": c, "segmentation": [p], "bbox": [0, 0, 1, 1], "area": 1.0, "iscrowd": 0} for i, (c, p) in enumerate(objects)]
        listing = {"images": [{"id": 9, "file_name": name, "width": W, "height": H}], "annotations": annotations, "categories": categories}
        (root / "coco_mini" / f"instances_{split}.json").write_text(json.dumps(listing))
    for folder, names in (("feral_cats", ("cat1", "cat2")), ("pennfudan_ped", ("Fudan1",))):
        for name in names:
            save(root / folder / "images" / f"{name}.jpg", painted((one, red), (two, green)))
            save(root / folder / "instances" / f"{name}.png", (one + 2 * two).astype(np.uint8))
    (root / "feral_cats" / "val.txt").write_text("cat2\n")
    for name, held in (("pet1", False), ("pet2", True)):
        save(root / "oxford_pets_subset" / "images" / f"{name}.jpg", painted((one, red)))
        sure, maybe = disc(25, 30, 13), disc(25, 30, 19)
        save(root / "oxford_pets_subset" / "masks" / f"{name}.png", np.where(sure, 1, np.where(maybe, 3, 2)).astype(np.uint8))
        save(root / "oxford_pets_subset" / "alpha" / f"{name}.png", one.astype(np.uint8) * 255)
    (root / "oxford_pets_subset" / "index.csv").write_text("name,breed,species,official_split\npet1,x,dog,trainval\npet2,x,cat,test\n")
    singles = {"weizmann_horses": ("horse1", "horse2"), "animals_misc": ("emu_1", "farm_2"), "ecssd_salient": ("0001", "0002")}
    for folder, names in singles.items():
        both = folder == "ecssd_salient"
        for name in names:
            save(root / folder / "images" / f"{name}.jpg", painted((one, red), (two, green)))
            save(root / folder / "masks" / f"{name}.png", (one | two if both else one).astype(np.uint8) * 255, "1")
        (root / folder / "val.txt").write_text(f"{names[1]}\n")
    return root


def with_trunk(root: Path) -> Path:
    """The collections, and beside them trunk.safetensors: an EfficientNet-Lite0 with random weights, without counters as timm's file is."""
    make(root)
    torch.manual_seed(0)
    save_file({k: v.contiguous() for k, v in trunk.Lite0().state_dict().items() if "num_batches" not in k}, root / "trunk.safetensors")
    return root
