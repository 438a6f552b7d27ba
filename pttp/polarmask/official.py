"""The authors' checkpoints (mmdetection 1.x) as weights that this package loads: R-50 and R-101, without deformable convolutions.

`python -m pttp.polarmask.official checkpoint.pth FOLDER` writes FOLDER/model.safetensors and FOLDER/config.json.
"""
from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from pttp import checkpoints, weights
from pttp.errors import WeightsError
from pttp.polarmask.model import STRIDES, PolarMask
from pttp.polarmask.preprocess import MEAN, SCALE
from pttp.vision import shapes_only

NAMES = (  # theirs -> ours
    (r"^backbone\.", "backbone.body."),
    (r"^neck\.lateral_convs\.(\d)\.conv\.", r"backbone.fpn.inner_blocks.\1.0."),
    (r"^neck\.fpn_convs\.([012])\.conv\.", r"backbone.fpn.layer_blocks.\1.0."),
    (r"^neck\.fpn_convs\.3\.conv\.", "backbone.fpn.extra_blocks.p6."),
    (r"^neck\.fpn_convs\.4\.conv\.", "backbone.fpn.extra_blocks.p7."),
    (r"^bbox_head\.", "head."),
)


def our_name(name: str) -> str:
    """The authors' name of a tensor -> ours. The factors of the levels, one tensor each, keep a name of their own: see `tensors`."""
    for pattern, ours in NAMES:
        if re.search(pattern, name):
            return re.sub(pattern, ours, name)
    return name


def read(file: str | Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by the authors' names. Nothing in the file is executed. Raises WeightsError for anything but a table of tensors."""
    content = checkpoints.read(file)
    state = content.get("state_dict", content)
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise WeightsError(f"{file} does not hold a state dict, a table of named tensors: give one of the authors' checkpoints.")
    return state


def tensors(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict]:
    """The authors' tensors by name -> our state dict (float32, counters int64) and what config.json says. Counters may be missing. Raises WeightsError unless
    it is a whole network."""
    found = {our_name(name.removeprefix("module.")): tensor for name, tensor in state.items()}
    for kind in ("bbox", "mask"):
        factors = [found.pop(f"head.scales_{kind}.{i}.scale", None) for i in range(len(STRIDES))]
        if all(f is not None and f.numel() == 1 for f in factors):
            found[f"head.scales_{kind}"] = torch.stack([f.reshape(()) for f in factors])
    depths = [len({m[1] for name in found if (m := re.match(rf"backbone\.body\.layer{stage}\.(\d+)\.", name))}) for stage in (1, 2, 3, 4)]
    try:
        (num_classes,), (rays,) = found["head.polar_cls.bias"].shape, found["head.polar_mask.bias"].shape
    except (KeyError, ValueError) as error:
        raise WeightsError(f"These weights are not a PolarMask network's ({error}).") from None
    if not all(depths) or num_classes < 1 or rays < 1:
        raise WeightsError("These weights are not a PolarMask network's: its ResNet or its head has no such shape.")
    config = {"net": {"num_classes": num_classes, "depths": depths, "rays": rays}, "preprocess": {"mean": list(MEAN), "scale": list(SCALE), "keep_ratio": False}}
    with shapes_only():
        wanted = {k: v for k, v in build(config).state_dict().items()}
    counters = {k for k in wanted if k.endswith("num_batches_tracked")}
    told = weights.misfits(
        [k for k in wanted if k not in found and k not in counters], [k for k in found if k not in wanted], [k for k, v in wanted.items() if k in found and found[k].shape != v.shape]
    )
    if told:
        raise WeightsError(f"These weights are not a whole PolarMask network with an R-50 or R-101: {told}.")
    zero = torch.zeros((), dtype=torch.long)
    return {k: found.get(k, zero).detach().to(v.dtype).clone() for k, v in wanted.items()}, config


def build(config: dict) -> PolarMask:
    """The network that `config` describes, with any weights."""
    return PolarMask(**{**config["net"], "depths": tuple(config["net"]["depths"])})


def save(file: str | Path, folder: str | Path) -> Path:
    """Write the authors' checkpoint `file` as `folder` in Hub format, model.safetensors and config.json; returns the folder. Raises WeightsError."""
    return checkpoints.save(*tensors(read(file)), folder)


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("file", type=Path, help="an epoch_*.pth of the authors")
    p.add_argument("folder", type=Path, help="where model.safetensors and config.json go")
    a = p.parse_args()
    checkpoints.in_words(lambda: save(a.file, a.folder))
