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
    again: Annotated[bool, typer.Option("--again", help="Also work on pictures whose result is already there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    weights: Annotated[str, typer.Option(metavar="SOURCE", help='"auto", "embedded", "hub:owner/name[@revision]", or a path.')] = "auto",
) -> None:
    """Cut the animal out of each picture (GFM).

    A folder keeps its layout below OUT, each result as PNG. A result that is already there is not made again, so that work that was broken off goes on.
    """
    from pttp import images
    from pttp.cli import each, load
    from pttp.errors import BadInput

    if background and alpha_only:
        raise BadInput("--alpha-only has no background: leave one of the two away.")
    single = len(files) == 1 and not Path(files[0]).is_dir() and bool(out.suffix) and not out.is_dir()
    if single and not background and not alpha_only and out.suffix.lower() not in TRANSPARENT:
        raise BadInput(f"{out.name} could not be transparent: end the name in .png or .webp, or give a --background.")
    behind = _background(background)
    targets = {Path(files[0]): out} if single else places(files, images.files(files), out)
    waiting = [file for file, target in targets.items() if again or not target.is_file()]
    if len(waiting) < len(targets):
        typer.echo(f"{len(targets) - len(waiting)} of {len(targets)} results are already there and stay as they are (--again makes them anew).", err=True)
    if not waiting:
        return
    net = load("gfm", weights)

    def work(file: Path) -> Written:
        made, target = net.predict(file), targets[file]
        if not single:
            target.parent.mkdir(parents=True, exist_ok=True)
        images.save(made.mask() if alpha_only else made.over(behind) if behind is not None else made.cutout(), target)
        return Written(made, target)

    each(waiting, work, str, label="Cutting out", as_json=as_json, extra={"weights": net.weights.source})


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


def places(given: list[str], found: list[Path], out: Path) -> dict[Path, Path]:
    """Picture -> where its result goes below the folder `out`: as below the folder that it was found in, with the suffix .png, or with .png added where two
    pictures would meet. Raises BadInput when `out` is a file, or when two would meet all the same."""
    from pttp.errors import BadInput

    if out.is_file():
        raise BadInput(f"{out} is a file: give a folder for the results of several pictures.")
    folders = sorted((Path(f) for f in given if Path(f).is_dir()), key=lambda f: len(f.parts), reverse=True)
    inside = {}
    for file in found:
        folder = next((f for f in folders if file.is_relative_to(f)), None)
        inside[file] = file.relative_to(folder) if folder else Path(file.name)
    plain = [path.with_suffix(".png") for path in inside.values()]
    targets = {file: out / (path.with_suffix(".png") if plain.count(path.with_suffix(".png")) == 1 else path.with_name(f"{path.name}.png")) for file, path in inside.items()}
    if len(set(targets.values())) < len(targets):
        raise BadInput("Two of these pictures have the same name, and the results would overwrite each other: work on their folders one after the other.")
    return targets


def _background(text: str | None):
    """What `Matte.over` takes, read once for all pictures."""
    from pttp import images
    from pttp.gfm.predict import colour_of

    if text is None or text == "blur":
        return text
    return colour_of(text) or images.to_array(text)
