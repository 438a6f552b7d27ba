"""A print sheet: one stamped picture in a ladder of sizes on an A4 page, to find out how small a print a camera still reads."""
from __future__ import annotations

import io
from functools import partial
from urllib.parse import quote, urlsplit

from PIL import Image, ImageDraw, ImageFont

from pttp import images
from pttp.stegastamp import links

DPI = 300
PAGE = (210.0, 297.0)  # A4, millimetres
MARGIN, GAP, CAPTION = 15.0, 8.0, 6.0
LADDER = ((100, 70), (50, 40, 30), (25, 20, 15, 10))  # longer side in millimetres, row by row
RULER = 100.0
INK, SOFT = "#1c1917", "#57534e"


def px(millimetres: float) -> int:
    """Pixels of the page."""
    return round(millimetres / 25.4 * DPI)


def plain(text: str) -> str:
    """`text` with characters that the sheet's font lacks written as U+XXXX."""
    return "".join(c if " " <= c <= "~" or "\xa1" <= c <= "\xff" else f"U+{ord(c):04X}" for c in text)


def spelled(link: str) -> str:
    """A link in the letters that every printer has: the host in punycode, the rest percent-encoded."""
    parts = urlsplit(link)
    host = parts.netloc.rpartition("@")[0::2]
    port = f":{parts.port}" if parts.port else ""
    rest = quote(parts.path + (f"?{parts.query}" if parts.query else "") + (f"#{parts.fragment}" if parts.fragment else ""), safe="/?#[]@!$&'()*+,;=:%~")
    return f"{parts.scheme}://{host[0] and quote(host[0], safe=':%') + '@'}{links.shown(link)[0]}{port}{rest}"


def places(size: tuple[int, int]) -> list[tuple[float, tuple[float, float, float, float]]]:
    """Where a picture of `size` pixels stands on the page: its longer side in millimetres, and (left, top, right, bottom) in millimetres."""
    longest = max(size)
    out, top = [], 52.0
    for row in LADDER:
        boxes = [(side, side * size[0] / longest, side * size[1] / longest) for side in row]
        left = MARGIN
        for side, width, height in boxes:
            out.append((float(side), (left, top, left + width, top + height)))
            left += max(width, 12.0) + GAP
        top += max(height for _, _, height in boxes) + CAPTION + GAP
    return out


def page(stamped: images.Picture, message: str, link: str | None = None) -> Image.Image:
    """The sheet of a stamped picture as a picture, A4 at 300 dots an inch. `message` and `link` are those of its `Stamp`. Raises BadImage."""
    picture = images.read(stamped)
    sheet = Image.new("RGB", (px(PAGE[0]), px(PAGE[1])), "white")
    draw = ImageDraw.Draw(sheet)
    font = {name: ImageFont.load_default(px(size)) for name, size in (("title", 6.0), ("text", 3.6), ("small", 2.9))}
    says = partial(draw.text, fill=INK)
    says((px(MARGIN), px(13)), "StegaStamp print sheet", font=font["title"])
    hidden = f"Every picture below holds a link: {spelled(link)}" if link else f"Every picture below holds the message: {plain(message)}"
    for i, line in enumerate(_wrapped(hidden, font["text"], px(PAGE[0] - 2 * MARGIN))[:2]):
        says((px(MARGIN), px(23 + 5 * i)), line, font=font["text"])
    if link:
        says((px(MARGIN), px(33)), f"Code: {message}. Only the page that made this sheet knows which link it stands for.", font=font["small"], fill=SOFT)
    says((px(MARGIN), px(38)), "Print at 100 % (not \"fit to page\"), then hold a picture in front of the camera in the tab Webcam: how small can it be?", font=font["small"], fill=SOFT)
    says((px(MARGIN), px(43)), "Sizes are those of the longer side. Matte paper reads better than glossy paper.", font=font["small"], fill=SOFT)
    for side, (left, top, right, bottom) in places(picture.size):
        # both edges are rounded, so that no error adds up
        box = (px(left), px(top), px(right), px(bottom))
        small = picture.resize((max(1, box[2] - box[0]), max(1, box[3] - box[1])), Image.Resampling.LANCZOS)
        sheet.paste(small, box[:2])
        says((box[0], box[3] + px(1.2)), f"{side:g} mm", font=font["small"])
    y = PAGE[1] - 20
    draw.line([px(MARGIN), px(y), px(MARGIN + RULER), px(y)], fill=INK, width=px(0.3))
    for x in (MARGIN, MARGIN + RULER):
        draw.line([px(x), px(y - 2), px(x), px(y + 2)], fill=INK, width=px(0.3))
    says((px(MARGIN + RULER + 4), px(y - 1.6)), f"This line is {RULER:g} mm long if the print has its true size.", font=font["small"], fill=SOFT)
    return sheet


def pdf(stamped: images.Picture, message: str, link: str | None = None) -> bytes:
    """The sheet as a PDF file of one A4 page."""
    file = io.BytesIO()
    page(stamped, message, link).save(file, "PDF", resolution=DPI, quality=95, subsampling=0, title="StegaStamp print sheet", producer="PTTP")
    return file.getvalue()


def _wrapped(text: str, font, width: int) -> list[str]:
    """Lines no wider than `width` pixels; addresses have no spaces, so that any character may end a line. The last of two says when something is left out."""
    lines = [""]
    for c in text:
        if font.getlength(lines[-1] + c) > width:
            lines.append("")
        lines[-1] += c
    return lines if len(lines) <= 2 else [lines[0], lines[1][:-3] + "..."]
