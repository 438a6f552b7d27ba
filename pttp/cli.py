"""`python -m pttp ...`: one verb a task, files or folders, `--json` for machines. Exit code 0, or 2 for a user's mistake."""
from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from pttp.cli_makeup import makeup
from pttp.cli_matte import matte
from pttp.cli_polar import polar
from pttp.cli_segment import segment
from pttp.cli_stamp import stamp_app
from pttp.cli_weights import weights_app
from pttp.errors import PTTPError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Six vision papers to try: python -m pttp VERB FILE... Exit code 0, or 2 when something has to be mended; a sentence then says what.",
)
app.command()(makeup)
app.command()(matte)
app.command()(segment)
app.command()(polar)
app.add_typer(stamp_app, name="stamp")
app.add_typer(weights_app, name="weights")

MANY = 20  # files from which a log, too, hears that work has begun
Files = Annotated[list[str], typer.Argument(help="Pictures, or folders that are searched for pictures.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
Weights = Annotated[str, typer.Option(metavar="SOURCE", help='"auto", "embedded", "hub:owner/name[@revision]", or a path.')]


@app.command()
def classify(
    files: Files,
    top: Annotated[int, typer.Option(min=1, max=1000, metavar="K", help="How many classes to name.")] = 5,
    as_json: Json = False,
    weights: Weights = "auto",
) -> None:
    """Name what is in each picture (GhostNet, the 1,000 ImageNet classes)."""
    from pttp import images

    pictures = images.files(files)
    net = load("ghostnet", weights)
    each(
        pictures,
        lambda file: net.predict(file, top=top),
        lambda answer: ", ".join(f"{name} {probability:.1%}" for name, probability in zip(answer.names, answer.probabilities)),
        label="Classifying",
        as_json=as_json,
        extra={"weights": net.weights.source},
    )


@app.command()
def serve(
    port: Annotated[int | None, typer.Option(min=0, max=65535, metavar="NUMBER", help="Port to listen on.", show_default=False)] = None,
    host: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Address to listen on; 0.0.0.0 lets other computers in.", show_default=False)] = None,
) -> None:
    """Start the page."""
    if find_spec("demos") is None or find_spec("app") is None:
        raise PTTPError("The page is not part of this installation: run this in a clone of the repository.")
    options = {"--port": port, "--host": host}
    import_module("app").main([word for option, value in options.items() if value is not None for word in (option, str(value))])


def load(room: str, source: str) -> Any:
    """The room's predictor; a download shows its progress on a terminal."""
    import pttp

    shown = sys.stderr.isatty()
    try:
        return pttp.load(room, source, progress=_show_download if shown else None)
    finally:
        if shown:
            _clear_line()


def each(
    files: list[Path],
    work: Callable[[Path], Any],
    line: Callable[[Any], str],
    *,
    label: str,
    as_json: bool,
    extra: dict | None = None,
) -> None:
    """Run `work` on every file and print its result: `line(result)`, or with `as_json` an object of "file", `result.to_dict()` and `extra`.

    A file that cannot be worked on gets its sentence on stderr (and {"file", "error"} among the objects); the others go on, and the exit code is 2.
    """
    bad = 0
    with _bar(label, len(files)) as bar:

        def say(text: str, err: bool = False) -> None:
            if bar and sys.stderr.isatty():
                _clear_line()
            typer.echo(text, err=err)

        for file in files:
            try:
                result = work(file)
            except PTTPError as error:
                bad += 1
                say(f"{file}: {error}", err=True)
                if as_json:
                    say(json.dumps({"file": str(file), "error": str(error)}))
            else:
                say(json.dumps({"file": str(file), **result.to_dict(), **(extra or {})}) if as_json else f"{file}: {line(result)}")
            if bar:
                bar.update(1)
    if bad:
        raise typer.Exit(2)


def _bar(label: str, count: int):
    if count < 2 or not (sys.stderr.isatty() or count >= MANY):
        return nullcontext()
    return typer.progressbar(length=count, label=f"{label} {count} pictures", show_pos=True, file=sys.stderr)


def _show_download(fraction: float, sentence: str) -> None:
    _clear_line()
    typer.echo(f"{sentence} {fraction:.0%}", err=True, nl=False)


def _clear_line() -> None:
    typer.echo("\r\x1b[K", err=True, nl=False)


def main() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # a file's name may hold what the terminal cannot show
    warnings.filterwarnings("ignore", module=r"PIL\.")  # what matters of it is in our own sentence
    try:
        app()
    except PTTPError as error:
        typer.echo(str(error), err=True)
        sys.exit(2)
