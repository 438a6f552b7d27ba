"""Makeup of any colour on a portrait: the close-ups are found, the generator says where and by how much Lab moves, and the photo moves at its own resolution."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from pttp import images, weights
from pttp.cagan import locate
from pttp.cagan.colour import delta_e, hex_of, lab_of, lab_to_rgb, rgb_to_lab, scaled, unscaled
from pttp.cagan.locate import Face, Square
from pttp.cagan.model import CAGAN
from pttp.cagan.weak import LEAST, REGIONS
from pttp.errors import BadInput, NoFaceFound

SMALLEST = 48  # pixels of a face's width: below, lips have a handful of them
PARTS = {"lips": ("lips",), "eyes": ("left_eye", "right_eye")}
SIDES = (None, "left", "right")
BORDER = 0.08  # of a close-up's side: over so much its change fades in
FAINT = 0.04  # of G's `where`, below which a pixel stays as it is, to the bit
VEIL = 0.3  # of G's `where`: what is joined by less is not one piece
INNER = 0.5  # of G's `where`, above which a pixel counts as makeup when the reached colour is measured


@dataclass(frozen=True)
class Part:
    """One close-up: `name` (see locate.PARTS), `region` (its rank in weak.REGIONS), `square`, `x` (1, 3, S, S) in [0, 1] and the trunk's view of it; `box`
    (x0, y0, x1, y1) of the photo's pixels that it can reach, `grid` (1, h, w, 2), where in the close-up those lie, and `near` (S, S) bool, what surely belongs
    to the part: around the points that the localiser named."""

    name: str
    region: int
    square: Square
    x: Tensor
    maps: dict[int, Tensor]
    box: tuple[int, int, int, int]
    grid: Tensor
    near: np.ndarray


@dataclass(frozen=True)
class Portrait:
    """A photo made ready for any number of colours: `pixels` (H, W, 3) uint8, `alpha` (H, W) uint8 or None, `faces` the largest first, `face` which of them
    wears the makeup, and its `parts` by name. It belongs to one visitor; the predictor keeps nothing."""

    pixels: np.ndarray
    alpha: np.ndarray | None
    faces: tuple[Face, ...]
    face: int
    parts: dict[str, Part]

    def box(self, face: int) -> tuple[int, int, int, int]:
        """(x0, y0, x1, y1) around a face, within the photo."""
        chosen = self.faces[face]
        middle, half = locate.centre_of(chosen.points), 0.6 * chosen.width
        (x0, y0), (x1, y1) = middle - half, middle + half
        height, width = self.pixels.shape[:2]
        return max(0, round(x0)), max(0, round(y0)), min(width, round(x1)), min(height, round(y1))


@dataclass(frozen=True)
class Makeup:
    """A portrait with makeup.

    `image` of the photo's size; `regions` {"lips" | "eyes": (H, W) float32 in [0, 1]}, how much each pixel takes part; `requested` and `achieved` Lab (3,) by region,
    `delta_e` CIEDE2000 between them. Achieved is the median over the pixels that take part by more than a half, so that it falls short when `strength` is below 1.
    `before` is the same of the photo as it came; `face` which face, `faces` their boxes (x0, y0, x1, y1), the largest first.
    """

    image: Image.Image
    regions: dict[str, np.ndarray]
    requested: dict[str, np.ndarray]
    achieved: dict[str, np.ndarray]
    before: dict[str, np.ndarray]
    delta_e: dict[str, float]
    strength: float
    face: int
    faces: tuple[tuple[int, int, int, int], ...]

    def to_dict(self) -> dict:
        def colour(lab: np.ndarray) -> dict:
            return {"hex": hex_of(lab), "lab": [round(float(v), 2) for v in lab]}

        regions = {
            name: {
                "requested": colour(self.requested[name]),
                "achieved": colour(self.achieved[name]),
                "before": colour(self.before[name]),
                "delta_e": round(self.delta_e[name], 2),
                "pixels": int((self.regions[name] > INNER).sum()),
            }
            for name in self.regions
        }
        return {"regions": regions, "strength": self.strength, "face": self.face, "faces": [list(b) for b in self.faces], "width": self.image.width, "height": self.image.height}


@dataclass(frozen=True)
class Colours:
    """What the discriminator sees on a face: Lab (3,) of `lips`, `eyes` (the lids) and `skin`, each None where that part cannot be seen; `hex` has them as #rrggbb."""

    lips: np.ndarray | None
    eyes: np.ndarray | None
    skin: np.ndarray | None

    @property
    def hex(self) -> dict[str, str | None]:
        """{"lips" | "eyes" | "skin": "#rrggbb", or None where that part cannot be seen}."""
        return {name: None if lab is None else hex_of(lab) for name, lab in vars(self).items()}

    def to_dict(self) -> dict:
        return {name: None if lab is None else {"hex": self.hex[name], "lab": [round(float(v), 2) for v in lab]} for name, lab in vars(self).items()}


class Predictor(weights.Pretrained):
    """`apply` and `estimate`; `prepare` once and `paint` for every colour where colours are dragged."""

    room = "cagan"

    @staticmethod
    def build(config: dict) -> CAGAN:
        return CAGAN(config.get("size", 128), config.get("locator", False))

    def faces(self, image: images.Picture) -> list[Face]:
        """The faces of a picture, the largest first. Raises BadImage."""
        return self._faces(images.to_array(image))

    def _faces(self, pixels: np.ndarray) -> list[Face]:
        return locate.find_faces(self.net.locator, pixels) if self.net.locator is not None else []

    def prepare(self, image: images.Picture, face: int = 0) -> Portrait:
        """Find the faces and make the close-ups of one of them ready: the slow half, once a photo. `face` counts from the largest, 0.

        Raises BadImage, BadInput for a face that is not there, and NoFaceFound when there is none, or it is too small.
        """
        picture = images.read(image, alpha=True)
        alpha = np.asarray(picture.getchannel("A"))
        pixels = np.asarray(picture.convert("RGB"))
        found = tuple(self._faces(pixels))
        if not found:
            raise NoFaceFound("No face was found in this picture: take a portrait that shows eyes and mouth, sharp and from the front.")
        return self._ready(pixels, None if alpha.min() == 255 else alpha, found, face)

    def choose(self, portrait: Portrait, face: int) -> Portrait:
        """The same photo with another of its faces made ready. Raises BadInput and NoFaceFound."""
        return self._ready(portrait.pixels, portrait.alpha, portrait.faces, face)

    def _ready(self, pixels: np.ndarray, alpha: np.ndarray | None, found: tuple[Face, ...], face: int) -> Portrait:
        if not 0 <= face < len(found):
            raise BadInput(f"There is no face {face}: this picture has {len(found)}, counted from 0, the largest first.")
        chosen = found[face]
        if chosen.width < SMALLEST:
            which = "The face" if len(found) == 1 else "The largest face" if face == 0 else "This face"
            raise NoFaceFound(f"{which} is only about {chosen.width:.0f} pixels wide, and {SMALLEST} are needed: crop closer, or take a larger photo.")
        shown = [name for name, seen in zip(locate.PARTS, chosen.shown, strict=True) if seen > 0.5]
        if not shown:
            raise NoFaceFound("Neither eyes nor mouth of this face can be seen well: turn towards the camera, and keep hands and glasses away.")
        whole = torch.from_numpy(np.array(pixels)).to(self.device).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            parts = {name: self._part(whole, chosen, name) for name in sorted(shown, key=lambda name: name != "lips")}
        return Portrait(pixels, alpha, found, face, {name: part for name, part in parts.items() if part is not None})

    def _part(self, whole: Tensor, face: Face, name: str) -> Part | None:
        square, size = locate.closeup(face, name), self.net.size
        height, width = whole.shape[-2:]
        corners = square.to_picture(np.array([[0, 0], [size, 0], [size, size], [0, size]]) - 0.5, size)
        x0, y0 = np.maximum(np.floor(corners.min(0)), 0).astype(int).tolist()
        x1, y1 = np.minimum(np.ceil(corners.max(0)) + 1, (width, height)).astype(int).tolist()
        if x1 <= x0 or y1 <= y0:
            return None
        yy, xx = np.mgrid[y0:y1, x0:x1]
        within = (square.to_square(np.stack([xx, yy], -1), size) + 0.5) * 2 / size - 1
        x = square.cut(whole, size)
        region = REGIONS.index("lips" if name == "lips" else "eyes")
        near = around(square.to_square(face.points[list(locate.PARTS[name])], size), size)
        return Part(name, region, square, x, self.net.encode(x), (x0, y0, x1, y1), torch.from_numpy(within).float()[None].to(self.device), near)

    def apply(
        self,
        image: images.Picture,
        lips: str | tuple[int, int, int] | None = None,
        eyes: str | tuple[int, int, int] | None = None,
        strength: float = 1.0,
        *,
        face: int = 0,
        finish: float = 0.0,
        side: str | None = None,
    ) -> Makeup:
        """Lipstick and eye shadow of any colours on the largest face, or on another; see `paint` for the rest.

        Raises BadImage; BadInput for what is not a colour or not a strength; NoFaceFound when no face, or not the part that is to be painted, can be seen.
        """
        check(lips, eyes, strength, finish, side)
        return self.paint(self.prepare(image, face), lips, eyes, strength, finish=finish, side=side)

    def paint(
        self,
        portrait: Portrait,
        lips: str | tuple[int, int, int] | None = None,
        eyes: str | tuple[int, int, int] | None = None,
        strength: float = 1.0,
        *,
        finish: float = 0.0,
        side: str | None = None,
    ) -> Makeup:
        """The quick half of `apply`. Colours are #rrggbb or (r, g, b), None leaves the region as it is; `strength` 0 to 1; `finish` from -1, matte, over 0, as it is,
        to 1, glossy; `side` "left" or "right", as seen, paints half of the face. Pixels outside of the regions stay as they are, to the bit."""
        asked = check(lips, eyes, strength, finish, side)
        out = portrait.pixels.copy()
        height, width = out.shape[:2]
        regions: dict[str, np.ndarray] = {}
        achieved, before, requested = {}, {}, {}
        for name, lab in asked.items():
            parts = [portrait.parts[p] for p in PARTS[name] if p in portrait.parts]
            if not parts:
                what = "mouth" if name == "lips" else "eyes"
                raise NoFaceFound(f"The {what} of this face cannot be seen well: turn towards the camera, and keep hands and glasses away.")
            region = np.zeros((height, width), np.float32)
            old, new = [], []
            for part in parts:
                x0, y0, x1, y1 = part.box
                patch = out[y0:y1, x0:x1]
                weight, labs = self._painted(part, patch, lab, strength, finish, _half(portrait, part, side))
                old.append(labs[0][:, weight > INNER])
                new.append(labs[1][:, weight > INNER])
                region[y0:y1, x0:x1] = np.maximum(region[y0:y1, x0:x1], weight)
            if sum(p.shape[1] for p in old) < LEAST:
                what = "No lips" if name == "lips" else "No eyelids"
                raise NoFaceFound(f"{what} could be told apart on this face: take a sharper or larger photo, from the front.")
            regions[name], requested[name] = region, lab
            before[name], achieved[name] = (np.median(np.concatenate(p, 1), 1) for p in (old, new))
        distance = {name: float(delta_e(requested[name], achieved[name])) for name in regions}
        image = Image.fromarray(out)
        if portrait.alpha is not None:
            image.putalpha(Image.fromarray(portrait.alpha))
        boxes = tuple(portrait.box(i) for i in range(len(portrait.faces)))
        return Makeup(image, regions, requested, achieved, before, distance, float(strength), portrait.face, boxes)

    @torch.inference_mode()
    def _painted(self, part: Part, patch: np.ndarray, lab: np.ndarray, strength: float, finish: float, half: np.ndarray | None) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """Paint `patch` (h, w, 3) uint8, a view of the photo, in place; gives how much each pixel takes part (h, w) and Lab (3, h, w) before and after."""
        c = scaled(torch.from_numpy(lab).float()[None]).to(self.device)
        change = self.net.generator(part.x, part.maps, c, torch.tensor([part.region], device=self.device))
        where = change.where * torch.from_numpy(anchored(change.where[0, 0].cpu().numpy(), part.near)).to(change.where)
        maps = F.grid_sample(torch.cat([where, change.shift], 1), part.grid, padding_mode="zeros", align_corners=False)[0]
        edge = ((1 - part.grid[0].abs().amax(-1)) / (2 * BORDER)).clamp(0, 1)
        weight = ((maps[0] * edge - FAINT) / (1 - FAINT)).clamp(0, 1)
        if half is not None:
            weight = weight * torch.from_numpy(half).to(weight)
        before = rgb_to_lab(torch.from_numpy(np.array(patch)).to(self.device).permute(2, 0, 1).float() / 255)
        shift = unscaled(maps[None, 1:])[0] - unscaled(torch.zeros_like(maps[None, 1:]))[0]
        if finish and (weight > INNER).any():
            relief = before[0] - before[0][weight > INNER].median()
            shift[0] += finish * (relief if finish < 0 else 0.8 * relief.clamp(min=0)) * 0.7
        after = lab_to_rgb(before + strength * weight * shift)
        painted = (after * 255).round().byte().permute(1, 2, 0).cpu().numpy()
        touched = ((weight > 0) & (strength > 0)).cpu().numpy()
        patch[touched] = painted[touched]
        return weight.cpu().numpy(), (before.cpu().numpy(), rgb_to_lab(torch.from_numpy(np.array(patch)).permute(2, 0, 1).float() / 255).numpy())

    def estimate(self, image: images.Picture, face: int = 0) -> Colours:
        """The colours of lips, lids and skin as the discriminator sees them: what a transfer from this photo would ask for. Raises as `prepare`."""
        return self.colours(self.prepare(image, face))

    @torch.inference_mode()
    def colours(self, portrait: Portrait) -> Colours:
        """`estimate` for a photo that is ready."""
        seen: dict[str, list[np.ndarray]] = {"lips": [], "eyes": [], "skin": []}
        for part in portrait.parts.values():
            said = self.net.discriminator(part.x, part.maps, torch.tensor([part.region], device=self.device))
            makeup, skin = (unscaled(v)[0].cpu().double().numpy() for v in (said.makeup, said.skin))
            seen[REGIONS[part.region]].append(makeup)
            seen["skin"].append(skin)
        return Colours(**{name: np.mean(labs, 0) if labs else None for name, labs in seen.items()})


def around(points: np.ndarray, size: int) -> np.ndarray:
    """Bool (size, size): an ellipse about a part's `points` (K, 2), its two corners first, in pixels of the close-up; of an eye, which has no more, with its lids."""
    first, last = points[:2]
    width = max(float(np.linalg.norm(last - first)), 1.0)
    along = (last - first) / width
    across = np.array([-along[1], along[0]])
    height = max(width / 3, float(np.ptp(points @ across))) if len(points) > 2 else width
    offset = np.stack(np.meshgrid(np.arange(size), np.arange(size)), -1) - points.mean(0)
    return (offset @ along / (width / 2)) ** 2 + (offset @ across / (height / 2)) ** 2 <= 1


def anchored(where: np.ndarray, near: np.ndarray) -> np.ndarray:
    """How much of G's `where` (S, S) to believe, float32 (S, S) in [0, 1]: all of the pieces that reach into `near`, nothing of others, as a nostril or a brow.
    Where two pieces are joined by a veil they part halfway."""
    pieces, count = ndimage.label(where > VEIL)
    own = np.unique(pieces[near & (pieces > 0)])
    if len(own) in (0, count):
        return np.ones_like(where)
    nearest = ndimage.distance_transform_edt(pieces == 0, return_distances=False, return_indices=True)
    return ndimage.gaussian_filter(np.isin(pieces[tuple(nearest)], own).astype(np.float32), 1.0)


def check(lips, eyes, strength: float = 1.0, finish: float = 0.0, side: str | None = None) -> dict[str, np.ndarray]:
    """The regions to paint and the Lab (3,) asked for. Raises BadInput."""
    asked = {name: lab_of(_rgb(shade)) for name, shade in (("lips", lips), ("eyes", eyes)) if shade is not None and not (isinstance(shade, str) and not shade)}
    if not asked:
        raise BadInput("Choose a colour for the lips, for the eyes, or for both, like #b01030.")
    if not 0 <= strength <= 1:
        raise BadInput(f"`strength` must lie between 0 and 1, not {strength:g}.")
    if not -1 <= finish <= 1:
        raise BadInput(f"`finish` must lie between -1 (matte) and 1 (glossy), not {finish:g}.")
    if side not in SIDES:
        raise BadInput(f"`side` must be left or right, not {str(side)[:20]!r}.")
    return asked


def _rgb(shade) -> str | tuple[int, int, int]:
    if isinstance(shade, str):
        return shade
    try:
        r, g, b = (int(v) for v in shade)
    except (TypeError, ValueError, OverflowError):
        raise BadInput(f"{str(shade)[:40]!r} is not a colour: write it as #rrggbb, like #b01030.") from None
    if not all(0 <= v <= 255 for v in (r, g, b)):
        raise BadInput(f"{(r, g, b)} is not a colour: red, green and blue are 0 to 255.")
    return r, g, b


def _half(portrait: Portrait, part: Part, side: str | None) -> np.ndarray | None:
    """1 on the asked-for side of the face's midline within the part's box, (h, w) float32, falling to 0 over a few pixels; None for the whole face."""
    if side is None:
        return None
    face = portrait.faces[portrait.face]
    along, middle = Square((0, 0), 1, face.angle).axes()[0], locate.centre_of(face.points)
    x0, y0, x1, y1 = part.box
    y, x = np.mgrid[y0:y1, x0:x1]
    right = ((x - middle[0]) * along[0] + (y - middle[1]) * along[1]) / max(1.5, 0.01 * face.width)
    return np.clip(0.5 + (right if side == "right" else -right), 0, 1).astype(np.float32)
