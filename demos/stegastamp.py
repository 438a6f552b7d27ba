"""StegaStamp's tab: hide a link in a photo, read it from a picture or through the webcam; and how much harm a stamp survives."""
from __future__ import annotations

import html
import io
import shlex
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

import gradio as gr
from PIL import Image

from demos import page, stegastamp_attack, stegastamp_webcam
from demos import stegastamp_cards as cards
from pttp.errors import BadInput, NoStampFound
from pttp.papers import Paper

NO_PHOTO = "Drop a photo on the left, paste one, or pick an example."
NO_PICTURE = "Drop a stamped file on the left, a photo of a print, or a screenshot."


@dataclass(frozen=True)
class Made:
    """A visitor's last stamp: `png`, the file of it (kept for an hour), what is in it, and a checksum of the `photo` below it."""

    png: str
    message: str
    link: str | None
    bits: str
    strength: float
    photo: int


def code(text: str, strength: float, fit: bool, source: str) -> tuple[str, str, str]:
    """Stamping and reading in Python, on the command line and over HTTP."""
    chosen, flag = page.chosen(source)
    once, one_pass, alone = ("", "", "false") if fit else (", steps=0", " --one-pass", "true")
    python = (
        f'import pttp\n\nnet = pttp.load("stegastamp"{chosen})\nstamp = net.encode("photo.jpg", {text!r}, strength={strength:g}{once})\nstamp.image.save("stamped.png")\n\n'
        'reading = net.decode("stamped.png")        # or a photo of a print\nprint(reading.link or reading.message, reading.corrected, "bits repaired")\n'
    )
    word = shlex.quote(text)
    shell = f"python -m pttp stamp encode photo.jpg {word} -o stamped.png --strength {strength:g}{one_pass}{flag}\npython -m pttp stamp decode stamped.png{flag}\npython -m pttp stamp decode photos/ --json{flag} > readings.jsonl"
    body = shlex.quote(text.replace("\\", "\\\\").replace('"', '\\"'))
    http = (
        f"HOST=http://127.0.0.1:7860\nMESSAGE={body}\n"
        'picture() { printf \'{"path": "%s", "meta": {"_type": "gradio.FileData"}}\' "$(curl -s -F files=@$1 $HOST/gradio_api/upload | tr -d \'[]"\')"; }\n'
        "call() { curl -sN $HOST/gradio_api/call/$1/$(curl -s $HOST/gradio_api/call/$1 -H 'Content-Type: application/json' -d \"{\\\"data\\\": [$2]}\" | cut -d'\"' -f4); }\n"
        f'call stamp_encode "$(picture photo.jpg), \\"$MESSAGE\\", {strength:g}, {alone}, \\"{source}\\""\n'
        f'call stamp_decode "$(picture stamped.png), \\"{source}\\""'
    )
    return python, shell, http


def build(paper: Paper, tab: gr.Tab) -> None:
    def network(source: str):
        return page.models.get(paper, source)

    def stamp(image: Image.Image | None, text: str, strength: float, fit: bool, source: str):
        from pttp.stegastamp import study, tune

        snippets = code(text, strength, fit, source)
        if image is None:
            return gr.ImageSlider(visible=False), page.empty(NO_PHOTO), gr.Image(visible=False), None, gr.Column(visible=False), None, *snippets
        net = network(source)
        began = time.perf_counter()
        made = net.encode(image, text or "", strength, tune.STEPS if fit else 0)
        card = cards.stamp_card(made, (time.perf_counter() - began) * 1e3, paper.accent)
        path = page.keep(page.png(made.image), "stamped.png")
        views = cards.fitted(image if made.image.mode == "RGBA" else image.convert("RGB")), cards.fitted(made.image)
        shown = study.residual_picture(made.residual, 10)
        state = Made(path, made.message, made.link, "".join(map(str, made.bits)), made.strength, zlib.crc32(image.tobytes()))
        return gr.ImageSlider(views, visible=True), notice(net) + card, gr.Image(cards.fitted(shown, 600), visible=True), state, gr.Column(visible=True), path, *snippets

    def unstamped(image, made: Made | None):
        """A new photo that cannot be stamped does not stand beside the stamp of the last one; a message that is refused takes nothing away."""
        if made and isinstance(image, Image.Image) and made.photo == zlib.crc32(image.tobytes()):
            return [gr.skip()] * 6
        return gr.ImageSlider(visible=False), page.empty("This photo has no stamp yet."), gr.Image(visible=False), None, gr.Column(visible=False), None

    def notice(net) -> str:
        """What happened to the registry of links, if anything did."""
        return page.banner(net.links.notice) if net.links.notice else ""

    def kept(made: Made | None) -> Image.Image:
        from pttp import images

        if made is None:
            raise BadInput("Stamp a photo first.")
        if not Path(made.png).is_file():
            raise BadInput("This stamp was made more than an hour ago and is deleted by now: stamp the photo again.")
        return images.read(made.png, alpha=True)

    def as_jpeg(made: Made | None, quality: float, source: str):
        from pttp import images

        if not 1 <= quality <= 100:
            raise BadInput(f"The quality of a JPEG goes from 1 to 100, not {quality:g}.")
        file = io.BytesIO()
        images.read(kept(made)).save(file, "JPEG", quality=int(quality))
        size = f"JPEG at quality {quality:g}, {len(file.getvalue()) / 1e3:,.0f} kB"
        if network(source).reads_back(file.getvalue(), made.message):
            words = f'<p class="pt-note">{size}: reads back.</p>'
        else:
            words = page.banner(f"{size}: our own decoder does not read it back. Choose a higher quality, or a higher strength.")
        return page.keep(file.getvalue(), "stamped.jpg"), words

    def as_sheet(made: Made | None):
        from pttp.stegastamp import sheet

        return page.keep(sheet.pdf(kept(made), made.message, made.link), "stegastamp-print-sheet.pdf"), ""

    def read(image: Image.Image | None, source: str):
        if image is None:
            return gr.Image(visible=False), page.empty(NO_PICTURE)
        net = network(source)
        try:
            found = net.decode_all(image)
        except NoStampFound as error:
            hint = "Crop the picture to the stamped photo, or take a sharper one from nearer by. A stamp that was printed smaller than about 3 cm, or sent through an app that shrinks photos, may be lost."
            return gr.Image(cards.fitted(image), visible=True), f'{notice(net)}<div class="pt-card pt-nothing"><p class="pt-message">{html.escape(str(error))}</p><p class="pt-note">{hint}</p></div>'
        drawn = cards.outlined(image, [reading.quad for reading in found], paper.accent)
        return gr.Image(drawn, visible=True), notice(net) + "".join(cards.reading_card(reading, paper.accent) for reading in found)

    def stamp_encode(image, message: str, strength: float = 1.0, one_pass: bool = False, weights: str = "auto") -> tuple[str, dict]:
        """Hide a message or a link in a picture.

        Args:
            image: the picture; transparency is kept
            message: up to seven bytes of text, or an http or https link of any length
            strength: 0.3 (fainter) to 2 (more robust)
            one_pass: the encoder's residual as it is, not fitted to this picture: sooner, as in the paper
            weights: auto or embedded
        Returns:
            the stamped picture as a PNG file; and its message (for a link, the code of it), link, bits, strength, psnr, verified (whether it reads back), width, height, weights
        """
        from pttp.stegastamp import tune

        if image is None:
            raise gr.Error("Send a picture as `image`.")
        try:
            strength = 1.0 if strength is None else float(strength)
        except (TypeError, ValueError, OverflowError):
            raise BadInput("`strength` is a number from 0.3 to 2.") from None
        net = network(weights)
        made = net.encode(image, message or "", strength, 0 if one_pass else tune.STEPS)
        return page.keep(page.png(made.image), "stamped.png"), {**made.to_dict(), "weights": net.weights.source}

    def stamp_decode(image, weights: str = "auto") -> dict:
        """Read the stamp of a picture: of a stamped file, or of a photo or screenshot of one.

        Args:
            image: the picture
            weights: auto or embedded
        Returns:
            message, link (or null), bits, confidence, corrected (how many bits were repaired), rotation, quad (corners in pixels), weights
        """
        if image is None:
            raise gr.Error("Send a picture as `image`.")
        net = network(weights)
        return {**net.decode(image).to_dict(), "weights": net.weights.source}

    page.header(paper)
    badge = page.badge_line(paper)
    made = gr.State(time_to_live=3600)  # as long as its file is kept
    with gr.Tabs(elem_id="stegastamp-parts"):
        with gr.Tab("Stamp"), gr.Row(equal_height=False):
            with gr.Column():
                photo = page.picture(alpha=True, label="Photo", height=320, elem_id="stegastamp-photo", buttons=["fullscreen"])
                page.examples(page.shipped("coffee.png", "chelsea.png", "astronaut.png", "tower.jpg", "lion.jpg"), photo)
                text = gr.Textbox(cards.DEFAULT_MESSAGE, label="Message or link", placeholder="Hello! or https://example.org/page", max_length=2048, elem_id="stegastamp-text")
                counter = gr.HTML(cards.count(f"<b>{len(cards.DEFAULT_MESSAGE)} of 7</b> bytes.", len(cards.DEFAULT_MESSAGE)), elem_id="stegastamp-count")
                strength = gr.Slider(0.3, 2, value=1, step=0.1, label="Strength", info="Fainter, or easier to read.", elem_id="stegastamp-strength")
                fit = gr.Checkbox(True, label="Fit the stamp to this photo", info="A few steps through the decoder make it quieter and surer. Off: one pass of the encoder, as in the paper.", elem_id="stegastamp-fit")
                press = gr.Button("Stamp it", variant="primary", elem_id="stegastamp-press")
            with gr.Column():
                slider = gr.ImageSlider(label="Photo | stamped", type="pil", format="png", interactive=False, visible=False, elem_id="stegastamp-slider", buttons=["fullscreen"], max_height=420)
                card = gr.HTML(page.empty(NO_PHOTO), elem_id="stegastamp-made")
                residual = gr.Image(label="What was added, x 10", alt_text="What the stamp added to the photo, ten times as strong", format="png", interactive=False, visible=False, height=200, elem_id="stegastamp-residual", buttons=["fullscreen"])
                with gr.Column(visible=False) as downloads:
                    with gr.Row():
                        png = gr.DownloadButton("Download PNG", size="md", elem_id="stegastamp-png", min_width=110)
                        jpeg = gr.Button("Download JPEG", size="md", elem_id="stegastamp-jpeg", min_width=110)
                        pdf = gr.Button("Print sheet (PDF)", size="md", elem_id="stegastamp-pdf", min_width=110)
                    quality = gr.Slider(1, 100, value=92, step=1, label="Quality of the JPEG", elem_id="stegastamp-quality", buttons=[])
                    file_note = gr.HTML(elem_id="stegastamp-file")
                    fetch = page.download(paper)
        with gr.Tab("Read"), gr.Row(equal_height=False):
            with gr.Column():
                picture = page.picture(label="Stamped file, photo of a print, or screenshot", height=360, format="png", elem_id="stegastamp-picture", buttons=["fullscreen"])
                reread = gr.Button("Read the stamp that I just made", size="md", elem_id="stegastamp-reread")
            with gr.Column():
                drawn = gr.Image(label="Found here; the dot is the stamp's own top left", alt_text="The picture, with a frame around each stamp that was found", interactive=False, visible=False, format="jpeg", elem_id="stegastamp-drawn", buttons=["fullscreen"])
                reading = gr.HTML(page.empty(NO_PICTURE), elem_id="stegastamp-reading")
        with gr.Tab("Webcam"):
            start_webcam = stegastamp_webcam.build(paper, network, notice)
    source = page.weights_chooser(paper)
    start_webcam(source)
    stegastamp_attack.build(paper, network, kept, made, source)
    page.study(paper)
    panels = page.code_panel()

    page.follow(paper, badge, source, tab.select, source.change)
    hidden = {"api_visibility": "private", "trigger_mode": "always_last"}
    text.change(page.in_words(cards.counted), text, counter, show_progress="hidden", **hidden)
    stamping, shown = [photo.change, press.click, text.submit, strength.change, fit.change, source.change], [slider, card, residual, made, downloads, png]
    stamped = gr.on(stamping, page.in_words(stamp), [photo, text, strength, fit, source], [*shown, *panels], show_progress="minimal", **hidden)
    stamped.failure(unstamped, [photo, made], shown, show_progress="hidden", **hidden)
    made.change(None, None, file_note, js="() => ''")
    jpeg.click(page.in_words(as_jpeg), [made, quality, source], [fetch, file_note], show_progress="minimal", **hidden).success(None, js=page.to_disk(paper))
    pdf.click(page.in_words(as_sheet), made, [fetch, file_note], show_progress="minimal", **hidden).success(None, js=page.to_disk(paper))
    gr.on([picture.change, source.change], page.in_words(read), [picture, source], [drawn, reading], show_progress="minimal", **hidden)
    reread.click(page.in_words(kept), made, picture, show_progress="minimal", **hidden)
    page.endpoint(
        stamp_encode,
        [
            page.picture(alpha=True, visible=False, label="image"),
            gr.Textbox(visible=False, label="message"),
            gr.Number(1, visible=False, label="strength"),
            gr.Checkbox(False, visible=False, label="one_pass"),
            gr.Textbox("auto", visible=False, label="weights"),
        ],
        [gr.File(visible=False, label="stamped picture"), gr.JSON(visible=False, label="stamp")],
        "stamp_encode",
        "Hide up to seven bytes of text, or an http or https link of any length, in a picture with StegaStamp.",
    )
    page.endpoint(
        stamp_decode,
        [page.picture(visible=False, label="image"), gr.Textbox("auto", visible=False, label="weights")],
        [gr.JSON(visible=False, label="reading")],
        "stamp_decode",
        "Read what StegaStamp has hidden in a picture, or in what a photo shows.",
    )
