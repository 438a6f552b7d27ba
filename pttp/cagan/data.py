"""Close-ups of lips and eyes with the areas that the weak colour models look at, and random views of them."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from pttp.cagan import locate, weak
from pttp.cagan.colour import FAMILIES, TAIL, lab_of, lab_to_rgb, rgb_to_lab, scaled
from pttp.cagan.losses import gaussian_blur
from pttp.training.photos import colour_jitter, rand

FOLDERS = {"lips": ("lips",), "eyes": ("eye_left", "eye_right")}
TONES = {"dark": (0, 50), "medium": (50, 65), "light": (65, 101)}  # measured L* of the skin
SHARE = 0.6  # of the views that show lips
GREY = 0.04  # of the views: old photos are grey
FADE = 0.025  # of the side: how softly eye shadow ends
ASIDE = 8  # of the faces that were labelled by a machine, every so many are kept aside
SIDE = 144  # pixels of the close-ups


@dataclass
class Closeups:
    """N close-ups of side S: `pixels` (N, 3, S, S) uint8 RGB; `areas` (N, 3, S, S) bool, makeup, skin and inner mouth or eyeball; `region` (N,), rank in
    weak.REGIONS; `makeup` and `skin` (N, 3), the weak colours C_m and C_s in Lab."""

    pixels: Tensor
    areas: Tensor
    region: Tensor
    makeup: Tensor
    skin: Tensor

    def __len__(self) -> int:
        return len(self.pixels)

    def to(self, device) -> "Closeups":
        return Closeups(**{k: v.to(device) for k, v in vars(self).items()})

    def pick(self, index) -> "Closeups":
        return Closeups(**{k: v[index] for k, v in vars(self).items()})

    def __add__(self, other: "Closeups") -> "Closeups":
        return Closeups(**{k: torch.cat([v, getattr(other, k)]) for k, v in vars(self).items()})

    def only(self, region: str) -> "Closeups":
        """Those of one of weak.REGIONS."""
        return self.pick(self.region == weak.REGIONS.index(region))

    def tones(self) -> list[str]:
        """Of every close-up the name of its skin's tone."""
        return [next(name for name, (low, high) in TONES.items() if low <= lightness < high) for lightness in self.skin[:, 0].tolist()]


def read(root: Path, split: str) -> Closeups:
    """The close-ups of celebamask_mini, `split` "train" or "test". Right eyes are mirrored: every eye looks like a left one."""
    pixels, areas, region = [], [], []
    for rank, name in enumerate(weak.REGIONS):
        for folder in FOLDERS[name]:
            for path in sorted((root / "celebamask_mini" / split / "closeups" / folder).glob("*.jpg")):
                photo, labels = (np.asarray(Image.open(p)) for p in (path, path.with_suffix(".png")))
                if folder == "eye_right":
                    photo, labels = photo[:, ::-1], labels[:, ::-1]
                if (found := weak.areas(labels, name)) is None or photo.ndim != 3:
                    continue
                pixels.append(photo.transpose(2, 0, 1))
                areas.append(np.stack([found.makeup, found.skin, found.inside]))
                region.append(rank)
    if not pixels:
        raise SystemExit(f"no close-ups in {root / 'celebamask_mini' / split / 'closeups'}: give the folder of the collections with --data DIR")
    return _together(pixels, areas, region)


def from_faces(photos: Path, labels: Path, split: str) -> Closeups:
    """Close-ups cut from whole faces, `photos`/NAME.jpg, by the label maps `labels`/NAME.png that label.py drew, framed as a visitor's are; `split` "train", or "test"
    for those that are kept aside."""
    from pttp.cagan.train_locate import parts

    pixels, areas, region = [], [], []
    for i, path in enumerate(sorted(labels.glob("*.png"))):
        if (i % ASIDE == 0) != (split == "test"):
            continue
        drawn, photo = np.asarray(Image.open(path)), np.asarray(Image.open(photos / f"{path.stem}.jpg").convert("RGB"))
        points, shown = parts(drawn)
        if not shown.all():
            continue
        whole, face = torch.from_numpy(photo.copy()).permute(2, 0, 1)[None].float() / 255, locate.Face(points, shown, 1.0)
        for part in locate.PARTS:
            square, name = locate.closeup(face, part), "lips" if part == "lips" else "eyes"
            own = _under(square, drawn)
            close = (square.cut(whole, SIDE)[0] * 255).round().byte().numpy()
            if part == "left_eye":  # the picture's left one is the person's right one
                close, own = close[:, :, ::-1], own[:, ::-1]
            if (found := weak.areas(own, name)) is None:
                continue
            pixels.append(close.copy())
            areas.append(np.stack([found.makeup, found.skin, found.inside]))
            region.append(weak.REGIONS.index(name))
    if not pixels:
        raise SystemExit(f"no faces in {photos} that {labels} has label maps for: see python -m pttp.cagan.label --help")
    return _together(pixels, areas, region)


def _under(square: locate.Square, labels: np.ndarray) -> np.ndarray:
    """The labels (SIDE, SIDE) under a square; beyond the picture they are 0."""
    x, y = np.moveaxis(square.to_picture(np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), -1), SIDE).round().astype(int), -1, 0)
    within = (x >= 0) & (y >= 0) & (x < labels.shape[1]) & (y < labels.shape[0])
    return np.where(within, labels[y.clip(0, labels.shape[0] - 1), x.clip(0, labels.shape[1] - 1)], 0)


def _together(pixels: list[np.ndarray], areas: list[np.ndarray], region: list[int]) -> Closeups:
    stack, masks = torch.from_numpy(np.stack(pixels)), torch.from_numpy(np.stack(areas))
    lab = [rgb_to_lab(p.float() / 255) for p in stack]
    makeup, skin = (torch.cat([weak.median_colour(x[None], m[None, i]) for x, m in zip(lab, masks, strict=True)]) for i in (0, 1))
    return Closeups(stack, masks, torch.tensor(region), makeup, skin)


def fitted(closeups: Closeups, size: int) -> tuple[Tensor, Tensor]:
    """Every close-up whole, at `size`: pictures (N, 3, size, size) in [0, 1], of 8 bits, and areas (N, 3, size, size) bool."""
    x = F.interpolate(closeups.pixels.float() / 255, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    masks = F.interpolate(closeups.areas.float(), size=(size, size), mode="bilinear", align_corners=False)
    return (x * 255).round() / 255, masks > 0.5


def views(closeups: Closeups, index: Tensor, size: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random views: turned by up to 15 degrees, .7 to 1.2 of the close-up wide, shifted, mirrored, tinted, some of them soft.

    Pictures (n, 3, size, size) in [0, 1] and areas (n, 3, size, size) in [0, 1].
    """
    n, device = len(index), closeups.pixels.device
    angle, scale = rand(n, -0.26, 0.26, g, device), rand(n, 0.7, 1.2, g, device)
    mirror = torch.where(rand(n, 0, 1, g, device) < 0.5, -1.0, 1.0)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    theta = torch.stack([mirror * cos, -sin, rand(n, -0.12, 0.12, g, device), mirror * sin, cos, rand(n, -0.12, 0.12, g, device)], 1).view(n, 2, 3)
    grid = F.affine_grid(theta, [n, 3, size, size], align_corners=False)
    stack = torch.cat([closeups.pixels[index].float() / 255, closeups.areas[index].float()], 1)
    x, areas = F.grid_sample(stack, grid, padding_mode="reflection", align_corners=False).split(3, 1)
    eyes = closeups.region[index] == weak.REGIONS.index("eyes")
    if eyes.any():  # eye shadow has no edge
        soft = gaussian_blur(F.pad(areas[eyes, :1], (9, 9, 9, 9), mode="replicate"), 19, FADE * size)
        areas = areas.clone()
        areas[eyes, :1] = soft
    gains = torch.stack([rand(n, 0.95, 1.05, g, device) for _ in range(3)], 1)[:, :, None, None]
    x = colour_jitter((x * gains).clamp(0, 1), 0.15, g)
    grey = (rand(n, 0, 1, g, device) < GREY).view(-1, 1, 1, 1)
    x = torch.where(grey, x.mean(1, keepdim=True), x)
    if torch.rand((), generator=g) < 0.25:  # faces that are small in their photo
        small = int(torch.randint(size // 3, size, (), generator=g))
        x = F.interpolate(F.interpolate(x, size=(small, small), mode="bilinear", antialias=True), size=(size, size), mode="bilinear", align_corners=False)
    return x, areas


def targets(closeups: Closeups, region: Tensor, g: torch.Generator) -> Tensor:
    """Colours to ask for, scaled Lab (n, 3), all within sRGB: a third the makeup of other pictures, 40 % near cosmetic shades, the rest anything a screen shows."""
    n = len(region)
    shades = torch.tensor(np.stack([lab_of(s) for family, members in FAMILIES.items() if family not in TAIL for s in members])).float()
    near = shades[torch.randint(len(shades), (n,), generator=g)]
    others = torch.stack([_any_of(closeups, int(r), g) for r in region])
    anything = rgb_to_lab(torch.rand(n, 3, generator=g)[:, :, None, None])[..., 0, 0]
    kind = torch.rand(n, 1, generator=g)
    noise = torch.randn(n, 3, generator=g) * torch.tensor([6.0, 8.0, 8.0])
    lab = torch.where(kind < 0.33, others + noise, torch.where(kind < 0.73, near + noise, anything))
    return scaled(rgb_to_lab(lab_to_rgb(lab[:, :, None, None]))[..., 0, 0]).to(closeups.pixels.device)


def _any_of(closeups: Closeups, region: int, g: torch.Generator) -> Tensor:
    here = torch.nonzero(closeups.region == region).flatten()
    return closeups.makeup[here[int(torch.randint(len(here), (), generator=g))]].cpu()


def batches(closeups: Closeups, batch: int, size: int):
    """Views with their areas, colours to ask for, and regions. Rare skin tones come more often than there are pictures of them."""
    tones = np.array(closeups.tones())
    region = closeups.region.cpu().numpy()
    weights = np.zeros(len(closeups))
    for rank, share in enumerate((SHARE, 1 - SHARE)):
        for tone in TONES:
            here = (region == rank) & (tones == tone)
            weights[here] = share / np.sqrt(max(1, here.sum()))
        weights[region == rank] *= share / max(1e-9, weights[region == rank].sum())
    weights = torch.from_numpy(weights)

    def draw(step: int, g: torch.Generator) -> tuple[Tensor, ...]:
        index = torch.multinomial(weights, batch, replacement=True, generator=g).to(closeups.pixels.device)
        x, areas = views(closeups, index, size, g)
        shown = closeups.region[index]
        return x, areas, targets(closeups, shown, g), shown

    return draw
