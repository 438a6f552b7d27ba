"""`python -m pttp weights list|show|push|convert`."""
from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from pttp import hub, weights
from pttp.errors import BadInput, WeightsError
from pttp.papers import papers

weights_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Which weights there are, where they come from, and publishing them.")

Room = Annotated[str, typer.Argument(help="A paper: pointrend, polarmask, gfm, ghostnet, stegastamp or cagan.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
CONVERTED = ("pointrend", "polarmask", "gfm", "ghostnet", "stegastamp")  # of CA-GAN no file was ever published


def _progress(fraction: float, sentence: str) -> None:
    typer.echo(f"\r\x1b[K{sentence} {fraction:.0%}", err=True, nl=False)


def _megabytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 1e6:.1f} MB"


def _row(room: str) -> dict:
    """What "auto" would take now, found out without asking the network."""
    card = weights.home(room)
    try:
        if card and not hub.offline() and not hub.cached(card.repo, card.revision, filename=card.filename, sha256=card.sha256):
            told = {"source": f"hub:{card.repo}", "bytes": None, "licence": card.licence, "metrics": {"headline": card.reported}}
            return {"room": room, "here": False, **told, "why": "To be fetched when first used."}
        info = weights.find(room).info.to_dict()
        return {"room": room, "here": True, **{key: info[key] for key in ("source", "bytes", "licence", "metrics", "why")}}
    except WeightsError as error:
        return {"room": room, "here": False, "source": None, "bytes": None, "licence": None, "metrics": {}, "why": str(error)}


@weights_app.command("list")
def list_(as_json: Json = False) -> None:
    """Every paper, and the weights that would be used for it now."""
    rows = [_row(p.name) for p in papers()]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    table = [("paper", "weights", "size", "licence", "measured")]
    for r in rows:
        source = (r["source"] or "none yet").split("@")[0] + (" (to be fetched)" if r["source"] and not r["here"] else "")
        table.append((r["room"], source, _megabytes(r["bytes"]), (r["licence"] or "-").split(" (")[0], r["metrics"].get("headline", "-")))
    widths = [max(len(row[i]) for row in table) for i in range(5)]
    for row in table:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


@weights_app.command()
def show(
    room: Room,
    source: Annotated[str, typer.Option(help="auto, embedded, hub:owner/name[@revision], or a path.")] = "auto",
    as_json: Json = False,
) -> None:
    """What is known about the weights of one paper; fetches them if they are on the Hub and not here yet."""
    shown = sys.stderr.isatty()
    try:
        found = weights.find(room, source, progress=_progress if shown else None)
    finally:
        if shown:
            typer.echo("\r\x1b[K", err=True, nl=False)
    told = {**found.info.to_dict(), "config": found.config}
    if as_json:
        typer.echo(json.dumps(told, indent=2))
        return
    told["bytes"] = f"{_megabytes(told['bytes'])} ({told['bytes']} bytes)"
    told["parameters"] = f"{told['parameters']:,}"
    for name, value in told.items():
        lines = [f"{k}: {v if isinstance(v, str) else json.dumps(v)}" for k, v in value.items()] if isinstance(value, dict) else [str(value)]
        for i, line in enumerate(lines or ["-"]):
            typer.echo(f"{'' if i else name:<11} {line}")


@weights_app.command()
def convert(
    room: Room,
    file: Annotated[Path, typer.Argument(help="A checkpoint of the authors, downloaded before; nothing in it is executed.", show_default=False)],
    folder: Annotated[Path | None, typer.Argument(help="Where model.safetensors and config.json go (default: a folder beside the file, named after it).", show_default=False)] = None,
    rosta: Annotated[str | None, typer.Option(help="GFM only, where the file's name does not tell: TT, FT or BT.")] = None,
) -> None:
    """Turn an authors' checkpoint into weights that --weights FOLDER takes."""
    if room not in CONVERTED:
        raise BadInput(f"Checkpoints of {room!r} are not converted here: choose one of {', '.join(CONVERTED)}.")
    if file.suffix == "" or (folder or file.with_suffix("")) == file:
        raise BadInput(f"Say where the weights go: {file} has no suffix to be named after.")
    if rosta and room != "gfm":
        raise BadInput("--rosta is a question of GFM's checkpoints: leave it out.")
    official = import_module(f"pttp.{room}.official")
    typer.echo(f"Written: {official.save(file, folder or file.with_suffix(''), *([rosta] if rosta else []))}")


@weights_app.command()
def push(
    room: Room,
    owner: Annotated[str | None, typer.Option(help="Your name on the Hub, or an organisation's; PTTP_HUB if not given.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Create the repository as a private one.")] = False,
) -> None:
    """Publish the embedded weights of one paper as OWNER/pttp-ROOM on the Hub (needs HF_TOKEN, or a login)."""
    owner = owner or os.environ.get("PTTP_HUB")
    if not owner:
        raise BadInput("Say whose repository it shall be: --owner OWNER, or PTTP_HUB=OWNER.")
    typer.echo(weights.push(room, f"{owner}/pttp-{room}", private=private))
