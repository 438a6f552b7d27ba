"""The authors' checkpoints (gfm_r34_tt.pth and the like) as weights that this package loads.

`python -m pttp.gfm.official gfm_r34_2b_tt.pth FOLDER` writes model.safetensors and config.json. The files hold the backbone twice, once under torchvision's
names (`resnet.`, `densenet.`) and once under those of the network's own stages, and parts that nothing computes with.
"""
from __future__ import annotations

import argparse
import zipfile
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from pttp import checkpoints, weights
from pttp.errors import WeightsError
from pttp.gfm.model import GFM, ROSTAS
from pttp.vision import shapes_only

# start of our name -> start of the second name of the same tensor
_RESNET = {"encoder0.0.": "resnet.conv1.", "encoder0.1.": "resnet.bn1.", "encoder1.1.": "resnet.layer1."} | {f"encoder{i}.": f"resnet.layer{i}." for i in (2, 3, 4)}
_DENSENET = {"encoder0.0.": "densenet.features.conv0.", "encoder0.1.": "densenet.features.norm0.", "encoder4.0.": "densenet.features.denseblock4."}
_DENSENET |= {f"encoder{i}.{j}.": f"densenet.features.{part}{i}." for i in (1, 2, 3) for j, part in enumerate(("denseblock", "transition"))}
TWINS = {"r34": _RESNET, "r101": _RESNET, "d121": _DENSENET, "r34_2b": {f"encoder{i}.": f"resnet.layer{i}." for i in (1, 2, 3, 4)}}
UNUSED = {  # in the files, but not in any computation
    "r34": ("resnet.fc.",),
    "r101": ("resnet.fc.",),
    "d121": ("densenet.features.norm5.", "densenet.classifier."),
    "r34_2b": ("resnet.conv1.", "resnet.bn1.", "resnet.fc.", "psp1."),
}


def twin(backbone: str, name: str) -> str | None:
    """The second name under which the authors' file holds the tensor that we call `name`; None where it has one name only."""
    return next((theirs + name.removeprefix(ours) for ours, theirs in TWINS[backbone].items() if name.startswith(ours)), None)


def variant(state: Mapping[str, Tensor]) -> tuple[str, tuple[str, ...]]:
    """Backbone that the names in `state` speak of, and the RoSTas that fit its names and shapes: one, or FT and BT, which look alike."""
    names = list(state)
    if any(name.startswith("densenet.") or ".denselayer" in name for name in names):
        backbone = "d121"
    elif any(name.startswith("encoder6.") for name in names):
        backbone = "r34_2b"
    else:
        backbone = "r101" if any(".0.conv3." in name for name in names) else "r34"
    classes = state.get("decoder0_g.0.bias" if backbone == "r34_2b" else "decoder0_g.6.bias", ())
    return backbone, ("RIM",) if "rim.0.weight" in state else ("FT", "BT") if len(classes) == 2 else ("TT",)


def from_state(state: Mapping[str, Tensor], rosta: str | None = None) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The authors' state dict -> arguments of `GFM`, and its state dict (float32, counters int64).

    FT and BT have the same names and shapes, so that `rosta` must say which. Where both names of a tensor are there, the stage's wins, as when the authors
    load the file; one of them is enough. Raises WeightsError unless `state` is a whole GFM and nothing else.
    """
    backbone, possible = variant(state)
    if rosta is None and len(possible) > 1:
        raise WeightsError(f"These weights fit the RoSTas {' and '.join(possible)}: say which one they are of.")
    rosta = rosta or possible[0]
    if rosta not in possible:
        raise WeightsError(f"These weights are of the RoSTa {' or '.join(possible)}, not {rosta}.")
    with shapes_only():
        wanted = {name: v.shape for name, v in GFM(backbone, rosta).state_dict().items()}
    source = {name: name if name in state else twin(backbone, name) for name in wanted}
    known = {*wanted, *(twin(backbone, name) for name in wanted)}
    told = weights.misfits(
        [name for name, theirs in source.items() if theirs not in state],
        [str(name) for name in state if name not in known and not str(name).startswith(UNUSED[backbone])],
        [name for name, theirs in source.items() if theirs in state and state[theirs].shape != wanted[name]],
    )
    if told:
        raise WeightsError(f"These are not the weights of a GFM {backbone} {rosta}: {told}.")
    tensors = {name: state[theirs] for name, theirs in source.items()}
    return {"backbone": backbone, "rosta": rosta}, {k: (v.float() if v.is_floating_point() else v).contiguous() for k, v in tensors.items()}


def read(file: str | Path) -> dict[str, Tensor]:
    """The authors' state dict. Nothing in the file is executed: it may hold tensors and plain containers only. Raises WeightsError for anything else."""
    try:
        state = checkpoints.read(file)
    except WeightsError as error:
        if zipfile.is_zipfile(file) and any(name.endswith(".pth") for name in zipfile.ZipFile(file).namelist()):
            raise WeightsError(f"{file} is an archive: unpack it first and give the .pth file in it.") from error
        raise
    if not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{file} is not a state dict, a table of named tensors: give one of the authors' gfm_*.pth files.")
    return state


def convert(file: str | Path, rosta: str | None = None) -> tuple[dict[str, str], dict[str, Tensor]]:
    """`from_state` of a checkpoint file. Without `rosta` the file's name tells FT from BT, if it is the authors' (gfm_r34_ft.pth)."""
    state = read(file)
    possible = variant(state)[1]
    named = next((one for one in possible if f"_{one.lower()}" in Path(file).stem.lower()), None)
    try:
        return from_state(state, rosta or named)
    except WeightsError as error:
        raise WeightsError(f"{file}: {error}") from error


def network(file: str | Path, rosta: str | None = None) -> GFM:
    """The network of a checkpoint file with its weights, in evaluation mode. Raises WeightsError as `convert` does."""
    config, tensors = convert(file, rosta)
    with shapes_only():
        net = GFM(**config)
    net.load_state_dict(tensors, strict=True, assign=True)
    return net.eval()


def save(file: str | Path, folder: str | Path, rosta: str | None = None) -> Path:
    """Write the checkpoint `file` as a folder in Hub format, model.safetensors and config.json; returns the folder. Raises WeightsError as `convert` does."""
    config, tensors = convert(file, rosta)
    return checkpoints.save(tensors, config, folder)


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("file", type=Path, help="gfm_*.pth")
    p.add_argument("folder", type=Path, help="where model.safetensors and config.json go")
    p.add_argument("--rosta", choices=ROSTAS, help="needed for FT and BT where the file's name does not tell them apart")
    a = p.parse_args()
    checkpoints.in_words(lambda: save(a.file, a.folder, a.rosta))
