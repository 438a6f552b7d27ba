"""What PointRend's tab draws: masks and clicks on the photo, one step of the rendering with its points, its uncertainty, and what it costs."""
from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw

from demos.plots import bar, coloured

LONGEST, SHORTEST = 1200, 480  # pixels of the longer side of what is shown: small pictures are enlarged, so that one can click single pixels
VIEW = 460  # of the views of one step
COLOURS = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (213, 94, 0), (240, 228, 66))  # Okabe and Ito: told apart without colour vision
YES, NO = (0, 114, 178), (213, 94, 0)


def shown_size(shape: tuple[int, int]) -> tuple[int, int]:
    """(width, height) at which a picture of `shape` (height, width) is shown."""
    h, w = shape
    scale = min(LONGEST / max(h, w), 1) if max(h, w) >= SHORTEST else SHORTEST / max(h, w)
    return max(1, round(w * scale)), max(1, round(h * scale))


def base(image: np.ndarray) -> np.ndarray:
    """The picture (H, W, 3) as it is shown, uint8."""
    size = shown_size(image.shape[:2])
    if size == image.shape[1::-1]:
        return image
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS if max(image.shape) > SHORTEST else Image.Resampling.BICUBIC))


def rim(mask: np.ndarray, width: int) -> np.ndarray:
    """The outermost pixels of a mask; a shift in each direction is much quicker than an erosion."""
    inner = mask.copy()
    for axis in (0, 1):
        for step in (-width, width):
            moved = np.roll(mask, step, axis)
            edge = slice(None, step) if step > 0 else slice(step, None)
            moved[(edge, slice(None)) if axis == 0 else (slice(None), edge)] = False
            inner &= moved
    return mask & ~inner


def painted(shown: np.ndarray, masks: Iterable[np.ndarray]) -> np.ndarray:
    """Masks (H, W), of any size, laid on the picture `shown`, each in its colour with an outline."""
    out = shown.copy()
    for i, mask in enumerate(masks):
        colour = np.array(COLOURS[i % len(COLOURS)], np.float32)
        small = mask if mask.shape == shown.shape[:2] else np.asarray(Image.fromarray(mask).resize(shown.shape[1::-1], Image.Resampling.NEAREST))
        out[small] = (0.58 * out[small] + 0.42 * colour).astype(np.uint8)
        out[rim(small, 3)] = 255
        out[rim(small, 2)] = colour
    return out


def canvas(shown: np.ndarray, masks: Iterable[np.ndarray], clicks: Sequence[tuple[float, float, int]], shape: tuple[int, int]) -> Image.Image:
    """Photo, masks and clicks: a plus where the object is, a minus where it is not. `shape` (height, width) is the photo's own, in which clicks are given."""
    picture = Image.fromarray(painted(shown, masks))
    draw, scale = ImageDraw.Draw(picture), (picture.width / shape[1], picture.height / shape[0])
    r = max(7, round(max(picture.size) / 110))
    for x, y, label in clicks:
        cx, cy = (np.floor(x) + 0.5) * scale[0], (np.floor(y) + 0.5) * scale[1]
        draw.ellipse((cx - r, cy - r, cx + r, cy + r), fill=YES if label else NO, outline="white", width=2)
        pen = max(2, r // 4)
        draw.line((cx - r * 0.5, cy, cx + r * 0.5, cy), fill="white", width=pen)
        if label:
            draw.line((cx, cy - r * 0.5, cx, cy + r * 0.5), fill="white", width=pen)
    return picture


def swatch(i: int) -> str:
    return f'<i style="display:inline-block;width:12px;height:12px;border-radius:3px;margin-right:6px;background:rgb{COLOURS[i % len(COLOURS)]}"></i>'


def card(rows: Sequence[tuple[str, str]], said: Sequence[str], title: str, accent: str) -> str:
    words = "".join(f'<p class="pt-note" role="status">{html.escape(s)}</p>' for s in said)
    facts = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in rows)
    return f'<div class="pt-card" style="--accent:{accent}"><p class="pt-verdict">{title}</p><dl class="pt-facts">{facts}</dl>{words}</div>'


def listing(found: Sequence, accent: str) -> str:
    """Instances with their colours, as a table."""
    rows = "".join(f"<tr><td>{swatch(i)}{html.escape(one.label)}</td><td class='n'>{one.score:.0%}</td><td class='n'>{np.count_nonzero(one.mask):,}</td></tr>" for i, one in enumerate(found))
    return (
        f'<div class="pt-card pt-scroll" style="--accent:{accent}"><table class="pt-table"><thead><tr><th>found</th><th class="n">score</th><th class="n">pixels</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def crop(image: np.ndarray, window: tuple[float, float, float, float]) -> Image.Image:
    """The part of the picture that a window (x0, y0, x1, y1) sees, its longer side VIEW."""
    x0, y0, x1, y1 = (float(np.clip(v, 0, image.shape[1 - i % 2])) for i, v in enumerate(window))
    w, h = max(x1 - x0, 1e-3), max(y1 - y0, 1e-3)
    scale = VIEW / max(w, h)
    size = max(1, round(w * scale)), max(1, round(h * scale))
    left, top, right, bottom = int(x0), int(y0), min(image.shape[1], int(np.ceil(x1)) or 1), min(image.shape[0], int(np.ceil(y1)) or 1)
    part = Image.fromarray(np.ascontiguousarray(image[top : max(bottom, top + 1), left : max(right, left + 1)]))
    return part.resize(size, Image.Resampling.BICUBIC, box=(x0 - left, y0 - top, min(x1 - left, part.width), min(y1 - top, part.height)), reducing_gap=2.0)


def step_views(image: np.ndarray, mask, step) -> tuple[Image.Image, Image.Image]:
    """One step: the photo with the mask as this grid has it and the points that were asked; and the uncertainty of every cell."""
    from pttp.pointrend import study

    view = crop(image, mask.window)
    inside = np.asarray(Image.fromarray(step.logits > 0).resize(view.size, Image.Resampling.NEAREST))
    picture = Image.fromarray(painted(np.asarray(view), [inside]))
    if len(step.points) < step.size**2:  # on the first grid every cell is asked
        x0, y0, x1, y1 = mask.window
        at = (step.points - (x0, y0)) / (x1 - x0, y1 - y0) * view.size
        draw, r = ImageDraw.Draw(picture), max(1.0, 0.3 * max(view.size) / step.size)
        for x, y in at.tolist():
            draw.ellipse((x - r, y - r, x + r, y + r), fill=COLOURS[1])
    unsure = Image.fromarray(coloured(study.uncertainty(step), -6, 0)).resize(view.size, Image.Resampling.NEAREST)
    return picture, unsure


def step_words(mask, index: int, read, at: tuple[float, float] | None) -> str:
    """What happens in one step, and what it says of the place that was clicked."""
    step = mask.steps[index]
    asked = sum(len(s.points) for s in mask.steps[: index + 1])
    if index == 0:
        what = "The coarse head looks at the whole box once and answers 7 x 7. No point has been asked yet."
    elif len(step.points) == step.size**2:
        what = f"The first grid is small enough to ask for all of its {step.size} x {step.size} points."
    else:
        what = f"Doubled to {step.size} x {step.size}; of {step.size**2:,} cells, the {len(step.points)} least certain are asked (orange), the others keep what was interpolated."
    share = f" So far {asked:,} points, {asked / step.size**2:.1%} of this grid." if index else ""
    if read is None:
        place = "Click in either view for the logit of a place."
    else:
        place = f"At ({at[0]:.0f}, {at[1]:.0f}): logit {read.logit:+.2f}, probability {read.probability:.1%}, uncertainty {read.uncertainty:.2f}, {'asked' if read.asked else 'not asked'} in this step."
    return f'<p class="pt-note" aria-live="polite">{what}{share}<br><b>{place}</b></p>'


def costs(rows: Sequence) -> str:
    """Points, multiply-accumulates and milliseconds of the rendering so far, beside a dense grid of the same size."""
    most_macs, most_ms = max(r.dense_macs for r in rows), max(max(r.dense_milliseconds, r.milliseconds) for r in rows)
    body = "".join(
        f"<tr><td style='white-space:nowrap'>{r.size} x {r.size}</td><td class='n'>{r.points:,}</td><td class='n'>{r.dense_points:,}</td>"
        f"<td class='n'>{r.macs / 1e6:,.0f}</td><td class='n'>{r.dense_macs / 1e6:,.0f}</td><td style='width:14%'>{bar(r.macs, most_macs, 'ms')}<br>{bar(r.dense_macs, most_macs, 'macs')}</td>"
        f"<td class='n'>{r.milliseconds:.1f}</td><td class='n'>{r.dense_milliseconds:.1f}</td><td style='width:14%'>{bar(r.milliseconds, most_ms, 'ms')}<br>{bar(r.dense_milliseconds, most_ms, 'macs')}</td></tr>"
        for r in rows
    )
    head = "<tr><th>grid</th><th class='n'>points asked</th><th class='n'>dense</th><th class='n'>M MACs</th><th class='n'>dense</th><th></th><th class='n'>ms</th><th class='n'>dense</th><th></th></tr>"
    last = rows[-1]
    fewer, sooner = last.dense_points / last.points, last.dense_milliseconds / last.milliseconds
    note = (
        f"Blue: the rendering up to this grid. Orange: every point of the grid. At {last.size} x {last.size} the point head is asked {fewer:.0f} times less often "
        f"and the mask is there {sooner:.1f} times sooner, on the machine that serves this page."
    )
    return f'<div class="pt-card pt-scroll"><table class="pt-table"><thead>{head}</thead><tbody>{body}</tbody></table><p class="pt-note">{note}</p></div>'


def published() -> str:
    """The authors' six files: what they score, where they are, and how they are made to fit."""
    from pttp.pointrend.published import PUBLISHED

    rows = "".join(f'<tr><td><a href="{html.escape(p.url)}" rel="noopener" target="_blank">{html.escape(p.name)}</a></td><td class="n">{html.escape(p.score)}</td></tr>' for p in PUBLISHED)
    return (
        '<p class="pt-note">Trained on 118,000 photos, with a much larger network. They are not on the Hub, and this page calls no other host: download one yourself, then</p>'
        "<pre>python -m pttp weights convert pointrend model_final_edd263.pkl\npython -m pttp segment photo.jpg --all --weights model_final_edd263</pre>"
        f'<table class="pt-table"><thead><tr><th>file</th><th class="n">as published</th></tr></thead><tbody>{rows}</tbody></table>'
    )
