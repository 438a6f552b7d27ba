"""`python -m pttp matte`."""
from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

TRANSPARENT = (".png", ".webp")


def matte(
    files: Annotated[list[str], typer.Argument(help="Pictures, or folders that are searched for pictures.", show_default=False)],
    out: Annotated[Path, typer.Option("-o", "--out", help="A folder; for a single picture also a file: .png, .webp, or with --background .jpg.", show_default=False)],
    background: Annotated[str | None, typer.Option(metavar="COLOUR|IMAGE|blur", help='A colour ("#b01030", "white"), a picture file, or "blur"; without it the result is transparent.', show_default=False)] = None,
    alpha_only: Annotated[bool, typer.Option("--alpha-only", help="Write the matte alone, as a grey picture.")] = False,
    widen: Annotated[float, typer.Option(min=0, max=0.1, metavar="F", help="0 to 0.1: by how much of the long side the part in between grows to both sides, where focus is believed.")] = 0.0,
    again: Annotated[bool, typer.Option("--again", help="Also work on pictures of a folder whose result is already there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    weights: Annotated[str, typer.Option(metavar="SOURCE", help='"auto", "embedded", "hub:owner/name[@revision]", or a path.')] = "auto",
) -> None:
    """Cut the animal out of each picture (GFM).

    A folder keeps its layout below OUT, each result as PNG. A result that is already there is not made again, so that work that was broken off goes on.
    """
    from pttp import images
    from pttp.cli import each, load
    from pttp.cli_places import is_one, targets, waiting
    from pttp.errors import BadInput

    if background and alpha_only:
        raise BadInput("--alpha-only has no background: leave one of the two away.")
    if is_one(files, out) and not background and not alpha_only and out.suffix.lower() not in TRANSPARENT:
        raise BadInput(f"{out.name} could not be transparent: end the name in .png or .webp, or give a --background.")
    behind = _background(background)
    results = targets(files, out, also=[background])
    left = waiting(results, again or is_one(files, out))
    if not left:
        return
    net = load("gfm", weights)

    def work(file: Path) -> Written:
        made, target = net.predict(file, widen), results[file]
        images.make_folder(target.parent)
        images.save(made.mask() if alpha_only else made.over(behind) if behind is not None else made.cutout(), target)
        return Written(made, target)

    each(left, work, str, label="Cutting out", as_json=as_json, extra={"weights": net.weights.source})


class Written:
    """A matte and the file that was made of it, for `cli.each`."""

    def __init__(self, made, target: Path):
        self.made, self.target = made, target

    def to_dict(self) -> dict:
        return {"out": str(self.target), **self.made.to_dict()}

    def __str__(self) -> str:
        said = " ".join(self.made.notes)
        share = f"{self.made.alpha.mean():.0%} of the picture" if self.made.found else ""
        return f"{self.target}: {'. '.join(part for part in (share, said) if part)}"


def _background(text: str | None):
    """What `Matte.over` takes, read once for all pictures."""
    from pttp import images
    from pttp.gfm.predict import colour_of

    if text is None or text == "blur":
        return text
    return colour_of(text) or images.to_array(text)
