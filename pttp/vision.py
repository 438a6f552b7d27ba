"""Importing torchvision beside a PyTorch that was built without CUDA.

The torchvision wheels of the package index are built against CUDA; beside a CPU build of torch their compiled operators cannot be loaded, and
`import torchvision` then stops at the shape functions of two operators that do not exist. Declaring those two is enough: everything written
in Python (models, layers, transforms, RoIAlign's reference form) works.
"""
from __future__ import annotations

import threading
from contextlib import contextmanager
from functools import cache

import torch

_MISSING = ("nms", "qnms")
_library = None  # must stay alive: its declarations go when it is collected
_lock = threading.Lock()  # two rooms may come here at once, and an operator can be declared only once


@cache
def torchvision():
    """The torchvision module, with or without its compiled operators."""
    global _library
    with _lock:
        try:
            import torchvision
        except RuntimeError as error:
            if "torchvision::" not in str(error):
                raise
            _library = torch.library.Library("torchvision", "FRAGMENT")
            for name in _MISSING:
                _library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            import torchvision
    return torchvision


@contextmanager
def shapes_only():
    """Within, networks are built without memory, for the names and shapes of their weights. torchvision comes first: torch 2.8 cannot import it inside."""
    torchvision()
    with torch.device("meta"):
        yield
