"""CA-GAN's tab: portrait in, any colour on lips and lids; asked beside reached; the paper's step and its sweeps on your photo."""
from __future__ import annotations

import shlex
import time

import gradio as gr
from PIL import Image

from demos import cagan_views as views
from demos import page
from pttp.errors import BadInput, NoFaceFound
from pttp.papers import Paper

NO_PHOTO = "Drop a portrait on the left, paste one, use the camera, or pick the example."
NO_PART = "Give a portrait above: its close-up appears here."
VIEWS = [("face", "face"), ("whole photo", "photo")]
HALVES = [("both", "both"), ("left", "left"), ("right", "right")]
LARGE_ENOUGH = 200  # pixels of a face's width from which on a smaller copy of a large photo does for looking


def code(painted: list[str], lips: str, eyes: str, strength: float, finish: float, half: str, source: str, face: int = 0) -> tuple[str, str, str]:
    """The same makeup in Python, on the command line and over HTTP; while nothing is chosen, of the lips, for a call without a colour is refused."""
    given = {name: shade for name, shade in (("lips", lips), ("eyes", eyes)) if name in (painted or ["lips"])}
    more = {"strength": strength} if strength != 1 else {}
    extra = ({"face": face} if face else {}) | ({"finish": finish} if finish else {}) | ({"side": half} if half != "both" else {})
    chosen, flag = page.chosen(source)
    words = ", ".join(f"{k}={v!r}" if isinstance(v, str) else f"{k}={v:g}" for k, v in (given | more | extra).items())
    python = f'import pttp\n\nnet = pttp.load("cagan"{chosen})\nmade = net.apply("portrait.jpg", {words})\nmade.image.save("makeup.png")\nprint(made.delta_e)                      # CIEDE2000 between asked and reached\n\nnet.estimate("reference.jpg").to_dict()  # the colours of another face'
    flags = "".join(f" --{k} {shlex.quote(v if isinstance(v, str) else f'{v:g}')}" for k, v in (given | more | extra).items()) + flag
    shell = f"python -m pttp makeup portrait.jpg -o makeup.png{flags}\npython -m pttp makeup portraits/ -o painted/ --json{flags} > painted.jsonl\npython -m pttp makeup portrait.jpg -o makeup.png --like reference.jpg{flag}"
    data = f'"{given.get("lips", "")}", "{given.get("eyes", "")}", {strength:g}, {face}, {finish:g}, "{half}", "{source}"'
    return python, shell, page.http_call("makeup", data, "portrait.jpg")


def build(paper: Paper, tab: gr.Tab) -> None:
    def network(source: str):
        return page.models.get(paper, source)

    def shown(net, image: Image.Image, face: int):
        """The portrait to look at: of a large photo a smaller copy, unless the face would become too small in it."""
        portrait = net.prepare(image, face)
        small = views.fitted(image)
        if small.size == image.size or portrait.faces[face].width * small.width / image.width < LARGE_ENOUGH:
            return portrait
        try:
            return net.prepare(small, face)
        except (NoFaceFound, BadInput):
            return portrait

    def ready(image, source: str):
        """A new photo, or other weights: its faces and close-ups, once."""
        if image is None:
            return None, page.empty(NO_PHOTO), gr.Radio(visible=False), gr.Radio(visible=False), gr.ImageSlider(visible=False)
        try:
            portrait = shown(network(source), image, 0)
        except NoFaceFound as error:
            return None, views.nothing(str(error)), gr.Radio(visible=False), gr.Radio(visible=False), gr.ImageSlider(visible=False)
        count = len(portrait.faces)
        faces = gr.Radio([("largest" if i == 0 else f"number {i + 1}", i) for i in range(count)], value=0, visible=count > 1)
        return portrait, gr.skip(), faces, closeups(portrait), gr.skip()

    def closeups(portrait) -> gr.Radio:
        return gr.Radio([(views.PARTS[name], name) for name in portrait.parts], value=next(iter(portrait.parts)), visible=True)

    def other(portrait, image, face: int, source: str):
        if portrait is None or image is None or face is None or face == portrait.face:
            return gr.skip(), gr.skip()
        portrait = shown(network(source), image, int(face))
        return portrait, closeups(portrait)

    def chosen(painted: list[str], lips: str, eyes: str) -> tuple[str | None, str | None]:
        return (lips if "lips" in painted else None), (eyes if "eyes" in painted else None)

    def paint(portrait, painted, lips: str, eyes: str, strength: float, finish: float, half: str, source: str, view: str):
        snippets = code(painted, lips, eyes, strength, finish, half, source, portrait.face if portrait else 0)
        if portrait is None:
            return gr.ImageSlider(visible=False), gr.skip(), gr.Column(visible=False), *snippets
        before = Image.fromarray(portrait.pixels)
        box = views.around(portrait.box(portrait.face), before.size) if view == "face" else None
        if not painted:
            return gr.ImageSlider((views.seen(before, box), views.seen(before, box)), visible=True), page.empty("Choose what to paint: lips, eyes, or both."), gr.Column(visible=False), *snippets
        net = network(source)
        began = time.perf_counter()
        made = net.paint(portrait, *chosen(painted, lips, eyes), strength, finish=finish, side=None if half == "both" else half)
        answer = views.card(made, (time.perf_counter() - began) * 1e3, paper.accent)
        pictures = views.seen(before, box), views.seen(made.image.convert("RGB"), box)
        return gr.ImageSlider(pictures, visible=True), answer, gr.Column(visible=True), *snippets

    def download(image, portrait, painted, lips: str, eyes: str, strength: float, finish: float, half: str, source: str):
        if image is None or portrait is None or not painted:
            raise BadInput("There is nothing to download yet: give a portrait and choose a colour first.")
        net = network(source)
        made = net.apply(image, *chosen(painted, lips, eyes), strength, face=portrait.face, finish=finish, side=None if half == "both" else half)
        return page.keep(page.png(made.image), "makeup.png")

    def copy(reference, painted, source: str):
        """The colours of another face, as D sees them."""
        from pttp.cagan.colour import hex_of

        if reference is None:
            raise BadInput("Give the reference photo first.")
        seen = network(source).estimate(reference)
        found = {"lips": seen.lips, "eyes": seen.eyes}
        told = "".join(f"{views.swatch(hex_of(lab), name)} {name} {hex_of(lab)} " for name, lab in {**found, "skin": seen.skin}.items() if lab is not None)
        pickers = [gr.skip() if lab is None else hex_of(lab) for lab in found.values()]
        return *pickers, f'<p class="pt-note">The discriminator sees: {told}</p>'

    def inside(portrait, name: str, painted, lips: str, eyes: str, source: str) -> str:
        from pttp.cagan import study
        from pttp.cagan.colour import lab_of

        if portrait is None or name not in portrait.parts:
            return page.empty(NO_PART)
        return views.step(study.step(network(source), portrait.parts[name], lab_of(lips if name == "lips" else eyes)), name, paper.accent)

    def swept(portrait, name: str, source: str) -> str:
        from pttp.cagan import study

        if portrait is None or name not in portrait.parts:
            return page.empty(NO_PART)
        return views.sweeps(study.sweeps(network(source), portrait.parts[name]), paper.accent)

    def makeup(image, lips: str = "#b01030", eyes: str = "", strength: float = 1.0, face: int = 0, finish: float = 0.0, side: str = "both", weights: str = "auto") -> tuple[str, dict]:
        """Change the colour of lips and eyelids with CA-GAN.

        Args:
            image: a portrait; transparency is kept
            lips: a colour such as #b01030, or empty to leave the lips as they are
            eyes: the same for the eyelids
            strength: 0 (nothing) to 1 (the colour asked for)
            face: which one, the largest is 0
            finish: -1 (matte) to 1 (glossy)
            side: both, or the left or right half of the face alone, as seen
            weights: auto or embedded
        Returns:
            the painted picture as a PNG file; and regions (requested, achieved and before as hex and Lab, delta_e, pixels), strength, face, faces, width, height, weights
        """
        if image is None:
            raise gr.Error("Send a picture as `image`.")
        try:
            strength, face, finish = 1.0 if strength is None else float(strength), int(face), float(finish)
        except (TypeError, ValueError, OverflowError):
            raise BadInput("`strength` (0 to 1), `face` (the largest is 0) and `finish` (-1 to 1) are numbers.") from None
        net = network(weights)
        made = net.apply(image, (lips or "").strip() or None, (eyes or "").strip() or None, strength, face=face, finish=finish, side=None if side in ("both", "", None) else side)
        return page.keep(page.png(made.image), "makeup.png"), {**made.to_dict(), "weights": net.weights.source}

    page.header(paper)
    badge = page.badge_line(paper)
    gr.HTML(views.STYLE, padding=False)
    portrait = gr.State(time_to_live=3600)
    with gr.Row(equal_height=False):
        with gr.Column():
            photo = page.picture(alpha=True, label="Portrait", height=340, elem_id="cagan-photo", buttons=["fullscreen"])
            page.examples(page.shipped("astronaut.png"), photo)
            painted = gr.CheckboxGroup([("lips", "lips"), ("eyes", "eyes")], value=["lips"], label="Paint", elem_id="cagan-painted")
            with gr.Row():
                lips = gr.ColorPicker("#b01030", label="Lips", elem_id="cagan-lips")
                eyes = gr.ColorPicker("#5b7fc4", label="Eyes", elem_id="cagan-eyes")
            with gr.Row(elem_id="cagan-shades"):
                shades = {shade: gr.Button(name, size="sm", elem_id=f"cagan-shade-{i}", elem_classes="cagan-shade", min_width=96) for i, (name, shade) in enumerate(views.SHADES.items())}
            strength = gr.Slider(0, 1, value=1, step=0.05, label="Intensity", elem_id="cagan-strength", buttons=[])
            finish = gr.Slider(-1, 1, value=0, step=0.1, label="Matte or glossy", elem_id="cagan-finish", buttons=[])
        with gr.Column():
            slider = gr.ImageSlider(label="Photo | painted", type="pil", format="jpeg", interactive=False, visible=False, elem_id="cagan-slider", buttons=["fullscreen"], max_height=460)
            card = gr.HTML(page.empty(NO_PHOTO), elem_id="cagan-answer")
            face = gr.Radio([0], value=0, label="Face", visible=False, elem_id="cagan-face")
            with gr.Row():
                half = gr.Radio(HALVES, value="both", label="Halves of the face", elem_id="cagan-half")
                view = gr.Radio(VIEWS, value="face", label="Show", elem_id="cagan-view")
            with gr.Column(visible=False) as tools:
                press = gr.Button("Download PNG", size="md", elem_id="cagan-png")
                fetch = page.download(paper)
            with gr.Accordion("Copy the colours of another face", open=False, elem_id="cagan-copy"):
                reference = page.picture(label="Reference photo", height=180, elem_id="cagan-reference", sources=["upload", "clipboard"], buttons=[])
                taken = gr.HTML(elem_id="cagan-taken")
            source = page.weights_chooser(paper)

    page.section("Look inside: the three-part step", "The generator changes the close-up, the discriminator says which makeup and which skin it sees, and the generator has to find the way back. No mask goes in: where makeup belongs, the generator has learned.")
    part = gr.Radio([("lips", "lips")], value="lips", show_label=False, container=False, visible=False, elem_id="cagan-part")
    step = gr.HTML(page.empty(NO_PART), elem_id="cagan-step")
    page.section("Look inside: along each axis of colour", "From the colour that is there, L* goes from darker to lighter, a* from green to red, b* from blue to yellow, as on the authors' page.")
    sweep = gr.HTML(page.empty(NO_PART), elem_id="cagan-sweeps")

    page.study(paper)
    panels = page.code_panel()

    page.follow(paper, badge, source, tab.select, source.change)
    hidden = {"api_visibility": "private", "trigger_mode": "always_last"}
    settings = [painted, lips, eyes, strength, finish, half, source]
    look = {"fn": page.in_words(paint), "inputs": [portrait, *settings, view], "outputs": [slider, card, tools, *panels], "show_progress": "hidden", **hidden}
    closer = {"fn": page.in_words(inside), "inputs": [portrait, part, painted, lips, eyes, source], "outputs": step, "show_progress": "hidden", **hidden}
    along = {"fn": page.in_words(swept), "inputs": [portrait, part, source], "outputs": sweep, "show_progress": "hidden", **hidden}
    gr.on([photo.change, source.change], page.in_words(ready), [photo, source], [portrait, card, face, part, slider], show_progress="minimal", **hidden).success(**look).success(**closer).success(**along)
    face.input(page.in_words(other), [portrait, photo, face, source], [portrait, part], show_progress="minimal", **hidden).success(**look).success(**closer).success(**along)
    gr.on([c.change for c in (painted, lips, eyes, strength, finish, half)], **look).success(**closer)
    view.change(**look)
    part.input(**closer).success(**along)
    for shade, button in shades.items():
        button.click(made_for(shade), painted, [lips, eyes], show_progress="hidden", **hidden)
    reference.change(page.in_words(copied(copy)), [reference, painted, source], [lips, eyes, taken], show_progress="minimal", **hidden).failure(None, None, taken, js="() => ''")
    press.click(page.in_words(download), [photo, portrait, *settings], fetch, show_progress="minimal", **hidden).success(None, js=page.to_disk(paper))
    page.endpoint(
        makeup,
        [
            page.picture(alpha=True, visible=False, label="image"),
            gr.Textbox("#b01030", visible=False, label="lips"),
            gr.Textbox("", visible=False, label="eyes"),
            gr.Number(1, visible=False, label="strength"),
            gr.Number(0, visible=False, label="face"),
            gr.Number(0, visible=False, label="finish"),
            gr.Textbox("both", visible=False, label="side"),
            gr.Textbox("auto", visible=False, label="weights"),
        ],
        [gr.File(visible=False, label="painted picture"), gr.JSON(visible=False, label="makeup")],
        "makeup",
        "Change the colour of lips and eyelids in a portrait to any colour with CA-GAN, and say which colour was reached.",
    )


def made_for(shade: str):
    """What a swatch does: its colour goes to the lips, or to the eyes where these alone are painted."""

    def take(painted: list[str]):
        return (gr.skip(), shade) if painted == ["eyes"] else (shade, gr.skip())

    take.__name__ = f"take_{shade[1:]}"
    return take


def copied(copy):
    """`copy`, which has nothing to say when the reference is taken away."""

    def take(reference, painted, source: str):
        return (gr.skip(), gr.skip(), "") if reference is None else copy(reference, painted, source)

    take.__name__ = "copy_colours"
    return take
