"""What CA-GAN's tab draws: swatches of asked and reached, the paper's step on a close-up, the sweeps."""
from __future__ import annotations

import html

import numpy as np
from PIL import Image

from demos.plots import coloured, data_uri

LONGEST = 1200  # pixels of what is shown; what is downloaded has the photo's own size
SHADES = {
    "Classic red": "#b01030",
    "Brick": "#8f3b32",
    "Rose": "#d45b90",
    "Nude": "#b5766a",
    "Plum": "#6a2a4f",
    "Coral": "#e8704a",
    "Brown": "#6b3a2e",
    "Sea blue": "#2d4fa3",
    "Moss": "#3f8f5a",
}
PARTS = {"lips": "lips", "left_eye": "eye on the left", "right_eye": "eye on the right"}
STYLE = (
    "<style>#cagan-shades{display:grid!important;grid-template-columns:repeat(auto-fill,minmax(104px,1fr));gap:6px}.cagan-grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(136px,1fr));gap:14px 16px}"
    ".cagan-grid figure{margin:0}.cagan-grid figcaption{font-size:12px;color:var(--soft)}.cagan-grid figcaption b{display:block;font-size:14px;font-weight:600;color:var(--ink)}"
    ".cagan-shade{min-width:0!important}.cagan-shade::before{content:'';display:inline-block;width:13px;height:13px;border-radius:50%;margin-right:7px;vertical-align:-2px;"
    "background:var(--shade);border:1px solid rgba(128,128,128,.45)}"
    ".cagan-swatch{display:inline-block;width:46px;height:30px;border-radius:6px;border:1px solid var(--line)}"
    ".cagan-pair{display:grid;grid-template-columns:auto 1fr;gap:4px 12px;align-items:center;margin:0 0 10px}"
    ".cagan-pair .both span:first-child{border-radius:6px 0 0 6px}.cagan-pair .both span:last-child{border-radius:0 6px 6px 0;margin-left:-1px}"
    ".cagan-sweep{display:grid;grid-template-columns:28px repeat(9,minmax(44px,1fr));gap:4px;align-items:center;min-width:460px;margin-bottom:12px;font-size:12px;color:var(--soft);"
    "font-variant-numeric:tabular-nums;text-align:center}.cagan-sweep img{width:100%;display:block;border-radius:4px;margin:0}.cagan-sweep i{display:block;height:12px;border-radius:3px}"
    ".cagan-sweep .none{background:repeating-linear-gradient(45deg,var(--line) 0 3px,transparent 3px 6px)}"
    + "".join(f"#cagan-shade-{i}{{--shade:{shade}}}" for i, shade in enumerate(SHADES.values()))
    + "</style>"
)


def fitted(picture: Image.Image, longest: int = LONGEST) -> Image.Image:
    """The picture, no larger than `longest`."""
    scale = longest / max(picture.size)
    return picture if scale >= 1 else picture.resize(tuple(max(1, round(n * scale)) for n in picture.size), Image.Resampling.LANCZOS)


def seen(picture: Image.Image, box: tuple[int, int, int, int] | None) -> Image.Image:
    """The picture to look at: whole, or the part in `box`, enlarged where it is small."""
    if box is None:
        return fitted(picture)
    face = picture.crop(box)
    scale = 720 / max(face.size)
    return face.resize(tuple(max(1, round(n * scale)) for n in face.size), Image.Resampling.BICUBIC) if scale > 1 else fitted(face)


def around(box: tuple[int, int, int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A box around a face with room at every side, within a picture of `size`."""
    x0, y0, x1, y1 = box
    dx, dy = round(0.25 * (x1 - x0)), round(0.25 * (y1 - y0))
    return max(0, x0 - dx), max(0, y0 - dy), min(size[0], x1 + dx), min(size[1], y1 + dy)


def swatch(shade: str, name: str) -> str:
    return f'<span class="cagan-swatch" role="img" aria-label="{name} {shade}" title="{name} {shade}" style="background:{shade}"></span>'


def card(made, milliseconds: float, accent: str) -> str:
    """Asked and reached of every region, side by side, and how far apart they are."""
    told = made.to_dict()
    rows = "".join(
        f'<div class="cagan-pair"><span class="both">{swatch(r["requested"]["hex"], "asked")}{swatch(r["achieved"]["hex"], "reached")}</span>'
        f'<span><b>{name}</b>: {r["requested"]["hex"]} asked, {r["achieved"]["hex"]} reached, Delta E {r["delta_e"]:.1f}. {_said(r["delta_e"], made.strength)}</span></div>'
        for name, r in told["regions"].items()
    )
    some = f"Face {made.face + 1} of {len(made.faces)}. " if len(made.faces) > 1 else ""
    return f'<div class="pt-card" style="--accent:{accent}">{rows}<p class="pt-note">{some}Painted in {milliseconds:.0f} ms. Delta E (CIEDE2000) compares the colour asked for with the median of the painted pixels.</p></div>'


def _said(distance: float, strength: float) -> str:
    if strength < 1:
        return f"At an intensity of {strength:.0%} the skin's own colour shows through."
    return "Nobody sees the difference." if distance < 1 else "Hardly visible." if distance < 2.5 else "Visible side by side." if distance < 6 else "Another shade: this photo could not carry the colour."


def nothing(sentence: str) -> str:
    return f'<div class="pt-card pt-nothing"><p class="pt-message">{html.escape(sentence)}</p></div>'


def _figure(name: str, x: np.ndarray, text: str) -> str:
    return f'<figure><img alt="{html.escape(name)}" src="{data_uri(x)}" style="width:100%;border-radius:6px"><figcaption><b>{html.escape(name)}</b>{text}</figcaption></figure>'


def _row(name: str, labs: np.ndarray) -> str:
    from pttp.cagan.colour import hex_of

    return f"<tr><td>{name}</td>" + "".join(f"<td>{swatch(hex_of(lab), what)}<br>{hex_of(lab)}</td>" for what, lab in zip(("makeup", "skin", "inside"), labs, strict=True)) + "</tr>"


def step(one, part: str, accent: str) -> str:
    """The three-part step: generator, discriminator, cycle."""
    inside = "inner mouth" if part == "lips" else "eyeball"
    most = max(20.0, float(one.difference.max()))
    pictures = "".join(
        (
            _figure("x", one.x, "the close-up that the networks see"),
            _figure("x' = G(x, c)", one.changed, "the same in the colour asked for"),
            _figure("What changed", coloured(one.difference, 0, most), f"Delta E of every pixel, yellow is {most:.0f}"),
            _figure("x'' = G(x', own colour)", one.back, f"and back again; off by {one.cycle:.3f} on average"),
        )
    )
    looks = "".join(_figure(f"D looks for {name}", coloured(look, 0, float(look.max())), "bright counts most") for name, look in zip(("makeup", "skin", inside), one.looks, strict=True))
    losses = one.losses
    table = f"<table class='pt-table'><thead><tr><th>D's estimates</th><th>makeup</th><th>skin</th><th>{inside}</th></tr></thead><tbody>{_row('of x', one.source)}{_row('of x&#39;', one.judged)}</tbody></table>"
    note = f"By D's estimate the colour is missed by {losses['color']:.1f}, the skin drifts by {losses['skin']:.1f} and the {inside} by {losses['inside']:.1f} (CIEDE2000). With the mouth closed there is no inner mouth to be seen, and that number means little."
    return f'<div class="pt-card" style="--accent:{accent}"><div class="cagan-grid">{pictures}</div><div class="pt-scroll" style="margin:14px 0;border:0">{table}</div><div class="cagan-grid">{looks}</div><p class="pt-note">{note}</p></div>'


def sweeps(found, accent: str) -> str:
    """Three rows of nine, with what was asked above each picture and what was got below."""
    from pttp.cagan.colour import hex_of

    rows = ""
    for one in found:
        cells = "".join(
            f"<div>{_asked(hex_of(asked), shown)}<img alt='{html.escape(one.axis)} {asked[i]:.0f}' src='{data_uri(picture)}'><i style='background:{hex_of(got)}'></i>{asked[i]:.0f}</div>"
            for asked, got, shown, picture in zip(one.asked, one.got, one.shown, one.pictures, strict=True)
            for i in [("L*", "a*", "b*").index(one.axis)]
        )
        rows += f'<div class="cagan-sweep"><b>{html.escape(one.axis)}</b>{cells}</div>'
    known = np.concatenate([one.delta_e[one.shown] for one in found])
    note = f"Above each picture the colour asked for, below it the colour reached. Hatched: no screen has that colour. Over the {len(known)} others the median Delta E is {np.median(known):.1f}."
    return f'<div class="pt-card" style="--accent:{accent}"><div class="pt-scroll">{rows}</div><p class="pt-note">{note}</p></div>'


def _asked(shade: str, shown: bool) -> str:
    return f"<i style='background:{shade}'></i>" if shown else "<i class='none'></i>"
