"""Where results go: what the verbs that write files share. No picture that is worked on is written over, and what cannot be written is said beforehand."""
from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import typer

from pttp.errors import BadInput


def is_one(given: list[str], out: Path) -> bool:
    """Whether `out` names the result of the one picture in `given`, and not a folder for results."""
    return len(given) == 1 and not os.path.isdir(given[0]) and bool(out.suffix) and not os.path.isdir(out)


def targets(given: list[str], out: Path, also: Iterable[str | None] = ()) -> dict[Path, Path]:
    """Picture -> where its result goes: `out` itself (see `is_one`), or below the folder `out`, which is made.

    Raises BadInput where nothing can be written, and where a result would take the place of a picture in `given` or in `also`.
    """
    from pttp import images

    found = {Path(given[0]): out} if is_one(given, out) else places(given, images.files(given), out)
    spare(found.values(), [*found, *also])
    if is_one(given, out):
        images.place(out)
    else:
        images.make_folder(out)
    return found


def spare(results: Iterable[Path | None], pictures: Iterable[str | Path | None]) -> None:
    """Raises BadInput when one of `results` is the same file as one of `pictures`; None is passed over."""
    used = {_identity(picture) for picture in pictures} - {None}
    for result in results:
        if _identity(result) in used:
            raise BadInput(f"{result} is one of the pictures that are read here: choose another place for the result.")


def waiting(found: dict[Path, Path], again: bool) -> list[Path]:
    """The pictures of `targets` whose result is not there yet; all of them with `again`. Says on stderr how many are passed over."""
    left = [file for file, target in found.items() if again or not os.path.isfile(target)]
    if len(left) < len(found):
        typer.echo(f"{len(found) - len(left)} of {len(found)} results are already there and stay as they are (--again makes them anew).", err=True)
    return left


def places(given: list[str], found: list[Path], out: Path) -> dict[Path, Path]:
    """Picture -> where its result goes below the folder `out`: as below the folder that it was found in, with the suffix .png, or with .png added where two
    pictures would meet. Raises BadInput when `out` is a file, or when two would meet all the same."""
    if os.path.isfile(out):
        raise BadInput(f"{out} is a file: give a folder for the results of several pictures.")
    folders = sorted((Path(f) for f in given if os.path.isdir(f)), key=lambda f: len(f.parts), reverse=True)
    inside = {}
    for file in found:
        folder = next((f for f in folders if file.is_relative_to(f)), None)
        inside[file] = file.relative_to(folder) if folder else Path(file.name)
    plain = [path.with_suffix(".png") for path in inside.values()]
    results = {file: out / (path.with_suffix(".png") if plain.count(path.with_suffix(".png")) == 1 else path.with_name(f"{path.name}.png")) for file, path in inside.items()}
    if len(set(results.values())) < len(results):
        raise BadInput("Two of these pictures have the same name, and the results would overwrite each other: work on their folders one after the other.")
    return results


def _identity(path: str | Path | None) -> tuple[int, int] | None:
    """Device and number of a file, which all of its names share; None where there is none."""
    try:
        found = os.stat(path)
    except (OSError, TypeError, ValueError):
        return None
    return found.st_dev, found.st_ino
