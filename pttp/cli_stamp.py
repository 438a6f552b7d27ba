"""`python -m pttp stamp encode|decode`."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

stamp_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Hide a message or a link in a picture, and read it back (StegaStamp).")

Json = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
Weights = Annotated[str, typer.Option(metavar="SOURCE", help='"auto", "embedded", "hub:owner/name[@revision]", or a path.')]


@stamp_app.command()
def encode(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Pictures to stamp, or folders that are searched for pictures.", show_default=False)],
    message: Annotated[str, typer.Argument(help="Up to seven bytes of text, or an http or https link of any length.", show_default=False)],
    out: Annotated[Path, typer.Option("-o", "--out", help="A folder; for a single picture also a file: .png, .jpg or .webp.", show_default=False)],
    strength: Annotated[float, typer.Option(metavar="S", help="0.3 (fainter) to 2 (more robust).")] = 1.0,
    quality: Annotated[int, typer.Option(min=1, max=100, metavar="Q", help="Of a JPEG or WebP file.")] = 92,
    one_pass: Annotated[bool, typer.Option("--one-pass", help="The encoder's residual as it is, not fitted to this picture: sooner, as in the paper.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Also work on pictures of a folder whose result is already there.")] = False,
    as_json: Json = False,
    weights: Weights = "auto",
) -> None:
    """Stamp each picture. The exit code is 2, and a sentence says why, when a written file does not read back.

    A folder keeps its layout below OUT, each result as PNG. A result that is already there is not made again, so that work that was broken off goes on.
    """
    from pttp import images
    from pttp.cli import each, load
    from pttp.cli_places import is_one, targets, waiting
    from pttp.stegastamp.predict import check

    check(message, strength)
    single, results = is_one(files, out), targets(files, out)
    left = waiting(results, again or single)
    if not left:
        return
    image = images.read(files[0], alpha=True) if single else None
    net = load("stegastamp", weights)
    extra, unread = {"weights": net.weights.source}, []

    def work(file: Path) -> Written:
        stamp, target = net.encode(image or file, message, strength, **({"steps": 0} if one_pass else {})), results[file]
        images.make_folder(target.parent)
        images.save(stamp.image, target, quality)
        made = Written(stamp, target, net.reads_back(target, stamp.message))
        if not made.reads_back:
            unread.append(target)
        return made

    try:
        if single:
            made = work(left[0])
            typer.echo(json.dumps({"file": files[0], **made.to_dict(), **extra}) if as_json else str(made))
        else:
            each(left, work, str, label="Stamping", as_json=as_json, extra=extra)
    finally:
        for target in unread:
            typer.echo(f"{target} is written, but does not read back: raise --strength or --quality, or take another picture.", err=True)
    if unread:
        raise typer.Exit(2)


class Written:
    """A stamp, the file that was made of it, and whether that says what it should, for `cli.each`."""

    def __init__(self, stamp, target: Path, reads_back: bool):
        self.stamp, self.target, self.reads_back = stamp, target, reads_back

    def to_dict(self) -> dict:
        return {"out": str(self.target), **self.stamp.to_dict(), "verified": self.reads_back}

    def __str__(self) -> str:
        return f"{self.target}: {_said(self.stamp)}, PSNR {self.stamp.psnr:.1f} dB"


@stamp_app.command()
def decode(
    files: Annotated[list[str], typer.Argument(help="Pictures, or folders that are searched for pictures.", show_default=False)],
    as_json: Json = False,
    weights: Weights = "auto",
) -> None:
    """Read the stamp of each picture: of a stamped file, or of a photo or screenshot of one."""
    from pttp import images
    from pttp.cli import each, load

    pictures = images.files(files)
    net = load("stegastamp", weights)
    each(
        pictures,
        net.decode,
        lambda r: f"{_said(r)}, {r.corrected} bits repaired, confidence {r.confidence:.0%}",
        label="Reading",
        as_json=as_json,
        extra={"weights": net.weights.source},
    )


def _said(found) -> str:
    return f"{found.link} (code {found.message})" if found.link else repr(found.message)
