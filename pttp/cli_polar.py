"""`python -m pttp polar`."""
from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pttp.errors import BadInput


def polar(
    files: Annotated[list[str], typer.Argument(help="Pictures, or folders that are searched for pictures.", show_default=False)],
    point: Annotated[str | None, typer.Option(metavar="X,Y", help="Draw the one contour around this point; without it, every object is found.", show_default=False)] = None,
    score: Annotated[float | None, typer.Option(metavar="S", help="The score from which an object is listed.", show_default=False)] = None,
    svg: Annotated[Path | None, typer.Option(metavar="FILE", help="Write contours and rays as a drawing (one picture only).", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    weights: Annotated[str, typer.Option(metavar="SOURCE", help='"auto", "embedded", "hub:owner/name[@revision]", or a path.')] = "auto",
) -> None:
    """Draw objects as a centre and 36 rays (PolarMask)."""
    from pttp import images
    from pttp.cli import each, load
    from pttp.cli_places import spare

    at = _point(point) if point is not None else None
    if at and score is not None:
        raise BadInput("--score chooses among all objects: leave it out with --point.")
    if svg:
        images.place(svg, (".svg",))
    pictures = images.files(files)
    if svg and len(pictures) > 1:
        raise BadInput(f"--svg draws one picture, not {len(pictures)}: name one file.")
    spare([svg], pictures)
    net = load("polarmask", weights)

    def work(file: Path) -> "_Answer":
        found = [net.predict_at(file, at)] if at else net.predict(file) if score is None else net.predict(file, score)
        if svg and found:
            from pttp.polarmask import study

            images.write_text(study.svg(found), svg)
        elif svg:
            typer.echo(f"Nothing was found, so that {svg} is not written: lower --score, or give a --point.", err=True)
        return _Answer(found)

    each(pictures, work, str, label="Drawing", as_json=as_json, extra={"weights": net.weights.source})


class _Answer:
    """The objects of one picture, in words or as JSON."""

    def __init__(self, found: list):
        self.found = found

    def __str__(self) -> str:
        return "; ".join(f"{o.label} {o.score:.2f} in {o.box}" for o in self.found) or "nothing found"

    def to_dict(self) -> dict:
        return {"objects": [o.to_dict() for o in self.found]}


def _point(text: str) -> tuple[float, float]:
    try:
        x, y = (float(v) for v in text.split(","))
    except ValueError:
        raise BadInput(f"--point wants two numbers with a comma, like 120,80, not {text!r}.") from None
    return x, y
