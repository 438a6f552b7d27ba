"""`python -m pttp segment`."""
from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from pttp.errors import BadInput

COLUMNS = "X,Y"


def segment(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="The picture; with --all, pictures or folders that are searched for pictures.", show_default=False)],
    point: Annotated[list[str] | None, typer.Option("--point", metavar=COLUMNS, help="A pixel of the object; may be given several times.", show_default=False)] = None,
    negative: Annotated[list[str] | None, typer.Option("--negative", metavar=COLUMNS, help="A pixel that does not belong to it; may be given several times.", show_default=False)] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Where the mask goes, 255 on the object: .png.", show_default=False)] = None,
    cutout: Annotated[Path | None, typer.Option("--cutout", help="Where the object goes, cut out, on a transparent ground: .png or .webp.", show_default=False)] = None,
    rle: Annotated[Path | None, typer.Option("--rle", help="Where COCO's annotation with run lengths goes: .json.", show_default=False)] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every object that is found, without points.")] = False,
    anyway: Annotated[bool, typer.Option("--anyway", help="A mask also where nothing looks like an object.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    weights: Annotated[str, typer.Option(metavar="SOURCE", help='"auto", "embedded", "hub:owner/name[@revision]", or a path.')] = "auto",
) -> None:
    """Cut an object out of a picture by points on it and beside it, or list all that is found (PointRend)."""
    from pttp import images
    from pttp.cli import each, load
    from pttp.cli_places import spare

    if everything:
        if point or negative or out or cutout or rle or anyway:
            raise BadInput("--all lists every object of each picture: leave the points and the files for one object out.")
        pictures = images.files(files)
        net = load("pointrend", weights)
        each(pictures, lambda file: _Found(net.open(file).instances), lambda found: found.line(), label="Segmenting", as_json=as_json, extra={"weights": net.weights.source})
        return
    if len(files) != 1:
        raise BadInput("Points speak of one picture: give one file, or --all.")
    points, labels = [_pixel(p) for p in [*(point or []), *(negative or [])]], [1] * len(point or []) + [0] * len(negative or [])
    if not point:
        raise BadInput("Say where the object is: --point X,Y, in pixels; or --all for every object.")
    results = [(path, suffixes) for path, suffixes in ((out, (".png",)), (cutout, (".png", ".webp")), (rle, (".json",))) if path]
    for path, suffixes in results:
        images.place(path, suffixes)
    spare([path for path, _ in results], files)
    if out and cutout and os.path.realpath(out) == os.path.realpath(cutout):
        raise BadInput(f"--out and --cutout both name {out}: give each a file of its own.")
    picture = images.read(files[0])
    net = load("pointrend", weights)
    session = net.open(picture)
    made = session.click(points, labels, anyway=anyway)
    _write(session, made, out, cutout, rle, files[0])
    if as_json:
        from pttp.pointrend import masks

        typer.echo(json.dumps({"file": files[0], **made.to_dict(), "rle": masks.rle(made.mask), "weights": net.weights.source}))
        return
    for sentence in made.said:
        typer.echo(sentence, err=True)
    typer.echo(f"{files[0]}: {_line(made)}")


class _Found:
    """The instances of one picture, as `each` wants a result."""

    def __init__(self, instances):
        self.instances = instances

    def to_dict(self) -> dict:
        from pttp.pointrend import masks

        return {"instances": [{**one.to_dict(), "rle": masks.rle(one.mask)} for one in self.instances]}

    def line(self) -> str:
        return "; ".join(_line(one) for one in self.instances) or "nothing found"


def _line(one) -> str:
    return f"{one.label} {one.score:.0%}, box {' '.join(map(str, one.box))}, {one.to_dict()['area']} pixels"


def _pixel(text: str) -> tuple[float, float]:
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        raise BadInput(f"{text!r} is not a point: write X,Y, two numbers with a comma between them, like 120,80.") from None
    return x, y


def _write(session, made, out: Path | None, cutout: Path | None, rle: Path | None, name: str) -> None:
    from PIL import Image

    from pttp import images
    from pttp.pointrend import masks

    if out:
        images.save(Image.fromarray(made.mask).convert("L"), out)
    if cutout:
        images.save(masks.cutout(session.image, made.mask), cutout)
    if rle:
        images.write_text(json.dumps(masks.coco([(made.mask, made.label, made.score)], session.shape, session.classes, Path(name).name)) + "\n", rle)
