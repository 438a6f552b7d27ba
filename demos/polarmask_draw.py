"""What PolarMask's parts draw and say: contours and rays on a photo, the card of an answer, curves, heat maps."""
from __future__ import annotations

import base64
import html
import io

import numpy as np
from PIL import Image, ImageDraw

from demos import plots
from demos.page import facts

SMALLEST, LARGEST = 480, 900  # longer side of what is shown: a small photo is enlarged, so that one can click into it
ORANGE = (240, 163, 94)
COLOURS = ("#7c3aed", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # told apart without colour vision, too
FINE = 2  # drawn so many times as large, then averaged


def rgb(colour: str) -> tuple[int, int, int]:
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def fitted(photo: Image.Image) -> Image.Image:
    scale = min(max(max(photo.size), SMALLEST), LARGEST) / max(photo.size)
    size = tuple(max(1, round(side * scale)) for side in photo.size)
    return photo if size == photo.size else photo.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)


class Sketch:
    """Smooth lines and areas over a photo; places are in pixels of the photo as it is shown."""

    def __init__(self, photo: Image.Image):
        self.photo = photo
        self.layer = Image.new("RGBA", tuple(FINE * side for side in photo.size))
        self.pen = FINE * max(1.5, max(photo.size) / 420)

    def _at(self, points) -> list[tuple[float, float]]:
        return [(FINE * (float(x) + 0.5), FINE * (float(y) + 0.5)) for x, y in points]

    def area(self, points, colour: tuple[int, int, int], opacity: int = 80) -> None:
        over = Image.new("RGBA", self.layer.size)
        ImageDraw.Draw(over).polygon(self._at(points), fill=(*colour, opacity))
        self.layer.alpha_composite(over)

    def line(self, points, colour: tuple[int, int, int], width: float = 1.0, closed: bool = False) -> None:
        places = self._at(points)
        if len(places) > 1:
            ImageDraw.Draw(self.layer).line([*places, *places[: 2 * closed]], fill=(*colour, 255), width=max(1, round(self.pen * width)), joint="curve")

    def dot(self, point, colour: tuple[int, int, int], radius: float = 2.2) -> None:
        (x, y), r = self._at([point])[0], self.pen * radius
        ImageDraw.Draw(self.layer).ellipse((x - r, y - r, x + r, y + r), fill=(*colour, 255), outline=(255, 255, 255, 255), width=max(1, round(self.pen / 2)))

    def done(self) -> Image.Image:
        out = self.photo.convert("RGBA")
        out.alpha_composite(self.layer.reduce(FINE))
        return out.convert("RGB")


def one(photo: Image.Image, instance, accent: str, point=None) -> Image.Image:
    """Centre, rays, contour and filled mask of one object (in pixels of `photo`); `point`: where was clicked."""
    sketch = Sketch(photo)
    sketch.area(instance.contour, rgb(accent))
    for end in instance.contour:
        sketch.line([instance.center, end], ORANGE, 0.6)
    sketch.line(instance.contour, rgb(accent), 1.4, closed=True)
    sketch.dot(instance.center, rgb(accent))
    if point is not None:
        sketch.dot(point, (255, 255, 255), 1.3)
    return sketch.done()


def every(photo: Image.Image, instances) -> Image.Image:
    """All objects, the best on top."""
    sketch = Sketch(photo)
    for i, instance in reversed(list(enumerate(instances))):
        colour = rgb(COLOURS[i % len(COLOURS)])
        sketch.area(instance.contour, colour, 70)
        sketch.line(instance.contour, colour, 1.2, closed=True)
        sketch.dot(instance.center, colour)
    return sketch.done()


def edited(photo: Image.Image, instance, contour, ray: int, accent: str) -> Image.Image:
    """The contour after rays were moved, over the network's own; the chosen ray stands out."""
    sketch = Sketch(photo)
    sketch.area(contour, rgb(accent), 60)
    for end in contour:
        sketch.line([instance.center, end], (255, 255, 255), 0.4)
    sketch.line(instance.contour, (86, 180, 233), 1.0, closed=True)
    sketch.line(contour, rgb(accent), 1.4, closed=True)
    sketch.line([instance.center, contour[ray]], ORANGE, 1.6)
    sketch.dot(contour[ray], ORANGE)
    sketch.dot(instance.center, rgb(accent))
    return sketch.done()


def outline(photo: Image.Image, corners, told, accent: str) -> Image.Image:
    """The outline so far, and what rays make of it (`told`, or None)."""
    sketch = Sketch(photo)
    if told is not None:
        sketch.area(told.contour, rgb(accent), 70)
        for end in told.contour:
            sketch.line([told.center, end], ORANGE, 0.5)
        sketch.line(told.contour, rgb(accent), 1.2, closed=True)
        sketch.dot(told.center, rgb(accent))
    sketch.line(corners, (86, 180, 233), 1.2, closed=len(corners) > 2)
    for corner in corners:
        sketch.dot(corner, (86, 180, 233), 1.4)
    return sketch.done()


def level(stride: int) -> str:
    return f"P{stride.bit_length() - 1}, one cell every {stride} pixels"


def card(instance, milliseconds: float | None, accent: str, sure: float) -> str:
    """One object in words and numbers; `milliseconds` is None where nothing was asked anew."""
    doubt = "" if instance.score >= sure else '<p class="pt-note">The network does not believe that there is an object here; this is what it would draw.</p>'
    rows = [
        ("centre", f"{instance.center[0]:.0f}, {instance.center[1]:.0f}"),
        ("score", f"{instance.score:.2f}"),
        ("centerness", f"{instance.centerness:.2f}"),
        ("level", level(instance.stride)),
        ("rays", f"{len(instance.rays)}, {instance.rays.min():.0f} to {instance.rays.max():.0f} px"),
    ]
    rows += [("answered in", f"{milliseconds:.0f} ms")] if milliseconds is not None else []
    return f'<div class="pt-card pt-found" style="--accent:{accent}"><p class="pt-message">{html.escape(instance.label)}</p>{facts(rows)}{doubt}</div>'


def listed(instances, accent: str) -> str:
    """All objects with their scores, in the colours of the picture."""
    rows = "".join(
        f'<div class="pt-bar" style="--accent:{COLOURS[i % len(COLOURS)]}"><span class="pt-name">{html.escape(o.label)}</span><span class="pt-value">{o.score:.2f}</span>'
        f'<div class="pt-track" role="img" aria-label="score {o.score:.2f}"><div class="pt-fill" style="width:{min(100.0, 100 * o.score):.0f}%"></div></div></div>'
        for i, o in enumerate(instances[:12])
    )
    more = f" {len(instances) - 12} more are drawn." if len(instances) > 12 else ""
    note = f"{len(instances)} object{'s' * (len(instances) != 1)} at this score.{more} Click one in the picture for its rays." if instances else "Nothing reaches this score: move the slider to the left."
    return f'<div class="pt-card" style="--accent:{accent}"><div class="pt-bars">{rows}</div><p class="pt-note">{note}</p></div>'


def curve(points: list[tuple[int, float]], chosen: int, iou: float, words: str) -> str:
    """IoU by number of rays as SVG, the chosen number marked."""
    low = min(0.5, *(v for _, v in points)) if points else 0.5
    first, last = points[0][0], points[-1][0]

    def place(count: float, value: float) -> tuple[float, float]:
        return 24 + 186 * (count - first) / (last - first), 92 - 80 * (value - low) / (1 - low)

    line = " ".join("{:.1f},{:.1f}".format(*place(*p)) for p in points)
    dots = "".join('<circle cx="{:.1f}" cy="{:.1f}" r="2.5" class="read"><title>{} rays: {:.3f}</title></circle>'.format(*place(*p), *p) for p in points)
    x, y = place(chosen, iou)
    mark = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" class="lost"><title>{chosen} rays: {iou:.3f}</title></circle>'
    return (
        f'<div class="pt-card"><div class="pt-curves"><figure><figcaption><b>{chosen} rays: IoU {iou:.3f}</b>upper bound, by number of rays</figcaption>'
        f'<svg viewBox="0 0 220 112" role="img" aria-label="{chosen} rays reach an IoU of {iou:.3f}"><line class="axis" x1="24" x2="210" y1="12" y2="12"/><line class="axis" x1="24" x2="210" y1="92" y2="92"/>'
        f'<text x="21" y="15" text-anchor="end">1</text><text x="21" y="95" text-anchor="end">{low:.2f}</text><text x="24" y="108">{first}</text><text x="210" y="108" text-anchor="end">{last} rays</text>'
        f'<polyline points="{line}"/>{dots}{mark}</svg></figure></div><p class="pt-note">{words}</p></div>'
    )


def jpeg(pixels: np.ndarray) -> str:
    """(H, W, 3) uint8 -> what an <img> can hold."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def heat_figures(photo: Image.Image, heats, answered: int | None, words: str) -> str:
    """One figure a level: the photo in grey, the heat over it."""
    small = photo.copy()
    small.thumbnail((360, 360), Image.Resampling.BILINEAR)
    grey = np.asarray(small.convert("L"), np.float32)[..., None].repeat(3, 2)
    figures = []
    for heat in heats:
        over = heat.over(grey.shape[:2])
        mixed = (0.45 * grey + 0.55 * plots.coloured(over, 0, 1)).clip(0, 255).astype(np.uint8)
        mine = " <b>It answered.</b>" if heat.stride == answered else ""
        picture = f'<img style="width:100%;border-radius:6px;display:block;margin:0" alt="{words}, {level(heat.stride)}" src="{jpeg(mixed)}">'
        figures.append(f'<figure style="margin:0">{picture}<figcaption class="pt-note" style="margin:4px 0 0">{level(heat.stride)}; highest {heat.values.max():.2f}.{mine}</figcaption></figure>')
    grid = f'<div style="display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,220px),1fr));gap:14px">{"".join(figures)}</div>'
    return f'<div class="pt-card">{grid}<p class="pt-note">{words}. Dark: 0, yellow: 1.</p></div>'


def loss_picture(mask: np.ndarray, lost) -> np.ndarray:
    """Blue: right. Orange: in the polygon, not of the object. Dark: of the object, not in the polygon."""
    out = np.full((*mask.shape, 3), 245, np.uint8)
    filled = lost.told.filled
    out[mask & filled] = (47, 111, 179)
    out[filled & ~mask] = (240, 163, 94)
    out[mask & ~filled] = (40, 40, 60)
    image = Image.fromarray(out)
    scale = 360 / max(image.size)
    image = image.resize(tuple(max(1, round(side * scale)) for side in image.size), Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX)
    sketch = Sketch(image)
    center = (lost.told.center + 0.5) * scale - 0.5
    for end in lost.told.contour:
        sketch.line([center, (end + 0.5) * scale - 0.5], (255, 255, 255), 0.5)
    sketch.dot(center, (124, 58, 237))
    return np.asarray(sketch.done())


def loss_card(mask: np.ndarray, lost, accent: str) -> str:
    total = max(1, lost.right + lost.added + lost.lost)
    several = int((lost.crossings > 1).sum())
    rows = [
        ("IoU of the true rays", f"{lost.told.iou:.3f}"),
        ("filled in wrongly", f"{lost.added / total:.1%}"),
        ("left out", f"{lost.lost / total:.1%}"),
        ("rays that cross the border more than once", f"{several} of {len(lost.crossings)}"),
        ("polar centerness", f"{lost.told.centerness:.2f}"),
    ]
    picture = f'<img style="width:min(100%,360px);border-radius:6px;margin:0;display:block" alt="the shape and what its rays make of it" src="{plots.data_uri(loss_picture(mask, lost))}">'
    note = "Blue: right. Orange: inside of the polygon, but not of the object. Dark: of the object, but lost. Where a ray crosses the border several times, only the farthest crossing can be kept."
    return f'<div class="pt-card" style="--accent:{accent}">{picture}{facts(rows)}<p class="pt-note">{note}</p></div>'
