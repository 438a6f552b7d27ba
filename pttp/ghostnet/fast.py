"""GhostNet for answering only: the same function as `model.GhostNet` in evaluation mode, in a form that takes less time on a CPU.

Batch norm is folded into the convolution before it. Maps are kept channels last, (B, H, W, C): there a depthwise convolution needs no reordering and a 1 x 1
convolution is a plain matrix product over the pixels. ReLU, gate and sum work in place. A call changes no state, so threads may share the network.
At batch 1 the network is some 250 small steps, and what every step costs beside its arithmetic counts: hence plain callables below, not modules.
"""
from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pttp.ghostnet.model import GhostBottleneck, GhostModule, GhostNet, SqueezeExcite

# A convolution spends some 20 us on preparations before it starts, a matrix product almost none; on many pixels the convolution is the faster one all the same.
MATRIX_PIXELS = 1024


def folded(conv: nn.Conv2d, bn: nn.BatchNorm2d | None = None) -> tuple[Tensor, Tensor]:
    """Weight (channels last) and bias of the one convolution that equals `conv` followed by `bn` in evaluation mode."""
    weight = conv.weight.detach().double()
    bias = weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias.detach().double()
    if bn is not None:
        gain = bn.weight.detach().double() / (bn.running_var.double() + bn.eps).sqrt()
        weight = weight * gain.view(-1, 1, 1, 1)
        bias = (bias - bn.running_mean.double()) * gain + bn.bias.detach().double()
    kind = conv.weight.dtype
    return weight.to(kind).contiguous(memory_format=torch.channels_last), bias.to(kind)


class Spatial:
    """A k x k convolution, depthwise or not: (B, H, W, c) -> (B, H / stride, W / stride, n)."""

    def __init__(self, conv: nn.Conv2d, bn: nn.BatchNorm2d):
        self.weight, self.bias = folded(conv, bn)
        self.options = conv.stride, conv.padding, conv.dilation, conv.groups

    def __call__(self, x: Tensor) -> Tensor:
        return F.conv2d(x.permute(0, 3, 1, 2), self.weight, self.bias, *self.options).permute(0, 2, 3, 1)


class Pointwise:
    """A 1 x 1 convolution: (B, H, W, c) -> (B, H, W, n)."""

    def __init__(self, conv: nn.Conv2d, bn: nn.BatchNorm2d | None = None):
        self.weight, self.bias = folded(conv, bn)
        self.matrix = self.weight.flatten(1)  # (n, c), the same memory
        self.most = MATRIX_PIXELS * conv.in_channels

    def __call__(self, x: Tensor) -> Tensor:
        if x.numel() <= self.most:
            return F.linear(x, self.matrix, self.bias)
        return F.conv2d(x.permute(0, 3, 1, 2), self.weight, self.bias).permute(0, 2, 3, 1)


class Ghosts:
    """A ghost module: (B, H, W, c) -> (B, H, W, n)."""

    def __init__(self, module: GhostModule):
        conv, bn, act = module.primary_conv
        self.primary, self.cheap = Pointwise(conv, bn), Spatial(*module.cheap_operation[:2])
        self.relu = isinstance(act, nn.ReLU)
        spare = conv.out_channels + module.cheap_operation[0].out_channels - module.oup
        self.kept = slice(None, -spare) if spare else None

    def __call__(self, x: Tensor) -> Tensor:
        intrinsic = self.primary(x)
        if self.relu:
            intrinsic.relu_()
        ghost = self.cheap(intrinsic)
        if self.relu:
            ghost.relu_()
        if self.kept:
            ghost = ghost[..., self.kept]
        return torch.cat((intrinsic, ghost), 3)


class Gate:
    """Squeeze-excite, in place."""

    def __init__(self, se: SqueezeExcite):
        self.reduce, self.expand = Pointwise(se.conv_reduce), Pointwise(se.conv_expand)

    def __call__(self, x: Tensor) -> Tensor:
        return x.mul_(F.hardsigmoid(self.expand(self.reduce(x.mean((1, 2), True)).relu_())))


class Bottleneck:
    """(B, H, W, c) -> (B, H / stride, W / stride, n)."""

    def __init__(self, block: GhostBottleneck):
        self.steps = [Ghosts(block.ghost1)]
        if block.stride > 1:
            self.steps.append(Spatial(block.conv_dw, block.bn_dw))
        if block.se is not None:
            self.steps.append(Gate(block.se))
        self.steps.append(Ghosts(block.ghost2))
        self.shortcut = [Spatial(*block.shortcut[:2]), Pointwise(*block.shortcut[2:])] if len(block.shortcut) else []

    def __call__(self, x: Tensor) -> Tensor:
        y = x
        for step in self.steps:
            y = step(y)
        for step in self.shortcut:
            x = step(x)
        return y.add_(x)


class FastGhostNet(nn.Module):
    """What `inference_form` returns: `forward` takes and gives what GhostNet's does, and records no gradients. It has no parameters to train or to move."""

    def __init__(self, net: GhostNet):
        super().__init__()
        last = net.blocks[-1][0]
        self.stem = Spatial(net.conv_stem, net.bn1)
        self.bottlenecks = [Bottleneck(block) for stage in net.blocks[:-1] for block in stage]
        self.last, self.head = Pointwise(last.conv, last.bn1), Pointwise(net.conv_head)
        self.classifier = net.classifier.weight.detach().clone(), net.classifier.bias.detach().clone()
        self.eval()

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """`x` (B, 3, H, W), ImageNet-normalised -> logits (B, num_classes)."""
        y = self.stem(x.permute(0, 2, 3, 1).contiguous()).relu_()
        for bottleneck in self.bottlenecks:
            y = bottleneck(y)
        y = self.last(y).relu_()  # (B, h, w, 960 * width)
        y = self.head(y.mean((1, 2), True)).relu_()  # (B, 1, 1, 1280)
        return F.linear(y.flatten(1), *self.classifier)


def inference_form(net: GhostNet) -> FastGhostNet:
    """A copy of `net` that computes the same logits as `net.eval()` (within 1e-4) in less time.

    Any width and ratio, any batch and input size; on the device and in the type of `net` as it is now: move `net` first. Later changes of `net` do not reach it.
    """
    return FastGhostNet(net)
