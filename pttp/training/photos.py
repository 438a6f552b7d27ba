"""Photo collections as uint8 tensors, and random views cut from them on whatever device they live on."""
from __future__ import annotations

import csv
import io
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

PHOTO_FOLDERS = (
    "general_photos/images",
    "ecssd_salient/images",
    "oxford_pets_subset/images",
    "weizmann_horses/images",
    "animals_misc/images",
    "feral_cats/images",
    "coco_mini/images",
    "pennfudan_ped/images",
    "utkface_subset/images",
    "celebamask_mini/train/faces",
)


def data_root(given: str | None = None) -> Path:
    """The folder of training data: `given`, else $PTTP_DATA, else ../shared/data beside the checkout."""
    root = Path(given or os.environ.get("PTTP_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
    if not root.is_dir():
        raise SystemExit(f"no training data at {root}: give its folder with --data DIR")
    return root


@dataclass
class Photos:
    """`pixels` (N, 3, S, S) uint8, each picture in the top left corner of its canvas; `sizes` (N, 2) = (height, width); `labels` (N,), -1 = unknown."""

    pixels: Tensor
    sizes: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.pixels)

    def to(self, device) -> "Photos":
        return Photos(self.pixels.to(device), self.sizes.to(device), self.labels.to(device))


def tiny_imagenet(root: Path, split: str, wnids: list[str]) -> Photos:
    """`split` "train" or "val"; labels are ranks in `wnids`, the 1,000 ImageNet class ids in order."""
    rank = {w: i for i, w in enumerate(wnids)}
    pixels, labels = [], []
    with zipfile.ZipFile(root / "tiny_imagenet" / f"{split}.zip") as archive:
        for name in sorted(n for n in archive.namelist() if n.endswith(".webp")):
            pixels.append(np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB")))
            labels.append(rank[name.split("/")[-2]])
    stack = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()
    return Photos(stack, torch.full((len(stack), 2), stack.shape[-1]), torch.tensor(labels))


def larger_photos(root: Path, canvas: int = 224, keep_aside: bool = True, folders: Sequence[str] = PHOTO_FOLDERS) -> Photos:
    """Every photo of `folders`, long side `canvas`; those that are `held_out` are left out when `keep_aside`."""
    held = held_out(root) if keep_aside else set()
    return canvases([p for folder in folders for p in sorted((root / folder).glob("*.jpg")) if p not in held], canvas)


def photos_aside(root: Path, canvas: int = 224) -> Photos:
    """The validation photos of those folders."""
    return canvases(sorted(p for p in held_out(root) if p.exists()), canvas)


def canvases(paths: list[Path], canvas: int) -> Photos:
    """Photos from files, long side `canvas`, without labels."""
    pixels = np.zeros((len(paths), canvas, canvas, 3), np.uint8)
    sizes = []
    for slot, path in zip(pixels, paths, strict=True):
        picture = Image.open(path).convert("RGB")
        scale = canvas / max(picture.size)
        w, h = (max(1, round(s * scale)) for s in picture.size)
        slot[:h, :w] = np.asarray(picture.resize((w, h), Image.Resampling.LANCZOS))
        sizes.append((h, w))
    return Photos(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), torch.tensor(sizes), torch.full((len(paths),), -1))


def held_out(root: Path) -> set[Path]:
    """Photos that a validation split names: training must not see them. Those of coco_mini are not among them: the instance rooms, which alone measure on it,
    split it by its own listings."""
    aside = set()
    for folder in ("ecssd_salient", "weizmann_horses", "animals_misc", "feral_cats"):
        listing = root / folder / "val.txt"
        if listing.exists():
            aside |= {root / folder / "images" / (Path(n).stem + ".jpg") for n in listing.read_text().split()}
    index = root / "oxford_pets_subset" / "index.csv"
    if index.exists():
        with index.open() as f:
            aside |= {root / "oxford_pets_subset" / "images" / (Path(r["name"]).stem + ".jpg") for r in csv.DictReader(f) if r["official_split"] == "test"}
    return aside


def rand(n: int, low: float, high: float, generator: torch.Generator, device) -> Tensor:
    return (torch.rand(n, generator=generator) * (high - low) + low).to(device)


def random_views(photos: Photos, index: Tensor, size: int, generator: torch.Generator, area: tuple[float, float] = (0.25, 1.0), jitter: float = 0.3) -> Tensor:
    """Random resized crops (aspect 3/4 .. 4/3), mirrored half of the time, colours jittered: (B, 3, size, size) in [0, 1].

    Sampled at twice the size and averaged when the crop is shrunk, so that fine texture does not alias.
    """
    device = photos.pixels.device
    index = index.to(device)
    n = len(index)
    canvas = photos.pixels.shape[-1]
    h, w = photos.sizes[index].float().unbind(1)
    cut = rand(n, *area, generator, device) * h * w
    aspect = torch.exp(rand(n, -0.288, 0.288, generator, device))
    ch, cw = torch.minimum((cut / aspect).sqrt(), h), torch.minimum((cut * aspect).sqrt(), w)
    cy = ch / 2 + rand(n, 0, 1, generator, device) * (h - ch)
    cx = cw / 2 + rand(n, 0, 1, generator, device) * (w - cw)
    mirror = torch.where(rand(n, 0, 1, generator, device) < 0.5, -1.0, 1.0)
    theta = torch.zeros(n, 2, 3, device=device)
    theta[:, 0, 0], theta[:, 0, 2] = mirror * cw / canvas, 2 * cx / canvas - 1
    theta[:, 1, 1], theta[:, 1, 2] = ch / canvas, 2 * cy / canvas - 1
    factor = 2 if canvas > 1.4 * size else 1
    grid = F.affine_grid(theta, [n, 3, size * factor, size * factor], align_corners=False)
    last = torch.stack([2 * w - 1, 2 * h - 1], 1).view(n, 1, 1, 2) / canvas - 1  # centres of the last column and row: beyond lies the empty canvas
    grid = torch.minimum(grid, last)
    x = F.grid_sample(photos.pixels[index].float() / 255, grid, padding_mode="border", align_corners=False)
    if factor > 1:
        x = F.avg_pool2d(x, factor)
    return colour_jitter(x, jitter, generator)


def colour_jitter(x: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Brightness, contrast and saturation, each by up to `amount`."""
    n = len(x)
    b, c, s = (rand(n, 1 - amount, 1 + amount, generator, x.device).view(-1, 1, 1, 1) for _ in range(3))
    x = x * b
    x = x.mean((1, 2, 3), keepdim=True) * (1 - c) + x * c
    x = x.mean(1, keepdim=True) * (1 - s) + x * s
    return x.clamp(0, 1)
