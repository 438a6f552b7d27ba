"""PTTP, "PyTorching the Papers": six vision papers that one can use, in plain PyTorch.

Importing this package imports no torch; `load` imports what the asked-for paper needs.
"""
from __future__ import annotations

from importlib import import_module
from typing import Any

from pttp.errors import BadImage, BadInput, MessageTooLong, NoFaceFound, NoStampFound, NothingFound, PTTPError, WeightsError
from pttp.papers import Paper, papers

__version__ = "0.1.0"
__all__ = ["BadImage", "BadInput", "MessageTooLong", "NoFaceFound", "NoStampFound", "NothingFound", "PTTPError", "Paper", "WeightsError", "load", "papers"]


def load(name: str, source: str = "auto", **options: Any):
    """The predictor of a paper, with its weights.

    `name` is one of pointrend, polarmask, gfm, ghostnet, stegastamp, cagan; `source` is "auto", "embedded", "hub:owner/name[@revision]"
    or a path (see `pttp.weights.find`). Further options go to `Predictor.from_pretrained`.

    Raises BadInput for a name that is not a paper; WeightsError when the weights cannot be had.
    """
    known = {paper.name: paper for paper in papers()}
    if name not in known:
        raise BadInput(f"There is no paper called {name!r}: choose one of {', '.join(known)}.")
    return import_module(f"pttp.{name}.predict").Predictor.from_pretrained(source, **options)


def __getattr__(name: str):
    """`pttp.ghostnet` without an import line, and without paying for the papers that are not used."""
    if name in {paper.name for paper in papers()} | {"weights", "images", "trunk", "cli"}:
        return import_module(f"pttp.{name}")
    raise AttributeError(f"module 'pttp' has no attribute {name!r}")
