"""Batch norm in evaluation mode folded into the convolution before it, for the inference forms that lay out their weights themselves."""
from __future__ import annotations

import torch
from torch import Tensor, nn


def folded(conv: nn.Conv2d, bn: nn.BatchNorm2d | None = None) -> tuple[Tensor, Tensor]:
    """Weight (channels last) and bias of the one convolution that equals `conv` followed by `bn` in evaluation mode, in the type and on the device of `conv`.

    Computed in float64, so that only the result is rounded, and on the CPU: not every device has float64.
    """
    weight = conv.weight.detach().cpu().double()
    bias = weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias.detach().cpu().double()
    if bn is not None:
        mean, variance = bn.running_mean.cpu().double(), bn.running_var.cpu().double()
        gain = bn.weight.detach().cpu().double() / (variance + bn.eps).sqrt()
        weight = weight * gain.view(-1, 1, 1, 1)
        bias = (bias - mean) * gain + bn.bias.detach().cpu().double()
    return weight.to(conv.weight).contiguous(memory_format=torch.channels_last), bias.to(conv.weight)
