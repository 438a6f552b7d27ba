"""Animals with mattes: photos, hand-made masks and soft mattes of several collections, mended into one training set, and pictures composed from it.

The soft mattes were made by a network: fine borders, but now and then it errs about what the object is. The masks were made by people: right about the
object, coarse at its border. So the mask decides what is animal, and the matte only how the border fades (`repaired`). Foregrounds are estimated (pymatting),
so that no old background shines through where an animal is put in front of another photo (`compose`, after RSSN of the GFM paper).
"""
from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from pttp.training.photos import Photos, colour_jitter, held_out, rand, random_views

FOLDERS = ("oxford_pets_subset", "weizmann_horses", "animals_misc", "ecssd_salient")
CATS = "feral_cats"  # hand-made masks only
EVERY = (*FOLDERS, CATS)
BAND = 0.02  # half the width of the border band, as a share of the square root of the animal's area
UNSURE = 128
VERSION = 1  # of the prepared file: raise it when `repaired` or `foreground` changes
Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Source:
    """One photo on disk with its mask and, if there is one, its soft matte."""

    folder: str
    photo: Path
    mask: Path
    soft: Path | None

    def read(self) -> tuple[Bytes, Bytes, Bytes | None]:
        """Photo (H, W, 3) RGB, mask (H, W) with 255 = animal, 0 = not, 128 = the labeller left it open, soft matte (H, W) 0..255 or None."""
        mask = np.asarray(Image.open(self.mask))
        mask = np.array([0, 255, 0, UNSURE], np.uint8)[mask] if self.folder == "oxford_pets_subset" else np.where(mask > 0, 255, 0).astype(np.uint8)
        soft = np.asarray(Image.open(self.soft).convert("L")) if self.soft else None
        return np.asarray(Image.open(self.photo).convert("RGB")), mask, soft


def sources(root: Path, split: str, folders: Sequence[str] = FOLDERS) -> list[Source]:
    """The photos of a split, "train" or "val", sorted by folder and name; "val" is what `held_out` names, and no photo is in both."""
    held, found = held_out(root), []
    for folder in folders:
        for photo in sorted((root / folder / "images").glob("*.jpg")):
            mask, soft = (root / folder / kind / f"{photo.stem}.png" for kind in ("instances" if folder == CATS else "masks", "alpha"))
            if (photo in held) == (split == "val") and mask.is_file():
                found.append(Source(folder, photo, mask, soft if soft.is_file() else None))
    return found


def border(mask: Bytes, share: float = BAND) -> Bytes:
    """`mask` with the pixels near its border set to 128: nearer than `share` of the square root of the animal's area, and than one pixel. A mask that has open
    pixels of its own stays as it is."""
    from scipy.ndimage import distance_transform_edt

    if (mask == UNSURE).any() or len(np.unique(mask)) < 2:
        return mask
    inside = mask > UNSURE
    near = max(1.0, share * np.sqrt(np.count_nonzero(inside)))
    return np.where(distance_transform_edt(inside) + distance_transform_edt(~inside) <= near, UNSURE, mask).astype(np.uint8)


def closed_form(photo: Bytes, trimap: Bytes) -> Bytes:
    """Closed-form matting (Levin et al., 2008) of `photo` (H, W, 3) from a `trimap` (H, W) of 0, 128 and 255: (H, W) 0..255."""
    from pymatting import estimate_alpha_cf

    known = np.where(trimap == UNSURE, 0.5, trimap / 255.0)
    return np.rint(255 * np.clip(estimate_alpha_cf(photo / 255.0, known), 0, 1)).astype(np.uint8)


def repaired(photo: Bytes, mask: Bytes, soft: Bytes | None, share: float = BAND) -> Bytes:
    """The matte (H, W) 0..255 of an animal; arguments as `Source.read` gives them.

    Outside the band of `border` the mask is the matte, inside it `soft` is. Where the two disagree over more than a border's width, as along a tail that
    the network overlooked, `soft` is not believed there either: the mask, slightly blurred, takes its place, and closed-form matting where the mask
    itself is open or where there is no `soft`.
    """
    from scipy.ndimage import gaussian_filter

    trimap = border(mask, share)
    sure, animal = trimap != UNSURE, mask > UNSURE
    if sure.all() or not (trimap == 255).any() or not (trimap == 0).any():
        return trimap
    if soft is None:
        return closed_form(photo, trimap)
    said = mask != UNSURE
    width = max(1.0, share * np.sqrt(np.count_nonzero(animal))) * (1 if said.all() else 2)
    wrong = np.abs(soft / 255.0 - animal) * said
    wrong = gaussian_filter(wrong, width) / (gaussian_filter(said.astype(float), width) + 1e-6)
    distrust = np.clip((wrong - 0.35) / 0.15, 0, 1) * ~sure
    if said.all():
        other = gaussian_filter(255.0 * animal, 1)
    else:
        other = closed_form(photo, trimap) if distrust.sum() > 20 else soft
    return np.where(sure, trimap, np.rint((1 - distrust) * soft + distrust * other)).astype(np.uint8)


def foreground(photo: Bytes, alpha: Bytes) -> Bytes:
    """The animal's own colours (H, W, 3), also where `alpha` (H, W) 0..255 lets the background shine through `photo` (H, W, 3)."""
    from pymatting import estimate_foreground_ml

    colours = estimate_foreground_ml(photo / 255.0, alpha / 255.0)
    return np.rint(255 * np.clip(colours, 0, 1)).astype(np.uint8)


def iou(alpha: NDArray[np.floating], mask: Bytes) -> float:
    """Intersection over union of `alpha` > 0.5 and a `mask` as `Source.read` gives it, over the pixels that the mask does not leave open."""
    ours, theirs, said = alpha > 0.5, mask == 255, mask != UNSURE
    return float(np.count_nonzero(ours & theirs) / max(1, np.count_nonzero((ours | theirs) & said)))


@dataclass
class Mattes:
    """N photos on square canvases of side S, each in the top left corner, uint8: `pixels` and `foreground` (N, 3, S, S), `alpha` and `mask` (N, 1, S, S), the
    mask as in `Source.read`. `sizes` (N, 2) = (height, width); `folders` (N,) = rank in EVERY."""

    pixels: Tensor
    foreground: Tensor
    alpha: Tensor
    mask: Tensor
    sizes: Tensor
    folders: Tensor

    def __len__(self) -> int:
        return len(self.pixels)

    def to(self, device) -> "Mattes":
        return Mattes(**{k: v.to(device) for k, v in vars(self).items()})


def prepare(chosen: Sequence[Source], canvas: int = 320, say: Callable[[str], None] = print) -> Mattes:
    """Read, mend and estimate; a photo larger than the `canvas` is shrunk. About a third of a second a photo."""
    n = len(chosen)
    made = {"pixels": 3, "foreground": 3, "alpha": 1, "mask": 1}
    made = {k: torch.zeros(n, chs, canvas, canvas, dtype=torch.uint8) for k, chs in made.items()}
    sizes = torch.zeros(n, 2, dtype=torch.long)
    for i, source in enumerate(chosen):
        photo, mask, soft = source.read()
        scale = canvas / max(mask.shape)
        if scale < 1:
            h, w = (max(1, round(side * scale)) for side in mask.shape)
            photo, soft = (x if x is None else np.asarray(Image.fromarray(x).resize((w, h), Image.Resampling.LANCZOS)) for x in (photo, soft))
            mask = np.asarray(Image.fromarray(mask).resize((w, h), Image.Resampling.NEAREST))
        alpha = repaired(photo, mask, soft)
        h, w = mask.shape
        sizes[i] = torch.tensor([h, w])
        for name, x in (("pixels", photo), ("foreground", foreground(photo, alpha)), ("alpha", alpha), ("mask", mask)):
            made[name][i, :, :h, :w] = torch.from_numpy(np.array(x)).reshape(h, w, -1).permute(2, 0, 1)
        if (i + 1) % 200 == 0:
            say(f"mattes: {i + 1} of {n}")
    return Mattes(**made, sizes=sizes, folders=torch.tensor([EVERY.index(source.folder) for source in chosen], dtype=torch.long))


def mattes(root: Path, split: str, cache: Path, canvas: int = 320, say: Callable[[str], None] = print, chosen: Sequence[Source] | None = None) -> Mattes:
    """The photos of a `split` that have a soft matte, or those that are `chosen`, prepared once and then read from a file in the folder `cache`."""
    from safetensors.torch import load_file, save_file

    if chosen is None:
        chosen = [source for source in sources(root, split) if source.soft]
    names = hashlib.sha256("\n".join(f"{source.folder}/{source.photo.stem} {bool(source.soft)}" for source in chosen).encode()).hexdigest()[:8]
    file = cache / f"mattes-{split}-{canvas}-{names}-v{VERSION}.safetensors"
    if not file.is_file():
        made = prepare(chosen, canvas, say)
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        save_file(vars(made), partial)
        partial.replace(file)  # atomic: a kill leaves no half-written file behind
    return Mattes(**load_file(file))


class Views(NamedTuple):
    """A batch in [0, 1]: `image` (B, 3, S, S) is `fg` (B, 3, S, S) over `bg` (B, 3, S, S) by `alpha` (B, 1, S, S)."""

    image: Tensor
    alpha: Tensor
    fg: Tensor
    bg: Tensor


def matte_views(
    data: Mattes,
    index: Tensor,
    size: int,
    generator: torch.Generator,
    cover: tuple[float, float] = (0.5, 1.2),
    turn: float = 0.2,
    jitter: float = 0.3,
) -> Views:
    """Random square views of the photos `index` (B,) as they are, S = `size`.

    The side of a view spans `cover` of the photo's long side, stretched by up to a sixth, but not much more than the photo has in either direction (a whole
    photo is squeezed into its square), turned by up to `turn` radians, mirrored half of the time; the corners that reach beyond the photo show its mirror image.
    Colours are jittered, foreground and background alike.
    """
    device, n, canvas = data.pixels.device, len(index), data.pixels.shape[-1]
    index = index.to(device)
    h, w = data.sizes[index].float().unbind(1)
    aspect = torch.exp(rand(n, -0.15, 0.15, generator, device))
    side = rand(n, *cover, generator, device) * torch.maximum(h, w)
    sx, sy = torch.minimum(side * aspect, 1.05 * w), torch.minimum(side / aspect, 1.05 * h)
    angle = rand(n, -turn, turn, generator, device)
    mirror = torch.where(rand(n, 0, 1, generator, device) < 0.5, -1.0, 1.0)
    cx, cy = (extent / 2 + rand(n, -0.5, 0.5, generator, device) * (extent - span).abs() for extent, span in ((w, sx), (h, sy)))
    theta = torch.stack([mirror * sx * angle.cos(), -sy * angle.sin(), 2 * cx, mirror * sx * angle.sin(), sy * angle.cos(), 2 * cy], 1).view(n, 2, 3) / 2
    factor = 2 if float(torch.maximum(sx, sy).max()) > 1.75 * size else 1  # sampled finer and averaged, so that fine texture does not alias
    grid = F.affine_grid(theta, [n, 3, size * factor, size * factor], align_corners=False)  # in pixels of the photo
    extent = torch.stack([w, h], 1)[:, None, None]
    grid = (torch.remainder(grid - 0.5, 2 * extent - 2 + 1e-6) - (extent - 1)).abs()  # distance from the far edge: mirrored at both
    grid = ((extent - 1 - grid) + 0.5) * 2 / canvas - 1
    planes = torch.cat([data.pixels[index], data.alpha[index], data.foreground[index]], 1).float() / 255
    planes = F.grid_sample(planes, grid, padding_mode="border", align_corners=False)
    image, alpha, fg = (F.avg_pool2d(planes, factor) if factor > 1 else planes).split((3, 1, 3), 1)
    image, fg = colour_jitter(torch.cat([image, fg], 3), jitter, generator).chunk(2, 3)  # as one picture, so that both change alike
    return Views(image, alpha, fg, remainder(image, alpha, fg))


def remainder(image: Tensor, alpha: Tensor, fg: Tensor) -> Tensor:
    """The background that makes `image` of `fg` by `alpha`; where next to nothing of it shows, `image` itself."""
    shows = 1 - alpha
    return torch.where(shows > 0.05, (image - alpha * fg) / shows.clamp(min=0.05), image).clamp(0, 1)


def compose(views: Views, backgrounds: Tensor, generator: torch.Generator, share: float = 0.5) -> Views:
    """`share` of the views with their animal in front of `backgrounds` (B, 3, S, S) in [0, 1] instead, by the RSSN route: half of these backgrounds blurred,
    and half of the finished pictures with the same noise (sigma 10 of 255) on picture, foreground and background."""
    image, alpha, fg, bg = (x.clone() for x in views)
    size = image.shape[-1]
    draws = torch.rand(len(image), 3, generator=generator)
    widths = torch.randint(max(1, size // 48), max(2, size // 16) + 1, (len(image),), generator=generator)
    for i in torch.nonzero(draws[:, 0] < share).flatten().tolist():
        bg[i] = backgrounds[i]
        if draws[i, 1] < 0.5:
            reach = int(widths[i])
            bg[i] = F.avg_pool2d(F.pad(bg[i][None], (reach,) * 4, mode="reflect"), 2 * reach + 1, stride=1)[0]
        image[i] = alpha[i] * fg[i] + (1 - alpha[i]) * bg[i]
        if draws[i, 2] < 0.5:
            noise = torch.randn(image[i].shape, generator=generator).to(image.device) * (10 / 255)
            image[i], fg[i], bg[i] = ((x + noise).clamp(0, 1) for x in (image[i], fg[i], bg[i]))
    return Views(image, alpha, fg, bg)


def cut_out(photo: Bytes, mask: Bytes) -> Image.Image:
    """What `mask` (H, W) marks in `photo` (H, W, 3), on grey, in the square around it."""
    rows, columns = (np.flatnonzero((mask > 0).any(axis)) for axis in (1, 0))
    if not len(rows):
        return Image.new("RGB", (8, 8), (127, 127, 127))
    box = [slice(x[0], x[-1] + 1) for x in (rows, columns)]
    alone = Image.fromarray(np.where(mask[..., None] > 0, photo, np.uint8(127))[tuple(box)])
    side = round(1.1 * max(alone.size))
    square = Image.new("RGB", (side, side), (127, 127, 127))
    square.paste(alone, ((side - alone.width) // 2, (side - alone.height) // 2))
    return square


def of_animals(chosen: Sequence[Source], classifier: torch.nn.Module, cache: Path, least: float = 0.6) -> list[Source]:
    """`chosen` without the photos of ecssd_salient whose object is no animal, for all that a classifier can tell (`animal_share` of the `cut_out`).

    The shares are kept in the folder `cache`.
    """
    file = cache / "animal_share_ecssd.json"
    asked = [source for source in chosen if source.folder == "ecssd_salient"]
    shares = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    unknown = [source for source in asked if source.photo.name not in shares]
    if unknown:
        classifier.eval()
        shares |= {source.photo.name: animal_share(cut_out(*source.read()[:2]), classifier) for source in unknown}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(shares, indent=0) + "\n", encoding="utf-8")
    return [source for source in chosen if source.folder != "ecssd_salient" or shares[source.photo.name] >= least]


@torch.inference_mode()
def animal_share(photo: Image.Image, classifier: torch.nn.Module) -> float:
    """How surely an ImageNet `classifier` (a `trunk.Lite0`) sees an animal in `photo`, at most 1: the largest over the whole and its four quarters."""
    from pttp.trunk import MEAN, STD

    w, h = photo.size
    boxes = [(0, 0, w, h), *((x, y, x + w // 2, y + h // 2) for x in (0, w - w // 2) for y in (0, h - h // 2))]
    crops = [np.asarray(photo.resize((224, 224), Image.Resampling.BICUBIC, box=box)) for box in boxes]
    x = (torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255 - MEAN) / STD
    return float(classifier(x).softmax(1)[:, :398].sum(1).max())  # the first 398 classes are the animals


def backgrounds(root: Path, classifier: torch.nn.Module, cache: Path, canvas: int = 320, most: float = 0.3, say: Callable[[str], None] = print) -> Photos:
    """general_photos without those that show an animal (`animal_share` over `most`): a second animal that is called background would teach the wrong thing.

    The shares are kept in the folder `cache`. For `random_views`, which cuts views from them.
    """
    file = cache / "animal_share.json"
    paths = sorted((root / "general_photos" / "images").glob("*.jpg"))
    shares = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if not all(p.name in shares for p in paths):
        classifier.eval()
        shares = {p.name: animal_share(Image.open(p).convert("RGB"), classifier) for p in paths}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(shares, indent=0) + "\n", encoding="utf-8")
    paths = [p for p in paths if shares[p.name] <= most]
    say(f"backgrounds: {len(paths)} of {len(shares)} photos show no animal")
    pixels, sizes = torch.zeros(len(paths), 3, canvas, canvas, dtype=torch.uint8), torch.zeros(len(paths), 2, dtype=torch.long)
    for i, path in enumerate(paths):
        photo = Image.open(path).convert("RGB")
        photo.thumbnail((canvas, canvas), Image.Resampling.LANCZOS)
        sizes[i] = torch.tensor(photo.size[::-1])
        pixels[i, :, : photo.height, : photo.width] = torch.from_numpy(np.array(photo)).permute(2, 0, 1)
    return Photos(pixels, sizes, torch.full((len(paths),), -1))


def batch(data: Mattes, others: Photos, count: int, size: int, generator: torch.Generator, share: float = 0.5) -> Views:
    """`count` random views of size S, `share` of them composed onto views of `others`."""
    views = matte_views(data, torch.randint(len(data), (count,), generator=generator), size, generator)
    behind = random_views(others, torch.randint(len(others), (count,), generator=generator), size, generator)
    return compose(views, behind.to(views.image.device), generator, share)
