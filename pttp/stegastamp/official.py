"""The authors' weights: TensorFlow variables by name -> our state dicts.

The authors' SavedModels are no longer online. Whoever holds one can write its variables (or the constants of the frozen graph) to an .npz file,
name -> array, in any environment that has TensorFlow, and convert it here: `python -m pttp.stegastamp.official variables.npz FOLDER`.
No TensorFlow and no pickle is needed on this side.
"""
from __future__ import annotations

import argparse
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pttp import checkpoints
from pttp.errors import WeightsError
from pttp.stegastamp.model import StegaStamp

# Layers in the order in which the authors' constructors make them: TensorFlow numbers them over the whole graph, so that the order is what
# identifies them. None: computed by the authors, but used by nothing.
ENCODER = ("conv1", "conv2", "conv3", "conv4", "conv5", "up6", "conv6", "up7", "conv7", "up8", "conv8", "up9", "conv9", None, "residual")
LOCATOR = ("locator.0", "locator.2", "locator.4")
READER = tuple(f"reader.{2 * i}" for i in range(7))
CRITIC = tuple(f"layers.{2 * i}" for i in range(5))


def _layers(variables: Mapping[str, np.ndarray], scope: str, kind: str) -> list[str]:
    """Names (without /kernel) of the `kind` layers (conv2d, dense) under `scope`, in order of their number."""
    found = {}
    for name in variables:
        match = re.search(rf"(?:^|/){scope}/(?:.*/)?({kind}(?:_(\d+))?)/kernel$", name)
        if match:
            found[int(match[2] or 0)] = name.removesuffix("/kernel")
    return [found[number] for number in sorted(found)]


def _named(variables: Mapping[str, np.ndarray], scope: str, kind: str, ours: tuple[str | None, ...]) -> dict[str, str]:
    theirs = _layers(variables, scope, kind)
    if len(theirs) != len(ours):
        raise WeightsError(f"These variables are not a StegaStamp's: {len(ours)} {kind} kernels are expected under {scope}/, {len(theirs)} are there.")
    return {our: their for our, their in zip(ours, theirs, strict=True) if our}


def _get(variables: Mapping[str, np.ndarray], name: str) -> Tensor:
    if name not in variables:
        raise WeightsError(f"The variable {name} is missing: export every variable of the graph.")
    return torch.from_numpy(np.array(variables[name], dtype=np.float32))


def _conv(variables: Mapping[str, np.ndarray], their: str, our: str) -> dict[str, Tensor]:
    kernel = _get(variables, f"{their}/kernel").permute(3, 2, 0, 1).contiguous()  # HWIO -> OIHW
    return {f"{our}.weight": kernel, f"{our}.bias": _get(variables, f"{their}/bias")}


def _dense(variables: Mapping[str, np.ndarray], their: str, our: str, chs_in: int | None = None, chs_out: int | None = None) -> dict[str, Tensor]:
    """TensorFlow flattens maps as HWC, PyTorch as CHW: the rows (or columns) are re-ordered once, here."""
    weight, bias = _get(variables, f"{their}/kernel").T, _get(variables, f"{their}/bias")  # (out, in)
    if chs_in:
        side = round((weight.shape[1] / chs_in) ** 0.5)
        weight = weight.reshape(-1, side, side, chs_in).permute(0, 3, 1, 2).flatten(1)
    if chs_out:
        side = round((weight.shape[0] / chs_out) ** 0.5)
        weight = weight.reshape(side, side, chs_out, -1).permute(2, 0, 1, 3).flatten(0, 2)
        bias = bias.reshape(side, side, chs_out).permute(2, 0, 1).flatten()
    return {f"{our}.weight": weight.contiguous(), f"{our}.bias": bias}


def clean(variables: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Names without the `:0` that TensorFlow puts behind a tensor, and without `/read`."""
    return {name.removesuffix(":0").removesuffix("/read"): array for name, array in variables.items()}


def state_dict(variables: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """`variables` of the authors' encoder and decoder -> state dict of `StegaStamp` (size and number of bits follow from the shapes).

    Raises WeightsError when a variable is missing. The authors' unused convolution (`conv2d_13`) is left out.
    """
    variables = clean(variables)
    encoder, decoder = {}, {}
    for our, their in _named(variables, "stega_stamp_encoder", "conv2d", ENCODER).items():
        encoder |= _conv(variables, their, our)
    encoder |= _dense(variables, *_named(variables, "stega_stamp_encoder", "dense", ("secret",)).values(), "secret", chs_out=3)
    for our, their in _named(variables, "stega_stamp_decoder", "conv2d", LOCATOR + READER).items():
        decoder |= _conv(variables, their, our)
    dense = _named(variables, "stega_stamp_decoder", "dense", ("locator_hidden", "hidden", "bits"))
    for our, chs_in in (("locator_hidden", 128), ("hidden", 128), ("bits", None)):
        decoder |= _dense(variables, dense[our], our, chs_in)
    decoder |= {"theta.weight": _get(variables, "W_fc1").T.contiguous(), "theta.bias": _get(variables, "b_fc1")}
    return {f"encoder.{k}": v for k, v in encoder.items()} | {f"decoder.{k}": v for k, v in decoder.items()}


def critic_state_dict(variables: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """`variables` of the authors' discriminator -> state dict of `Critic`."""
    variables, state = clean(variables), {}
    for our, their in _named(variables, "discriminator", "conv2d", CRITIC).items():
        state |= _conv(variables, their, our)
    return state


def network(variables: Mapping[str, np.ndarray]) -> StegaStamp:
    """The authors' network with these weights. Raises WeightsError when a variable is missing or has an unexpected shape."""
    state = state_dict(variables)
    cells, bits = state["encoder.secret.weight"].shape
    with torch.device("meta"):
        net = StegaStamp(round((cells / 3) ** 0.5) * 8, bits)
    wrong = [f"{k} {tuple(state[k].shape)}" for k, v in net.state_dict().items() if state[k].shape != v.shape]
    if wrong:
        raise WeightsError(f"These variables do not fit together as one StegaStamp: {', '.join(wrong)}.")
    net.load_state_dict(state, assign=True)
    return net.eval()


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """Name -> array from an .npz file; object arrays (pickles) are refused with a WeightsError."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise WeightsError(f"{path} is not an .npz file of plain arrays: write one with numpy.savez.") from error


def save(file: str | Path, folder: str | Path) -> Path:
    """Write the variables in `file` (.npz) as `folder` in Hub format, model.safetensors and config.json; returns the folder. Raises WeightsError as `network` does."""
    net = network(read_npz(file))
    return checkpoints.save(net.state_dict(), net.config, folder)


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("file", type=Path, help=".npz file: variable name -> array")
    p.add_argument("folder", type=Path, help="where model.safetensors and config.json go")
    a = p.parse_args()
    checkpoints.in_words(lambda: save(a.file, a.folder))
