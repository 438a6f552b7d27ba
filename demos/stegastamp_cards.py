"""What StegaStamp's parts say: the message box's live count, the card of a stamp, the card of a reading, the quad on a picture."""
from __future__ import annotations

import html

from PIL import Image, ImageDraw

from demos.page import facts

LONGEST = 1200  # pixels of what is shown; what is downloaded has the photo's own size
DEFAULT_MESSAGE = "Hello!"


def is_address(text: str) -> bool:
    """Whether `Predictor.encode` takes this for a link."""
    return text.strip().lower().startswith(("http:", "https:"))


def counted(text: str) -> str:
    """While one types: how many of the seven bytes are used, or that it is a link and to which host, or why it cannot be stamped."""
    from pttp.errors import BadInput
    from pttp.stegastamp import links, message

    if not text.strip():
        return count("Up to seven bytes of text, or a link of any length.", 0)
    try:
        if is_address(text):
            link = links.check_link(text)
            return count(f"A link to <b>{host(link)}</b>. A code of seven characters goes into the picture, the link into this page's registry.", message.BYTES)
        used = len(text.rstrip(" ").encode("utf-8", "surrogatepass"))
        message.pack(text)
        return count(f"<b>{used} of {message.BYTES}</b> bytes.", used)
    except BadInput as error:
        return count(html.escape(str(error)), message.BYTES, "pt-wrong")


def count(words: str, used: int, kind: str = "") -> str:
    cells = "".join(f'<i{" class=on" if i < used else ""}></i>' for i in range(7))
    return f'<p class="pt-count {kind}" aria-live="polite"><span class="pt-cells" aria-hidden="true">{cells}</span><span>{words}</span></p>'


def host(link: str) -> str:
    """The host of a link, spelled out; where it goes over the wire under another name than it reads, both."""
    from pttp.stegastamp import links

    wire, read = links.shown(link)
    return html.escape(wire) if wire == read else f"{html.escape(wire)}</b>, which reads as <b>{html.escape(read)}"


def link_block(link: str) -> str:
    """A link as text, its host, and the way there, which nobody goes but the visitor who clicks it."""
    address = html.escape(link, quote=True)
    return (
        f'<p class="pt-url">{address}</p><p class="pt-note">Host: <b>{host(link)}</b>. Anyone can stamp any link: look before you go.</p>'
        f'<p><a class="pt-chip pt-open" href="{address}" target="_blank" rel="noopener noreferrer nofollow">Open this link in a new tab</a></p>'
    )


def said(message: str, link: str | None) -> str:
    """What a stamp says: the link that it stands for, or its text."""
    from pttp.stegastamp import links

    if link:
        return link_block(link)
    note = '<p class="pt-note">If this is a link\'s code, it was given out elsewhere: the registry of this page does not know it.</p>' if links.is_code(message) else ""
    return f'<p class="pt-message">{html.escape(message)}</p>{note}'


def reading_card(reading, accent: str) -> str:
    """One `Reading`."""
    turned = "upright" if not reading.rotation else f"{reading.rotation}° clockwise"
    rows = [("bits repaired", f"{reading.corrected} of 5"), ("confidence", f"{reading.confidence:.0%}"), ("turned", turned)]
    if reading.link:
        rows.insert(0, ("code in the picture", f"<code>{html.escape(reading.message)}</code>"))
    return f'<div class="pt-card pt-found" style="--accent:{accent}">{said(reading.message, reading.link)}{facts(rows)}</div>'


def stamp_card(stamp, milliseconds: float, accent: str) -> str:
    """One `Stamp`: what it says, how far it is from the photo, and whether our own decoder reads it back."""
    verdict = (
        '<p class="pt-verdict">Our decoder reads it back.</p>'
        if stamp.verified
        else '<p class="pt-error" role="alert">Our own decoder does not read this one back, so no camera will: raise the strength, or take a photo with less plain colour.</p>'
    )
    text = f"Link to <b>{host(stamp.link)}</b>" if stamp.link else f"<b>{html.escape(stamp.message)}</b>"
    rows = [("says", text)] + ([("code in the picture", f"<code>{html.escape(stamp.message)}</code>")] if stamp.link else [])
    rows += [("PSNR", f"{stamp.psnr:.1f} dB"), ("size", f"{stamp.image.width} x {stamp.image.height}"), ("stamped in", f"{milliseconds:.0f} ms")]
    return f'<div class="pt-card" style="--accent:{accent}">{verdict}{facts(rows)}</div>'


def fitted(picture: Image.Image, longest: int = LONGEST) -> Image.Image:
    """The picture, RGB or RGBA, no larger than `longest`."""
    scale = longest / max(picture.size)
    return picture if scale >= 1 else picture.resize(tuple(max(1, round(n * scale)) for n in picture.size), Image.Resampling.LANCZOS)


def outlined(picture: Image.Image, quads, accent: str) -> Image.Image:
    """The picture with each quad (4, 2) drawn; a dot marks the stamp's own top left corner."""
    out = fitted(picture).copy()
    scale, pen, draw = out.width / picture.width, max(2, max(out.size) // 300), ImageDraw.Draw(out)
    for quad in quads:
        points = [(float(x) * scale, float(y) * scale) for x, y in quad]
        for colour, width in (("white", 2 * pen + 2), (accent, pen + 1)):
            draw.line([*points, *points[:2]], fill=colour, width=width, joint="curve")
        (x, y), r = points[0], 2.5 * pen
        draw.ellipse((x - r, y - r, x + r, y + r), fill=accent, outline="white", width=max(1, pen // 2))
    return out
