"""PolarMask's tab: click a point, see the contour that the network draws around it, ray by ray; or every object at once."""
from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from demos import page, polarmask_look
from demos import polarmask_draw as draw
from pttp.errors import BadInput
from pttp.papers import Paper

NO_PHOTO = "Drop a photo on the left, paste one, or pick an example. Then click an object in it."
NO_PHOTO_YET = "There is no photo yet: drop one, or pick an example."
SCORE = 0.45  # the score from which an object is listed: `session.SHOWN`, said here as well so that the page is built without importing a network


@dataclass(frozen=True)
class Seen:
    """A visitor's photo: the `session` that has seen it, the photo as it is `shown`, and `scale`, by how much that is enlarged."""

    session: Any
    shown: Image.Image
    scale: float

    def small(self, instance):
        """An object in pixels of the photo as it is shown."""
        at = {k: ((getattr(instance, k) + 0.5) * self.scale - 0.5).astype(np.float32) for k in ("center", "contour")}
        return replace(instance, rays=instance.rays * np.float32(self.scale), size=self.shown.size[::-1], **at)


def code(point: tuple[float, float] | None, score: float, source: str) -> tuple[str, str, str]:
    """The same in Python, on the command line and over HTTP."""
    chosen, flag = page.chosen(source)
    if point:
        x, y = (round(v) for v in point)
        ask, option, data = f'found = net.predict_at("photo.jpg", ({x}, {y}))\nprint(found.label, found.center, found.rays)', f"--point {x},{y}", f"{x}, {y}, {score:g}"
    else:
        ask = f'for found in net.predict("photo.jpg", score={score:g}):\n    print(found.label, found.score, found.center, found.rays)'
        option, data = f"--score {score:g}", f"null, null, {score:g}"
    python = f'import pttp\n\nnet = pttp.load("polarmask"{chosen})\n{ask}'
    shell = f"python -m pttp polar photo.jpg {option} --svg contour.svg{flag}\npython -m pttp polar photos/ --json{flag} > objects.jsonl"
    return python, shell, page.http_call("polar", f'{data}, "{source}"')


def build(paper: Paper, tab: gr.Tab) -> None:
    def network(source: str):
        return page.models.get(paper, source)

    def open_photo(image, source: str, score: float):
        """A new photo: everything in it, and the best object's contour at once."""
        if image is None:
            return None, None, None, gr.Image(visible=False), page.empty(NO_PHOTO), gr.Column(visible=False), "one", *code(None, score, source)
        net = network(source)
        began = time.perf_counter()
        session = net.open(image)
        everything = session.everything
        taken = (time.perf_counter() - began) * 1e3
        shown = draw.fitted(image)
        seen = Seen(session, shown, shown.width / image.width)
        best = everything[0] if everything else session.at((image.width // 2, image.height // 2))
        return seen, best, None, *answer(seen, best, None, taken), "one", *snippets(seen, best, None, score, source)

    def snippets(seen: Seen, found, point, score: float, source: str) -> tuple[str, str, str]:
        """What gives the one object that is shown: the point that was asked for, or else everything, of which it is the best. A question at its centre is another one."""
        if point is None and not seen.session.everything:
            point = seen.session.shape[1] // 2, seen.session.shape[0] // 2
        return code(point, score if point else min(score, math.floor(100 * found.score) / 100), source)

    def answer(seen: Seen, found, point, milliseconds: float | None):
        """The picture, the card and the downloads of one object."""
        picture = draw.one(seen.shown, seen.small(found), paper.accent, point)
        return gr.Image(picture, visible=True), draw.card(found, milliseconds, paper.accent, SCORE), gr.Column(visible=True)

    def ask(seen: Seen | None, x: float, y: float, source: str, score: float):
        """The contour around a point of the original photo."""
        if seen is None:
            raise BadInput(NO_PHOTO_YET)
        began = time.perf_counter()
        found = seen.session.at((x, y))
        taken = (time.perf_counter() - began) * 1e3
        marked = ((x + 0.5) * seen.scale - 0.5, (y + 0.5) * seen.scale - 0.5)
        return found, (x, y), *answer(seen, found, marked, taken), "one", *code((x, y), score, source)

    def clicked_photo(seen, source: str, score: float, event: gr.SelectData):
        if seen is None:
            raise BadInput(NO_PHOTO_YET)
        x, y = page.place(event, seen.session.shape)
        return ask(seen, int(x), int(y), source, score)

    def clicked_answer(seen, source: str, score: float, event: gr.SelectData):
        """The pixel of the photo that was clicked where it is shown larger or smaller."""
        if seen is None:
            raise BadInput(NO_PHOTO_YET)
        h, w = seen.session.shape
        x, y = (min(int((v + 0.5) / seen.scale), n - 1) for v, n in zip(page.place(event, seen.shown.size[::-1]), (w, h)))
        return ask(seen, x, y, source, score)

    def numbers(seen, x, y, source: str, score: float):
        if x is None or y is None:
            raise BadInput("Give both numbers, x and y, in pixels of the photo.")
        return ask(seen, x, y, source, score)

    def show(seen: Seen | None, chosen, point, view: str, score: float, source: str):
        """One object or all of them, as the visitor chose."""
        if seen is None:
            return gr.skip(), page.empty(NO_PHOTO), gr.skip(), *code(None, score, source)
        if view == "one":
            marked = None if point is None else tuple((v + 0.5) * seen.scale - 0.5 for v in point)
            return *answer(seen, chosen, marked, None), *snippets(seen, chosen, point, score, source)
        found = seen.session.instances(score)
        return gr.Image(draw.every(seen.shown, [seen.small(f) for f in found]), visible=True), draw.listed(found, paper.accent), gr.Column(visible=True), *code(None, score, source)

    def show_all(seen, chosen, point, score: float, source: str):
        """The score is about all objects: moving its slider shows them."""
        return "all", *show(seen, chosen, point, "all", score, source)

    def shown_now(seen: Seen | None, chosen, view: str, score: float) -> list:
        if seen is None:
            raise BadInput(NO_PHOTO_YET)
        found = [chosen] if view == "one" else seen.session.instances(score)
        if not found:
            raise BadInput("Nothing reaches this score: move the slider to the left first.")
        return found

    def as_svg(seen, chosen, view: str, score: float) -> str:
        from pttp.polarmask import study

        return page.keep(study.svg(shown_now(seen, chosen, view, score)).encode(), "contours.svg")

    def as_coco(seen, chosen, view: str, score: float) -> str:
        from pttp.polarmask import study

        return page.keep(study.coco(shown_now(seen, chosen, view, score)).encode(), "contours.json")

    def as_png(image, seen, chosen, view: str, score: float) -> str:
        """The photo, transparent where no contour is."""
        from pttp.polarmask import study

        found = shown_now(seen, chosen, view, score)
        cut = image.convert("RGBA")
        cut.putalpha(Image.fromarray(study.covered(found)).convert("L"))
        return page.keep(page.png(cut), "cut-out.png")

    def polar(image, x: float | None = None, y: float | None = None, score: float = SCORE, weights: str = "auto") -> dict:
        """Draw objects as a centre and rays.

        Args:
            image: the picture
            x: with y, the point around which one contour is drawn, in pixels; leave both out to find every object
            y: see x
            score: the score from which an object is listed, 0 to 1.5
            weights: auto or embedded
        Returns:
            objects, best first: label, score, centerness, center, rays, contour (in pixels), box, area, stride of the level that answered; and the source of the weights
        """
        if image is None:
            raise gr.Error("Send a picture as `image`.")
        net = network(weights)
        if (x is None) != (y is None):
            raise BadInput("Give both x and y, or neither.")
        try:
            least = SCORE if score is None else float(score)
        except (TypeError, ValueError, OverflowError):
            raise BadInput("`score` is a number from 0 to 1.5.") from None
        found = net.predict(image, least) if x is None else [net.predict_at(image, (x, y))]
        return {"objects": [f.to_dict() for f in found], "weights": net.weights.source}

    page.header(paper)
    badge = page.badge_line(paper)
    seen, chosen, point = (gr.State(time_to_live=3600) for _ in range(3))  # they hold the photo
    with gr.Row(equal_height=False):
        with gr.Column():
            photo = page.picture(label="Photo: click an object in it", height=360, elem_id="polarmask-photo", buttons=["fullscreen"])
            page.examples(page.shipped("chelsea.png", "cheetah1.jpg", "lion.jpg", "astronaut.png", "bus.png"), photo)
            with gr.Accordion("Give the point in numbers", open=False, elem_id="polarmask-numbers"), gr.Row():
                x = gr.Number(label="x, from the left", minimum=0, precision=0, elem_id="polarmask-x", min_width=90)
                y = gr.Number(label="y, from the top", minimum=0, precision=0, elem_id="polarmask-y", min_width=90)
                go = gr.Button("Draw around it", elem_id="polarmask-go", min_width=120)
        with gr.Column():
            shown = gr.Image(label="Click anywhere in it", format="jpeg", interactive=False, visible=False, alt_text="Your photo with the contour that the network draws", elem_id="polarmask-shown", buttons=["fullscreen"], height=420)
            card = gr.HTML(page.empty(NO_PHOTO), elem_id="polarmask-card")
            with gr.Column(visible=False, elem_id="polarmask-more") as more:
                with gr.Row():
                    view = gr.Radio([("One object", "one"), ("All objects", "all")], value="one", show_label=False, container=False, elem_id="polarmask-view", min_width=220)
                score = gr.Slider(0.1, 1, value=SCORE, step=0.01, label="Lowest score of all objects", elem_id="polarmask-score", buttons=[])
                with gr.Row():
                    svg = gr.Button("SVG", size="md", elem_id="polarmask-svg", min_width=90)
                    coco = gr.Button("COCO JSON", size="md", elem_id="polarmask-coco", min_width=110)
                    png = gr.Button("Cut-out PNG", size="md", elem_id="polarmask-png", min_width=110)
                fetch = page.download(paper)
            source = page.weights_chooser(paper)
    follow = polarmask_look.build(paper, tab, seen, chosen)
    page.study(paper)
    panels = page.code_panel()

    page.follow(paper, badge, source, tab.select, source.change)
    hidden = {"api_visibility": "private", "show_progress": "hidden"}
    answers = [shown, card, more, view, *panels]
    opened = gr.on([photo.change, source.change], page.in_words(open_photo), [photo, source, score], [seen, chosen, point, *answers], api_visibility="private", trigger_mode="always_last", show_progress="minimal")
    asked = [
        photo.select(page.in_words(clicked_photo), [seen, source, score], [chosen, point, *answers], trigger_mode="multiple", **hidden),
        shown.select(page.in_words(clicked_answer), [seen, source, score], [chosen, point, *answers], trigger_mode="multiple", **hidden),
        gr.on([go.click, x.submit, y.submit], page.in_words(numbers), [seen, x, y, source, score], [chosen, point, *answers], **hidden),
    ]
    follow(opened, asked)
    view.input(page.in_words(show), [seen, chosen, point, view, score, source], [shown, card, more, *panels], trigger_mode="always_last", **hidden)
    score.input(page.in_words(show_all), [seen, chosen, point, score, source], [view, shown, card, more, *panels], trigger_mode="always_last", **hidden)
    for button, make, given in ((svg, as_svg, []), (coco, as_coco, []), (png, as_png, [photo])):
        button.click(page.in_words(make), [*given, seen, chosen, view, score], fetch, show_progress="minimal", api_visibility="private").success(None, js=page.to_disk(paper))
    page.endpoint(
        polar,
        [
            page.picture(visible=False, label="image"),
            gr.Number(None, visible=False, label="x"),
            gr.Number(None, visible=False, label="y"),
            gr.Number(SCORE, visible=False, label="score"),
            gr.Textbox("auto", visible=False, label="weights"),
        ],
        [gr.JSON(visible=False, label="objects")],
        "polar",
        "Draw objects as a centre and 36 rays with PolarMask: every object of a picture, or the one contour around a point.",
    )
