"""Each room's `Predictor`, for which torch is imported only when it is asked for."""
from __future__ import annotations

from collections.abc import Callable
from importlib import import_module


def predictor(room: str) -> Callable[[str], type]:
    """A module's `__getattr__` for the package `room`, "pttp.ghostnet" say."""

    def __getattr__(name: str) -> type:
        if name == "Predictor":
            return import_module(f"{room}.predict").Predictor
        raise AttributeError(f"module {room!r} has no attribute {name!r}")

    return __getattr__
