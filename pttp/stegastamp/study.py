"""Looking inside a stamp: what it adds to the photo, and how much it survives. The attack bench behind the tab.

Every attack is done for real, with Pillow and NumPy on 8-bit pictures and with JPEG files, not with the smooth imitations of distort.py that the networks
were trained through; and it comes out the same every time. Where size matters (blur, grain), amounts are in pixels as if the picture had 256 each way, so
that a slider means the same for every photo.

A tilted or cropped picture can be read in three ways, and `compare` has all three, because they teach different things. With the corners *known*, what is
lost is what resampling and cropping lose: the networks alone are tried. With *nobody looking* for the corners, the whole picture is taken for the stamp: so
much does the decoder put up with by itself. A *search* is what a reader does who is handed the picture: detector, windows, corner moves.
"""
from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from pttp import images
from pttp.errors import BadInput, NoStampFound
from pttp.stegastamp import geometry, message, reading
from pttp.stegastamp.predict import Predictor, Stamp

Progress = Callable[[float, str], None]  # (fraction in [0, 1], a sentence)
Size = tuple[int, int]  # (width, height)

VIEW = 256  # pixels each way of the picture in whose pixels blur and grain are measured
GREY = (128, 128, 128)  # what is around a tilted picture and in front of a hidden one


def outline(size: Size) -> np.ndarray:
    """The outer corners of a picture, (4, 2): those of its corner pixels, in coordinates where the first pixel reaches from 0 to 1."""
    w, h = size
    return np.array([[0, 0], [w, 0], [w, h], [0, h]], np.float64)


def _stays(size: Size, amount: float) -> tuple[np.ndarray, Size]:
    return outline(size), size


@dataclass(frozen=True)
class Attack:
    """One way to harm a picture. `low` to `high` in steps of `step` is what a slider offers, in `unit`; `neutral` leaves the picture as it is.

    `apply(image, amount)` takes and gives RGB pictures; `place((width, height), amount)` says where the outer corners of the picture that it is given come to
    lie in the one that it gives, and the size of that.
    """

    label: str
    unit: str
    low: float
    high: float
    neutral: float
    step: float
    apply: Callable[[Image.Image, float], Image.Image]
    place: Callable[[Size, float], tuple[np.ndarray, Size]] = _stays

    @property
    def moves(self) -> bool:
        """Whether the picture's corners are elsewhere afterwards."""
        return self.place is not _stays

    def amounts(self, points: int = 17) -> np.ndarray:
        """About `points` amounts from the neutral one to the worst; to both ends of the range when the neutral one lies inside."""
        ends = [end for end in (self.low, self.high) if end != self.neutral]
        lines = [np.linspace(self.neutral, end, points if len(ends) == 1 else points // 2 + 1) for end in ends]
        if len(ends) == 2:
            lines = [lines[0][:0:-1], lines[1]]
        amounts = np.concatenate(lines)
        return _each_once(np.rint(amounts)) if float(self.step).is_integer() else amounts


def _each_once(values: np.ndarray) -> np.ndarray:
    return values[np.append(True, values[1:] != values[:-1])]


def _to_picture(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def occlude(image: Image.Image, percent: float) -> Image.Image:
    """A grey rectangle in front of the middle, covering `percent` of the area."""
    side = (percent / 100) ** 0.5
    w, h = (round(side * n) for n in image.size)
    out = image.copy()
    left, top = (image.width - w) // 2, (image.height - h) // 2
    out.paste(GREY, (left, top, left + w, top + h))
    return out


def _cut(size: Size, percent: float) -> tuple[int, int, int, int]:
    """What is left (left, top, right, bottom) when `percent` of each side is cut off, half of it at either end."""
    (left, top), (w, h) = (round(n * percent / 200) for n in size), size
    return left, top, w - left, h - top


def crop(image: Image.Image, percent: float) -> Image.Image:
    return image.crop(_cut(image.size, percent))


def _cropped(size: Size, percent: float) -> tuple[np.ndarray, Size]:
    left, top, right, bottom = _cut(size, percent)
    return outline(size) - (left, top), (right - left, bottom - top)


def _turned(size: Size, degrees: float) -> tuple[np.ndarray, Size]:
    """Turned clockwise, in a picture in which that has room."""
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    corners = (outline(size) - np.array(size) / 2) @ turn.T
    room = np.ceil(2 * np.abs(corners).max(0) - 1e-6)
    return corners + room / 2, (int(room[0]), int(room[1]))


def _slanted(size: Size, percent: float) -> tuple[np.ndarray, Size]:
    """The upper edge leans back: `percent` narrower than the lower one, and lower by half as much."""
    (w, h), share = size, percent / 100
    return np.array([[w * share / 2, h * share / 2], [w - w * share / 2, h * share / 2], [w, h], [0, h]]), size


def onto(image: Image.Image, corners: np.ndarray, size: Size, background: tuple[int, int, int] | Image.Image = GREY) -> Image.Image:
    """`image` with its outer corners at `corners` (4, 2) in a picture of `size`, bicubic. A picture as `background` must have that size."""
    back = geometry.homography(corners, outline(image.size))
    area = geometry.polygon_area(corners) / (image.width * image.height)
    if area < 0.5:  # Pillow looks at four pixels however many fall on one
        small = tuple(max(1, round(n * area**0.5)) for n in image.size)
        return onto(image.resize(small, Image.Resampling.LANCZOS), corners, size, background)
    canvas = Image.new("RGB", size, background) if isinstance(background, tuple) else background.convert("RGB")
    coefficients = (back / back[2, 2]).ravel()[:8].tolist()
    seen = image.transform(size, Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BICUBIC)
    mask = Image.new("L", image.size, 255).transform(size, Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.NEAREST)
    canvas.paste(seen, mask=mask)
    return canvas


def rotate(image: Image.Image, degrees: float) -> Image.Image:
    """Clockwise, on a larger grey picture in which nothing is cut off."""
    return onto(image, *_turned(image.size, degrees))


def slant(image: Image.Image, percent: float) -> Image.Image:
    return onto(image, *_slanted(image.size, percent))


def brighten(image: Image.Image, offset: float) -> Image.Image:
    return _to_picture(np.asarray(image, np.float32) + 255 * offset)


def contrast(image: Image.Image, factor: float) -> Image.Image:
    """Away from mid grey (towards it below 1)."""
    return _to_picture((np.asarray(image, np.float32) - 127.5) * factor + 127.5)


def blur(image: Image.Image, sigma: float) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(tuple(sigma * n / VIEW for n in image.size)))


def resize(image: Image.Image, longest: float) -> Image.Image:
    return images.fit(image, max(1, round(longest)))


def _resized(size: Size, longest: float) -> tuple[np.ndarray, Size]:
    scale = min(1.0, round(longest) / max(size))
    w, h = (max(1, round(n * scale)) if scale < 1 else n for n in size)
    return outline((w, h)), (w, h)


def noise(image: Image.Image, deviation: float) -> Image.Image:
    """Normal, one value a channel and grain; a grain is a pixel of the 256-pixel picture, or a pixel where there are fewer."""
    w, h = image.size
    rows, columns = min(h, VIEW), min(w, VIEW)
    grain = np.random.default_rng(0).standard_normal((rows, columns, 3), np.float32)
    grain = grain[np.arange(h) * rows // h][:, np.arange(w) * columns // w]
    return _to_picture(np.asarray(image, np.float32) + 255 * deviation * grain)


def jpeg(image: Image.Image, quality: float) -> Image.Image:
    """Written as a JPEG file (4:2:0) and read again."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=round(quality), subsampling="4:2:0")
    return Image.open(file, formats=("JPEG",)).convert("RGB")


# In the order in which they happen to a picture: the scene, the camera, the file
ATTACKS: dict[str, Attack] = {
    "occlusion": Attack("Something in front", "% of the area", 0, 60, 0, 1, occlude),
    "crop": Attack("Crop", "% of each side", 0, 50, 0, 1, crop, _cropped),
    "rotation": Attack("Rotation", "degrees", -45, 45, 0, 1, rotate, _turned),
    "perspective": Attack("Perspective", "% narrower at the top", 0, 70, 0, 1, slant, _slanted),
    "brightness": Attack("Brightness", "of the range", -0.6, 0.6, 0, 0.02, brighten),
    "contrast": Attack("Contrast", "times", 0.1, 3, 1, 0.05, contrast),
    "blur": Attack("Blur, sigma", "px of 256", 0, 6, 0, 0.1, blur),
    "resize": Attack("Longer side", "px", 24, 512, 512, 8, resize, _resized),
    "noise": Attack("Noise", "of the range", 0, 0.3, 0, 0.01, noise),
    "jpeg": Attack("JPEG quality", "of 100", 1, 100, 100, 1, jpeg),
}


def checked(amounts: Mapping[str, float]) -> dict[str, float]:
    """`amounts` in the order of ATTACKS, without those that change nothing. Raises BadInput for an unknown attack and for an amount outside its range."""
    if unknown := set(amounts) - set(ATTACKS):
        raise BadInput(f"There is no attack called {sorted(unknown)[0]!r}: choose from {', '.join(ATTACKS)}.")
    for name, amount in amounts.items():
        a = ATTACKS[name]
        if not a.low <= amount <= a.high:
            raise BadInput(f"{a.label} goes from {a.low:g} to {a.high:g} {a.unit}, not {amount:g}.")
    return {name: float(amounts[name]) for name, a in ATTACKS.items() if name in amounts and amounts[name] != a.neutral}


def attack(image: Image.Image, amounts: Mapping[str, float]) -> Image.Image:
    """`image` after all `amounts` (by name of ATTACKS, applied in that order), as RGB; transparent parts are laid on white first. Raises BadInput."""
    out = images.read(image)
    for name, amount in checked(amounts).items():
        out = ATTACKS[name].apply(out, amount)
    return out


def corners_after(size: Size, amounts: Mapping[str, float]) -> np.ndarray:
    """Where `attack` takes the corner pixels of a picture of `size` (width, height): (4, 2), clockwise from its own top left. Raises BadInput."""
    quad, now = reading.whole(*size) + 0.5, tuple(size)
    for name, amount in checked(amounts).items():
        moved, then = ATTACKS[name].place(now, amount)
        quad, now = geometry.transform_points(geometry.homography(outline(now), moved), quad), then
    return quad - 0.5


@dataclass(frozen=True)
class BitReport:
    """What is left of a message of 100 bits.

    `probabilities` (100,) that each bit is 1, as read; `wrong` (100,) bool against what was sent; `flips_in_code` of them among the 91 bits that the code
    protects, `left` of its five repairs unused (0 also when there are too many); `readable`: the code gives back what was sent; `message` is what it gives,
    which may be something else, or None; `quad` (4, 2) is where the bits were read.
    """

    probabilities: np.ndarray
    wrong: np.ndarray
    flips_in_code: int
    left: int
    readable: bool
    message: str | None
    quad: np.ndarray

    @property
    def bit_accuracy(self) -> float:
        return 1 - float(self.wrong.mean())

    def to_dict(self) -> dict:
        counts = {"flips_in_code": self.flips_in_code, "left": self.left, "readable": self.readable, "message": self.message}
        return {**counts, "bit_accuracy": self.bit_accuracy, "wrong": np.flatnonzero(self.wrong).tolist(), "probabilities": self.probabilities.round(4).tolist()}


def report(logits: np.ndarray, bits: np.ndarray, quad: np.ndarray) -> BitReport:
    """A report on `logits` (100,) read where `bits` (100,) were written."""
    p = reading.probabilities(logits)
    wrong = (p > 0.5) != (np.asarray(bits) > 0.5)
    flips = int(wrong[: message.CODE].sum())
    payload, sent = message.unpack_all(np.stack([p, np.asarray(bits, np.float64)]))
    readable = payload is not None and sent is not None and payload.message == sent.message
    return BitReport(p, wrong, flips, max(0, message.REPAIRS - flips), readable, payload.message if payload else None, quad)


def compare(predictor: Predictor, image: Image.Image, bits: np.ndarray, quad: np.ndarray | None = None, search: bool = False) -> BitReport:
    """Read an attacked picture and hold the bits against those that were sent, `bits` (100,).

    With `quad` (4, 2), clockwise from the stamp's own top left, the corners are known (`corners_after` says them). Without it the whole picture is taken for
    the stamp, in whichever of the four rotations is clearest; with `search` everything is tried that `Predictor.decode` tries.
    """
    picture = images.read(image)
    pixels = reading.tensor(picture, predictor.device)
    if quad is not None:
        return report(reading.decode(predictor.form, reading.squares(pixels, quad[None], predictor.form.size))[0], bits, quad)
    quads = [reading.whole(*picture.size)]
    if search:
        try:
            found = predictor.decode(picture)
            return report(_logits(found.probabilities), bits, found.quad)
        except NoStampFound:
            quads += predictor.find(picture)
    looks = reading.looks(predictor.form, pixels, np.stack(quads), lenient=False)
    best = max(looks, key=lambda look: (look.payload is not None, reading.clarity(look.logits[look.turns])))
    return report(best.logits[best.turns], bits, best.own_quad)


def _logits(p: np.ndarray) -> np.ndarray:
    p = np.clip(p.astype(np.float64), 1e-9, 1 - 1e-9)
    return np.log(p / (1 - p))


@dataclass(frozen=True)
class Curve:
    """How a stamp fares under more and more of one attack: `bit_accuracy` (N,) in [0, 1] and `readable` (N,) bool at `amounts` (N,)."""

    name: str
    amounts: np.ndarray
    bit_accuracy: np.ndarray
    readable: np.ndarray

    @property
    def breaks_at(self) -> float | None:
        """The mildest amount at which the message is lost, or None when it never is."""
        lost = self.amounts[~self.readable]
        return float(lost[np.abs(lost - ATTACKS[self.name].neutral).argmin()]) if len(lost) else None

    def to_dict(self) -> dict:
        columns = {"amounts": self.amounts.tolist(), "bit_accuracy": self.bit_accuracy.tolist(), "readable": self.readable.tolist()}
        return {"name": self.name, **columns, "breaks_at": self.breaks_at}


def break_points(predictor: Predictor, stamp: Stamp, name: str, progress: Progress | None = None, corners_known: bool = True, points: int = 17) -> Curve:
    """Read `stamp` under `points` amounts of the attack `name`, from nothing to the worst that its slider offers.

    With `corners_known` the picture is cut out where it is; without, the whole picture is taken for the stamp (the same thing for attacks that move no corner).
    `progress` is called after every amount, and stops the work by raising. Raises BadInput for an unknown attack.
    """
    if name not in ATTACKS:
        checked({name: 0})
    one = ATTACKS[name]
    amounts, reports = one.amounts(points), []
    for i, amount in enumerate(amounts):
        harm = {name: float(amount)}
        quad = corners_after(stamp.image.size, harm) if corners_known else None
        reports.append(compare(predictor, attack(stamp.image, harm), stamp.bits, quad))
        if progress:
            how = "read" if reports[-1].readable else "lost"
            progress((i + 1) / len(amounts), f"{one.label} {amount:g} {one.unit}: {how}, {reports[-1].wrong.sum()} of 100 bits wrong.")
    return Curve(name, amounts, np.array([r.bit_accuracy for r in reports]), np.array([r.readable for r in reports]))


def as_csv(curves: list[Curve]) -> str:
    """One line for each amount of each curve."""
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    table.writerow(["attack", "unit", "amount", "bit_accuracy", "readable"])
    for curve in curves:
        for amount, accuracy, readable in zip(curve.amounts, curve.bit_accuracy, curve.readable, strict=True):
            table.writerow([curve.name, ATTACKS[curve.name].unit, f"{amount:g}", f"{accuracy:.2f}", int(readable)])
    return file.getvalue()


def residual_picture(residual: np.ndarray, gain: float = 10) -> Image.Image:
    """A residual (H, W, 3) in units of [0, 1] made visible: mid grey where nothing is added, `gain` times what is added elsewhere."""
    return _to_picture(127.5 + 255 * gain * np.asarray(residual, np.float32))
