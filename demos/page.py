"""What the tabs share: paper header, weights badge and chooser, examples, study panel, code panel, errors in words."""
from __future__ import annotations

import base64
import functools
import html
import importlib.util
import inspect
import io
import logging
import threading
from collections.abc import Callable, Iterable
from contextlib import contextmanager, nullcontext
from pathlib import Path

import gradio as gr
from gradio import processing_utils, utils
from PIL import Image

import pttp
from demos import notes
from pttp import images, weights
from pttp.errors import BadImage, BadInput, PTTPError, WeightsError
from pttp.papers import Paper

ASSETS = Path(__file__).with_name("assets")
log = logging.getLogger("pttp")


def inline(url: str | None) -> bytes:
    """The bytes of a `data:` address, which is how a webcam frame arrives; BadImage for any other address."""
    head, comma, body = (url or "").partition(",")
    if not (head.startswith("data:image/") and head.endswith(";base64") and comma):
        raise BadImage("Addresses are not opened here: download the picture and send the file.")
    try:
        return base64.b64decode(body, validate=True)
    except ValueError as error:
        raise BadImage("The picture did not arrive whole: send it again.") from error


class Unusable(str):
    """Takes the place of a picture that cannot be read: the sentence that says why."""


class Picture(gr.Image):
    """An image input that reads through `pttp.images` and hands an RGB (or RGBA) PIL image to the function, or None when it is empty.

    A file that is not a usable picture becomes one sentence for the user (`in_words` says it) instead of gradio's own handling (palette indices, clipped
    16-bit values, a 100-megapixel bomb decoded).
    """

    def preprocess(self, payload):
        if payload is None:
            return None
        if payload.path and not Path(payload.path).is_file():
            return Unusable("This photo was deleted here, as every photo is after an hour: give it again.")
        try:
            return images.read(payload.path or inline(payload.url), alpha=self.image_mode == "RGBA")
        except PTTPError as error:
            return Unusable(error)

    def get_block_name(self) -> str:
        return "image"


def picture(*, alpha: bool = False, **options) -> Picture:
    """A picture input for upload, paste and webcam (not mirrored: what the camera sees is what the network gets)."""
    options.setdefault("sources", ["upload", "webcam", "clipboard"])
    options.setdefault("alt_text", options.get("label"))
    made = Picture(type="pil", image_mode="RGBA" if alpha else "RGB", webcam_options=gr.WebcamOptions(mirror=False), **options)
    if options.get("visible", True):
        made.upload(_empty_if_unusable, made, made, api_visibility="private", show_progress="hidden")
    return made


def _empty_if_unusable(image):
    """The browser would go on showing a broken picture."""
    return None if isinstance(image, Unusable) else gr.skip()


@contextmanager
def sentences(name: str):
    """Every error inside reaches the user as a sentence; what is our fault is logged with its traceback and said to be so."""
    try:
        yield
    except PTTPError as error:
        raise gr.Error(str(error), title="That did not work", print_exception=False) from error
    except gr.Error:
        raise
    except Exception as error:
        log.exception("%s failed", name)
        raise gr.Error("Something broke on our side; the details are in the server's log. Trying another picture may help.", print_exception=False) from error


LARGE = 16e6  # pixels: what takes a larger picture may need a gigabyte for it
_alone = threading.RLock()


def turns(args):
    """Large pictures take turns; all others need not wait for them."""
    return _alone if any(isinstance(a, Image.Image) and a.width * a.height > LARGE for a in args) else nullcontext()


def in_words(fn: Callable) -> Callable:
    """`fn` (a function or a generator) under `sentences`; it is not called with a picture that cannot be used."""

    def usable(args) -> None:
        for arg in args:
            if isinstance(arg, Unusable):
                raise gr.Error(str(arg), title="This picture cannot be used", print_exception=False)

    if inspect.isgeneratorfunction(fn):

        @functools.wraps(fn)
        def wrapped(*args, **kwargs):
            usable(args)
            with sentences(fn.__name__):
                yield from fn(*args, **kwargs)
    else:

        @functools.wraps(fn)
        def wrapped(*args, **kwargs):
            usable(args)
            with sentences(fn.__name__), turns(args):
                return fn(*args, **kwargs)

    return wrapped


class Models:
    """The predictors of this process: each loaded when it is first used, once, and shared by all visitors."""

    def __init__(self):
        self._lock = threading.Lock()
        self._locks: dict[tuple[str, str], threading.Lock] = {}
        self._loaded: dict[tuple[str, str], object] = {}

    def get(self, paper: Paper, source: str, progress: Callable[[float, str], None] | None = None):
        """The predictor of `paper` with the weights `source`, which must be one that the chooser offers: a visitor cannot name files or repositories."""
        if source not in dict((value, label) for label, value in sources(paper)):
            raise WeightsError("Please choose one of the weights that this page offers.")
        key = paper.name, source
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key not in self._loaded:
                self._loaded[key] = pttp.load(paper.name, source, progress=progress)
            return self._loaded[key]


models = Models()


def sources(paper: Paper) -> list[tuple[str, str]]:
    """(label, source) of the weights that the chooser offers."""
    choices = [("Automatic", "auto"), ("Embedded: ours, in the repository", "embedded")]
    if paper.hub:
        choices.append((f"Hub: {paper.hub.repo}", f"hub:{paper.hub.repo}"))
    return choices


def header(paper: Paper) -> gr.HTML:
    """Number, title, authors, venue, links: the top of every tab."""
    return gr.HTML(
        f'<header class="pt-header" style="--accent:{paper.accent}"><div class="pt-number" aria-hidden="true">{paper.number}</div><div>'
        f"<h1>{html.escape(paper.title)}</h1>{byline(paper)}"
        f'<p class="pt-lead">{html.escape(paper.summary)}</p><div class="pt-foot">{chips(paper)}</div></div></header>'
    )


def byline(paper: Paper) -> str:
    names = ", ".join(html.escape(a) + ("*" if i == 0 else "") for i, a in enumerate(paper.authors))
    return f'<div class="pt-authors">{names} · <span class="pt-venue">{html.escape(paper.venue)}</span></div>'


def chips(paper: Paper) -> str:
    return "".join(f'<a class="pt-chip" href="{html.escape(link.url)}" target="_blank" rel="noopener">{html.escape(link.label)}</a>' for link in paper.links)


def badge(paper: Paper, info: weights.WeightsInfo) -> str:
    """Which weights answer: file, size, trained on what, measured on what (from metrics.json), and why these."""
    size = f"{info.bytes / 1e6:.1f} MB"
    name = "Embedded weights" if info.source == "embedded" else info.source.removeprefix("hub:").split("@")[0]
    measured = info.metrics.get("headline") or (paper.hub.reported if paper.hub and info.source.startswith(f"hub:{paper.hub.repo}") else "not measured by us")
    lines = [
        f"<b>{html.escape(name)}</b> · {size} · {info.parameters / 1e6:.2f} M parameters · <b>{html.escape(measured)}</b>",
        html.escape(f"Trained on {info.trained_on}. Licence: {info.licence}."),
        html.escape(info.why),
    ]
    return f'<p class="pt-badge" style="--accent:{paper.accent}">{"<br>".join(line for line in lines if line)}</p>'


def badge_line(paper: Paper) -> gr.HTML:
    """The weights badge under the header; `follow` fills it."""
    return gr.HTML(f'<p class="pt-badge" style="--accent:{paper.accent}">The model loads when you first use it.</p>', elem_id=f"{paper.name}-weights")


def weights_chooser(paper: Paper) -> gr.Radio:
    """Folded away: embedded weights or the Hub's."""
    with gr.Accordion("Weights", open=False, elem_id=f"{paper.name}-chooser"):
        return gr.Radio(sources(paper), value="auto", label="Which weights answer", info="Automatic takes the best that can be had: from the Hub where that is better and reachable, else ours.")


def follow(paper: Paper, shown: gr.HTML, source: gr.Radio, *triggers) -> None:
    """Load the model and fill the badge when the tab is opened or other weights are chosen, with progress while something is fetched."""

    def load(source: str, progress=gr.Progress()) -> str:  # noqa: B008 (gradio finds its progress bar by this default)
        """Load the chosen weights and describe them."""
        try:
            return badge(paper, models.get(paper, source, lambda fraction, words: progress(fraction, desc=words)).weights)
        except WeightsError as error:
            return banner(f"{error} Choose other weights above; the embedded ones always work.")

    for trigger in triggers:
        trigger(in_words(load), source, shown, api_visibility="private", show_progress="minimal", concurrency_id=f"load-{paper.name}")


def banner(sentence: str) -> str:
    return f'<div class="pt-error" role="alert">{html.escape(sentence)}</div>'


def empty(sentence: str) -> str:
    return f'<div class="pt-card pt-empty">{html.escape(sentence)}</div>'


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """Names and their values (HTML), side by side."""
    return '<dl class="pt-facts">' + "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in rows) + "</dl>"


def section(title: str, text: str) -> gr.HTML:
    return gr.HTML(f'<div class="pt-section"><h2>{html.escape(title)}</h2><p>{text}</p></div>')


def shipped(*names: str) -> list[Path]:
    """Photos that ship inside gradio and scikit-image, by name; found without importing the latter."""
    folders = Path(gr.__file__).parent / "media_assets" / "images", Path(importlib.util.find_spec("skimage").origin).parent / "data"
    return [folder / name for name in names for folder in folders if (folder / name).is_file()]


def examples(paths: Iterable[Path], target: gr.Image) -> gr.Examples:
    """Pictures that are answered at the first click (setting the input fires its change event)."""
    return gr.Examples([[str(p)] for p in paths], [target], label="Or try one of these", api_visibility="private")


def study(paper: Paper) -> gr.Markdown | None:
    """NOTES.md, with its equations, and with the lines of code that it points at unfolded from the source; nothing while it is unwritten."""
    if not (paper.room / "NOTES.md").is_file():
        return None
    section("Study", "The lesson: idea, equations, where each stands in the code, what surprised us.")
    return gr.Markdown(notes.render(paper.room / "NOTES.md"), latex_delimiters=[{"left": "$$", "right": "$$", "display": True}, {"left": "$", "right": "$", "display": False}], elem_classes="pt-study")


def code_panel() -> tuple[gr.Code, gr.Code, gr.Code]:
    """Python, command line and HTTP for what was just done; fill them with the three strings of a tab's `code`."""
    section("Use it from code", "Exactly what you just did, ready to copy.")
    with gr.Tabs():
        with gr.Tab("Python"):
            python = gr.Code(language="python", show_label=False, interactive=False)
        with gr.Tab("Command line"):
            shell = gr.Code(language="shell", show_label=False, interactive=False)
        with gr.Tab("HTTP"):
            http = gr.Code(language="shell", show_label=False, interactive=False)
    return python, shell, http


def chosen(source: str) -> tuple[str, str]:
    """How the weights that a visitor chose are said in Python, behind the room's name, and on the command line; nothing where it is the default."""
    return ("", "") if source == "auto" else (f', "{source}"', f" --weights {source}")


def http_call(name: str, data: str, file: str = "photo.jpg") -> str:
    """Shell commands that send `file` to the endpoint `name`, followed by `data` (JSON values with commas), and print what comes back."""
    call, data = f"$HOST/gradio_api/call/{name}", data.replace('"', '\\"')
    return (
        f'HOST=http://127.0.0.1:7860\nFILE=$(curl -s -F files=@{file} $HOST/gradio_api/upload | tr -d \'[]"\')\n'
        f"EVENT=$(curl -s {call} -H 'Content-Type: application/json' \\\n"
        f'  -d "{{\\"data\\": [{{\\"path\\": \\"$FILE\\", \\"meta\\": {{\\"_type\\": \\"gradio.FileData\\"}}}}, {data}]}}" | cut -d\'"\' -f4)\n'
        f"curl -sN {call}/$EVENT"
    )


def keep(data: bytes, name: str) -> str:
    """Into this page's cache, which forgets it after an hour; the folder's name is a hash that nobody guesses."""
    return processing_utils.save_bytes_to_cache(data, name, utils.get_upload_folder())


def png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=3)
    return file.getvalue()


def download(paper: Paper) -> gr.DownloadButton:
    """Unseen, and shared by the buttons of a tab: they put a file there, then `js=to_disk(paper)` presses it."""
    return gr.DownloadButton(elem_id=f"{paper.name}-fetch", elem_classes="pt-hidden")


def to_disk(paper: Paper) -> str:
    name = f"#{paper.name}-fetch"
    return f"() => setTimeout(() => document.querySelector('{name} a, a{name}, {name}').click(), 150)"


def place(event: gr.SelectData, size: tuple[int, int]) -> tuple[float, float]:
    """Where a picture of `size` (height, width) was clicked, (x, y) in its pixels. What arrives is whatever a client sends: BadInput for all that is no place in it."""
    try:
        x, y = (float(v) for v in event.index)
    except (TypeError, ValueError, OverflowError):
        raise BadInput("A click is a place (x, y) in the picture.") from None
    if not (0 <= x <= size[1] and 0 <= y <= size[0]):  # false for NaN, too
        raise BadInput(f"The point ({x:g}, {y:g}) lies outside of this picture of {size[1]} x {size[0]} pixels.")
    return min(x, size[1] - 0.5), min(y, size[0] - 0.5)


def endpoint(fn: Callable, inputs: list, outputs: list, name: str, description: str) -> None:
    """A named, typed HTTP and MCP endpoint `/name` that is not tied to a visible button."""
    gr.Button(visible=False).click(in_words(fn), inputs, outputs, api_name=name, api_description=description)
