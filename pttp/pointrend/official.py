"""The authors' checkpoints (model_final_*.pkl) as weights that this package loads.

`python -m pttp.pointrend.official model_final_edd263.pkl FOLDER` writes FOLDER/model.safetensors and FOLDER/config.json.
"""
from __future__ import annotations

import argparse
import codecs
import pickle
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pttp import checkpoints, weights
from pttp.errors import WeightsError
from pttp.pointrend.model import PointRend, SemanticPointRend
from pttp.pointrend.preprocess import MEAN, STD
from pttp.vision import shapes_only

RESNEXT_STD = (57.375, 57.12, 58.395)  # pictures of the X101 network are divided by it
IGNORED = re.compile(r"pixel_(mean|std)|.*anchor_generator\.cell_anchors\..*")  # constants that older files carry along
LEGACY = (
    (r"^roi_heads\.mask_(point|coarse)_head\.", r"roi_heads.mask_head.\1_head."),
    (r"\.coarse_mask_fc(\d)\.", r".fc\1."),
)
NAMES = (  # theirs -> ours, applied in this order
    (r"^backbone\.fpn_lateral(\d)\.", lambda m: f"backbone.fpn.inner_blocks.{int(m[1]) - 2}.0."),
    (r"^backbone\.fpn_output(\d)\.", lambda m: f"backbone.fpn.layer_blocks.{int(m[1]) - 2}.0."),
    (r"^backbone\.bottom_up\.(?:stem\.)?", "backbone.body."),
    (r"\.res(\d)\.", lambda m: f".layer{int(m[1]) - 1}."),
    (r"\.shortcut\.norm\.", ".downsample.1."),
    (r"\.shortcut\.", ".downsample.0."),
    (r"^(backbone\..*)\.conv(\d)\.norm\.", r"\1.bn\2."),
    (r"^proposal_generator\.rpn_head\.", "rpn."),
    (r"^roi_heads\.box_(?:head|predictor)\.", "box_head."),
    (r"^roi_heads\.mask_head\.", ""),
    (r"^sem_seg_head\.coarse_sem_seg_head\.", "coarse_head."),
    (r"^sem_seg_head\.", ""),
    (r"^(coarse_head\.p\d\.\d)\.weight$", r"\1.conv.weight"),
)


def our_name(name: str) -> str:
    """The authors' name of a tensor, of either generation, -> ours."""
    for pattern, ours in (*LEGACY, *NAMES):
        name = re.sub(pattern, ours, name)
    return name


def _latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"the encoding {encoding!r} is not one that arrays are written with")
    return codecs.encode(text, encoding)


_RECONSTRUCT = np.empty(0).__reduce__()[0]  # makes an empty array, which the pickle then fills


class ArraysOnly(pickle.Unpickler):
    """Reads containers, numbers, strings and numpy arrays. Whatever else a pickle names, to call or to build, is refused before it is looked up."""

    ADMITTED = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
        ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
        ("_codecs", "encode"): _latin1,
        ("collections", "OrderedDict"): OrderedDict,
    }

    def find_class(self, module: str, name: str):
        if (module, name) not in self.ADMITTED:
            raise pickle.UnpicklingError(f"{module}.{name} is not an array")
        return self.ADMITTED[module, name]


def read(file: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a model_final_*.pkl by the authors' names. Nothing in the file is executed. Raises WeightsError for anything but a table of arrays."""
    try:
        with open(file, "rb") as f:
            content = ArraysOnly(f, encoding="latin1").load()
    except FileNotFoundError as error:
        raise WeightsError(f"There is no file {file}.") from error
    except Exception as error:  # a file that is no pickle of arrays can make the reader stumble in any way
        why = f" ({error})" if isinstance(error, pickle.UnpicklingError) else ""
        raise WeightsError(f"{file} cannot be read safely{why}: give one of the authors' model_final_*.pkl, which hold arrays only.") from error
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict) or not all(isinstance(k, str) and isinstance(v, np.ndarray) and v.dtype.kind in "fiu" for k, v in model.items()):
        raise WeightsError(f"{file} does not hold a model, a table of named arrays: give one of the authors' model_final_*.pkl.")
    return model


def _blocks(names: Iterable[str], stage: int) -> int:
    return len({m[1] for name in names if (m := re.match(rf"backbone\.body\.layer{stage}\.(\d+)\.", name))})


def config_of(tensors: Mapping[str, Tensor | np.ndarray]) -> dict:
    """What config.json says of the network whose weights these are (our names): the arguments of its class, and how pictures are normalised. Raises
    WeightsError."""
    kind = "instance" if "box_head.fc1.weight" in tensors else "semantic"
    try:
        num_classes, _, _ = tensors["point_head.predictor.weight"].shape
        width, width_per_group, _, _ = tensors["backbone.body.layer1.0.conv2.weight"].shape
        groups, rest = divmod(width, width_per_group)
    except (KeyError, ValueError, ZeroDivisionError) as error:
        raise WeightsError(f"These weights are not a PointRend network's ({error}).") from None
    net = {"num_classes": num_classes, "depths": [_blocks(tensors, stage) for stage in (1, 2, 3, 4)]}
    if rest or num_classes < 1 or not all(net["depths"]):
        raise WeightsError("These weights are not a PointRend network's: its ResNet has no such shape.")
    if groups > 1:  # ResNeXt, which strides in the 3 x 3
        net |= {"groups": groups, "width_per_group": width_per_group, "stride_in_1x1": False}
    return {"kind": kind, "net": net, "preprocess": {"mean": list(MEAN), "std": list(RESNEXT_STD if groups > 1 else STD)}}


def build(config: dict) -> PointRend | SemanticPointRend:
    """The network that `config` (see `config_of`) describes, with any weights."""
    options = {**config["net"], "depths": tuple(config["net"]["depths"])}
    return PointRend(**options) if config["kind"] == "instance" else SemanticPointRend(**options)


def tensors(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, Tensor], dict]:
    """The authors' arrays by name -> our state dict (float32) and config. Batch norm's counters, which they do not have, are zero. Raises WeightsError unless
    it is a whole network."""
    found = {our_name(name): array for name, array in arrays.items() if not IGNORED.fullmatch(name)}
    config = config_of(found)
    with shapes_only():
        wanted = {k: tuple(v.shape) for k, v in build(config).state_dict().items()}
    counters = {k for k in wanted if k.endswith("num_batches_tracked")}
    told = weights.misfits(
        [k for k in wanted if k not in found and k not in counters], [k for k in found if k not in wanted], [k for k, shape in wanted.items() if k in found and found[k].shape != shape]
    )
    if told:
        raise WeightsError(f"These weights are not a whole PointRend network: {told}.")
    state = {k: torch.zeros((), dtype=torch.long) if k in counters else torch.from_numpy(np.array(found[k], dtype=np.float32)) for k in wanted}
    return state, config


def save(file: str | Path, folder: str | Path) -> Path:
    """Write the authors' checkpoint `file` as `folder` in Hub format, model.safetensors and config.json; returns the folder. Raises WeightsError."""
    return checkpoints.save(*tensors(read(file)), folder)


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("file", type=Path, help="model_final_*.pkl")
    p.add_argument("folder", type=Path, help="where model.safetensors and config.json go")
    a = p.parse_args()
    checkpoints.in_words(lambda: save(a.file, a.folder))
