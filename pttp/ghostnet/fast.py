"""GhostNet for answering only: the same function as `model.GhostNet` in evaluation mode, in a form that takes less time on a CPU.

Batch norm is folded into the convolution before it. Maps are kept channels last, (B, H, W, C), where a depthwise convolution needs no reordering. Weights are
laid out once as oneDNN wants them; torch by itself does that at every call. ReLU, gate and sum work in place. A call changes no state, so threads may share
the network. At batch 1 it is some 200 small steps, and what a step costs beside its arithmetic counts: hence plain callables below, not modules.
"""
from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pttp.folding import folded
from pttp.ghostnet.model import GhostBottleneck, GhostModule, GhostNet, SqueezeExcite


@cache
def packs() -> bool:
    """Whether torch offers the two operators with which weights stay in oneDNN's layout. They are private to torch (torch.compile uses them), so they are tried first."""
    x, weight, where = torch.ones(1, 1, 2, 2), torch.full((1, 1, 1, 1), -2.0), ([0, 0], [1, 1], [1, 1], 1)
    try:
        packed = torch.ops.mkldnn._reorder_convolution_weight(weight, *where, [1, 1, 2, 2])
        y = torch.ops.mkldnn._convolution_pointwise.default(x, packed, None, *where, "relu", [], "")
    except (AttributeError, RuntimeError, TypeError):
        return False
    return bool((y == 0).all())


class Convolution:
    """A convolution, the batch norm that follows it, and a ReLU if wanted: (B, H, W, c) -> (B, H / stride, W / stride, n)."""

    def __init__(self, conv: nn.Conv2d, bn: nn.BatchNorm2d, relu: bool = False):
        self.weight, self.bias = folded(conv, bn)
        self.where = list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups
        self.relu = relu
        self.convolve = None
        if self.weight.device.type == "cpu" and self.weight.dtype == torch.float32 and packs():
            self.convolve = torch.ops.mkldnn._convolution_pointwise.default
            # the best layout may depend on the map's size; with another size than this the result is the same
            self.weight = torch.ops.mkldnn._reorder_convolution_weight(self.weight, *self.where, [1, conv.in_channels, 28, 28])

    def __call__(self, x: Tensor) -> Tensor:
        x = x.permute(0, 3, 1, 2)
        if self.convolve:
            y = self.convolve(x, self.weight, self.bias, *self.where, "relu" if self.relu else "none", [], "")
        else:
            padding, stride, dilation, groups = self.where
            y = F.conv2d(x, self.weight, self.bias, stride, padding, dilation, groups)
            y = y.relu_() if self.relu else y
        return y.permute(0, 2, 3, 1)


class Dense:
    """A 1 x 1 convolution of vectors, for which a matrix product has the least to prepare: (B, 1, 1, c) -> (B, 1, 1, n)."""

    def __init__(self, conv: nn.Conv2d):
        weight, self.bias = folded(conv)
        self.matrix = weight.flatten(1)  # (n, c)

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.matrix, self.bias)


class Ghosts:
    """A ghost module: (B, H, W, c) -> (B, H, W, n)."""

    def __init__(self, module: GhostModule):
        (primary, bn1, act), (cheap, bn2, _) = module.primary_conv, module.cheap_operation
        relu = isinstance(act, nn.ReLU)
        self.primary, self.cheap = Convolution(primary, bn1, relu), Convolution(cheap, bn2, relu)
        spare = primary.out_channels + cheap.out_channels - module.oup
        self.kept = slice(None, -spare) if spare else None

    def __call__(self, x: Tensor) -> Tensor:
        intrinsic = self.primary(x)
        ghost = self.cheap(intrinsic)
        if self.kept:
            ghost = ghost[..., self.kept]
        return torch.cat((intrinsic, ghost), 3)


class Gate:
    """Squeeze-excite, in place."""

    def __init__(self, se: SqueezeExcite):
        self.reduce, self.expand = Dense(se.conv_reduce), Dense(se.conv_expand)

    def __call__(self, x: Tensor) -> Tensor:
        return x.mul_(F.hardsigmoid(self.expand(self.reduce(x.mean((1, 2), True)).relu_())))


class Bottleneck:
    """A ghost bottleneck: (B, H, W, c) -> (B, H / stride, W / stride, n)."""

    def __init__(self, block: GhostBottleneck):
        self.steps = [Ghosts(block.ghost1)]
        if block.stride > 1:
            self.steps.append(Convolution(block.conv_dw, block.bn_dw))
        if block.se is not None:
            self.steps.append(Gate(block.se))
        self.steps.append(Ghosts(block.ghost2))
        convs = list(block.shortcut)
        self.shortcut = [Convolution(conv, bn) for conv, bn in zip(convs[::2], convs[1::2])]

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
        self.steps = [
            Convolution(net.conv_stem, net.bn1, relu=True),
            *(Bottleneck(block) for stage in net.blocks[:-1] for block in stage),
            Convolution(last.conv, last.bn1, relu=True),
        ]
        self.head = Dense(net.conv_head)
        self.classifier = net.classifier.weight.detach().clone(), net.classifier.bias.detach().clone()
        self.eval()

    def __deepcopy__(self, memo: dict) -> FastGhostNet:
        return self  # nothing can change it, and weights in oneDNN's layout cannot be copied

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """`x` (B, 3, H, W), ImageNet-normalised -> logits (B, num_classes)."""
        y = x.permute(0, 2, 3, 1).contiguous()
        for step in self.steps:
            y = step(y)  # at the end (B, h, w, 960 * width)
        y = self.head(y.mean((1, 2), True)).relu_()  # (B, 1, 1, 1280)
        return F.linear(y.flatten(1), *self.classifier)


def inference_form(net: GhostNet) -> FastGhostNet:
    """A copy of `net` that computes the same logits as `net.eval()` (within 1e-4) in less time.

    Any width and ratio, any batch and input size; on the device and in the type of `net` as it is now: move `net` first. Later changes of `net` do not reach it.
    """
    return FastGhostNet(net)
