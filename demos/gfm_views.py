"""What GFM's tab draws: the checkerboard, the card of a matte, the three panels, what a RoSTa asks for, the error map."""
from __future__ import annotations

import html

import numpy as np
from PIL import Image

from demos.page import facts
from demos.plots import data_uri

LONGEST = 1200  # pixels of what is shown; what is downloaded has the photo's own size
LEGEND = (("Blue", "background"), ("pale", "in between"), ("orange", "animal"))


def on_checkerboard(cutout: Image.Image) -> Image.Image:
    """A cut-out as it is shown: what is transparent lies on squares."""
    rows, columns = np.indices(cutout.size[::-1]) // max(4, max(cutout.size) // 50)
    board = Image.fromarray(np.where((rows + columns) % 2, 205, 240).astype(np.uint8)).convert("RGB")
    board.paste(cutout, mask=cutout.getchannel("A"))
    return board


def card(matte, milliseconds: float | None, accent: str) -> str:
    """One `Matte`: found or not, what the user should know, and numbers."""
    told = matte.to_dict()
    notes = "".join(f'<p class="pt-note">{html.escape(note)}</p>' for note in matte.notes[0 if matte.found else 1 :])
    if not matte.found:
        return f'<div class="pt-card pt-nothing" style="--accent:{accent}"><p class="pt-message">{html.escape(matte.notes[0])}</p>{notes}</div>'
    rows = [("animal", f"{told['coverage']:.0%} of the picture"), ("partly transparent", f"{told['soft']:.0%}"), ("size", f"{told['width']} x {told['height']}")]
    rows += [("answered in", f"{milliseconds:.0f} ms")] if milliseconds is not None else []
    return f'<div class="pt-card" style="--accent:{accent}">{facts(rows)}{notes}</div>'


def figures(items: list[tuple[str, np.ndarray, str]]) -> str:
    """Panels side by side: name, picture (h, w, 3) uint8, sentence."""
    cells = "".join(f'<figure><img alt="{html.escape(name)}" src="{data_uri(x)}"><figcaption><b>{html.escape(name)}</b>{text}</figcaption></figure>' for name, x, text in items)
    return f'<div class="pt-curves" style="grid-template-columns:repeat({len(items)},minmax(0,1fr))">{cells}</div>'


def panels(one, accent: str) -> str:
    """The network's own three views and who decided what."""
    whose = f"the matte: {1 - one.by_focus:.0%} of it was decided by glance, {one.by_focus:.0%} by focus" if one.fusion.any() else "the matte: empty"
    seen = figures(
        [
            ("Glance", one.glance, f"background {one.background:.0%}, in between {one.transition:.0%}, animal {one.animal:.0%} of the picture"),
            ("Focus", one.focus, "bright where it is believed; dimmed in blue where it answers too, and nobody listens"),
            ("Fusion", one.fusion, whose),
        ]
    )
    changed = "" if one.changed is None else f" Widening changed the matte by {one.changed:.4f} on average."
    return f'<div class="pt-card" style="--accent:{accent}">{seen}<p class="pt-note">{legend()}{changed}</p></div>'


def legend() -> str:
    return "Glance: " + ", ".join(f"{colour} is {what}" for colour, what in LEGEND) + "."


SAYINGS = {
    "TT": "Glance has three classes, focus answers only in between. This is what the embedded network was taught.",
    "FT": "Glance says only what is surely animal; focus adds what is missing around it: everything between there and the background.",
    "BT": "Glance says what may be animal, generously; focus has to name what must be taken away again.",
}


def rosta(one, accent: str) -> str:
    """What a RoSTa would have asked for, with the matte of this picture taken for the truth."""
    seen = figures(
        [
            (f"{one.name} asks of glance", one.glance, "three classes" if one.name == "TT" else "two classes"),
            (f"{one.name} asks of focus", one.focus, f"not black in {one.asked:.0%} of the picture"),
            (f"{one.name} joins them", one.fusion, html.escape(one.rule)),
        ]
    )
    return f'<div class="pt-card" style="--accent:{accent}">{seen}<p class="pt-note">{SAYINGS[one.name]} Truths are drawn from the matte above; perfect answers give it back whichever way the work is divided.</p></div>'


def errors(one, accent: str) -> str:
    """The error map and the numbers of matting papers."""
    rows = [("SAD", f"{one.sad:.2f}"), ("SAD in the transition", f"{one.sad_transition:.2f}"), ("MSE", f"{one.mse:.4f}"), ("MAD", f"{one.mad:.4f}"), ("Grad", f"{one.grad:.1f}"), ("Conn", f"{one.conn:.2f}")]
    seen = figures([("Difference to your matte", one.picture, "blue: too little animal; orange: too much; full colour from a half on")])
    return f'<div class="pt-card" style="--accent:{accent}">{seen}{facts(rows)}<p class="pt-note">All are better when smaller. Compared at {one.size[0]} x {one.size[1]} pixels; SAD and Conn in thousands, Grad divided by ten, as the authors compute them.</p></div>'
