"""GhostNet's tab: photo in, five classes out; ghosts beside the maps they were made from; FLOPs beside milliseconds."""
from __future__ import annotations

import csv
import html
import io
import json
import time

import gradio as gr

from demos import page, plots
from pttp.errors import BadInput
from pttp.papers import Paper

DEFAULT_BLOCK = "blocks.1.0"


def code(top: int, source: str) -> tuple[str, str, str]:
    """The same call in Python, on the command line and over HTTP."""
    chosen, flag = page.chosen(source)
    python = f'import pttp\n\nnet = pttp.load("ghostnet"{chosen})\nanswer = net.predict("photo.jpg", top={top})\nfor name, p in zip(answer.names, answer.probabilities):\n    print(f"{{p:6.1%}}  {{name}}")'
    shell = f"python -m pttp classify photo.jpg --top {top}{flag}\npython -m pttp classify photos/ --json{flag} > answers.jsonl"
    return python, shell, page.http_call("classify", f'{top}, "{source}"')


def build(paper: Paper, tab: gr.Tab) -> None:
    def network(source: str):
        return page.models.get(paper, source)

    def answer(image, source: str):
        if image is None:
            return page.empty("Drop a photo on the left, paste one, or pick an example."), None, gr.Button(visible=False), *code(5, source)
        net = network(source)
        began = time.perf_counter()
        result = net.predict(image)
        told = {**result.to_dict(), "weights": net.weights.source}
        return bars(result, (time.perf_counter() - began) * 1e3, net), told, gr.Button(visible=True), *code(5, source)

    def bars(result, milliseconds: float, net) -> str:
        rows = "".join(
            f'<div class="pt-bar"><span class="pt-name">{html.escape(name)}</span><span class="pt-value">{p:.1%}</span>'
            f'<div class="pt-track" role="img" aria-label="{p:.1%}"><div class="pt-fill" style="width:{100 * p:.1f}%"></div></div></div>'
            for name, p in zip(result.names, result.probabilities, strict=True)
        )
        note = f"Answered in {milliseconds:.0f} ms at {net.preprocess.size} x {net.preprocess.size} pixels, one of 1,000 ImageNet classes."
        return f'<div class="pt-card" style="--accent:{paper.accent}"><div class="pt-bars">{rows}</div><p class="pt-note">{note}</p></div>'

    def look(image, source: str, block: str, module: str):
        from pttp import images
        from pttp.ghostnet import study

        if image is None:
            return page.empty("Give a photo above: its maps appear here.")
        net = network(source)
        pairs = study.ghost_pairs(net.net, net.preprocess(images.read(image)).to(net.device), block, module)
        return plots.ghost_pairs(pairs, paper.accent)

    def table(image, source: str):
        from pttp import images
        from pttp.ghostnet import study

        if image is None:
            raise gr.Error("Give a photo above first: the table is measured on it.", title="No photo yet")
        net = network(source)
        rows = study.block_table(net.net, net.preprocess(images.read(image)).to(net.device))
        return plots.block_table(rows), rows, gr.Button(visible=True)

    def answer_json(told: dict | None) -> str:
        if told is None:
            raise BadInput("There is nothing to download yet: give a photo first.")
        return page.keep(json.dumps(told, indent=1).encode(), "classes.json")

    def blocks_csv(rows: list | None) -> str:
        if not rows:
            raise BadInput("There is nothing to download yet: measure the blocks first.")
        return page.keep(as_csv(rows).encode(), "blocks.csv")

    def bench():
        from pttp.ghostnet import study

        for result in study.bench_rounds(rounds=30):
            if result.rounds % 3 == 0:
                yield plots.bench(result)

    def ratios(s: int):
        from pttp.ghostnet import study

        return plots.ratio(study.ratio_costs(), int(s))

    def classify(image, top: float = 5, weights: str = "auto") -> dict:
        """Classify a picture with GhostNet.

        Args:
            image: the picture
            top: how many classes to return, 1 to 1000
            weights: auto, embedded, or hub:timm/ghostnet_100.in1k
        Returns:
            names, indices (ImageNet-1k) and probabilities, best first, and the source of the weights
        """
        if image is None:
            raise gr.Error("Send a picture as `image`.")
        try:
            top = int(top)
        except (TypeError, ValueError, OverflowError):
            raise BadInput("`top` is a whole number from 1 to 1000.") from None
        net = network(weights)
        return {**net.predict(image, top).to_dict(), "weights": net.weights.source}

    page.header(paper)
    badge = page.badge_line(paper)
    told, rows = gr.State(time_to_live=3600), gr.State(time_to_live=3600)
    with gr.Row(equal_height=False):
        with gr.Column():
            photo = page.picture(label="Photo", height=360, elem_id="ghostnet-photo", buttons=["fullscreen"])
            page.examples(page.shipped("cheetah1.jpg", "lion.jpg", "chelsea.png", "coffee.png", "bus.png"), photo)
        with gr.Column():
            result = gr.HTML(page.empty("Drop a photo on the left, paste one, or pick an example."), elem_id="ghostnet-answer")
            keep_answer = gr.Button("Download JSON", size="md", visible=False, elem_id="ghostnet-json")
            fetch = page.download(paper)
            source = page.weights_chooser(paper)

    page.section("Look inside: ghosts", "Each pair is one intrinsic map (left, made by the ordinary convolution) and the ghost that the small filter between them draws from it. r is their correlation on your photo.")
    with gr.Row():
        block = gr.Dropdown(blocks(), value=DEFAULT_BLOCK, label="Block", elem_id="ghostnet-block")
        module = gr.Radio([("first ghost module (expands)", "ghost1"), ("second (shrinks)", "ghost2")], value="ghost1", label="Ghost module")
    maps = gr.HTML(page.empty("Give a photo above: its maps appear here."), elem_id="ghostnet-maps")

    page.section("Look inside: where the work goes", "Every block of the network on this picture: what comes out, what it costs on paper (multiply-accumulates), and the milliseconds it takes on the machine that serves this page, measured now.")
    measure = gr.Button("Measure the blocks", elem_id="ghostnet-measure")
    blocks_html = gr.HTML(elem_id="ghostnet-table")
    keep_blocks = gr.Button("Download CSV", size="md", visible=False, elem_id="ghostnet-csv")

    page.section("FLOPs are not latency", "GhostNet promises fewer multiplications than MobileNetV3-Large. Does it also take less time here? Both run now, taking turns, at 224 x 224 and batch 1.")
    with gr.Row():
        race = gr.Button("Time them", elem_id="ghostnet-race")
        stop = gr.Button("Stop", elem_id="ghostnet-stop")
    race_html = gr.HTML(elem_id="ghostnet-bench")

    page.section("More ghosts", "s is how many maps a ghost module makes out of one intrinsic map: with s = 4, three of four are ghosts. The paper uses 2.")
    ratio = gr.Slider(2, 4, value=2, step=1, label="Ratio s", elem_id="ghostnet-ratio")
    ratio_html = gr.HTML(elem_id="ghostnet-ratio-cost")

    page.study(paper)
    panels = page.code_panel()

    look_inputs = [photo, source, block, module]
    page.follow(paper, badge, source, tab.select, source.change)
    for trigger in (photo.change, source.change):
        trigger(page.in_words(answer), [photo, source], [result, told, keep_answer, *panels], api_visibility="private", trigger_mode="always_last", show_progress="minimal").then(
            page.in_words(look), look_inputs, maps, api_visibility="private", trigger_mode="always_last", show_progress="hidden"
        )
    for trigger in (block.change, module.change):
        trigger(page.in_words(look), look_inputs, maps, api_visibility="private", trigger_mode="always_last", show_progress="minimal")
    # What was measured was measured on the photo before
    gr.on([photo.change, source.change], lambda: ("", None, gr.Button(visible=False)), None, [blocks_html, rows, keep_blocks], api_visibility="private", trigger_mode="always_last", show_progress="hidden")
    measure.click(page.in_words(table), [photo, source], [blocks_html, rows, keep_blocks], api_visibility="private", show_progress="minimal")
    for button, make, given in ((keep_answer, answer_json, told), (keep_blocks, blocks_csv, rows)):
        button.click(page.in_words(make), given, fetch, api_visibility="private", show_progress="minimal").success(None, js=page.to_disk(paper))
    timing = race.click(page.in_words(bench), None, race_html, api_visibility="private", concurrency_limit=1, show_progress="minimal")
    stop.click(None, cancels=[timing], api_visibility="private")
    for trigger in (tab.select, ratio.change):
        trigger(page.in_words(ratios), ratio, ratio_html, api_visibility="private", trigger_mode="always_last", show_progress="hidden")
    page.endpoint(
        classify,
        [page.picture(visible=False, label="image"), gr.Number(5, visible=False, label="top"), gr.Textbox("auto", visible=False, label="weights")],
        [gr.JSON(visible=False, label="classification")],
        "classify",
        "Classify a picture into the 1,000 ImageNet classes with GhostNet: names, indices and probabilities of the `top` most probable.",
    )


def blocks() -> list[tuple[str, str]]:
    """The ghost bottlenecks of the network, without importing it: label and name."""
    counts = (1, 1, 1, 1, 1, 1, 5, 1, 4)
    strides = (2, 4, 4, 8, 8, 16, 16, 32, 32)
    return [(f"{i}.{j}, to 1/{strides[i]} size", f"blocks.{i}.{j}") for i, n in enumerate(counts) for j in range(n)]


def as_csv(rows) -> str:
    """The table of the blocks, a line a part of the network."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("part", "what", "channels", "height", "width", "parameters", "macs", "milliseconds"))
    writer.writerows((r.name, r.what, *r.shape, r.parameters, r.macs, round(r.milliseconds, 4)) for r in rows)
    return file.getvalue()
