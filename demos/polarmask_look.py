"""Look inside PolarMask: move its rays by hand, change their number, see where it wants its centres, and what a shape loses."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from demos import page
from demos import polarmask_draw as draw
from pttp.errors import BadInput
from pttp.papers import Paper

NO_PHOTO = "Give a photo above: this follows its object."
HEATS = [("Polar centerness", "centerness"), ("Something is here", "object"), ("Both, and the class", "score")]
SHAPES = ("ring", "crescent", "letter U", "flower", "cat that sits")  # `study.SHAPES`, said here as well so that the page is built without importing a network
OWN = "my own outline"
MOST = 200  # corners of it


def build(paper: Paper, tab: gr.Tab, seen: gr.State, chosen: gr.State) -> Callable[[Any, list], None]:
    """The sections; returns a function that lets them follow two kinds of events: a photo was opened, and (each of a list) another object was chosen."""

    def needed(seen_, chosen_):
        """The chosen object in pixels of the photo as it is shown."""
        if seen_ is None:
            raise BadInput("There is no photo yet: drop one, or pick an example.")
        return seen_.small(chosen_)

    def start(seen_, chosen_):
        """A new object in the ray editor: nothing is moved yet."""
        if seen_ is None:
            return {}, gr.Image(visible=False), page.empty(NO_PHOTO), gr.Slider(value=0), gr.Slider(value=0)
        small = seen_.small(chosen_)
        longest = max(round(float(small.rays.max()) * 1.6), 20)
        return {}, *drawn(seen_, small, {}, 0), gr.Slider(minimum=0, maximum=len(small.rays) - 1, value=0), gr.Slider(minimum=0, maximum=longest, value=round(float(small.rays[0])))

    def drawn(seen_, small, moved: dict, ray: int):
        from pttp.polarmask import study

        told = study.edit(small, moved)
        verdict = f"{len(moved)} of {len(small.rays)} rays moved" if moved else "No ray is moved yet"
        rows = [
            ("polar IoU with the network's contour", f"{told.polar_iou:.3f}"),
            ("IoU of the two masks", f"{told.mask_iou:.3f}"),
            (f"ray {ray}, {360 * ray / len(small.rays):g}° from straight down", f"{told.rays[ray]:.0f} px; the network's: {small.rays[ray]:.0f} px"),
        ]
        note = "Polar IoU is the sum of the shorter rays over the sum of the longer ones; the paper's loss is its negative logarithm. Light blue: the network's own contour. Lengths are in pixels of this picture."
        words = f'<div class="pt-card" style="--accent:{paper.accent}"><p class="pt-verdict">{verdict}</p>{page.facts(rows)}<p class="pt-note">{note}</p></div>'
        return gr.Image(draw.edited(seen_.shown, small, told.contour, ray, paper.accent), visible=True), words

    def choose(seen_, chosen_, moved: dict, ray: float):
        small, ray = needed(seen_, chosen_), whole(ray)
        return *drawn(seen_, small, moved, ray), round(moved.get(ray, float(small.rays[ray])))

    def stretch(seen_, chosen_, moved: dict, ray: float, length: float):
        small, ray = needed(seen_, chosen_), whole(ray)
        moved = {**moved, ray: float(length)}
        return moved, *drawn(seen_, small, moved, ray)

    def pull(seen_, chosen_, moved: dict, event: gr.SelectData):
        """A click pulls the nearest ray to where it was."""
        from pttp.polarmask import study

        small = needed(seen_, chosen_)
        ray, length = study.nearest_ray(small, page.place(event, small.size))
        moved = {**moved, ray: length}
        return moved, *drawn(seen_, small, moved, ray), ray, round(length)

    def own(corners: list, size):
        from pttp.polarmask import study

        return study.mask_of(corners, size)

    def count(seen_, chosen_, corners: list, whose: str, number: float):
        """The mask of the visitor by so many rays, and the curve."""
        from pttp.polarmask import study

        if seen_ is None:
            return gr.Image(visible=False), page.empty(NO_PHOTO)
        small = needed(seen_, chosen_)
        if whose == "own" and len(corners) < 3:
            words = f"Click the corners of an outline in the picture, at least three: {len(corners)} so far."
            return gr.Image(draw.outline(seen_.shown, corners, None, paper.accent), visible=True), page.empty(words)
        mask = own(corners, small.size) if whose == "own" else small.mask
        told = study.describe(mask, number := whole(number))
        words = "Rays are measured from the centre of mass, as in training, and joined to a polygon; no network can do better than its targets. Filled dots: other numbers of rays."
        if whose != "own":
            words += " The network's mask is made of 36 rays itself, so that few are enough: draw an outline of your own with bays."
        picture = draw.outline(seen_.shown, corners if whose == "own" else [], told, paper.accent)
        return gr.Image(picture, visible=True), draw.curve(study.bound(mask), number, told.iou, words)

    def corner(seen_, chosen_, corners: list, number: float, event: gr.SelectData):
        """A click adds a corner to the visitor's outline, and makes it the mask that is looked at."""
        if seen_ is None:
            raise BadInput("There is no photo yet: drop one, or pick an example.")
        if len(corners) >= MOST:
            raise BadInput(f"An outline has at most {MOST} corners: undo one, or clear the outline.")
        corners = [*corners, page.place(event, seen_.shown.size[::-1])]
        return corners, "own", *count(seen_, chosen_, corners, "own", number)

    def back(seen_, chosen_, corners: list, whose: str, number: float):
        corners = corners[:-1]
        return corners, *count(seen_, chosen_, corners, whose, number)

    def heat(seen_, chosen_, what: str):
        from pttp.polarmask import study

        if seen_ is None:
            return page.empty(NO_PHOTO)
        words = next(label for label, value in HEATS if value == what)
        return draw.heat_figures(seen_.shown, study.heats(seen_.session, what), chosen_.stride, words)

    def lose(seen_, corners: list, name: str):
        from pttp.polarmask import study

        if name == OWN:
            if seen_ is None or len(corners) < 3:
                return page.empty("Draw an outline in the section above first: at least three corners.")
            mask = own(corners, seen_.shown.size[::-1])
        else:
            mask = study.shape(name)
        return draw.loss_card(mask, study.loss(mask), paper.accent)

    moved, corners = gr.State({}, time_to_live=3600), gr.State([], time_to_live=3600)
    page.section("Look inside: rays by hand", "An object is a centre and the lengths of its rays. Take one, with the slider or by clicking where it should end, and see what that does to the overlap.")
    with gr.Row(equal_height=False):
        with gr.Column():
            edited = gr.Image(label="Click: the nearest ray will end there", format="jpeg", interactive=False, visible=False, alt_text="The contour with your rays", elem_id="polarmask-edited", buttons=["fullscreen"], height=380)
        with gr.Column():
            told = gr.HTML(page.empty(NO_PHOTO), elem_id="polarmask-edit")
            ray = gr.Slider(0, 35, value=0, step=1, label="Ray (0 points down, 9 to the right)", elem_id="polarmask-ray", buttons=[])
            length = gr.Slider(0, 300, value=0, step=1, label="Its length in pixels", elem_id="polarmask-length", buttons=[])
            reset = gr.Button("As the network drew it", size="sm", elem_id="polarmask-reset")

    page.section("How many rays?", "The best that N rays can do for a mask: the network's, or an outline that you click, corner by corner, into the picture.")
    with gr.Row(equal_height=False):
        with gr.Column():
            counted = gr.Image(label="Click to set corners of an outline", format="jpeg", interactive=False, visible=False, alt_text="A mask and the polygon of its rays", elem_id="polarmask-counted", buttons=["fullscreen"], height=380)
            with gr.Row():
                undo = gr.Button("Undo the last corner", size="sm", elem_id="polarmask-undo", min_width=120)
                clear = gr.Button("Clear the outline", size="sm", elem_id="polarmask-clear", min_width=120)
        with gr.Column():
            whose = gr.Radio([("the network's mask", "network"), (OWN, "own")], value="network", show_label=False, container=False, elem_id="polarmask-whose")
            number = gr.Slider(4, 72, value=36, step=1, label="Rays N", elem_id="polarmask-count", buttons=[])
            curve = gr.HTML(page.empty(NO_PHOTO), elem_id="polarmask-curve")

    page.section("Where it wants its centres", "Every cell of every level says how good a centre it would be. Polar centerness is the root of the shortest over the longest ray: near 1 in the middle of compact objects.")
    what = gr.Radio(HEATS, value="centerness", show_label=False, container=False, elem_id="polarmask-what")
    heats = gr.HTML(page.empty(NO_PHOTO), elem_id="polarmask-heat")

    page.section("Why bays and holes are lost", "One length a ray: where a ray leaves an object and enters it again, only one crossing can be kept. The paper keeps the farthest.")
    with gr.Row(equal_height=False):
        with gr.Column(scale=1):
            name = gr.Radio([*SHAPES, OWN], value="ring", label="Shape", elem_id="polarmask-shape")
        with gr.Column(scale=2):
            lost = gr.HTML(elem_id="polarmask-lost")

    hidden = {"api_visibility": "private", "show_progress": "hidden"}
    last = {"trigger_mode": "always_last", **hidden}
    both = [edited, told]
    reset.click(page.in_words(start), [seen, chosen], [moved, *both, ray, length], **hidden)
    ray.input(page.in_words(choose), [seen, chosen, moved, ray], [*both, length], **last)
    length.input(page.in_words(stretch), [seen, chosen, moved, ray, length], [moved, *both], **last)
    edited.select(page.in_words(pull), [seen, chosen, moved], [moved, *both, ray, length], trigger_mode="multiple", **hidden)
    looked = [seen, chosen, corners, whose, number]
    gr.on([number.input, whose.input], page.in_words(count), looked, [counted, curve], **last)
    changed = [
        counted.select(page.in_words(corner), [seen, chosen, corners, number], [corners, whose, counted, curve], trigger_mode="multiple", **hidden),
        undo.click(page.in_words(back), looked, [corners, counted, curve], trigger_mode="multiple", **hidden),
        clear.click(list, None, corners, **hidden).then(page.in_words(count), looked, [counted, curve], **hidden),
    ]
    what.input(page.in_words(heat), [seen, chosen, what], heats, **last)
    gr.on([name.input, tab.select], page.in_words(lose), [seen, corners, name], lost, **last)
    for event in changed:
        event.then(page.in_words(lose), [seen, corners, name], lost, **hidden)

    def follow(opened: Any, asked: list) -> None:
        for event in (opened.then(list, None, corners, **hidden), *asked):
            event.then(page.in_words(start), [seen, chosen], [moved, *both, ray, length], **hidden)
            event.then(page.in_words(count), looked, [counted, curve], **hidden)
            event.then(page.in_words(heat), [seen, chosen, what], heats, **hidden)

    return follow


def whole(value) -> int:
    """What a slider sends, cut to a whole number. Raises BadInput for NaN, which passes the slider's bounds."""
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        raise BadInput("Choose a whole number with the slider.") from None
