"""StegaStamp for answering only: the same functions as `model.StegaStamp` in evaluation mode, in a form that takes half to three quarters of the time on a CPU.

Maps stay channels last, weights are laid out once as oneDNN wants them (torch by itself does that at every call), the ReLU is done while a convolution writes
its output, and batch norm (the detector's) is folded into the convolution before it. What is left to save is copying:

* TensorFlow's SAME padding is uneven where the stride is 2 or the kernel 2, and `F.pad` would copy the whole map for it. Here every map of the encoder and the
  decoder has one more row above and one more column on the left, of zeros: (B, c, n + 1, n + 1). Padding evenly by one then gives TensorFlow's windows and the
  next map with its own additional row and column, which are set to zero: for kernel 3 with stride 1 and, where n is even, stride 2, and for kernel 2 on a
  map without them. (The model's maps have even n wherever a stride of 2 follows, except before the decoder's last convolution.)
* A convolution of several maps side by side is the sum of one for each: no `torch.cat`.

A call changes no state, so that threads may share the form.
"""
from __future__ import annotations

import copy
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pttp import trunk
from pttp.folding import folded
from pttp.stegastamp.detect import Detector, Maps
from pttp.stegastamp.model import Conv, Decoder, Encoder, StegaStamp, double, spatial_transform
from pttp.trunk import Wide

LAST = torch.channels_last


@cache
def packs() -> bool:
    """Whether torch offers the two operators with which weights stay in oneDNN's layout. They are private to torch (torch.compile uses them), so they are tried first."""
    x, weight, where = torch.full((1, 1, 2, 2), 9.0), torch.ones(1, 1, 1, 1), ([0, 0], [1, 1], [1, 1], 1)
    try:
        packed = torch.ops.mkldnn._reorder_convolution_weight(weight, *where, [1, 1, 2, 2])
        y = torch.ops.mkldnn._convolution_pointwise.default(x, packed, None, *where, "hardtanh", [0.0, 6.0], "")
        y = torch.ops.mkldnn._convolution_pointwise_.binary(y, x, packed, None, *where, "add", 1.0, "relu", [], "")
    except (AttributeError, RuntimeError, TypeError):
        return False
    return bool((y == 15).all())


class Convolution:
    """A convolution, the batch norm behind it if there is one, and an activation: (B, c, H, W) channels last -> the same, padded evenly by `padding`."""

    def __init__(self, conv: nn.Conv2d, bn: nn.BatchNorm2d | None = None, activation: str = "relu", padding: int | None = None):
        weight, self.bias = folded(conv, bn)
        self.where = [conv.padding[0] if padding is None else padding] * 2, list(conv.stride), list(conv.dilation), conv.groups
        self.activation = activation
        self.packs = weight.device.type == "cpu" and weight.dtype == torch.float32 and packs()
        self.weight = self._packed(weight) if self.packs else weight

    def _packed(self, weight: Tensor) -> Tensor:
        channels = weight.shape[1] * self.where[-1]
        return torch.ops.mkldnn._reorder_convolution_weight(weight, *self.where, [1, channels, 64, 64])  # right for any size, best for such

    def __call__(self, x: Tensor) -> Tensor:
        name, limits = ("hardtanh", [0.0, 6.0]) if self.activation == "relu6" else (self.activation, [])
        if self.packs:
            return torch.ops.mkldnn._convolution_pointwise.default(x, self.weight, self.bias, *self.where, name, limits, "")
        padding, stride, dilation, groups = self.where
        return self._activated(F.conv2d(x, self.weight, self.bias, stride, padding, dilation, groups))

    def _activated(self, y: Tensor) -> Tensor:
        return y if self.activation == "none" else y.relu_() if self.activation == "relu" else y.clamp_(0, 6)


class Same(Convolution):
    """A `model.Conv` and a ReLU between maps with the additional zeros, see the module."""

    def __init__(self, conv: Conv):
        super().__init__(conv, padding=1)

    def __call__(self, x: Tensor) -> Tensor:
        return with_zeros(super().__call__(x))


class Joined:
    """A `model.Conv` of several maps of `channels` side by side, and a ReLU."""

    def __init__(self, conv: Conv, channels: tuple[int, ...]):
        self.whole = Convolution(conv, padding=1)
        if self.whole.packs:
            self.parts = [self.whole._packed(w.contiguous(memory_format=LAST)) for w in conv.weight.detach().split(channels, 1)]

    def __call__(self, *maps: Tensor) -> Tensor:
        whole = self.whole
        if not whole.packs:
            return with_zeros(whole(torch.cat(maps, 1)))
        y = torch.ops.mkldnn._convolution_pointwise.default(maps[0], self.parts[0], whole.bias, *whole.where, "none", [], "")
        for i, (x, weight) in enumerate(zip(maps[1:], self.parts[1:], strict=True), 2):
            torch.ops.mkldnn._convolution_pointwise_.binary(y, x, weight, None, *whole.where, "add", 1.0, "relu" if i == len(maps) else None, [], "")
        return with_zeros(y)


def with_zeros(y: Tensor) -> Tensor:
    y[:, :, 0] = 0
    y[:, :, :, 0] = 0
    return y


def widened(x: Tensor) -> Tensor:
    """A map gets its additional row and column."""
    return F.pad(x, (1, 0, 1, 0)).contiguous(memory_format=LAST)


def bare(x: Tensor) -> Tensor:
    """A map loses them."""
    return x[:, :, 1:, 1:]


def doubled(x: Tensor) -> Tensor:
    return double(bare(x).contiguous(memory_format=LAST))


class FastEncoder(nn.Module):
    """`Encoder.forward`, without gradients."""

    def __init__(self, net: Encoder):
        super().__init__()
        self.grid, self.secret = net.grid, copy.deepcopy(net.secret).requires_grad_(False)
        joined = {"conv6": (128, 128), "conv7": (64, 64), "conv8": (32, 32), "conv9": (32, 32, 6)}
        plain = ("conv1", "conv2", "conv3", "conv4", "conv5", "up6", "up7", "up8", "up9")
        self.conv = {name: Same(getattr(net, name)) for name in plain} | {name: Joined(getattr(net, name), chs) for name, chs in joined.items()}
        self.residual = Convolution(net.residual, activation="none")

    def __deepcopy__(self, memo: dict) -> FastEncoder:
        return self  # nothing changes it, and weights in oneDNN's layout cannot be copied

    @torch.no_grad()
    def forward(self, image: Tensor, secret: Tensor) -> Tensor:
        """`image` (B, 3, S, S) RGB in [0, 1], `secret` (B, bits) -> residual (B, 3, S, S)."""
        c = self.conv
        s = F.relu(self.secret(secret - 0.5)).view(-1, 3, self.grid, self.grid)
        x = widened(torch.cat([F.interpolate(s, scale_factor=8, mode="nearest"), image - 0.5], 1))
        c1 = c["conv1"](x)
        c2 = c["conv2"](c1)
        c3 = c["conv3"](c2)
        c4 = c["conv4"](c3)
        c6 = c["conv6"](c4, c["up6"](doubled(c["conv5"](c4))))
        c7 = c["conv7"](c3, c["up7"](doubled(c6)))
        c8 = c["conv8"](c2, c["up8"](doubled(c7)))
        c9 = c["conv9"](c1, c["up9"](doubled(c8)), x)
        return bare(self.residual(c9)).contiguous()


class FastDecoder(nn.Module):
    """`Decoder.forward`, without gradients."""

    def __init__(self, net: Decoder):
        super().__init__()
        self.locator_grid = net.locator_grid
        convs = [m for m in net.reader if isinstance(m, Conv)]
        self.locator, self.reader = ([Same(m) for m in part] for part in ((m for m in net.locator if isinstance(m, Conv)), convs[:-1]))
        self.last, self.last_of_odd = Same(convs[-1]), Convolution(convs[-1], padding=1)
        self.locator_hidden, self.theta, self.hidden, self.bits = (copy.deepcopy(m).requires_grad_(False) for m in (net.locator_hidden, net.theta, net.hidden, net.bits))

    def __deepcopy__(self, memo: dict) -> FastDecoder:
        return self

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """`image` (B, 3, S, S) RGB in [0, 1] -> logits (B, bits)."""
        image = image - 0.5
        x = widened(image)
        for layer in self.locator:
            x = layer(x)
        x = bare(x)
        if self.locator_grid:
            x = F.adaptive_avg_pool2d(x, self.locator_grid)
        theta = self.theta(F.relu(self.locator_hidden(x.flatten(1))))
        x = widened(spatial_transform(image, theta))
        for layer in self.reader:
            x = layer(x)  # at the end (B, 128, S / 16 + 1, S / 16 + 1)
        odd = x.shape[-1] % 2 == 0  # without the additional column
        x = self.last_of_odd(bare(x).contiguous(memory_format=LAST)) if odd else bare(self.last(x))
        return self.bits(F.relu(self.hidden(x.flatten(1))))


class Steps:
    """Layers one after the other; with `add`, what comes in is added to what comes out, and a ReLU follows if `relu`."""

    def __init__(self, steps: list, add: bool = False, relu: bool = False):
        self.steps, self.add, self.relu = steps, add, relu

    def __call__(self, x: Tensor) -> Tensor:
        y = x
        for step in self.steps:
            y = step(y)
        y = y.add_(x) if self.add else y
        return y.relu_() if self.relu else y


def _block(module: nn.Module) -> Steps:
    """The parts of the detector and its trunk that are convolutions with batch norm."""
    if isinstance(module, trunk.DepthwiseSeparable):
        return Steps([Convolution(module.conv_dw, module.bn1, "relu6"), Convolution(module.conv_pw, module.bn2, "none")], module.residual)
    if isinstance(module, trunk.InvertedResidual):
        first, second = Convolution(module.conv_pw, module.bn1, "relu6"), Convolution(module.conv_dw, module.bn2, "relu6")
        return Steps([first, second, Convolution(module.conv_pwl, module.bn3, "none")], module.residual)
    if isinstance(module, Wide):
        body = module.body
        return Steps([_block(body[0]), Convolution(body[1], body[2], "none")], add=True, relu=True)
    if isinstance(module[0], nn.Conv2d):  # trunk.conv
        return Steps([Convolution(module[0], module[1], "relu")])
    return Steps([_block(part) for part in module])


class FastDetector(nn.Module):
    """`Detector.forward`, without gradients."""

    def __init__(self, net: Detector):
        super().__init__()
        t = net.trunk
        self.stem, self.stages = Convolution(t.conv_stem, t.bn1, "relu6"), [_block(stage) for stage in t.blocks]
        names = ("enter", "down", "context", "middle", "head", "up8", "side8", "wide8", "up4", "side4", "last4")
        self.part = {name: _block(getattr(net, name)) for name in names}
        self.mask, self.centre, self.corners = (copy.deepcopy(m).requires_grad_(False) for m in (net.mask, net.centre, net.corners))

    def __deepcopy__(self, memo: dict) -> FastDetector:
        return self

    @torch.no_grad()
    def forward(self, frame: Tensor) -> Maps:
        """`frame` (B, 3, H, W) RGB in [0, 1], H and W multiples of 16."""
        x, maps, part = self.stem(((frame - trunk.MEAN) / trunk.STD).contiguous(memory_format=LAST)), {}, self.part
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i in trunk.TAPS:
                maps[trunk.TAPS[i]] = x
        near = part["enter"](maps[16])
        far = part["context"](part["down"](near))
        x = part["middle"](F.interpolate(far, size=near.shape[-2:], mode="bilinear", align_corners=False).add_(near))
        head = part["head"](x)
        m = part["wide8"](_doubled(part["up8"](x)).add_(part["side8"](maps[8])))
        m = part["last4"](_doubled(part["up4"](m)).add_(part["side4"](maps[4])))
        return Maps(self.mask(m), self.centre(head), self.corners(head))


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class FastStegaStamp(nn.Module):
    """What `inference_form` returns: `size`, `n_bits`, and `encoder`, `decoder`, `detector` (or None), which take and give what those of StegaStamp do."""

    def __init__(self, net: StegaStamp):
        super().__init__()
        self.size, self.n_bits = net.size, net.n_bits
        self.encoder, self.decoder = FastEncoder(net.encoder), FastDecoder(net.decoder)
        self.detector = FastDetector(net.detector) if net.detector is not None else None
        self.eval()


def inference_form(net: StegaStamp) -> FastStegaStamp:
    """A copy of `net` that computes what `net.eval()` does (within 1e-4) in less time.

    Any size, locator grid and batch; on the device and in the type of `net` as it is now: move `net` first. Later changes of `net` do not reach it.
    """
    return FastStegaStamp(net)
