"""Photos with object masks from seven collections, and random views of them: what the instance rooms (PointRend, PolarMask) learn from.

The collections do not mark the same things: coco_mini marks every object of 80 kinds, feral_cats every cat but no bench, ecssd_salient the one main thing of
a photo and does not say what it is. So an object's class may be unknown (-1), a pixel may be left open, and every photo says of which classes it shows all
objects: only for these is an unmarked region known to be empty.

Masks are kept run-length encoded (pycocotools). Boxes are (x0, y0, x1, y1) in pixels, x1 and y1 exclusive: a pixel i covers i .. i + 1.
"""
from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from pycocotools import mask as rle
from scipy import ndimage
from torch import Tensor

from pttp.training import mattes
from pttp.training.photos import colour_jitter, held_out

CLASSES = ("person", "cat", "dog", "horse", "other animal", "vehicle", "object")
UNKNOWN = -1
SHARES = {  # of the views: by how much a collection teaches, not by its size
    "coco_mini": 0.32,
    "feral_cats": 0.19,
    "oxford_pets_subset": 0.13,
    "weizmann_horses": 0.11,
    "ecssd_salient": 0.12,
    "animals_misc": 0.07,
    "pennfudan_ped": 0.06,
}
COMPLETE = {"coco_mini": CLASSES, "feral_cats": ("cat",), "oxford_pets_subset": ("cat", "dog")}  # the other folders mark one thing, or some
ANIMALS = ("bird", "sheep", "cow", "elephant", "bear", "zebra", "giraffe")
MISC = {"cat": "cat", "elephant": "other animal", "emu": "other animal", "flamingo": "other animal", "rhino": "other animal"}  # farm: a cow, a sheep or a horse
SEPARATE = 0.1  # of the largest part's area: so large a part of a salient mask is an object of its own
LEAST = 16  # pixels of an object in a view: with fewer, nobody can say what it is
VERSION = 1  # of the file of fine masks: raise it when `mattes.repaired` changes
GREY = (127, 127, 127)  # beyond the photo: zero for the trunk
Mask = NDArray[np.bool_]


def encode(mask: Mask) -> dict:
    """bool (H, W) -> run lengths."""
    return rle.encode(np.asfortranarray(mask, np.uint8))


def decode(runs: dict) -> Mask:
    """Run lengths -> bool (H, W)."""
    return rle.decode(runs).astype(bool)


def class_of(name: str, supercategory: str = "") -> int:
    """Our class of a COCO category."""
    name = "other animal" if name in ANIMALS else "vehicle" if supercategory == "vehicle" else name
    return CLASSES.index(name if name in CLASSES else "object")


@dataclass(frozen=True)
class Photo:
    """`pixels` (H, W, 3) uint8 RGB; of its n objects `masks` (run lengths) and `labels` (n,), -1 where the class is unknown; `complete`: the classes of which
    every object is marked; `unsure`: pixels (run lengths) that the labeller left open, or None."""

    folder: str
    name: str
    pixels: NDArray[np.uint8]
    masks: tuple[dict, ...]
    labels: tuple[int, ...]
    complete: tuple[str, ...] = ()
    unsure: dict | None = None

    def sure(self) -> Mask:
        """bool (H, W): the pixels that count."""
        return ~decode(self.unsure) if self.unsure else np.ones(self.pixels.shape[:2], bool)


def read(root: Path, split: str, cache: Path | None = None, folders: Sequence[str] = tuple(SHARES), say: Callable[[str], None] = print) -> list[Photo]:
    """The photos of `split`, "train" or "val", by folder and name; no photo is in both. PennFudan has no validation photos.

    In "train" the masks of pets, horses, animals_misc and ecssd_salient are fine: alpha > .5 of the repaired mattes, which closes the pets' open band.
    They take a minute or two to make and are kept in the folder `cache`, if given. In "val" masks are as people drew them.
    """
    fine = fine_masks(root, cache, folders, say) if split == "train" else {}
    found = []
    for folder in folders:
        if (root / folder).is_dir():
            found += (_coco if folder == "coco_mini" else _instance_maps if folder in ("feral_cats", "pennfudan_ped") else _single)(root, folder, split, fine)
    return found


def _pixels(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def _coco(root: Path, folder: str, split: str, fine: dict) -> list[Photo]:
    listing = json.loads((root / folder / f"instances_{split}.json").read_text(encoding="utf-8"))
    classes = {c["id"]: class_of(c["name"], c["supercategory"]) for c in listing["categories"]}
    photos = {}
    for image in sorted(listing["images"], key=lambda i: i["file_name"]):
        photos[image["id"]] = Photo(folder, Path(image["file_name"]).stem, _pixels(root / folder / "images" / image["file_name"]), (), (), COMPLETE[folder])
    objects: dict[int, list[tuple[dict, int]]] = {i: [] for i in photos}
    for a in listing["annotations"]:
        h, w = photos[a["image_id"]].pixels.shape[:2]
        polygons = [p for p in a["segmentation"] if len(p) >= 6]
        runs = rle.merge(rle.frPyObjects(polygons, h, w)) if polygons else None
        if runs and rle.area(runs):
            objects[a["image_id"]].append((runs, classes[a["category_id"]]))
    return [replace(p, masks=tuple(m for m, _ in objects[i]), labels=tuple(c for _, c in objects[i])) for i, p in photos.items()]


def _of_split(root: Path, folder: str, split: str) -> list[Path]:
    held = held_out(root)
    return [p for p in sorted((root / folder / "images").glob("*.jpg")) if (p in held) == (split == "val")]


def _instance_maps(root: Path, folder: str, split: str, fine: dict) -> list[Photo]:
    label = CLASSES.index("cat" if folder == "feral_cats" else "person")
    photos = []
    for path in _of_split(root, folder, split):
        with Image.open(root / folder / "instances" / f"{path.stem}.png") as file:
            numbers = np.asarray(file)
        masks = tuple(encode(numbers == i) for i in np.unique(numbers) if i)
        photos.append(Photo(folder, path.stem, _pixels(path), masks, (label,) * len(masks), COMPLETE.get(folder, ())))
    return photos


def _single(root: Path, folder: str, split: str, fine: dict) -> list[Photo]:
    species = {}
    if folder == "oxford_pets_subset":
        with (root / folder / "index.csv").open() as file:
            species = {Path(row["name"]).stem: row["species"] for row in csv.DictReader(file)}
    photos = []
    for source in mattes.sources(root, split, [folder]):
        name = source.photo.stem
        known = {"oxford_pets_subset": species.get(name), "weizmann_horses": "horse", "animals_misc": MISC.get(name.split("_")[0])}.get(folder)
        label = CLASSES.index(known) if known else UNKNOWN
        unsure, runs = None, fine.get((folder, name))
        if runs is None:
            drawn = source.read()[1]
            runs = encode(drawn > mattes.UNSURE)
            unsure = encode(drawn == mattes.UNSURE) if (drawn == mattes.UNSURE).any() else None
        masks = tuple(encode(m) for m in parts(decode(runs))) if folder == "ecssd_salient" else (runs,)
        photos.append(Photo(folder, name, _pixels(source.photo), masks, (label,) * len(masks), COMPLETE.get(folder, ()), unsure))
    return photos


def parts(mask: Mask) -> list[Mask]:
    """A mask that may show several objects, in pieces: every connected part that is large beside the largest; small ones stay with the largest."""
    numbers, count = ndimage.label(mask, np.ones((3, 3)))
    if count < 2:
        return [mask]
    areas = ndimage.sum_labels(mask, numbers, np.arange(1, count + 1))
    first = int(areas.argmax())
    others = [i for i in np.flatnonzero(areas >= SEPARATE * areas[first]).tolist() if i != first]
    separate = [numbers == i + 1 for i in others]
    return [mask & ~np.any(separate, 0) if separate else mask, *separate]


def fine_masks(root: Path, cache: Path | None, folders: Sequence[str] = mattes.FOLDERS, say: Callable[[str], None] = print) -> dict[tuple[str, str], dict]:
    """(folder, name) -> run lengths of alpha > .5 of the repaired mattes of all training photos that have a soft matte."""
    chosen = [s for s in mattes.sources(root, "train", [f for f in mattes.FOLDERS if f in folders and (root / f).is_dir()]) if s.soft]
    file = cache / f"fine-masks-v{VERSION}.json" if cache else None
    made = json.loads(file.read_text(encoding="utf-8")) if file and file.is_file() else {}
    missing = [s for s in chosen if f"{s.folder}/{s.photo.stem}" not in made]
    for i, source in enumerate(missing):
        runs = encode(mattes.repaired(*source.read()) > 127)
        made[f"{source.folder}/{source.photo.stem}"] = {"size": runs["size"], "counts": runs["counts"].decode("ascii")}
        if (i + 1) % 200 == 0:
            say(f"fine masks: {i + 1} of {len(missing)}")
    if file and missing:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(made), encoding="utf-8")
        partial.replace(file)  # atomic: a kill leaves no half-written file behind
    wanted = {f"{s.folder}/{s.photo.stem}" for s in chosen}
    return {tuple(k.split("/")): {"size": v["size"], "counts": v["counts"].encode("ascii")} for k, v in made.items() if k in wanted}


def deepest(mask: Mask) -> tuple[int, int]:
    """The pixel (x, y) of a non-empty `mask` that is farthest from everything outside of it, the picture's border included: where a person would click."""
    at = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1].argmax()
    return int(at % mask.shape[1]), int(at // mask.shape[1])


@dataclass
class Views:
    """B pictures of side S with R objects in all.

    `images` (B, 3, S, S) RGB in [0, 1]; `masks` (R, S, S) bool, the visible part of each object; `boxes` (R, 4) around it; `labels` (R,), -1 = unknown;
    `picture` (R,) its picture; `sure` (B, S, S) bool, False where nothing is known; `complete` (B, K) bool: are all objects of a class marked.
    """

    images: Tensor
    masks: Tensor
    boxes: Tensor
    labels: Tensor
    picture: Tensor
    sure: Tensor
    complete: Tensor

    def to(self, device) -> "Views":
        return Views(**{k: v.to(device, non_blocking=True) for k, v in vars(self).items()})


class _Canvas:
    """One view in the making."""

    def __init__(self, size: int):
        self.image = Image.new("RGB", (size, size), GREY)
        self.sure = np.ones((size, size), bool)
        self.objects: list[tuple[Mask, int]] = []

    def show(self, photo: Photo, m: NDArray[np.float64]) -> None:
        """Begin with `photo`, of which the canvas sees what the affine map `m` (2, 3), canvas -> photo, says."""
        warped = _warp(Image.fromarray(photo.pixels), m, self.image.size)
        inside = _warp(Image.new("L", photo.pixels.shape[1::-1], 255), m, self.image.size)
        self.image.paste(warped, mask=inside)
        self.objects = [(_warp_mask(decode(runs), m, len(self.sure)), label) for runs, label in zip(photo.masks, photo.labels, strict=True)]
        if photo.unsure:
            self.sure &= ~_warp_mask(decode(photo.unsure), m, len(self.sure))

    def paste(self, photo: Photo, which: int, m: NDArray[np.float64]) -> None:
        """Object `which` of `photo` in front of everything, its edge softened over a pixel."""
        mask = _warp_mask(decode(photo.masks[which]), m, len(self.sure))
        if np.count_nonzero(mask) < LEAST:
            return
        soft = Image.fromarray(mask.astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(0.7))
        self.image.paste(_warp(Image.fromarray(photo.pixels), m, self.image.size), mask=soft)
        self.sure |= mask
        self.objects = [(other & ~mask, label) for other, label in self.objects] + [(mask, photo.labels[which])]
        if photo.unsure:
            self.sure &= ~_warp_mask(decode(photo.unsure), m, len(self.sure))

    def settle(self) -> list[tuple[Mask, int, tuple[int, int, int, int]]]:
        """Objects with their boxes; those of which too little is left become pixels of which nothing is known."""
        seen = []
        for mask, label in self.objects:
            if np.count_nonzero(mask) >= LEAST:
                rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
                seen.append((mask, label, (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)))
            else:
                self.sure &= ~mask
        return seen


def _warp(image: Image.Image, m: NDArray[np.float64], size: tuple[int, int]) -> Image.Image:
    """`image` as seen through the affine map `m`, canvas -> image; sampled finer and averaged where it shrinks."""
    if np.hypot(*m[:, 0]) > 1.25:
        return image.transform((2 * size[0], 2 * size[1]), Image.Transform.AFFINE, (m * [0.5, 0.5, 1]).flatten().tolist(), Image.Resampling.BILINEAR).reduce(2)
    return image.transform(size, Image.Transform.AFFINE, m.flatten().tolist(), Image.Resampling.BILINEAR)


def _warp_mask(mask: Mask, m: NDArray[np.float64], size: int) -> Mask:
    """The same for a mask. Only the part of the canvas that the mask's box can reach is computed."""
    out = np.zeros((size, size), bool)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return out
    x0, y0, x1, y1 = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    corners = np.linalg.inv(m[:, :2]) @ (np.array([[x0, x1, x0, x1], [y0, y0, y1, y1]]) - m[:, 2:])
    low, high = np.floor(corners.min(1) - 1).clip(0, size).astype(int), np.ceil(corners.max(1) + 1).clip(0, size).astype(int)
    if (high <= low).any():
        return out
    here = np.column_stack([m[:, :2], m[:, :2] @ low + m[:, 2]])
    part = _warp(Image.fromarray(mask.astype(np.uint8) * 255), here, tuple((high - low).tolist()))
    out[low[1] : high[1], low[0] : high[0]] = np.asarray(part) > 127
    return out


def _map(scale: float, turn: float, flip: bool, source: tuple[float, float], target: tuple[float, float], stretch: float = 1.0) -> NDArray[np.float64]:
    """Canvas -> photo: `source` (x, y) of the photo is seen at `target` of the canvas, enlarged by `scale`, turned by `turn` radians, `stretch`ed sideways."""
    c, s = np.cos(turn) / scale, np.sin(turn) / scale
    linear = np.array([[c, -s], [s, c]]) * [-1 if flip else 1, 1] * [1 / stretch, stretch]
    return np.column_stack([linear, np.asarray(source) - linear @ target])


def _look(photo: Photo, size: int, rng: np.random.Generator, span: tuple[float, float], turn: float) -> NDArray[np.float64]:
    """A random view of `photo`: its long side spans `span` canvases, and most of the canvas shows it."""
    h, w = photo.pixels.shape[:2]
    scale = size * np.exp(rng.uniform(*np.log(span))) / max(h, w)
    free = [(size - side * scale) / 2 for side in (w, h)]  # negative: the photo is larger than the canvas
    target = [size / 2 + rng.uniform(-abs(f), abs(f)) for f in free]
    return _map(scale, rng.normal(0, turn) * (rng.random() < 0.5), rng.random() < 0.5, (w / 2, h / 2), target, np.exp(rng.uniform(-0.12, 0.12)))


def _drop(photo: Photo, which: int, size: int, rng: np.random.Generator, turn: float) -> NDArray[np.float64]:
    """Where object `which` of `photo` is pasted: its long side between a seventh and two thirds of the canvas, its centre anywhere."""
    x, y, w, h = rle.toBbox(photo.masks[which])
    scale = size * np.exp(rng.uniform(np.log(0.15), np.log(0.65))) / max(w, h)
    return _map(min(scale, 2.0), rng.normal(0, turn), rng.random() < 0.5, (x + w / 2, y + h / 2), rng.uniform(0.05, 0.95, 2) * size, np.exp(rng.uniform(-0.12, 0.12)))


def cutouts(photos: Sequence[Photo]) -> list[tuple[int, int]]:
    """(photo, object) of the objects that can be pasted elsewhere: not small, and seen whole, as far as their distance from the photo's border tells."""
    found = []
    for i, photo in enumerate(photos):
        height, width = photo.pixels.shape[:2]
        for j, runs in enumerate(photo.masks):
            x, y, w, h = rle.toBbox(runs)
            if rle.area(runs) >= 1200 and x >= 2 and y >= 2 and x + w <= width - 2 and y + h <= height - 2:
                found.append((i, j))
    return found


def few(photos: Sequence[Photo], limit: int) -> list[Photo]:
    """The first `limit` photos of each collection, for a quick trial."""
    return [p for folder in {p.folder: 0 for p in photos} for p in [p for p in photos if p.folder == folder][:limit]]


def sampler(
    photos: Sequence[Photo], size: int, batch: int, span: tuple[float, float] = (0.85, 1.8), turn: float = 0.15, jitter: float = 0.35, paste: float = 0.4
) -> Callable[[torch.Generator], Views]:
    """A function that draws `batch` random views of side `size`, everything random from its generator.

    Photos are drawn by SHARES of their folders; onto a share `paste` of the views up to three cut-outs of other photos are pasted.
    """
    by_folder = {folder: [i for i, p in enumerate(photos) if p.folder == folder] for folder in SHARES}
    by_folder = {folder: index for folder, index in by_folder.items() if index}
    shares = np.array([SHARES[folder] for folder in by_folder])
    loose = cutouts(photos)
    loose_in = {folder: [c for c in loose if photos[c[0]].folder == folder] for folder in by_folder}
    donors = [folder for folder, some in loose_in.items() if some]

    def one(rng: np.random.Generator) -> tuple[_Canvas, Photo]:
        photo = photos[rng.choice(by_folder[rng.choice(list(by_folder), p=shares / shares.sum())])]
        canvas = _Canvas(size)
        canvas.show(photo, _look(photo, size, rng, span, turn))
        if donors and rng.random() < paste:
            for _ in range(rng.integers(1, 4)):
                some = loose_in[donors[rng.integers(len(donors))]]
                i, j = some[rng.integers(len(some))]
                canvas.paste(photos[i], j, _drop(photos[i], j, size, rng, turn))
        return canvas, photo

    def draw(generator: torch.Generator) -> Views:
        rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        made = [one(rng) for _ in range(batch)]
        views = collate([(canvas, photo.complete) for canvas, photo in made])
        views.images = colour_jitter(views.images, jitter, generator)
        return views

    return draw


def collate(made: Sequence[tuple[_Canvas, tuple[str, ...]]]) -> Views:
    seen = [canvas.settle() for canvas, _ in made]
    masks = [mask for objects in seen for mask, _, _ in objects]
    side = made[0][0].image.width
    return Views(
        images=torch.from_numpy(np.stack([np.asarray(canvas.image) for canvas, _ in made])).permute(0, 3, 1, 2).float() / 255,
        masks=torch.from_numpy(np.stack(masks)) if masks else torch.zeros(0, side, side, dtype=torch.bool),
        boxes=torch.tensor([box for objects in seen for _, _, box in objects], dtype=torch.float32).view(-1, 4),
        labels=torch.tensor([label for objects in seen for _, label, _ in objects], dtype=torch.long),
        picture=torch.tensor([i for i, objects in enumerate(seen) for _ in objects], dtype=torch.long),
        sure=torch.from_numpy(np.stack([canvas.sure for canvas, _ in made])),
        complete=torch.tensor([[c in complete for c in CLASSES] for _, complete in made]),
    )
