"""What the oracle tests share: where the fixtures are, the weights that their recipe makes from names, and comparisons.

The folder is PTTP_ORACLES, or ../shared/oracles. Another set (other inputs and weights, the same file and tensor names) passes the same tests, so a test takes
every number from the files. What a set does not hold is a skip that says so.
"""
from __future__ import annotations

import importlib.util
import json
import os
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.shared import SHARED

ORACLES = Path(os.environ.get("PTTP_ORACLES") or SHARED / "oracles")
FORWARD, GRADIENT = 1e-5, 1e-4  # of the tensor's standard deviation


def file(paper: str, name: str) -> Path:
    path = ORACLES / paper / name
    if not path.is_file():
        pytest.skip(f"no fixture {path}: set PTTP_ORACLES to a folder that has it")
    return path


@cache
def tensors(paper: str, name: str) -> dict[str, Tensor]:
    """The tensors of NAME.safetensors; they are shared between tests, so clone what is changed."""
    return load_file(file(paper, f"{name}.safetensors"))


@cache
def facts(paper: str, name: str) -> dict:
    """What NAME.json says."""
    return json.loads(file(paper, f"{name}.json").read_text(encoding="utf-8"))


def keys(paper: str, name: str) -> list:
    """The keys of NAME.json, to parametrize a test with; one skipped case when there is no such file."""
    path = ORACLES / paper / f"{name}.json"
    if not path.is_file():
        return [pytest.param("none", marks=pytest.mark.skip(reason=f"no fixture {path}: set PTTP_ORACLES to a folder that has it"))]
    return list(json.loads(path.read_text(encoding="utf-8")))


@cache
def _recipe():
    found = next((p for p in (ORACLES / "recipe.py", SHARED / "oracles" / "recipe.py") if p.is_file()), None)
    if found is None:
        pytest.skip(f"no recipe.py in {ORACLES}: set PTTP_ORACLES to a folder that has it")
    spec = importlib.util.spec_from_file_location("oracles_recipe", found)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def values(paper: str, shapes: dict[str, tuple[int, ...]], **options) -> dict[str, Tensor]:
    """The recipe's float32 value of every name; `options` go to recipe_tensor."""
    file(paper, "recipe.json")
    arguments = _recipe().recipe_of(ORACLES / paper) | options
    return {name: torch.from_numpy(_recipe().recipe_tensor(name, tuple(shape), **arguments)) for name, shape in shapes.items()}


def fill(paper: str, module: nn.Module, **options) -> nn.Module:
    """`module` with the recipe's weights, in evaluation mode; counters stay as they are."""
    state = module.state_dict()
    floats = {k: tuple(v.shape) for k, v in state.items() if v.is_floating_point()}
    module.load_state_dict({**state, **values(paper, floats, **options)}, strict=True)
    return module.eval()


def assert_near(ours: Tensor, theirs: Tensor, tolerance: float = FORWARD, what: str = "") -> None:
    """Nowhere further apart than `tolerance` times the standard deviation of `theirs` (times its size, where it is a single value)."""
    assert ours.shape == theirs.shape, f"{what}: {tuple(ours.shape)}, not {tuple(theirs.shape)}"
    ours, theirs = ours.detach().double(), theirs.double()
    scale = theirs.std().item() if theirs.numel() > 1 else theirs.abs().item()
    worst = (ours - theirs).abs().max().item()
    assert worst <= tolerance * scale, f"{what}: off by {worst:.3g}, allowed {tolerance:g} x {scale:.3g}"


def assert_within(ours: Tensor, theirs: Tensor, tolerance: float, what: str = "") -> None:
    """Nowhere further apart than `tolerance`."""
    assert ours.shape == theirs.shape, f"{what}: {tuple(ours.shape)}, not {tuple(theirs.shape)}"
    worst = (ours.detach().double() - theirs.double()).abs().max().item()
    assert worst <= tolerance, f"{what}: off by {worst:.3g}, allowed {tolerance:g}"
