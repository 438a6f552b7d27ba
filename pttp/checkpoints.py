"""What every room's official.py needs: reading an authors' checkpoint safely, writing a folder in Hub format."""
from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from pttp import images
from pttp.errors import BadInput, PTTPError, WeightsError


def read(file: str | Path) -> dict:
    """The table in a PyTorch checkpoint. Nothing in the file is executed: it may hold tensors and plain containers only. Raises WeightsError for anything else."""
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsError(f"There is no file {file}.") from error
    except Exception as error:  # a file that is no checkpoint can make the reader stumble in any way
        raise WeightsError(f"{file} is not a checkpoint that can be read safely: it must be a PyTorch file that holds tensors only.") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{file} is not a state dict, a table of named tensors: give one of the authors' checkpoints.")
    return content


def save(state: Mapping[str, Tensor], config: dict, folder: str | Path) -> Path:
    """Write model.safetensors and config.json; returns the folder. Raises BadInput for a disk that refuses."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    folder = images.make_folder(folder)
    file = images.place(folder / "model.safetensors", ())
    try:
        save_file({k: v.contiguous() for k, v in state.items()}, file, metadata={"format": "pt"})
    except (OSError, SafetensorError) as error:
        raise BadInput(f"{file} could not be written ({error}): choose another place.") from error
    images.write_text(json.dumps(config, indent=2) + "\n", folder / "config.json")
    return folder


def in_words(work: Callable[[], Path]) -> None:
    """Run a conversion as a command: say where the result lies, or why there is none."""
    try:
        print(f"Written: {work()}")
    except PTTPError as error:
        raise SystemExit(str(error)) from None
