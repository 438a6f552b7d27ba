"""GFM for answering only: the same functions with batch norm folded into the convolution before it and all maps channels last."""
from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pttp.gfm.slim import Finest

BLOCKS = {  # attributes of a convolution and the norm behind it, where they do not stand in a row
    "BasicBlock": (("conv1", "bn1"), ("conv2", "bn2")),
    "Bottleneck": (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3")),
    "Trunk": (("conv_stem", "bn1"),),
    "DepthwiseSeparable": (("conv_dw", "bn1"), ("conv_pw", "bn2")),
    "InvertedResidual": (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")),
}


def inference_form(net: nn.Module) -> nn.Module:
    """A copy of a `GFM` or `SlimGFM` in evaluation mode that answers the same, up to rounding, in less time. `net` stays as it is.

    In a DenseNet the norm comes before the convolution, so that only its first layers have anything to fold.
    """
    form = copy.deepcopy(net).eval().requires_grad_(False)
    for module in list(form.modules()):
        if isinstance(module, Finest):
            fold_sum(module)
        elif isinstance(module, nn.Sequential):
            names = list(module._modules)
            for conv, norm in zip(names, names[1:], strict=False):
                fold(module, conv, norm)
        else:
            for conv, norm in BLOCKS.get(type(module).__name__, ()):
                fold(module, conv, norm)
    return form.to(memory_format=torch.channels_last)


def fold(module: nn.Module, conv: str, norm: str) -> None:
    """Put the one convolution that equals `conv` and then `norm` in their place, if that is what they are."""
    first, second = getattr(module, conv), getattr(module, norm)
    if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
        setattr(module, conv, fuse_conv_bn_eval(first, second))
        setattr(module, norm, nn.Identity())


def fold_sum(part: Finest) -> None:
    """Batch norm of a sum of two convolutions: both are scaled, and one of them takes the offset."""
    gain = part.norm.weight / (part.norm.running_var + part.norm.eps).sqrt()
    for conv in (part.above, part.beside):
        conv.weight.data *= gain.view(-1, 1, 1, 1)
    part.beside.bias = nn.Parameter(part.norm.bias - part.norm.running_mean * gain, requires_grad=False)
    part.norm = nn.Identity()
