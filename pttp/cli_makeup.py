"""`python -m pttp makeup`."""
from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def makeup(
    files: Annotated[list[str], typer.Argument(help="Portraits, or folders that are searched for pictures.", show_default=False)],
    out: Annotated[Path, typer.Option("-o", "--out", help="A folder; for a single picture also a file: .png, .jpg or .webp.", show_default=False)],
    lips: Annotated[str | None, typer.Option(metavar="COLOUR", help='Of the lips, like "#b01030".', show_default=False)] = None,
    eyes: Annotated[str | None, typer.Option(metavar="COLOUR", help='Of the eyelids, like "#5b7fc4".', show_default=False)] = None,
    like: Annotated[str | None, typer.Option(metavar="PICTURE", help="Without --lips: take the colour of this portrait's lips.", show_default=False)] = None,
    strength: Annotated[float, typer.Option(metavar="S", help="0 (nothing) to 1 (the colour asked for).")] = 1.0,
    finish: Annotated[float, typer.Option(metavar="F", help="-1 (matte) to 1 (glossy).")] = 0.0,
    side: Annotated[str | None, typer.Option(metavar="left|right", help="Only that half of the face, as seen.", show_default=False)] = None,
    face: Annotated[int, typer.Option(min=0, metavar="N", help="Which face, the largest is 0.")] = 0,
    again: Annotated[bool, typer.Option("--again", help="Also work on pictures of a folder whose result is already there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    weights: Annotated[str, typer.Option(metavar="SOURCE", help='"auto", "embedded", "hub:owner/name[@revision]", or a path.')] = "auto",
) -> None:
    """Paint lips and eyelids of each portrait in any colour (CA-GAN).

    A folder keeps its layout below OUT, each result as PNG. A result that is already there is not made again, so that work that was broken off goes on.
    """
    from pttp import images
    from pttp.cagan.colour import hex_of
    from pttp.cagan.predict import check
    from pttp.cli import each, load
    from pttp.cli_places import is_one, targets, waiting
    from pttp.errors import BadInput

    if like is None or lips or eyes:
        check(lips, eyes, strength, finish, side)
    results = targets(files, out, also=[like])
    left = waiting(results, again or is_one(files, out))
    if not left:
        return
    net = load("cagan", weights)
    if like is not None and lips is None:
        seen = net.estimate(like).lips
        if seen is None:
            raise BadInput("The mouth of the portrait given with --like cannot be seen: choose another one, or give --lips.")
        lips = hex_of(seen)

    def work(file: Path) -> Written:
        made, target = net.apply(file, lips, eyes, strength, face=face, finish=finish, side=side), results[file]
        images.make_folder(target.parent)
        images.save(made.image, target)
        return Written(made, target)

    each(left, work, str, label="Painting", as_json=as_json, extra={"weights": net.weights.source})


class Written:
    """A painted portrait and the file that was made of it, for `cli.each`."""

    def __init__(self, made, target: Path):
        self.made, self.target = made, target

    def to_dict(self) -> dict:
        return {"out": str(self.target), **self.made.to_dict()}

    def __str__(self) -> str:
        from pttp.cagan.colour import hex_of

        made = self.made
        said = (f"{name} {hex_of(made.requested[name])} asked, {hex_of(made.achieved[name])} reached, Delta E {made.delta_e[name]:.1f}" for name in made.regions)
        return f"{self.target}: {'; '.join(said)}"
