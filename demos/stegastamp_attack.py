"""The attack bench: harm your own stamp with sliders, see which of its hundred bits flip, and find where the message breaks."""
from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
from PIL import Image

from demos import page
from pttp.papers import Paper

LONGEST = 512  # pixels of the stamp on the bench: where the sliders of `study` begin
NO_STAMP = "Stamp a photo above: its hundred bits appear here."
CORNERS = {"known": "known exactly", "whole": "not looked for", "search": "searched"}


class Slider(NamedTuple):
    """One of `study.ATTACKS`, said here as well so that the page is built without importing a network; a test holds the two together."""

    name: str
    label: str
    unit: str
    low: float
    high: float
    neutral: float
    step: float


SLIDERS = (
    Slider("occlusion", "Something in front", "% of the area", 0, 60, 0, 1),
    Slider("crop", "Crop", "% of each side", 0, 50, 0, 1),
    Slider("rotation", "Rotation", "degrees", -45, 45, 0, 1),
    Slider("perspective", "Perspective", "% narrower at the top", 0, 70, 0, 1),
    Slider("brightness", "Brightness", "of the range", -0.6, 0.6, 0, 0.02),
    Slider("contrast", "Contrast", "times", 0.1, 3, 1, 0.05),
    Slider("blur", "Blur, sigma", "px of 256", 0, 6, 0, 0.1),
    Slider("resize", "Longer side", "px", 24, 512, 512, 8),
    Slider("noise", "Noise", "of the range", 0, 0.3, 0, 0.01),
    Slider("jpeg", "JPEG quality", "of 100", 1, 100, 100, 1),
)


@dataclass(frozen=True)
class Sample:
    """A stamp as the bench holds it: `image` RGB, `bits` (100,) uint8."""

    image: Image.Image
    bits: np.ndarray


def build(paper: Paper, network: Callable[[str], Any], kept: Callable[[Any], Image.Image], made: gr.State, source: gr.Radio) -> None:
    """`network(source)` gives the predictor, `kept(made)` the stamped picture of the state `made`."""

    def sample(stamp) -> Sample:
        from pttp import images

        return Sample(images.fit(kept(stamp), LONGEST), np.array(list(stamp.bits), np.uint8))

    def harm(stamp, source: str, corners: str, *amounts: float):
        from pttp.stegastamp import study

        if stamp is None:
            return gr.Image(visible=False), page.empty(NO_STAMP)
        one, chosen = sample(stamp), {s.name: amount for s, amount in zip(SLIDERS, amounts, strict=True)}
        harmed = study.attack(one.image, chosen)
        quad = study.corners_after(one.image.size, chosen) if corners == "known" else None
        report = study.compare(network(source), harmed, one.bits, quad, search=corners == "search")
        larger = max(1, LONGEST // 2 // max(harmed.size))  # the page would show a shrunken picture as a speck
        shown = harmed.resize((larger * harmed.width, larger * harmed.height), Image.Resampling.NEAREST)
        return gr.Image(shown, visible=True), strip(report, one.bits, paper.accent)

    def curves(stamp, source: str, corners: str):
        from pttp.stegastamp import study

        if stamp is None:
            raise gr.Error("Stamp a photo above first: its break points are found on it.", title="No stamp yet")
        net, one, found = network(source), sample(stamp), []
        for i, slider in enumerate(SLIDERS):
            yield plots(found, f"{slider.label}: {i + 1} of {len(SLIDERS)} ..."), gr.skip()
            found.append(study.break_points(net, one, slider.name, corners_known=corners == "known"))
        file = page.keep(study.as_csv(found).encode(), "break-points.csv")
        how = "With the corners known." if corners == "known" else "Nobody looked for the corners: the whole picture was taken for the stamp."
        yield plots(found, f"{how} Every point is one picture, attacked and read again on the machine that serves this page."), gr.DownloadButton(value=file, interactive=True)

    page.section("Look inside: how much does your stamp survive?", "Every attack is done for real on your stamped photo, in the order in which it happens to a picture: the scene, the camera, the file. Five flipped bits can be repaired; the sixth loses the message.")
    with gr.Row(equal_height=False):
        with gr.Column():
            harmed = gr.Image(label="Your stamp, attacked", alt_text="Your stamped photo after the attacks", format="jpeg", interactive=False, visible=False, height=320, elem_id="stegastamp-harmed", buttons=["fullscreen"])
            bits = gr.HTML(page.empty(NO_STAMP), elem_id="stegastamp-bits")
        with gr.Column(elem_classes="pt-sliders"):
            sliders = [gr.Slider(s.low, s.high, value=s.neutral, step=s.step, label=f"{s.label} ({s.unit})", elem_id=f"stegastamp-attack-{s.name}", buttons=[]) for s in SLIDERS]
            corners = gr.Radio([(f"Corners {words}", value) for value, words in CORNERS.items()], value="known", show_label=False, container=False, elem_id="stegastamp-corners")
            calm = gr.Button("No attack", elem_id="stegastamp-calm", size="sm")
    page.section("Where it breaks", "One attack at a time, from nothing to the worst: how many of the hundred bits are still right, and where the message is lost.")
    with gr.Row():
        find = gr.Button("Find the break points of my stamp", size="md", elem_id="stegastamp-break", min_width=240)
        stop = gr.Button("Stop", size="md", elem_id="stegastamp-stop", min_width=90)
        table = gr.DownloadButton("Download CSV", size="md", interactive=False, elem_id="stegastamp-csv", min_width=90)
    figure = gr.HTML(elem_id="stegastamp-curves")

    hidden = {"api_visibility": "private", "trigger_mode": "always_last"}
    gr.on([made.change, corners.change, *(s.change for s in sliders)], page.in_words(harm), [made, source, corners, *sliders], [harmed, bits], show_progress="hidden", **hidden)
    calm.click(lambda: [s.neutral for s in SLIDERS], None, sliders, show_progress="hidden", **hidden)
    running = find.click(page.in_words(curves), [made, source, corners], [figure, table], api_visibility="private", show_progress="minimal")
    stop.click(None, cancels=[running], api_visibility="private")
    # The break points of another stamp say nothing of this one
    made.change(lambda: ("", gr.DownloadButton(value=None, interactive=False)), None, [figure, table], cancels=[running], show_progress="hidden", api_visibility="private")


def strip(report, bits: np.ndarray, accent: str) -> str:
    """The hundred bits: right ones blue, wrong ones orange, the surer the stronger; data, check bits and constants apart."""
    from pttp.stegastamp import message

    def cell(i: int) -> str:
        sure = abs(2 * float(report.probabilities[i]) - 1)
        kind, verdict = ("wrong", "wrong") if report.wrong[i] else ("right", "right")
        return f'<i class="{kind}" style="opacity:{0.25 + 0.75 * sure:.2f}" title="bit {i}: sent {bits[i]}, read as 1 with {report.probabilities[i]:.0%}: {verdict}"></i>'

    parts = (("56 bits of text", 0, message.DATA), ("35 check bits", message.DATA, message.CODE), ("9 that are always 0", message.CODE, message.BITS))
    rows = "".join(f'<div><div class="pt-cells-row">{"".join(cell(i) for i in range(start, end))}</div><span>{name}</span></div>' for name, start, end in parts)
    if report.readable:
        verdict = f"Still readable: <b>{html.escape(report.message)}</b>"
    elif report.message:
        verdict = f"Lost: it would read <b>{html.escape(report.message)}</b>"
    else:
        verdict = "Lost"
    numbers = page.facts([("wrong of 100", f"{int(report.wrong.sum())}"), ("wrong of the 91 protected", f"{report.flips_in_code}"), ("repairs left of 5", f"{report.left}")])
    label = f"{int(report.wrong.sum())} of 100 bits are wrong"
    return (
        f'<div class="pt-card" style="--accent:{accent}"><p class="pt-verdict {"" if report.readable else "pt-lost"}">{verdict}</p><div class="pt-strip" role="img" aria-label="{label}">{rows}</div>{numbers}'
        '<p class="pt-note">Blue: read right. Orange: read wrong. Pale: not sure.</p></div>'
    )


def plots(curves: list, words: str) -> str:
    """One small plot an attack."""
    figures = "".join(curve_figure(curve) for curve in curves)
    return f'<div class="pt-card"><div class="pt-curves">{figures}</div><p class="pt-note">Across: the attack, from nothing (left) to the worst; rotation, brightness and contrast both ways. Up: bits read right, 50 to 100 %. Filled dots: the message is read; hollow ones: it is lost. {words}</p></div>'


def curve_figure(curve) -> str:
    """Bit accuracy by amount as SVG; lines, dots and words take the page's colours."""
    slider = next(s for s in SLIDERS if s.name == curve.name)
    first, last = float(curve.amounts[0]), float(curve.amounts[-1])
    x = [20 + 190 * (float(a) - first) / (last - first) for a in curve.amounts]
    y = [92 - 80 * (max(float(b), 0.5) - 0.5) / 0.5 for b in curve.bit_accuracy]
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    dots = "".join(
        f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" class="{"read" if ok else "lost"}"><title>{amount:g} {slider.unit}: {share:.0%} of the bits, {"read" if ok else "lost"}</title></circle>'
        for a, b, amount, share, ok in zip(x, y, curve.amounts, curve.bit_accuracy, curve.readable, strict=True)
    )
    breaks = "never lost here" if curve.breaks_at is None else f"lost at {curve.breaks_at:g} {slider.unit}"
    return (
        f'<figure><figcaption><b>{slider.label}</b> {breaks}</figcaption><svg viewBox="0 0 220 112" role="img" aria-label="{slider.label}: {breaks}">'
        '<line class="axis" x1="20" x2="210" y1="12" y2="12"/><line class="axis" x1="20" x2="210" y1="92" y2="92"/><text x="17" y="15" text-anchor="end">1</text><text x="17" y="95" text-anchor="end">.5</text>'
        f'<text x="20" y="108">{first:g}</text><text x="210" y="108" text-anchor="end">{last:g} {slider.unit}</text><polyline points="{line}"/>{dots}</svg></figure>'
    )
