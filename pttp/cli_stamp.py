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
    picture: Annotated[str, typer.Argument(metavar="IN", help="The picture to stamp.", show_default=False)],
    message: Annotated[str, typer.Argument(help="Up to seven bytes of text, or an http or https link of any length.", show_default=False)],
    out: Annotated[Path, typer.Option("-o", "--out", help="Where the stamped picture goes: .png, .jpg or .webp.", show_default=False)],
    strength: Annotated[float, typer.Option(metavar="S", help="0.3 (fainter) to 2 (more robust).")] = 1.0,
    quality: Annotated[int, typer.Option(min=1, max=100, metavar="Q", help="Of a JPEG or WebP file.")] = 92,
    one_pass: Annotated[bool, typer.Option("--one-pass", help="The encoder's residual as it is, not fitted to this picture: sooner, as in the paper.")] = False,
    as_json: Json = False,
    weights: Weights = "auto",
) -> None:
    """Stamp a picture. The exit code is 2, and a sentence says why, when the written file does not read back."""
    from pttp import images
    from pttp.cli import load

    image = images.read(picture, alpha=True)
    net = load("stegastamp", weights)
    stamp = net.encode(image, message, strength, **({"steps": 0} if one_pass else {}))
    images.save(stamp.image, out, quality)
    reads_back = net.reads_back(out, stamp.message)
    if as_json:
        typer.echo(json.dumps({"file": picture, "out": str(out), **stamp.to_dict(), "verified": reads_back, "weights": net.weights.source}))
    else:
        typer.echo(f"{out}: {_said(stamp)}, PSNR {stamp.psnr:.1f} dB")
    if not reads_back:
        typer.echo(f"{out} is written, but does not read back: raise --strength or --quality, or take another picture.", err=True)
        raise typer.Exit(2)


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
