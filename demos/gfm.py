"""GFM's tab: photo in, animal out, on any background; and how glance and focus share the work."""
from __future__ import annotations

import shlex
import time

import gradio as gr
from PIL import Image

from demos import gfm_views as views
from demos import page
from demos.gfm_shelf import Shelf
from pttp.errors import BadInput
from pttp.papers import Paper

NO_PHOTO = "Drop a photo of an animal on the left, paste one, or pick an example."
NO_MATTE = "Give a photo above: what the network saw of it appears here."
BACKGROUNDS = [("transparent", "transparent"), ("colour", "colour"), ("blurred photo", "blur"), ("own picture", "picture")]
ROSTAS = [("TT: three classes", "TT"), ("FT: surely animal", "FT"), ("BT: maybe animal", "BT")]
DOWNLOADS = (("Download PNG", "picture"), ("Cut-out, 16 bit", "cutout16"), ("Matte", "matte"), ("Matte, 16 bit", "matte16"))
shelf = Shelf()


def code(kind: str, colour: str, source: str, percent: float = 0) -> tuple[str, str, str]:
    """The same cut-out in Python, on the command line and over HTTP; `percent`: by how much the part in between is widened."""
    chosen, flag = page.chosen(source)
    behind = {"colour": colour, "blur": "blur", "picture": "background.jpg"}.get(kind)
    result, widen = f'matte.over("{behind}")' if behind else "matte.cutout()", f"{percent / 100:g}"
    widened = f", widen={widen}" if percent else ""
    python = f'import pttp\n\nnet = pttp.load("gfm"{chosen})\nmatte = net.predict("photo.jpg"{widened})\nprint(matte.found, *matte.notes)\n{result}.save("animal.png")\nmatte.alpha, matte.foreground         # (H, W) in [0, 1], and the animal\'s own colours'
    wider = f" --widen {widen}" if percent else ""
    option = (f" --background {shlex.quote(behind)}" if behind else "") + wider
    shell = f"python -m pttp matte photo.jpg -o animal.png{option}{flag}\npython -m pttp matte photos/ -o animals/{option}{flag}      # goes on where it was broken off\npython -m pttp matte photos/ -o mattes/ --alpha-only --json{wider}{flag} > mattes.jsonl"
    over = behind if kind in ("colour", "blur") else ""
    http = page.http_call("matte", f'"{over}", false, {widen}, "{source}"')
    return python, shell, f"# Transparent: lay your picture behind the result\n{http}" if kind == "picture" else http


def build(paper: Paper, tab: gr.Tab) -> None:
    def network(source: str):
        return page.models.get(paper, source)

    def cut(image, source: str):
        """A new photo, or other weights: both passes, once; nothing is widened yet."""
        if image is None:
            return None, None, page.empty(NO_PHOTO), gr.Slider(value=0)
        net = network(source)
        began = time.perf_counter()
        matte = net.predict(image)
        seconds = time.perf_counter() - began
        key = shelf.put(matte)
        return key, key, views.card(matte, seconds * 1e3, paper.accent), gr.Slider(value=0)

    def widened(plain: str | None, source: str, percent: float):
        if plain is None:
            return None, page.empty(NO_PHOTO)
        matte = shelf.get(plain)
        if not percent:
            return plain, views.card(matte, None, paper.accent)
        matte = network(source).matte(matte.look, percent / 100)
        return shelf.put(matte), views.card(matte, None, paper.accent)

    def behind(kind: str, colour: str, own):
        """What `Matte.over` takes; None for a transparent background."""
        from pttp.gfm.predict import colour_of

        if kind not in dict((value, label) for label, value in BACKGROUNDS):
            raise BadInput("Please choose one of the backgrounds that this page offers.")
        if kind == "colour":
            chosen = colour_of(colour or "")
            if chosen is None:
                raise BadInput(f"{colour[:40]!r} is no colour: pick one, or write it as #b01030.")
            return chosen
        if kind == "picture" and own is None:
            raise BadInput("Give a background picture first.")
        return {"picture": own, "blur": "blur"}.get(kind)

    def composed(matte, kind: str, colour: str, own) -> Image.Image:
        background = behind(kind, colour, own)
        return matte.cutout() if background is None else matte.over(background)

    def show(key: str | None, kind: str, colour: str, own, source: str, percent: float):
        snippets = code(kind, colour, source, percent)
        choices = gr.ColorPicker(visible=kind == "colour"), gr.Image(visible=kind == "picture")
        if key is None:
            return gr.ImageSlider(visible=False), *choices, gr.Column(visible=False), *snippets
        matte = shelf.get(key).shrunk(views.LONGEST)
        waiting = kind == "picture" and own is None
        result = composed(matte, "transparent" if waiting else kind, colour, own)
        shown = views.on_checkerboard(result) if result.mode == "RGBA" else result
        return gr.ImageSlider((Image.fromarray(matte.look.picture), shown), visible=True), *choices, gr.Column(visible=True), *snippets

    def download(what: str, key: str | None, kind: str, colour: str, own):
        if key is None:
            raise BadInput("There is nothing to download yet: give a photo first.")
        matte = shelf.get(key)
        if what == "cutout16":
            return page.keep(matte.png16(), "animal-16bit.png")
        if what == "matte16":
            return page.keep(matte.png16(alone=True), "matte-16bit.png")
        return page.keep(page.png(matte.mask() if what == "matte" else composed(matte, kind, colour, own)), "matte.png" if what == "matte" else "animal.png")

    def inside(key: str | None, plain: str | None, name: str):
        from pttp.gfm import study

        if key is None:
            return page.empty(NO_MATTE), ""
        matte = shelf.get(key)
        seen = study.panels(matte, shelf.get(plain) if key != plain else None)
        if not matte.found:
            return views.panels(seen, paper.accent), ""
        return views.panels(seen, paper.accent), views.rosta(study.rosta(matte.alpha, name), paper.accent)

    def asks(key: str | None, name: str) -> str:
        from pttp.gfm import study

        matte = shelf.get(key) if key else None
        return views.rosta(study.rosta(matte.alpha, name), paper.accent) if matte and matte.found else ""

    def compare(key: str | None, truth) -> str:
        from pttp.gfm import study

        if truth is None:
            return ""
        if key is None:
            raise BadInput("Give the photo first, then its true matte.")
        return views.errors(study.errors(shelf.get(key).alpha, truth), paper.accent)

    def matte(image, background: str = "", alpha_only: bool = False, widen: float = 0.0, weights: str = "auto") -> tuple[str, dict]:
        """Cut the animal out of a picture with GFM.

        Args:
            image: the picture; transparency of its own is kept and multiplied
            background: a colour such as #b01030 or white, or blur; without it the result is transparent
            alpha_only: only the matte, as a grey picture
            widen: 0 to 0.1; by how much of the long side the part in between grows to both sides, where focus is believed
            weights: auto or embedded
        Returns:
            the result as a PNG file of the picture's size; and found, coverage, soft, box (around the animal, in pixels), notes, width, height, weights
        """
        from pttp.gfm.predict import colour_of

        if image is None:
            raise gr.Error("Send a picture as `image`.")
        wanted = (background or "").strip()
        over = wanted if wanted in ("", "blur") else colour_of(wanted)
        if over is None:
            raise BadInput(f"{wanted[:40]!r} is neither a colour nor blur: a background picture can be laid behind the transparent result.")
        try:
            widen = float(widen)
        except (TypeError, ValueError, OverflowError):
            raise BadInput("`widen` is a number from 0 to 0.1.") from None
        net = network(weights)
        made = net.predict(image, widen)
        picture = made.mask() if alpha_only else made.over(over) if over else made.cutout()
        return page.keep(page.png(picture), "matte.png"), {**made.to_dict(), "weights": net.weights.source}

    page.header(paper)
    badge = page.badge_line(paper)
    plain, shown = gr.State(time_to_live=3600), gr.State(time_to_live=3600)
    with gr.Row(equal_height=False):
        with gr.Column():
            photo = page.picture(alpha=True, label="Photo", height=360, elem_id="gfm-photo", buttons=["fullscreen"])
            page.examples(page.shipped("lion.jpg", "cheetah1.jpg", "chelsea.png", "cheetah.jpg", "coffee.png"), photo)
        with gr.Column():
            slider = gr.ImageSlider(label="Photo | cut out", type="pil", format="png", interactive=False, visible=False, elem_id="gfm-slider", buttons=["fullscreen"], max_height=420)
            card = gr.HTML(page.empty(NO_PHOTO), elem_id="gfm-answer")
            with gr.Column(visible=False) as tools:
                kind = gr.Radio(BACKGROUNDS, value="transparent", label="Background", elem_id="gfm-background")
                colour = gr.ColorPicker("#0f766e", label="Colour", visible=False, elem_id="gfm-colour")
                own = page.picture(label="Background picture", height=180, visible=False, elem_id="gfm-own", sources=["upload", "clipboard"], buttons=[])
                buttons = {}
                for pair in (DOWNLOADS[:2], DOWNLOADS[2:]):
                    with gr.Row():
                        buttons |= {what: gr.Button(label, size="md", min_width=110, elem_id=f"gfm-{what}") for label, what in pair}
                fetch = page.download(paper)
            source = page.weights_chooser(paper)

    page.section("Look inside: who decides what", "Glance looks at the whole picture and sorts it into three classes. Focus looks at a finer one and answers everywhere, but is believed only where glance was not sure.")
    seen = gr.HTML(page.empty(NO_MATTE), elem_id="gfm-panels")
    widen = gr.Slider(0, 10, value=0, step=0.5, label="Widen the part in between (% of the long side)", info="Focus is believed in more places. Does the matte get better, or does focus invent holes?", elem_id="gfm-widen", buttons=[])

    page.section("Look inside: three ways to divide the work", "The paper calls them RoSTa, representations of semantic and transition areas. Choose one and see what it would ask of the two decoders on your picture.")
    rosta = gr.Radio(ROSTAS, value="TT", show_label=False, container=False, elem_id="gfm-rosta")
    asked = gr.HTML(elem_id="gfm-asked")

    page.section("How far off?", "If you have the true matte of your photo (a grey picture, or a cut-out with transparency), give it here: the map shows where the answer differs.")
    with gr.Row(equal_height=False):
        with gr.Column():
            truth = page.picture(alpha=True, label="True matte", height=220, elem_id="gfm-truth", sources=["upload", "clipboard"], format="png", buttons=[])
        with gr.Column():
            wrong = gr.HTML(elem_id="gfm-errors")

    page.study(paper)
    panels = page.code_panel()

    page.follow(paper, badge, source, tab.select, source.change)
    hidden = {"api_visibility": "private", "trigger_mode": "always_last"}
    look = {"fn": page.in_words(show), "inputs": [shown, kind, colour, own, source, widen], "outputs": [slider, colour, own, tools, *panels], "show_progress": "minimal", **hidden}
    views_of = {"fn": page.in_words(inside), "inputs": [shown, plain, rosta], "outputs": [seen, asked], "show_progress": "hidden", **hidden}
    error_of = {"fn": page.in_words(compare), "inputs": [shown, truth], "outputs": wrong, "show_progress": "hidden", **hidden}
    no_errors = {"fn": None, "js": "() => ''", "outputs": wrong}  # a true matte that does not fit leaves no map of another photo behind
    gr.on([photo.change, source.change], page.in_words(cut), [photo, source], [plain, shown, card, widen], show_progress="minimal", **hidden).success(**look).success(**views_of).success(**error_of).failure(**no_errors)
    widen.input(page.in_words(widened), [plain, source, widen], [shown, card], show_progress="minimal", **hidden).success(**look).success(**views_of).success(**error_of)
    gr.on([kind.change, colour.change, own.change], **look)
    rosta.change(page.in_words(asks), [shown, rosta], asked, show_progress="hidden", **hidden)
    truth.change(**error_of).failure(**no_errors)
    for what, button in buttons.items():
        button.click(page.in_words(made_for(download, what)), [shown, kind, colour, own], fetch, show_progress="minimal", **hidden).success(None, js=page.to_disk(paper))
    page.endpoint(
        matte,
        [
            page.picture(alpha=True, visible=False, label="image"),
            gr.Textbox("", visible=False, label="background"),
            gr.Checkbox(False, visible=False, label="alpha_only"),
            gr.Number(0, visible=False, label="widen"),
            gr.Textbox("auto", visible=False, label="weights"),
        ],
        [gr.File(visible=False, label="result"), gr.JSON(visible=False, label="matte")],
        "matte",
        "Cut the animal out of a picture with GFM: transparent, on a colour, in front of its own blurred background, or the matte alone.",
    )


def made_for(download, what: str):
    """`download` of one kind of file, under a name of its own."""

    def make(*inputs):
        return download(what, *inputs)

    make.__name__ = f"download_{what}"
    return make
