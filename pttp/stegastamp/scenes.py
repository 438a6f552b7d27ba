"""Composed scenes: stamped photos as prints and screens in front of a camera, to train the detector on and to measure the camera path with.

A photo is a plane before a pinhole camera. It lies on a background, casts a shadow, may have a border (a print's margin, a screen's bezel, a page around it),
reflections and moire, and fingers over its edge; light, blur, noise and JPEG then act on the whole frame. Lengths that belong to the picture of the camera are in
`unit`s, 1/384 of the frame's long side, so that a scene looks alike at every size.

Everything random comes from the torch.Generator that is passed in.
"""
from __future__ import annotations

import io
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from pttp.stegastamp import geometry
from pttp.stegastamp.detect import distance
from pttp.stegastamp.model import StegaStamp
from pttp.training.photos import PHOTO_FOLDERS, Photos, canvases, held_out

ASPECTS = (1.0, 4 / 3, 3 / 4, 3 / 2, 2 / 3, 16 / 9, 9 / 16)  # width / height
FACES = ("utkface_subset", "celebamask_mini")  # left out: other licences, and crops that look like nothing that hangs on a wall
SKIN = ((0.93, 0.76, 0.66), (0.85, 0.64, 0.52), (0.70, 0.48, 0.36), (0.50, 0.33, 0.24), (0.33, 0.22, 0.16))
FRAME = (720, 1280)
_CORNERS = np.array([[0.0, 1, 1, 0], [0, 0, 1, 1], [1, 1, 1, 1]])
# Shares of pictures or scenes that have each thing
SHARES = dict(border=0.55, shadow=0.6, glare=0.25, moire=0.25, fingers=0.3, wall=0.2, blur=0.5, jpeg=0.6)


class Dice:
    """Single random numbers from a generator, drawn by the hundred: asking it for each of them would cost more than the pictures."""

    def __init__(self, generator: torch.Generator):
        self.generator, self.left = generator, []

    def __call__(self, low: float = 0.0, high: float = 1.0) -> float:
        if not self.left:
            self.left = torch.rand(256, generator=self.generator, dtype=torch.float64).tolist()
        return low + (high - low) * self.left.pop()

    def happens(self, share: float) -> bool:
        return self() < share

    def pick(self, n: int) -> int:
        return min(int(self(0, n)), n - 1)

    def colour(self, low: float = 0.0, high: float = 1.0) -> Tensor:
        return torch.tensor([self(low, high) for _ in range(3)]).view(3, 1, 1)

    def field(self, height: int, width: int, low: float, high: float, cells: int = 3) -> Tensor:
        """A smooth random field (1, height, width)."""
        coarse = torch.rand(1, 1, cells, cells + 1, generator=self.generator) * (high - low) + low
        smooth = F.interpolate(coarse, size=(24, 32), mode="bicubic", align_corners=True)
        return F.interpolate(smooth, size=(height, width), mode="bilinear", align_corners=True)[0]


@dataclass(frozen=True)
class Pose:
    """Where a picture hangs before the camera.

    `tilt` between its normal and the line of sight, towards `heading`, and `roll` about its normal, in radians; `focal` in long sides of the frame; `x`, `y`
    the middle of its outline in shares of the room that the frame leaves (0 .. 1, outside: cut off); `fill` the width of its outline as a share of the
    frame's, less where the frame is not high enough for that.
    """

    tilt: float
    heading: float
    roll: float
    focal: float
    x: float
    y: float
    fill: float

    def matrix(self, aspect: float, height: int, width: int) -> np.ndarray:
        """The homography (3, 3) that takes the picture, (0, 0) to (1, 1), of `aspect` = width / height, to pixels of the frame."""
        ch, sh, ct, st = math.cos(self.heading), math.sin(self.heading), math.cos(self.tilt), math.sin(self.tilt)
        about = np.array([[ch, -sh, 0], [sh, ch, 0], [0, 0, 1]])
        lean = about @ np.array([[ct, 0, st], [0, 1, 0], [-st, 0, ct]]) @ about.T
        cr, sr = math.cos(self.roll), math.sin(self.roll)
        turned = lean @ np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
        half = np.array([math.sqrt(aspect), 1 / math.sqrt(aspect)]) / 2
        flat = turned[:, :2] * (2 * half)  # (3, 2): the picture's sides as vectors, area 1
        origin = -turned[:, :2] @ half
        f, middle = self.focal * max(height, width), np.array([(width - 1) / 2, (height - 1) / 2])
        depth, at = 3.0, middle.copy()
        for _ in range(12):  # the outline depends a little on where the picture stands, so that the answer is approached
            ray = np.append((at - middle) / f, 1.0)
            # seen off the axis the picture turns with the line of sight, or its tilt would not be what was asked for
            z = ray / np.linalg.norm(ray)
            n = math.hypot(z[0], z[2])
            sight = np.array([[z[2] / n, -z[0] * z[1] / n, z[0]], [0, n, z[1]], [-z[0] / n, -z[1] * z[2] / n, z[2]]])
            m = np.column_stack([sight @ flat, sight @ origin + depth * ray])
            m[:2] = m[:2] * f + m[2] * middle[:, None]
            x, y, z = m @ _CORNERS
            low, high = np.array([(x / z).min(), (y / z).min()]), np.array([(x / z).max(), (y / z).max()])
            size = high - low
            wanted = min(self.fill * width, max(self.fill, 0.96) * height * size[0] / size[1])
            depth *= size[0] / wanted
            target = np.array([self.x, self.y]) * (np.array([width, height]) - size) + size / 2
            at = at + target - (low + high) / 2
        return m / m[2, 2]


def draw_pose(dice: Dice, fill: tuple[float, float] = (0.3, 0.9), tilt: float = 45.0, outside: float = 0.0) -> Pose:
    """`tilt` up to so many degrees; most pictures stand about upright, some are turned by anything. `outside`: how far they may leave the frame."""
    kind = dice()
    roll = dice(-8, 8) if kind < 0.45 else dice(-45, 45) if kind < 0.8 else 90 * (1 + dice.pick(3)) + dice(-15, 15)
    return Pose(
        tilt=math.radians(dice(0, tilt)),
        heading=dice(0, 2 * math.pi),
        roll=math.radians(roll),
        focal=dice(0.65, 1.3),
        x=dice(-outside, 1 + outside),
        y=dice(-outside, 1 + outside),
        fill=dice(*fill),
    )


def photo_paths(root: Path, keep_aside: bool = True) -> list[Path]:
    """Photos without faces close up: those for training, or those that training leaves out."""
    held = held_out(root)
    if not keep_aside:
        return sorted(p for p in held if p.exists())
    folders = [f for f in PHOTO_FOLDERS if not f.startswith(FACES)]
    return [p for f in folders for p in sorted((root / f).glob("*.jpg")) if p not in held]


def load_photos(paths: list[Path], count: int, canvas: int, seed: int = 0, skip: int = 0) -> Photos:
    """`count` of the files, in an order that `seed` shuffles, after the first `skip` of it."""
    order = torch.randperm(len(paths), generator=torch.Generator().manual_seed(seed))[skip : skip + count].tolist()
    return canvases([paths[i] for i in order], canvas)


def random_residual(size: int, generator: torch.Generator) -> Tensor:
    """(1, 3, size, size), blotches of two scales in random colours, quiet where the stamp's own network is not there yet."""
    out = torch.zeros(1, 3, size, size)
    for cells, share in ((size // 8, 1.0), (size // 20, 0.7)):
        out += share * F.interpolate(torch.randn(1, 3, cells, cells, generator=generator), size=(size, size), mode="bicubic", align_corners=False)
    psnr = 30 + 3 * float(torch.rand((), generator=generator))
    return out * (10 ** (-psnr / 20) / out.square().mean().sqrt())


@torch.inference_mode()
def stamp_photos(photos: Photos, net: StegaStamp | None, generator: torch.Generator, plain: float = 0.1) -> tuple[Photos, Tensor]:
    """Pictures cut to the usual aspects and stamped at their own size, and the secrets (N, bits).

    The residual is computed at the network's size and brought to the picture's bicubically, with a strength between .7 and 1.3. Without a network it is
    `random_residual`, 30 to 33 dB. A share `plain` stays unstamped: the detector shall find pictures, the decoder says what is written in them.
    """
    dice, size = Dice(generator), net.size if net else 256
    pixels, sizes = torch.zeros_like(photos.pixels), torch.zeros_like(photos.sizes)
    secrets = torch.randint(2, (len(photos), net.n_bits if net else 100), generator=generator).float()
    for i, (canvas, (h, w)) in enumerate(zip(photos.pixels, photos.sizes.tolist(), strict=True)):
        if dice.happens(0.7):
            aspect = ASPECTS[dice.pick(len(ASPECTS))]
            h, w = min(h, round(w / aspect)), min(w, round(h * aspect))
        picture = canvas[None, :, :h, :w].float() / 255
        if net:
            small = F.interpolate(picture, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
            residual = net.encoder(small, secrets[i : i + 1])
        else:
            residual = random_residual(size, generator)
        unstamped, strength = dice.happens(plain), dice(0.7, 1.3)
        residual = F.interpolate(residual, size=(h, w), mode="bicubic", align_corners=False)
        pixels[i, :, :h, :w] = ((picture + (0.0 if unstamped else strength) * residual).clamp(0, 1) * 255).round().byte()[0]
        sizes[i, 0], sizes[i, 1] = h, w
    return Photos(pixels, sizes, photos.labels), secrets


def background(photos: Photos, height: int, width: int, dice: Dice) -> Tensor:
    """(3, height, width) in [0, 1]: a view cut from a photo, or a wall or desk of one colour with some grain."""
    if dice.happens(SHARES["wall"]):
        grain = torch.randn(3, height // 2, width // 2, generator=dice.generator) * dice(0, 0.04)
        wall = dice.colour(0.05, 0.95).lerp(torch.full((3, 1, 1), dice(0.1, 0.95)), dice()) + dice.field(height, width, -0.1, 0.1)
        return (wall + F.interpolate(grain[None], size=(height, width), mode="bilinear", align_corners=False)[0]).clamp(0, 1)
    i = dice.pick(len(photos))
    h, w = photos.sizes[i].tolist()
    canvas = photos.pixels.shape[-1]
    scale = min(w / width, h / height) * dice(0.55, 1.0)  # pixels of the photo a pixel of the frame
    cw, ch = max(8, int(width * scale)), max(8, int(height * scale))
    x, y = dice.pick(w - cw + 1), dice.pick(h - ch + 1)
    view = photos.pixels[i : i + 1, :, y : y + ch, x : x + cw].float() / 255
    view = F.interpolate(view, size=(height, width), mode="bilinear", antialias=scale > 1.3, align_corners=False)[0]
    return view.flip(-1) if dice.happens(0.5) else view


@dataclass(frozen=True)
class Box:
    """A window of the frame and its pixels' coordinates, as tensors and as arrays: x (1, w), y (h, 1)."""

    left: int
    top: int
    right: int
    bottom: int

    @classmethod
    def around(cls, points: np.ndarray, height: int, width: int, margin: float) -> "Box":
        (x0, y0), (x1, y1) = np.floor(points.min(0) - margin), np.ceil(points.max(0) + margin)
        return cls(*(int(np.clip(v, 0, n)) for v, n in ((x0, width), (y0, height), (x1 + 1, width), (y1 + 1, height))))

    @property
    def empty(self) -> bool:
        return self.right <= self.left or self.bottom <= self.top

    def cut(self, frame: Tensor) -> Tensor:
        return frame[:, self.top : self.bottom, self.left : self.right]

    @property
    def axes(self) -> tuple[np.ndarray, np.ndarray]:
        return np.arange(self.left, self.right, dtype=np.float32)[None], np.arange(self.top, self.bottom, dtype=np.float32)[:, None]


def cover(quad: np.ndarray, box: Box, soft: float = 1.0) -> Tensor:
    """How much of each pixel of `box` the quad covers, (1, h, w); `soft` pixels wide at the border."""
    x, y = box.axes
    return torch.from_numpy(np.clip(0.5 - distance(quad.astype(np.float32), x, y) / soft, 0, 1))[None]


def hang(frame: Tensor, picture: Tensor, matrix: np.ndarray, dice: Dice, unit: float) -> None:
    """Draw `picture` (3, h, w) into `frame` (3, H, W), in place; `matrix` takes (0, 0) .. (1, 1) to pixels of the frame."""
    height, width = frame.shape[-2:]
    h, w = picture.shape[-2:]
    quad = geometry.transform_points(matrix, geometry.square(1))
    outer = geometry.transform_points(matrix, _outline(w / h, dice)) if dice.happens(SHARES["border"]) else quad
    size = float(np.linalg.norm(np.roll(quad, -1, 0) - quad, axis=1).mean())
    if dice.happens(SHARES["shadow"]):
        away = size * dice(0.01, 0.08)
        angle, soft, dark = dice(0, 2 * math.pi), size * dice(0.02, 0.15), dice(0.2, 0.7)
        shadow = outer + away * np.array([math.cos(angle), math.sin(angle)])
        box = Box.around(shadow, height, width, soft)
        if not box.empty:
            box.cut(frame).mul_(1 - dark * cover(shadow, box, 2 * soft))
    box = Box.around(outer, height, width, 1)
    if box.empty:
        return
    part = box.cut(frame)
    if outer is not quad:
        part.lerp_(_border_colour(dice).expand_as(part), cover(outer, box))
    box = Box.around(quad, height, width, 1)
    if box.empty:
        return
    part = box.cut(frame)
    edges = np.linalg.norm(np.roll(quad, -1, 0) - quad, axis=1)
    seen_w, seen_h = max(edges[0], edges[2]), max(edges[1], edges[3])
    shrink_w, shrink_h = min(1.0, 1.1 * seen_w / w), min(1.0, 1.1 * seen_h / h)
    if min(shrink_w, shrink_h) < 0.9:  # the camera's pixels average, so that fine detail must not alias
        less = (max(8, round(h * shrink_h)), max(8, round(w * shrink_w)))
        picture = F.interpolate(picture[None], size=less, mode="bilinear", antialias=True, align_corners=False)[0]
    x, y = box.axes
    m = np.linalg.inv(matrix).astype(np.float32)
    x, y = torch.from_numpy(x), torch.from_numpy(y)
    below = (m[2, 0] * x + m[2, 1] * y + m[2, 2]).reciprocal_()
    u, v = (m[0, 0] * x + m[0, 1] * y + m[0, 2]) * below, (m[1, 0] * x + m[1, 1] * y + m[1, 2]) * below  # 0 .. 1 over the picture
    shown = F.grid_sample(picture[None], torch.stack([2 * u - 1, 2 * v - 1], -1)[None], padding_mode="border", align_corners=False)[0]
    shown = shown.mul_(dice(0.65, 1.15)).add_(dice(-0.05, 0.12)) + dice.colour(-0.04, 0.04)
    if dice.happens(SHARES["moire"]):
        shown += _moire(x, y, u, dice, unit)
    if dice.happens(SHARES["glare"]):
        spread = dice(0.02, 0.2)
        spot = torch.exp(-((u - dice(-0.1, 1.1)) ** 2 + dice(0.3, 3) * (v - dice(-0.1, 1.1)) ** 2) / spread)
        shown += spot * dice(0.05, 0.45)
    part.lerp_(shown.clamp_(0, 1), cover(quad, box))


def _outline(aspect: float, dice: Dice) -> np.ndarray:
    """What the picture is printed or shown on: an even margin, a page with the picture anywhere on it, or bars on two sides; in units of the picture's sides."""
    kind = dice()
    if kind < 0.45:
        margin = dice(0.01, 0.12)
        left = right = margin / max(1.0, aspect)
        top = bottom = margin * min(1.0, aspect)
    elif kind < 0.75:
        left, top, right, bottom = (dice(0.02, 0.5) for _ in range(4))
    else:
        wide, narrow = dice(0.1, 0.6), dice(0, 0.03)
        left, top = (narrow, wide) if dice.happens(0.5) else (wide, narrow)
        right, bottom = left, top
    return np.array([[-left, -top], [1 + right, -top], [1 + right, 1 + bottom], [-left, 1 + bottom]])


def _border_colour(dice: Dice) -> Tensor:
    kind = dice()
    if kind < 0.55:
        return torch.full((3, 1, 1), dice(0.75, 1.0)) + dice.colour(-0.06, 0.03)
    if kind < 0.85:
        return dice.colour(0.0, 0.03) + dice(0.0, 0.12)
    return dice.colour()


def _moire(x: Tensor, y: Tensor, u: Tensor, dice: Dice, unit: float) -> Tensor:
    """Waves as a screen's grid and a sensor's make them: a slow beat, bent a little, each channel with its own phase; or fine stripes."""
    period = unit * math.exp(dice(math.log(2.0), math.log(40.0)))
    angle, bend = dice(0, math.pi), dice(-4, 4)
    phase = (x * math.cos(angle) + y * math.sin(angle)) * (2 * math.pi / period) + bend * u**2
    return torch.sin(phase[None] + dice.colour(0, 2 * math.pi)) * dice(0.01, 0.08)


def hold(frame: Tensor, quad: np.ndarray, photos: Photos, dice: Dice) -> None:
    """Fingers, or some other rounded thing, over a side or a corner of `quad`, in place."""
    height, width = frame.shape[-2:]
    size = float(np.linalg.norm(np.roll(quad, -1, 0) - quad, axis=1).mean())
    i, t = dice.pick(4), dice(-0.05, 1.05)
    at = quad[i] + t * (quad[(i + 1) % 4] - quad[i])
    inward = quad.mean(0) - at
    inward /= np.linalg.norm(inward) + 1e-9
    spin = math.radians(dice(-40, 40))
    inward = inward @ np.array([[math.cos(spin), math.sin(spin)], [-math.sin(spin), math.cos(spin)]])
    sideways = np.array([-inward[1], inward[0]])
    radius, depth = size * dice(0.04, 0.1), size * dice(0.0, 0.16)
    skin = torch.tensor(SKIN[dice.pick(len(SKIN))]).view(3, 1, 1) * dice(0.6, 1.1)
    for n in range(1 + dice.pick(3)):
        tip = at + inward * (depth * dice(0.6, 1.0)) + sideways * (n * radius * dice(1.9, 2.3))
        root = tip - inward * size * dice(0.5, 1.2) + sideways * size * dice(-0.1, 0.1)
        box = Box.around(np.stack([tip, root]), height, width, radius + 2)
        if box.empty:
            continue
        x, y = (torch.from_numpy(a) for a in box.axes)
        dx, dy = (root - tip).tolist()
        along = (((x - tip[0]) * dx + (y - tip[1]) * dy) / (dx * dx + dy * dy)).clamp_(0, 1)
        off = torch.sqrt((x - tip[0] - along * dx) ** 2 + (y - tip[1] - along * dy) ** 2) / (radius * (1 + 0.25 * along))
        part = box.cut(frame)
        look = skin * (1.05 - 0.45 * off.clamp(max=1) ** 2) + dice(-0.03, 0.03)
        part.lerp_(look.clamp(0, 1), ((1 - off) * radius + 0.5).clamp(0, 1)[None])


def light(frame: Tensor, dice: Dice) -> Tensor:
    """Uneven light of some colour, and what the camera's exposure makes of it; not clipped yet."""
    height, width = frame.shape[-2:]
    spread = dice(0, 0.35)
    x = frame * dice.field(height, width, 1 - spread, 1 + spread) * (dice(0.55, 1.25) * (1 + dice.colour(-0.12, 0.12)))
    grey = x.mean(0, keepdim=True)
    level = float(grey.mean())
    x = torch.lerp(grey.expand_as(x), x, dice(0.5, 1.25))
    return (x - level) * dice(0.65, 1.25) + (level + dice(-0.05, 0.08))


def sense(frame: Tensor, dice: Dice, unit: float, blur: float = 2.2) -> np.ndarray:
    """Lens and sensor: half of the frames are blurred by up to `blur` units, all have noise. (3, H, W) -> (H, W, 3) uint8."""
    x = frame
    if dice.happens(SHARES["blur"]):
        x = _blur(x, dice, dice(min(0.5, blur), blur) * unit)
    strong = dice(0, 1) ** 2 * 0.05  # mostly a little
    x = x + torch.randn(x.shape, generator=dice.generator) * strong
    return np.ascontiguousarray((x.clamp_(0, 1) * 255).round_().byte().permute(1, 2, 0).numpy())


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    """(H, W, 3) uint8 through a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file))


def _blur(x: Tensor, dice: Dice, radius: float) -> Tensor:
    """Out of focus (a disc) or shaken (a line), in pixels."""
    reach = math.ceil(radius)
    axis = torch.arange(-reach, reach + 1, dtype=torch.float32)
    row, col = axis[:, None], axis[None]
    if dice.happens(0.6):
        kernel = (radius + 0.5 - (row**2 + col**2).sqrt()).clamp(0, 1)
    else:
        a = dice(0, math.pi)
        along, across = col * math.cos(a) + row * math.sin(a), row * math.cos(a) - col * math.sin(a)
        kernel = (radius + 0.5 - along.abs()).clamp(0, 1) * (1 - across.abs()).clamp(0, 1)
    kernel = (kernel / kernel.sum()).expand(3, 1, -1, -1)
    return F.conv2d(F.pad(x[None], [reach] * 4, mode="replicate"), kernel, groups=3)[0]


def picture_of(photos: Photos, i: int) -> Tensor:
    """Photo `i` (3, h, w) in [0, 1]."""
    h, w = photos.sizes[i].tolist()
    return photos.pixels[i, :, :h, :w].float() / 255


def scene(
    pictures: Photos,
    backgrounds: Photos,
    generator: torch.Generator,
    height: int,
    width: int,
    counts: tuple[float, ...] = (0.06, 0.70, 0.18, 0.06),
    fill: tuple[float, float] = (0.14, 1.0),
    tilt: float = 50.0,
    outside: float = 0.06,
) -> tuple[np.ndarray, np.ndarray]:
    """A training scene: the frame (height, width, 3) uint8, and the quads (n, 4, 2) of its pictures, each clockwise from the picture's own top left.

    `counts`: the shares of scenes with 0, 1, 2, ... pictures. One alone fills `fill` of the frame's width, several share it without overlapping.
    """
    dice, unit = Dice(generator), max(height, width) / 384
    frame = background(backgrounds, height, width, dice)
    kind, n = dice(), 0
    while n + 1 < len(counts) and kind >= counts[n]:
        kind, n = kind - counts[n], n + 1
    quads: list[np.ndarray] = []
    for _ in range(n):
        picture = picture_of(pictures, dice.pick(len(pictures)))
        for _ in range(5):
            pose = draw_pose(dice, fill if n == 1 else (fill[0], max(fill[0], 0.9 / n)), tilt, outside)
            matrix = pose.matrix(picture.shape[-1] / picture.shape[-2], height, width)
            quad = geometry.transform_points(matrix, geometry.square(1))
            if all(_apart(quad, other) for other in quads):
                hang(frame, picture, matrix, dice, unit)
                quads.append(quad)
                break
    for quad in quads:
        if dice.happens(SHARES["fingers"]):
            hold(frame, quad, backgrounds, dice)
    pixels = sense(light(frame, dice), dice, unit)
    if dice.happens(SHARES["jpeg"]):
        pixels = jpeg(pixels, round(dice(35, 95)))
    return pixels, np.array(quads).reshape(-1, 4, 2)


def _apart(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether a side of one of the two keeps the other out."""
    for one, other in ((a, b), (b, a)):
        side = np.roll(one, -1, 0) - one
        out = (other[:, None, 0] - one[:, 0]) * side[:, 1] - (other[:, None, 1] - one[:, 1]) * side[:, 0]  # (corners of the other, sides)
        if (out > 0).all(0).any():
            return True
    return False


def film(
    picture: Tensor,
    backgrounds: Photos,
    generator: torch.Generator,
    frames: int = 5,
    height: int = FRAME[0],
    width: int = FRAME[1],
    fill: tuple[float, float] = (0.3, 0.9),
    tilt: float = 45.0,
    quality: int = 92,
) -> tuple[list[np.ndarray], np.ndarray]:
    """What a webcam sees of one `picture` (3, h, w) in [0, 1] that a hand holds, not quite still.

    Returns `frames` arrays (height, width, 3) uint8 and the quads (frames, 4, 2), clockwise from the picture's own top left. Pose, light, shadow, reflections
    and fingers are random as in training, and the same in all frames but for a slow drift of the pose; noise and a little blur are each frame's own, and every
    frame goes through JPEG at `quality`. The whole picture stays in the frame.
    """
    dice, unit = Dice(generator), max(height, width) / 384
    pose = draw_pose(dice, fill, tilt)
    place, look = (int(torch.randint(2**62, (), generator=generator)) for _ in range(2))
    fingers = dice.happens(SHARES["fingers"])
    drift = [dice(-1, 1) for _ in range(5)]
    out, quads = [], []
    for i in range(frames):
        t = i / max(1, frames - 1)
        moved = replace(
            pose,
            tilt=min(math.radians(tilt), abs(pose.tilt + t * drift[0] * 0.06)),
            roll=pose.roll + t * drift[1] * 0.06,
            x=min(1.0, max(0.0, pose.x + t * drift[2] * 0.1)),
            y=min(1.0, max(0.0, pose.y + t * drift[3] * 0.1)),
            fill=min(fill[1], max(fill[0], pose.fill * (1 + t * drift[4] * 0.05))),
        )
        matrix = moved.matrix(picture.shape[-1] / picture.shape[-2], height, width)
        quad = geometry.transform_points(matrix, geometry.square(1))
        frame = background(backgrounds, height, width, Dice(torch.Generator().manual_seed(place)))
        still = Dice(torch.Generator().manual_seed(look))
        hang(frame, picture, matrix, still, unit)
        if fingers:
            hold(frame, quad, backgrounds, still)
        out.append(jpeg(sense(light(frame, still), dice, unit, blur=0.8), quality))
        quads.append(quad)
    return out, np.array(quads)
