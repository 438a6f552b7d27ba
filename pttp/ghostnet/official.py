"""The authors' checkpoint (state_dict_73.98.pth, GhostNet 1.0x) as weights that this package loads.

`python -m pttp.ghostnet.official state_dict_73.98.pth FOLDER`, then `pttp.load("ghostnet", "FOLDER")`.
"""
from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from pttp.errors import WeightsError
from pttp.ghostnet.model import GhostNet

# the authors validate with the shorter side resized to 256 (bilinear) and the centre 224 x 224 taken
CONFIG = {
    "num_classes": 1000,
    "width": 1.0,
    "preprocess": {"size": 224, "crop": 0.875, "interpolation": "bilinear", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
}


def _some(names: list[str]) -> str:
    return f"{len(names)} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"


def convert(file: str | Path) -> dict[str, Tensor]:
    """The tensors of the authors' checkpoint, float32 (counters int64), under the names of `GhostNet()`, which are theirs.

    Nothing in the file is executed: it may hold tensors and plain containers only. Raises WeightsError for anything but a whole GhostNet 1.0x state dict.
    """
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsError(f"There is no file {file}.") from error
    except Exception as error:  # a file that is no checkpoint can make the reader stumble in any way
        raise WeightsError(f"{file} is not a checkpoint that can be read safely: it must be a PyTorch file that holds tensors only.") from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{file} is not a state dict, a table of named tensors: give the authors' state_dict_73.98.pth.")
    with torch.device("meta"):
        wanted = {k: v.shape for k, v in GhostNet().state_dict().items()}
    problems = {
        "missing": [k for k in wanted if k not in state],
        "unexpected": [str(k) for k in state if k not in wanted],
        "of another shape": [k for k, shape in wanted.items() if k in state and state[k].shape != shape],
    }
    if any(problems.values()):
        raise WeightsError(f"{file} does not hold GhostNet 1.0x: " + "; ".join(f"{what}: {_some(names)}" for what, names in problems.items() if names) + ".")
    return {k: (state[k].float() if state[k].is_floating_point() else state[k]).contiguous() for k in wanted}


def save(file: str | Path, folder: str | Path) -> Path:
    """Write the authors' checkpoint `file` as a folder in Hub format, model.safetensors and config.json; returns the folder. Raises WeightsError as `convert` does."""
    tensors, folder = convert(file), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n", encoding="utf-8")
    return folder


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("file", type=Path, help="state_dict_73.98.pth")
    p.add_argument("folder", type=Path, help="where model.safetensors and config.json go")
    a = p.parse_args()
    try:
        print(f"Written: {save(a.file, a.folder)}")
    except WeightsError as error:
        raise SystemExit(str(error)) from None
