"""PointRend's tab: click an object, click again where the mask is wrong; and the rendering of its border, step by step."""
from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace

import gradio as gr
import numpy as np
from PIL import Image

from demos import page
from demos import pointrend_views as views
from pttp.errors import BadInput
from pttp.papers import Paper

NO_PHOTO = "Drop a photo on the left, paste one, or pick an example; then click the thing you want."
LISTS = "Give points as a list of [x, y], and labels as a list of 1 (the object) and 0 (not the object)."
KINDS = [("belongs to the object", 1), ("does not belong", 0)]
# While a new picture (the mask, a step of the rendering) is loading, gradio cannot say where in it a click lies, and drops the click: it is given again as soon as the picture is there
NO_CLICK_LOST = """() => {
  if (window.pttpClicks) return;
  window.pttpClicks = true;
  document.addEventListener("click", event => {
    const box = event.target.closest?.("#pointrend-canvas, #pointrend-points, #pointrend-uncertainty");
    if (!box || event.target.closest(".icon-button-wrapper, .icon-buttons") || box.querySelector("img")?.naturalWidth) return;
    event.stopImmediatePropagation();
    const again = tries => {
      const image = box.querySelector("img");
      if (image?.naturalWidth) image.dispatchEvent(new MouseEvent("click", {bubbles: true, clientX: event.clientX, clientY: event.clientY}));
      else if (tries) setTimeout(again, 25, tries - 1);
    };
    again(400);
  }, true);
}"""
OBJECTS = 50  # that one visitor may finish on one photo
DOWNLOADS = (("Mask", "png"), ("Cut-out", "cutout"), ("COCO RLE", "coco"), ("SVG", "svg"))


@dataclass(frozen=True)
class Finished:
    """An object that is done: what is told of it, and its mask as the bits of its `window` (x0, y0, x1, y1), for fifty masks of a large photo would be gigabytes."""

    label: str
    score: float
    shape: tuple[int, int]
    window: tuple[int, int, int, int]
    bits: np.ndarray

    @classmethod
    def of(cls, one) -> Finished:
        """`one` has a mask (H, W), a label and a score."""
        if isinstance(one, cls):
            return one
        rows, columns = (np.flatnonzero(one.mask.any(axis)) for axis in (1, 0))
        x0, y0, x1, y1 = window = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1) if len(rows) else (0, 0, 0, 0)
        return cls(one.label, one.score, one.mask.shape, window, np.packbits(one.mask[y0:y1, x0:x1]))

    @property
    def mask(self) -> np.ndarray:
        """(H, W) bool, made anew each time."""
        x0, y0, x1, y1 = self.window
        whole = np.zeros(self.shape, bool)
        whole[y0:y1, x0:x1] = np.unpackbits(self.bits, count=(y1 - y0) * (x1 - x0)).reshape(y1 - y0, x1 - x0)
        return whole


@dataclass(frozen=True)
class Visit:
    """What one visitor does with one photo: the photo as the network saw it and as it is `shown`; the objects that are `done`; the
    `clicks` (x, y, label) on the present one and its `mask`; `pending`, a click where nothing was found; `everything`: what is done came without a click."""

    session: object
    shown: np.ndarray
    seconds: float
    done: tuple[Finished, ...] = ()
    clicks: tuple[tuple[float, float, int], ...] = ()
    mask: object = None
    pending: tuple[float, float, int] | None = None
    anyway: bool = False
    everything: bool = False

    @property
    def objects(self) -> list:
        return [*self.done, *([self.mask] if self.mask else [])]


def code(clicks, source: str, anyway: bool = False, everything: bool = False) -> tuple[str, str, str]:
    """The same clicks in Python, on the command line and over HTTP; `anyway`: a mask was asked for where nothing had been found; `everything`: all objects, without a click."""
    clicks = [(int(x), int(y), label) for x, y, label in clicks] or [(120, 80, 1)]  # the pixel that was clicked, as the session takes it
    points, labels = [(x, y) for x, y, _ in clicks], [label for *_, label in clicks]
    chosen, flag = page.chosen(source)
    if everything:
        python = f'import pttp\n\nm = pttp.load("pointrend"{chosen})\nm.set_image("photo.jpg")            # the heavy part, once\nfor one in m.instances:\n    print(one.label, one.score, one.box)\n'
        return python, f"python -m pttp segment photo.jpg --all --json{flag}", page.http_call("segment", f'null, null, false, true, "{source}"')
    insisted, option, told = (", anyway=True", " --anyway", "true") if anyway else ("", "", "false")
    python = (
        f'import pttp\n\nm = pttp.load("pointrend"{chosen})\nm.set_image("photo.jpg")            # the heavy part, once\nfound = m.click({points}, {labels}{insisted})\n'
        "print(found.label, found.score, found.mask.sum())\nfor one in m.instances:                # everything, without a click\n    print(one.label, one.score, one.box)\n"
    )
    options = " ".join(f"--{'point' if label else 'negative'} {x},{y}" for x, y, label in clicks)
    shell = f"python -m pttp segment photo.jpg {options} -o mask.png --rle mask.json{option}{flag}\npython -m pttp segment photo.jpg --all --json{flag}"
    return python, shell, page.http_call("segment", f'{json.dumps(points)}, {json.dumps(labels)}, {told}, false, "{source}"')


def build(paper: Paper, tab: gr.Tab) -> None:
    def network(source: str):
        return page.models.get(paper, source)

    def opened(image, source: str):
        if image is None:
            return None, gr.Image(None, visible=False), page.empty(NO_PHOTO), gr.Button(visible=False), gr.Column(visible=False), *code([], source)
        began = time.perf_counter()
        session = network(source).open(image)
        visit = Visit(session, views.base(session.image), time.perf_counter() - began)
        return shown(visit, source)

    def shown(visit: Visit, source: str, words: str | None = None):
        """Everything that depends on the visit: state, canvas, card, the button for stubborn clicks, the tools, the snippets."""
        clicks = [*visit.clicks, *([visit.pending] if visit.pending else [])]
        picture = views.canvas(visit.shown, (one.mask for one in visit.objects), clicks, visit.session.shape)
        tools, all_of_it = gr.Column(visible=True), visit.everything and bool(visit.done) and not clicks
        # Between two objects nothing is new: the snippets of the last one stay
        snippets = code(clicks, source, visit.anyway, all_of_it) if clicks or all_of_it or not visit.done else [gr.skip()] * 3
        return visit, gr.Image(picture, visible=True), words or told(visit), gr.Button(visible=visit.pending is not None), tools, *snippets

    def told(visit: Visit, milliseconds: float | None = None) -> str:
        made = visit.mask
        if made is None:
            first = f"Seen in {1e3 * visit.seconds:.0f} ms. Now click the thing you want."
            return page.empty(first if not visit.done else f"{len(visit.done)} finished. Click the next object.")
        i, h, w = len(visit.done), *made.mask.shape
        asked, grid = sum(len(s.points) for s in made.steps), made.steps[-1].size ** 2
        rows = [("expected overlap", f"{made.score:.0%}"), ("pixels", f"{np.count_nonzero(made.mask):,} of {h * w:,}"), ("points asked", f"{asked:,} instead of {grid:,}"), ("clicks", str(len(visit.clicks)))]
        if milliseconds is not None:
            rows.append(("answered in", f"{milliseconds:.0f} ms"))
        hint = f"This is choice {made.choice} of {made.choices} at this spot." if made.choices > 1 else "Press the same spot once more for another object there: its whole, a part, a neighbour."
        if len(visit.clicks) > 1 and made.choices == 1:
            hint = "Click where the mask is still wrong, or finish this object and begin the next."
        return views.card(rows, [*made.said, hint], f"{views.swatch(i)}{made.label}", paper.accent)

    def answered(visit: Visit, source: str):
        """After a click: the mask of the present object, or the honest answer that nothing is there."""
        from pttp.pointrend.session import NothingFound

        began = time.perf_counter()
        try:
            made = visit.session.click([(x, y) for x, y, _ in visit.clicks], [label for *_, label in visit.clicks], anyway=visit.anyway)
        except NothingFound as error:
            waiting = replace(visit, clicks=visit.clicks[:-1], pending=visit.clicks[-1], mask=None)
            return shown(waiting, source, views.card([], [str(error)], "Nothing found here", paper.accent))
        visit = replace(visit, mask=made)
        return shown(visit, source, told(visit, 1e3 * (time.perf_counter() - began)))

    def add(visit: Visit | None, x: float | None, y: float | None, kind: int, source: str):
        if visit is None:
            raise BadInput("Give a photo first.")
        if x is None or y is None:
            raise BadInput("Give both x and y, in pixels of the photo.")
        from pttp.pointrend.session import tidy

        clicks = (*visit.clicks, (float(x), float(y), int(kind)))
        tidy([(x, y) for x, y, _ in clicks], [label for *_, label in clicks], visit.session.shape)  # a click that cannot be meant is refused, and changes nothing
        return answered(replace(visit, clicks=clicks, pending=None), source)

    def on_photo(visit: Visit | None, kind: int, source: str, event: gr.SelectData):
        if visit is None:
            raise BadInput("Give a photo first.")
        return add(visit, *page.place(event, visit.session.shape), kind, source)

    def on_canvas(visit: Visit | None, kind: int, source: str, event: gr.SelectData):
        if visit is None:
            raise BadInput("Give a photo first.")
        (h, w), (sh, sw) = visit.session.shape, visit.shown.shape[:2]
        x, y = page.place(event, (sh, sw))
        return add(visit, min((x + 0.5) * w / sw, w - 0.01), min((y + 0.5) * h / sh, h - 0.01), kind, source)

    def insist(visit: Visit | None, source: str):
        if visit is None or visit.pending is None:
            raise BadInput("Click somewhere first.")
        return answered(replace(visit, clicks=(*visit.clicks, visit.pending), pending=None, anyway=True), source)

    def undo(visit: Visit | None, source: str):
        if visit is None or not (visit.clicks or visit.pending or visit.done):
            raise BadInput("There is no click to take back.")
        if visit.pending:
            return shown(replace(visit, pending=None), source)
        if not visit.clicks:  # the last finished object is given up
            return shown(replace(visit, done=visit.done[:-1]), source)
        visit = replace(visit, clicks=visit.clicks[:-1])
        return answered(visit, source) if visit.clicks else shown(replace(visit, mask=None, anyway=False), source)

    def reset(visit: Visit | None, source: str):
        if visit is None:
            raise BadInput("Give a photo first.")
        return shown(Visit(visit.session, visit.shown, visit.seconds), source)

    def following(visit: Visit | None, source: str):
        if visit is None or visit.mask is None:
            raise BadInput("Click an object first: then it can be finished and the next one begun.")
        if len(visit.done) >= OBJECTS:
            raise BadInput(f"{OBJECTS} objects are finished, and more are not kept: download them, then reset and go on.")
        return shown(replace(visit, done=tuple(map(Finished.of, visit.objects)), clicks=(), mask=None, pending=None, anyway=False, everything=False), source)

    def everything(visit: Visit | None, source: str):
        if visit is None:
            raise BadInput("Give a photo first.")
        began = time.perf_counter()
        found = visit.session.instances
        if not found:
            return shown(visit, source, views.card([], ["The network finds no object of its kinds here. Click a thing all the same."], "Nothing found", paper.accent))
        words = views.listing(found, paper.accent) + f'<p class="pt-note">{len(found)} found in {1e3 * (time.perf_counter() - began):.0f} ms. A click begins one more object; undo takes them away one by one.</p>'
        del visit.session.instances  # they are kept as bits
        return shown(Visit(visit.session, visit.shown, visit.seconds, tuple(map(Finished.of, found)), everything=True), source, words)

    def export(visit: Visit | None, kind: str):
        from pttp.pointrend import masks

        if visit is None or not visit.objects:
            raise BadInput("Click an object first: then there is something to download.")
        made, size = visit.objects, visit.session.shape
        if kind == "coco":
            return page.keep(json.dumps(masks.coco(((one.mask, one.label, one.score) for one in made), size, visit.session.classes)).encode(), "objects.json")
        if kind == "svg":
            return page.keep(masks.svg(((one.mask, one.label, f"rgb{views.COLOURS[i % len(views.COLOURS)]}") for i, one in enumerate(made)), size).encode(), "objects.svg")
        if kind == "cutout":
            together = np.zeros(size, bool)
            for one in made:
                together |= one.mask
            return page.keep(page.png(masks.cutout(visit.session.image, together)), "cutout.png")
        numbers = np.zeros(size, np.uint8)
        for i, one in enumerate(made):
            numbers[one.mask] = 255 if len(made) == 1 else i + 1
        return page.keep(page.png(Image.fromarray(numbers)), "mask.png")

    def subject(visit: Visit | None, count: int, steps: int):
        """The mask that "look inside" speaks of, rendered with as many points and steps as its sliders say."""
        if visit is None or visit.mask is None:
            return None
        if (count, steps) == (784, 5):
            return visit.mask
        return visit.session.click([(x, y) for x, y, _ in visit.clicks], [label for *_, label in visit.clicks], anyway=True, count=int(count), steps=int(steps))

    def look(visit: Visit | None, step: int, count: int, steps: int, at=None):
        from pttp.pointrend import study

        made = subject(visit, count, steps)
        if made is None:
            return gr.Image(visible=False), gr.Image(visible=False), page.empty("Click an object above: its rendering appears here, step by step.")
        i = min(int(step), len(made.steps) - 1)
        at = at or visit.clicks[-1][:2]
        read = study.read(made, made.steps[i], *at)
        left, right = views.step_views(visit.session.image, made, made.steps[i])
        return gr.Image(left, visible=True), gr.Image(right, visible=True), views.step_words(made, i, read, at)

    def stairs(count: int, steps: int):
        """With fewer points the rendering begins on a smaller grid, and takes more steps to the same size."""
        from pttp.pointrend import render

        first, more = render.schedule(steps=int(steps), count=int(count))
        grids = [first << i for i in range(more + 1)]
        return gr.Slider(maximum=len(grids), info=f"0 is the coarse head; then {', '.join(map(str, grids))}.")

    def look_at(visit: Visit | None, step: int, count: int, steps: int, event: gr.SelectData):
        made = subject(visit, count, steps)
        if made is None:
            raise BadInput("Click an object above first.")
        x0, y0, x1, y1 = made.window
        w, h = views.crop(visit.session.image, made.window).size
        x, y = page.place(event, (h, w))
        at = x0 + (x + 0.5) / w * (x1 - x0), y0 + (y + 0.5) / h * (y1 - y0)
        return look(visit, step, count, steps, at)[2]

    def measured(visit: Visit | None, count: int, steps: int):
        from pttp.pointrend import study

        if visit is None or visit.mask is None:
            raise BadInput("Click an object above first: the costs are measured on it.")
        return views.costs(study.costs(visit.session, [(x, y) for x, y, _ in visit.clicks], [label for *_, label in visit.clicks], int(count), int(steps)))

    def segment(image, points: list | None = None, labels: list | None = None, anyway: bool = False, everything: bool = False, weights: str = "auto") -> tuple[str, dict]:
        """Cut an object out of a picture: by points on it, or all that is found.

        Args:
            image: the picture
            points: [[x, y], ...] in pixels of the picture
            labels: for each point 1 (belongs to the object) or 0 (does not); all 1 if left out
            anyway: give a mask also where nothing looks like an object
            everything: all objects that are found, without points
            weights: auto or embedded
        Returns:
            the mask as a PNG file (255 on the object; of everything, the objects' numbers); and label, score, box, area, rle (COCO), said, weights; of everything, a list of `instances`
        """
        from pttp.pointrend import masks

        if image is None:
            raise gr.Error("Send a picture as `image`.")
        if not all(isinstance(given or [], list) for given in (points, labels)):
            raise BadInput(LISTS)
        net = network(weights)
        session = net.open(image)
        numbers = np.zeros(session.shape, np.uint8)
        if everything:
            found = session.instances
            for i, one in enumerate(found):
                numbers[one.mask] = i + 1
            told = {"instances": [{**one.to_dict(), "rle": masks.rle(one.mask)} for one in found]}
        else:
            points = points or []
            try:
                made = session.click(points, [1] * len(points) if labels is None else labels, anyway=bool(anyway))
            except OverflowError:  # a whole number of hundreds of digits
                raise BadInput(LISTS) from None
            numbers[made.mask] = 255
            told = {**made.to_dict(), "rle": masks.rle(made.mask)}
        return page.keep(page.png(Image.fromarray(numbers)), "mask.png"), {**told, "weights": net.weights.source}

    page.header(paper)
    badge = page.badge_line(paper)
    state = gr.State(time_to_live=3600)  # it holds the photo
    with gr.Row(equal_height=False):
        with gr.Column():
            photo = page.picture(label="Photo", height=340, elem_id="pointrend-photo", buttons=["fullscreen"])
            page.examples(page.shipped("cheetah1.jpg", "chelsea.png", "astronaut.png", "bus.png", "coffee.png"), photo)
            source = page.weights_chooser(paper)
            with gr.Accordion("The authors' own weights", open=False, elem_id="pointrend-published"):
                gr.HTML(views.published())
        with gr.Column():
            canvas = gr.Image(label="Click here", alt_text="The photo with the masks and clicks so far", height=400, interactive=False, visible=False, format="jpeg", elem_id="pointrend-canvas", buttons=["fullscreen"])
            card = gr.HTML(page.empty(NO_PHOTO), elem_id="pointrend-card")
            anyway = gr.Button("Segment this point anyway", visible=False, size="md", elem_id="pointrend-anyway")
            with gr.Column(visible=False) as tools:
                kind = gr.Radio(KINDS, value=1, label="What the next click says", elem_id="pointrend-kind")
                with gr.Row():
                    back = gr.Button("Undo", size="md", min_width=100, elem_id="pointrend-undo")
                    again = gr.Button("Reset", size="md", min_width=100, elem_id="pointrend-reset")
                    further = gr.Button("Next object", size="md", min_width=100, elem_id="pointrend-next")
                    all_of_it = gr.Button("Everything", size="md", min_width=100, elem_id="pointrend-everything")
                with gr.Row():
                    downloads = [
                        gr.Button(name, size="md", min_width=100, elem_id=f"pointrend-{kind_}") for name, kind_ in DOWNLOADS
                    ]
                with gr.Accordion("By keyboard", open=False, elem_id="pointrend-keyboard"), gr.Row():
                    x = gr.Number(label="x", precision=0, minimum=0, min_width=70, elem_id="pointrend-x")
                    y = gr.Number(label="y", precision=0, minimum=0, min_width=70, elem_id="pointrend-y")
                    press = gr.Button("Add this point", size="md", min_width=120, elem_id="pointrend-add")
                fetch = page.download(paper)

    page.section("Look inside: segmentation as rendering", "The mask is drawn as a renderer draws an edge: a coarse grid first, then at each doubling only the points whose label is still uncertain. Move through the steps.")
    with gr.Row():
        step = gr.Slider(0, 4, value=2, step=1, label="Step", info="0 is the coarse head; then 28, 56, 112, 224.", elem_id="pointrend-step", buttons=[], min_width=240)
        count = gr.Slider(49, 3136, value=784, step=49, label="Points per step", info="The paper: 28 x 28 = 784.", elem_id="pointrend-count", buttons=["reset"], min_width=240)
        steps = gr.Slider(1, 5, value=5, step=1, label="Doublings", info="From 7 x 7; five reach 224 x 224.", elem_id="pointrend-steps", buttons=["reset"], min_width=240)
    with gr.Row():
        at_step = gr.Image(label="Mask, and points asked", alt_text="The mask at this step, with the points that were asked", min_width=300, interactive=False, visible=False, format="png", elem_id="pointrend-points", buttons=["fullscreen"])
        unsure = gr.Image(label="Uncertainty: yellow is high", alt_text="How uncertain each cell of this step is", min_width=300, interactive=False, visible=False, format="png", elem_id="pointrend-uncertainty", buttons=["fullscreen"])
    words = gr.HTML(page.empty("Click an object above: its rendering appears here, step by step."), elem_id="pointrend-words")
    measure = gr.Button("Measure the cost of each step", elem_id="pointrend-measure")
    table = gr.HTML(elem_id="pointrend-costs")

    page.study(paper)
    panels = page.code_panel()

    page.follow(paper, badge, source, tab.select, source.change)
    tab.select(None, None, None, js=NO_CLICK_LOST)
    outputs = [state, canvas, card, anyway, tools, *panels]
    # Clicks must all count, in the order in which they came, each on the state that the one before has left: "multiple", and one at a time
    clicking = {"api_visibility": "private", "trigger_mode": "multiple", "show_progress": "hidden", "concurrency_limit": 1, "concurrency_id": "pointrend-clicks"}
    quiet = {"api_visibility": "private", "trigger_mode": "always_last", "show_progress": "hidden"}
    inside = [at_step, unsure, words]
    look_inputs = [state, step, count, steps]
    made = [
        gr.on([photo.change, source.change], page.in_words(opened), [photo, source], outputs, **{**clicking, "trigger_mode": "always_last", "show_progress": "minimal"}),
        photo.select(page.in_words(on_photo), [state, kind, source], outputs, **clicking),
        canvas.select(page.in_words(on_canvas), [state, kind, source], outputs, **clicking),
        press.click(page.in_words(add), [state, x, y, kind, source], outputs, **clicking),
        anyway.click(page.in_words(insist), [state, source], outputs, **clicking),
        back.click(page.in_words(undo), [state, source], outputs, **clicking),
        again.click(page.in_words(reset), [state, source], outputs, **clicking),
        further.click(page.in_words(following), [state, source], outputs, **clicking),
        all_of_it.click(page.in_words(everything), [state, source], outputs, **{**clicking, "show_progress": "minimal"}),
    ]
    for event in made:
        event.success(page.in_words(look), look_inputs, inside, **quiet)
        event.success(None, None, table, js="() => ''")  # the costs of another mask
    gr.on([step.change, count.change, steps.change], page.in_words(look), look_inputs, inside, **quiet)
    gr.on([count.change, steps.change], page.in_words(stairs), [count, steps], step, **quiet)
    gr.on([at_step.select, unsure.select], page.in_words(look_at), look_inputs, words, **{**quiet, "trigger_mode": "multiple"})
    measure.click(page.in_words(measured), [state, count, steps], table, api_visibility="private", show_progress="minimal")
    for button, name in zip(downloads, ("png", "cutout", "coco", "svg")):
        button.click(page.in_words(lambda visit, name=name: export(visit, name)), state, fetch, api_visibility="private", show_progress="minimal").success(None, js=page.to_disk(paper))
    page.endpoint(
        segment,
        [page.picture(visible=False, label="image"), gr.JSON(visible=False, label="points"), gr.JSON(visible=False, label="labels"), gr.Checkbox(visible=False, label="anyway"), gr.Checkbox(visible=False, label="everything"), gr.Textbox("auto", visible=False, label="weights")],
        [gr.File(visible=False, label="mask"), gr.JSON(visible=False, label="object")],
        "segment",
        "Cut an object out of a picture with PointRend: by points on it (and beside it), or everything that is found.",
    )
