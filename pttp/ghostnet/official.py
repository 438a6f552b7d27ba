"""The authors' checkpoint (state_dict_73.98.pth, GhostNet 1.0x) as weights that this package loads.

`python -m pttp.ghostnet.official state_dict_73.98.pth FOLDER`, then `pttp.load("ghostnet", "FOLDER")`.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from pttp import checkpoints, weights
from pttp.errors import WeightsError
from pttp.ghostnet.model import GhostNet

# the authors validate with the shorter side resized to 256 (bilinear) and the centre 224 x 224 taken
CONFIG = {
    "num_classes": 1000,
    "width": 1.0,
    "preprocess": {"size": 224, "crop": 0.875, "interpolation": "bilinear", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
}


def convert(file: str | Path) -> dict[str, Tensor]:
    """The tensors of the authors' checkpoint, float32 (counters int64), under the names of `GhostNet()`, which are theirs.

    Nothing in the file is executed: it may hold tensors and plain containers only. Raises WeightsError for anything but a whole GhostNet 1.0x state dict.
    """
    state = checkpoints.read(file)
    if not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{file} is not a state dict, a table of named tensors: give the authors' state_dict_73.98.pth.")
    with torch.device("meta"):
        wanted = {k: v.shape for k, v in GhostNet().state_dict().items()}
    told = weights.misfits(
        [k for k in wanted if k not in state], [str(k) for k in state if k not in wanted], [k for k, shape in wanted.items() if k in state and state[k].shape != shape]
    )
    if told:
        raise WeightsError(f"{file} does not hold GhostNet 1.0x: {told}.")
    return {k: (state[k].float() if state[k].is_floating_point() else state[k]).contiguous() for k in wanted}


def save(file: str | Path, folder: str | Path) -> Path:
    """Write the authors' checkpoint `file` as a folder in Hub format, model.safetensors and config.json; returns the folder. Raises WeightsError as `convert` does."""
    return checkpoints.save(convert(file), CONFIG, folder)


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("file", type=Path, help="state_dict_73.98.pth")
    p.add_argument("folder", type=Path, help="where model.safetensors and config.json go")
    a = p.parse_args()
    checkpoints.in_words(lambda: save(a.file, a.folder))
