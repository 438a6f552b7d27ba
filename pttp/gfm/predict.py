"""Cut an animal out of any picture: its alpha matte, its own colours, and any new background."""
from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageOps
from torch import Tensor, nn
from torch.nn import functional as F

from pttp import images, weights
from pttp.errors import BadInput
from pttp.gfm import png, refine, testtime
from pttp.gfm.model import GFM, STEP
from pttp.gfm.slim import SlimGFM

SIZE = 384  # long side of the glance pass where config.json names none
FINER = 1.5  # the focus pass sees the picture that much larger, as in the paper (a third and a half of its size)
ZOOM, MARGIN = 0.65, 0.2  # what fills less of the long side is looked at again from nearer by, with that share of itself around it
NEAREST = 160  # pixels: what is enlarged more than that shows nothing new
NEARER = 2 / 3  # what the nearer view counts for; it finds legs, and at times takes a part for the whole
WIDEST = 0.1  # of the long side: how far the transition may be widened
LEAST, SURE = 0.002, 0.65  # share of the picture that must be animal, and how sure glance must be of it on average: below that lie photos without any
NOTHING = "No animal was found here, so the matte is empty: try a photo in which one animal is large and well lit."
OWN = "The picture has transparency of its own: it is kept, and multiplied by the matte."
Background = str | tuple[int, int, int] | images.Picture


@dataclass(frozen=True)
class Look:
    """What the network saw of a picture, before the two decoders' answers are joined; everything that takes long is done.

    `picture` (H, W, 3) uint8; `own` (H, W) uint8, its own transparency, or None; `box` (x0, y0, x1, y1), the part in pixels that the maps show; `glance`
    (3, h, w) in [0, 1], how much background, transition and animal; `focus` (h', w') in [0, 1], which answers everywhere and is believed in the transition only;
    `guide` (3, h', w') in [0, 1], the picture as focus saw it. Networks of the RoSTa FT or BT tell two classes apart (the transition then counts as background
    or as animal); `fusion` (h', w') is what a network of the paper's makes of it by its own rule, None for the embedded one.
    """

    picture: NDArray[np.uint8]
    own: NDArray[np.uint8] | None
    box: tuple[int, int, int, int]
    glance: NDArray[np.float32]
    focus: NDArray[np.float32]
    guide: Tensor
    fusion: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Matte:
    """An animal cut out of a picture (H, W).

    `alpha` (H, W) float32 in [0, 1]; `found`: whether there is an animal (if not, alpha is 0 everywhere); `notes`, sentences about what the user should know;
    `glance` (H, W, 3), how much background, transition and animal; `focus` (H, W); `foreground` (H, W, 3) uint8, the animal's own colours, without the old
    background; `transition` (h, w) bool, where focus was believed, at the glance pass's size, within `look.box`.
    """

    alpha: NDArray[np.float32]
    found: bool
    notes: tuple[str, ...]
    look: Look
    transition: NDArray[np.bool_]

    @cached_property
    def glance(self) -> NDArray[np.float32]:
        return np.dstack([self._in_place(x, float(k == 0)) for k, x in enumerate(self.look.glance)])

    @cached_property
    def focus(self) -> NDArray[np.float32]:
        return self._in_place(self.look.focus, 0.0)

    @cached_property
    def foreground(self) -> NDArray[np.uint8]:
        return refine.foreground(self.look.picture, self.alpha, self.look.guide.device)

    def _in_place(self, x: NDArray[np.float32], elsewhere: float) -> NDArray[np.float32]:
        """A map of the box at the picture's size, `elsewhere` around it."""
        x0, y0, x1, y1 = self.look.box
        out = np.full(self.alpha.shape, elsewhere, np.float32)
        out[y0:y1, x0:x1] = np.asarray(Image.fromarray(x).resize((x1 - x0, y1 - y0), Image.Resampling.BILINEAR))
        return out

    def shrunk(self, longest: int) -> Matte:
        """The same at a long side of `longest` pixels, if it is larger: enough for a screen, and quick."""
        h, w = self.alpha.shape
        scale = longest / max(h, w)
        if scale >= 1:
            return self
        size = max(1, round(w * scale)), max(1, round(h * scale))
        picture, alpha = (np.array(Image.fromarray(x).resize(size, Image.Resampling.BOX, reducing_gap=2.0)) for x in (self.look.picture, self.alpha))
        box = tuple(round(v * side / full) for v, side, full in zip(self.look.box, size * 2, (w, h) * 2, strict=True))
        return replace(self, alpha=alpha, look=replace(self.look, picture=picture, own=None, box=box))

    def cutout(self) -> Image.Image:
        """The animal alone: RGBA, its own colours with `alpha`."""
        out = Image.fromarray(self.foreground)
        out.putalpha(self.mask())
        return out

    def png16(self, alone: bool = False) -> bytes:
        """The cut-out as a PNG file of 16 bits a channel, whose alpha has 65,536 steps instead of 256; `alone`: only alpha, as a grey picture."""
        alpha = np.rint(self.alpha * np.float32(65535)).astype(np.uint16)
        return png.deep(alpha if alone else np.dstack([self.foreground * np.uint16(257), alpha]))

    def mask(self) -> Image.Image:
        """`alpha` as a grey picture (L)."""
        return Image.fromarray(np.rint(self.alpha * 255).astype(np.uint8))

    def over(self, background: Background) -> Image.Image:
        """The animal in front of a colour ("#rrggbb", a CSS name, or (r, g, b)), another picture, which is cut to this one's aspect, or "blur", the photo itself
        out of focus: RGB, of the photo's size. Raises BadImage, and BadInput for a colour that is none."""
        size = self.alpha.shape[1::-1]
        colour = colour_of(background)
        if colour:
            behind = Image.new("RGB", size, colour)
        elif isinstance(background, str) and background == "blur":
            behind = self._blurred()
        else:
            behind = ImageOps.fit(images.read(background), size, Image.Resampling.BICUBIC)
        behind.paste(Image.fromarray(self.foreground), mask=self.mask())
        return behind

    def _blurred(self) -> Image.Image:
        """The background out of focus; the animal does not bleed into it, because it counts for next to nothing in the mean."""
        h, w = self.alpha.shape
        scale = min(1, 512 / max(h, w))
        size = max(1, round(w * scale)), max(1, round(h * scale))
        weight = np.asarray(Image.fromarray(1 - self.alpha).resize(size, Image.Resampling.BOX)) ** 4 + 1e-3
        colours = np.asarray(Image.fromarray(self.look.picture).resize(size, Image.Resampling.BOX)) * weight[..., None]
        x = torch.from_numpy(np.dstack([colours, weight]).astype(np.float32)).permute(2, 0, 1)[None]
        for _ in range(2):
            x = refine.box_mean(x, max(1, round(max(size) / 40)))
        mean = (x[0, :3] / x[0, 3]).clamp(0, 255).round().byte().permute(1, 2, 0).numpy()
        return Image.fromarray(mean).resize((w, h), Image.Resampling.BICUBIC)

    def to_dict(self) -> dict:
        """`coverage`: share of the picture that is animal; `soft`: share that is partly so; `box`: around what is more than half animal, or None."""
        rows, columns = (np.flatnonzero((self.alpha > 0.5).any(axis)) for axis in (1, 0))
        h, w = self.alpha.shape
        return {
            "width": w,
            "height": h,
            "found": self.found,
            "coverage": round(float(self.alpha.mean(dtype=np.float64)), 5),
            "soft": round(float(((self.alpha > 0) & (self.alpha < 1)).mean()), 5),
            "box": [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1] if len(rows) else None,
            "notes": list(self.notes),
        }


def colour_of(background: Background) -> tuple[int, int, int] | None:
    """The colour that `background` names, None where it is "blur" or a picture. Raises BadInput for a word that begins like a colour and is none."""
    if isinstance(background, tuple):
        if len(background) != 3 or not all(isinstance(v, (int, np.integer)) and 0 <= v <= 255 for v in background):
            raise BadInput(f"A colour is three whole numbers from 0 to 255, not {background!r}.")
        return tuple(int(v) for v in background)
    if not isinstance(background, str):
        return None
    try:
        return ImageColor.getrgb(background.strip())[:3]
    except ValueError:
        if background.lstrip().startswith(("#", "rgb", "hsl")) or not background.strip():
            raise BadInput(f'{background[:40]!r} is no colour: write it as "#b01030", or as a name such as "white".') from None
        return None


class Predictor(weights.Pretrained):
    """`predict(image)` -> Matte. `net` is the plain network, the embedded `SlimGFM` or a `GFM` of the paper where config.json names a backbone (see official.py);
    `form` its inference form, which answers."""

    room = "gfm"

    @staticmethod
    def build(config: dict) -> nn.Module:
        if "backbone" in config:
            return GFM(config["backbone"], config.get("rosta", "TT"))
        return SlimGFM(**{k: tuple(config[k]) for k in ("glance", "focus") if k in config})

    def ready(self) -> None:
        from pttp.gfm.fast import inference_form

        self.form = inference_form(self.net)
        self.size = int(self.config.get("size", SIZE))
        if self.size < STEP:
            raise BadInput(f"size is {self.size}, less than {STEP}")

    def predict(self, image: images.Picture, widen: float = 0.0) -> Matte:
        """Cut the animal out of a path, a PIL image or an (H, W, 3) uint8 RGB array, at its own resolution. `widen` as in `matte`.

        Raises BadImage for what cannot be read, BadInput for a `widen` out of range.
        """
        return self.matte(self.look(image), widen)

    @torch.inference_mode()
    def look(self, image: images.Picture) -> Look:
        """Both passes, glance on the whole picture and focus on a finer one. A small animal is looked at again from nearer by. Raises BadImage."""
        picture = images.read(image, alpha=True)
        alpha = picture.getchannel("A")
        own = None if alpha.getextrema()[0] == 255 else np.array(alpha)
        picture = picture.convert("RGB") if own is None else images.read(picture)  # what is transparent is shown on white, as everywhere
        if isinstance(self.net, GFM):
            return self._as_the_authors(np.array(picture), own)
        box = (0, 0, *picture.size)
        glance = self._glance(picture, box)
        nearer = around(glance, picture.size)
        if nearer:
            closer = self._glance(picture, nearer)
            before = within(glance, nearer, picture.size, closer.shape[1:])
            both = NEARER * closer + (1 - NEARER) * before
            if both.argmax(0).eq(2).sum() >= before.argmax(0).eq(2).sum() / 2:  # else the nearer view has lost what it came for
                box, glance = nearer, both
        long_side = max(box[2] - box[0], box[3] - box[1])
        guide = self._view(picture, box, min(round(FINER * self.size), max(self.size, long_side)))
        (focus,) = self.form.focus(self.form.encode(guide))
        return Look(np.array(picture), own, box, glance.cpu().numpy(), focus[0, 0].cpu().numpy(), guide[0] / 255)

    @torch.inference_mode()
    def matte(self, look: Look, widen: float = 0.0) -> Matte:
        """Join the two answers of a `look` and bring them to the picture's own resolution.

        `widen` 0 to 0.1: grow the transition, where focus is believed, by that share of the long side to both sides. Raises BadInput for any other, and where
        the network's RoSTa has no transition that could be widened.
        """
        if not 0 <= widen <= WIDEST:
            raise BadInput(f"`widen` must lie between 0 and {WIDEST:g}, not {widen:g}.")
        if widen and getattr(self.net, "rosta", "TT") != "TT":
            raise BadInput("Only a network of the RoSTa TT names a transition area that can be widened.")
        glance = torch.from_numpy(look.glance)[None].to(look.guide.device)
        classes = refine.without_specks(glance.argmax(1, keepdim=True))
        found = self._found(look)
        if widen:
            classes = refine.grown(classes, round(widen * max(look.picture.shape) / max(look.box[2] - look.box[0], look.box[3] - look.box[1]) * max(classes.shape)))
        alpha = np.zeros(look.picture.shape[:2], np.float32)
        if found:
            if look.fusion is None or widen:
                fused = refine.joined(classes, torch.from_numpy(look.focus)[None, None].to(glance.device))
            else:
                fused = torch.from_numpy(look.fusion)[None, None].to(glance.device)
            x0, y0, x1, y1 = look.box
            radius = refine.radius_for((y1 - y0, x1 - x0), look.guide.shape[1:])
            alpha[y0:y1, x0:x1] = refine.full_size(refine.guided(look.guide[None], fused, radius), look.guide[None], look.picture[y0:y1, x0:x1])
        if look.own is not None:
            alpha *= look.own / np.float32(255)
            found = bool(alpha.any())
        notes = ([] if found else [NOTHING]) + ([] if look.own is None else [OWN])
        return Matte(alpha, found, tuple(notes), look, classes[0, 0].eq(1).cpu().numpy())

    def _found(self, look: Look) -> bool:
        animal = look.glance.argmax(0) == 2
        return bool(animal.mean() * share(look) >= LEAST and look.glance[2][animal].mean() >= SURE)

    def _view(self, picture: Image.Image, box: tuple[int, int, int, int], long_side: int) -> Tensor:
        """What `box` shows, (1, 3, h, w) 0..255: its long side about `long_side`, both multiples of 32."""
        w, h = box[2] - box[0], box[3] - box[1]
        size = [max(STEP, round(side * long_side / max(w, h) / STEP) * STEP) for side in (w, h)]
        pixels = np.array(picture.resize(size, Image.Resampling.BILINEAR, box=box, reducing_gap=3.0))
        return torch.from_numpy(pixels).permute(2, 0, 1)[None].float().to(self.device)

    def _glance(self, picture: Image.Image, box: tuple[int, int, int, int]) -> Tensor:
        """(3, h, w)."""
        return self.form.glance(self.form.encode(self._view(picture, box, self.size)))[0][0]

    def _as_the_authors(self, picture: NDArray[np.uint8], own: NDArray[np.uint8] | None) -> Look:
        """HYBRID by the tolerant rule, at a short side of 1080 pixels at most."""
        h, w = picture.shape[:2]
        image = testtime.limited(picture)
        maps = testtime.matte(self.form, image)
        focus = maps.fusion if maps.focus is None else maps.focus
        animal = (maps.fusion if maps.glance is None else maps.glance / 255).astype(np.float32)
        between = np.zeros_like(animal)
        if self.net.rosta == "TT":
            between = 1 - np.abs(2 * animal - 1)
            animal = np.maximum(2 * animal - 1, 0)
        glance = np.stack([1 - between - animal, between, animal]).astype(np.float32)
        guide = torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1).to(self.device)
        return Look(picture, own, (0, 0, w, h), glance, focus.astype(np.float32), guide, np.clip(maps.fusion, 0, 1).astype(np.float32))


def within(x: Tensor, box: tuple[int, int, int, int], size: tuple[int, int], shape: tuple[int, int]) -> Tensor:
    """What a map `x` (C, h, w) of a picture of `size` (w, h) says in `box`, at `shape` (height, width)."""
    (x0, y0, x1, y1), (w, h) = box, size
    theta = torch.tensor([[(x1 - x0) / w, 0, (x0 + x1) / w - 1], [0, (y1 - y0) / h, (y0 + y1) / h - 1]], dtype=x.dtype, device=x.device)
    grid = F.affine_grid(theta[None], [1, len(x), *shape], align_corners=False)
    return F.grid_sample(x[None], grid, mode="bilinear", padding_mode="border", align_corners=False)[0]


def share(look: Look) -> float:
    """How much of the picture the box is."""
    x0, y0, x1, y1 = look.box
    return (x1 - x0) * (y1 - y0) / (look.picture.shape[0] * look.picture.shape[1])


def around(glance: Tensor, size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """The box (x0, y0, x1, y1) to look at from nearer by, in pixels of a picture of `size` (w, h); None where the animal, by the classes of `glance` (3, h, w),
    fills enough of it, or where there is none."""
    classes = glance.argmax(0)
    if not (classes == 2).any():
        return None
    spans = [torch.nonzero((classes > 0).any(axis)).flatten()[[0, -1]].tolist() for axis in (0, 1)]
    spans = [((a / n) * side, ((b + 1) / n) * side) for (a, b), n, side in zip(spans, classes.shape[::-1], size, strict=True)]
    extent = max(b - a for a, b in spans)
    if extent >= ZOOM * max(size):
        return None
    reach = max(extent * (0.5 + MARGIN), NEAREST / 2)
    ends = [(max(0, round((a + b) / 2 - reach)), min(side, round((a + b) / 2 + reach))) for (a, b), side in zip(spans, size, strict=True)]
    (x0, x1), (y0, y1) = ends
    return (x0, y0, x1, y1) if x1 - x0 >= STEP and y1 - y0 >= STEP else None
