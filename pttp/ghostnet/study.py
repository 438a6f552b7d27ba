"""Looking inside GhostNet: what a layer costs, how long it takes, and how much a ghost resembles the map that it was made from.

Nothing here changes the network that it is given, not even for a moment: costs are counted on a copy, maps come from running the network's parts.
"""
from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pttp.errors import BadInput
from pttp.ghostnet.fast import inference_form
from pttp.ghostnet.model import GhostBottleneck, GhostNet

Progress = Callable[[float, str], None]  # (fraction in [0, 1], a sentence)


@dataclass(frozen=True)
class Cost:
    """Of one picture: multiply-accumulates of the convolutions, of the linear layers, of both; and the number of trained values."""

    macs_conv: int
    macs_linear: int
    macs: int
    parameters: int

    def to_dict(self) -> dict:
        return asdict(self)


@dataclass(frozen=True)
class BlockRow:
    """One part of the network: its name, what it is, the (C, H, W) that comes out, MACs per picture, parameters, milliseconds for the given input."""

    name: str
    what: str
    shape: tuple[int, int, int]
    macs: int
    parameters: int
    milliseconds: float

    def to_dict(self) -> dict:
        return asdict(self)


@dataclass(frozen=True)
class GhostPairs:
    """The maps of one ghost module on one picture, float32; ghost j was made from intrinsic map j // (s - 1).

    `intrinsic` (m, h, w), `ghost` (m (s - 1), h, w), both after the ReLU if there is one; `correlation` (m (s - 1),): Pearson's r of a ghost with its
    intrinsic map over the pixels, 0 where one of them is constant; `kernels` (m (s - 1), d, d): the filters of the cheap operation, without batch norm.
    Where n is no multiple of s, the last ghosts are computed but not passed on.
    """

    intrinsic: np.ndarray
    ghost: np.ndarray
    correlation: np.ndarray
    kernels: np.ndarray


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one network over `rounds` calls."""

    name: str
    median: float
    fastest: float
    slowest: float
    rounds: int

    def to_dict(self) -> dict:
        return asdict(self)


@dataclass(frozen=True)
class BenchRow:
    """One network: MACs and parameters on paper, milliseconds (median, fastest, slowest) here."""

    name: str
    macs: int
    parameters: int
    milliseconds: float
    fastest: float
    slowest: float


@dataclass(frozen=True)
class Bench:
    """`rows` after `rounds` rounds at batch 1, `size` x `size`, on `threads` threads."""

    size: int
    rounds: int
    threads: int
    rows: tuple[BenchRow, ...]

    def to_dict(self) -> dict:
        return asdict(self)


def layer_macs(net: nn.Module, size: tuple[int, int]) -> dict[str, int]:
    """MACs of every Conv2d and Linear of `net` that a picture of (height, width) `size` passes, by the layer's name. Bias, norm and activation are not counted."""
    net = copy.deepcopy(net).eval()  # hooks and mode are the copy's, so that nobody else who uses the network sees them
    macs: dict[str, int] = {}

    def count(name: str):
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            each = layer.weight[0].numel()  # products that make one value of the output
            macs[name] = macs.get(name, 0) + output[0].numel() * each

        return hook

    for name, layer in net.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(count(name))
    some = next(net.parameters())
    with torch.no_grad():
        net(torch.zeros(1, 3, *size, device=some.device, dtype=some.dtype))
    return macs


def count(net: nn.Module, size: int = 224) -> Cost:
    """What one `size` x `size` RGB picture costs in `net`, any network of Conv2d and Linear layers."""
    macs = layer_macs(net, (size, size))
    layers = dict(net.named_modules())
    conv = sum(n for name, n in macs.items() if isinstance(layers[name], nn.Conv2d))
    linear = sum(macs.values()) - conv
    return Cost(conv, linear, conv + linear, sum(p.numel() for p in net.parameters()))


def ratio_costs(ratios: tuple[int, ...] = (2, 3, 4), width: float = 1.0) -> dict[int, Cost]:
    """Cost of GhostNet at 224 x 224 by the ratio s of all its ghost modules; the cheap operation stays 3 x 3, as in the paper. Raises BadInput for s < 2."""
    if min(ratios) < 2:
        raise BadInput("The ratio s must be at least 2: with s = 1 no map is a ghost.")
    return {s: _ratio_cost(s, width) for s in ratios}


@cache
def _ratio_cost(ratio: int, width: float) -> Cost:
    return count(GhostNet(width=width, ratio=ratio))


def _bottlenecks(net: GhostNet) -> dict[str, GhostBottleneck]:
    return {name: module for name, module in net.named_modules() if isinstance(module, GhostBottleneck)}


def blocks(net: GhostNet) -> list[str]:
    """Names of the ghost bottlenecks, first to last: "blocks.0.0" and so on."""
    return list(_bottlenecks(net))


def _check_eval(net: nn.Module) -> None:
    if net.training:
        raise BadInput("The network is in training mode, in which looking at it would change its statistics: call net.eval() first.")


def _describe(block: GhostBottleneck) -> str:
    words = f"ghost bottleneck, {block.ghost1.primary_conv[0].in_channels} to {block.ghost1.oup} to {block.ghost2.oup} channels"
    if block.stride > 1:
        words += f", {block.conv_dw.kernel_size[0]} x {block.conv_dw.kernel_size[0]} stride {block.stride}"
    return words + (", squeeze-excite" if block.se is not None else "")


def _parts(net: GhostNet) -> Iterator[tuple[str, str, tuple[nn.Module, ...]]]:
    """(name, what it is, modules to run one after the other), from the picture to the logits."""
    yield "conv_stem", "3 x 3 convolution, stride 2", (net.conv_stem, net.bn1, net.act1)
    for name, block in _bottlenecks(net).items():
        yield name, _describe(block), (block,)
    last = len(net.blocks) - 1
    yield f"blocks.{last}.0", "1 x 1 convolution", (net.blocks[last],)
    yield "conv_head", "average over the map, then a 1 x 1 convolution", (net.global_pool, net.conv_head, net.act2)
    yield "classifier", "linear", (nn.Flatten(), net.classifier)


@torch.inference_mode()
def block_table(net: GhostNet, x: Tensor, repeats: int = 5) -> list[BlockRow]:
    """What every part of `net` costs for `x` (B, 3, H, W), and the median milliseconds of `repeats` runs of it on `x`, now and here.

    Raises BadInput when `net` is in training mode.
    """
    _check_eval(net)
    macs = layer_macs(net, tuple(x.shape[2:]))
    rows = []
    for name, what, modules in _parts(net):
        part = nn.Sequential(*modules)  # already in evaluation mode: its members are
        taken = []
        _wait(part(x))
        for _ in range(repeats):
            began = time.perf_counter()
            y = part(x)
            _wait(y)
            taken.append((time.perf_counter() - began) * 1e3)
        cost = sum(n for layer, n in macs.items() if layer == name or layer.startswith(f"{name}."))
        shape = (*y.shape[1:], 1, 1)[:3]
        rows.append(BlockRow(name, what, shape, cost, sum(p.numel() for p in part.parameters()), statistics.median(taken)))
        x = y
    return rows


def _wait(y: Tensor) -> None:
    if y.is_cuda:
        torch.cuda.synchronize(y.device)
    elif y.device.type == "mps":
        torch.mps.synchronize()


def _pearson(a: Tensor, b: Tensor) -> Tensor:
    """(n, h, w), (n, h, w) -> (n,), on the CPU: not every device has float64."""
    a, b = a.cpu().flatten(1), b.cpu().flatten(1)
    constant = (a.amax(1) == a.amin(1)) | (b.amax(1) == b.amin(1))
    a, b = (F.normalize(v.double() - v.double().mean(1, keepdim=True), dim=1, eps=0) for v in (a, b))
    return (a * b).sum(1).clamp(-1, 1).masked_fill(constant, 0)


@torch.inference_mode()
def ghost_pairs(net: GhostNet, x: Tensor, block: str, module: str = "ghost1") -> GhostPairs:
    """The intrinsic and ghost maps of `module` ("ghost1" expands, "ghost2" shrinks) of `block` (one of `blocks(net)`) for `x` (1, 3, H, W).

    Raises BadInput for another block, module or batch, or a network in training mode.
    """
    _check_eval(net)
    known = _bottlenecks(net)
    if block not in known:
        raise BadInput(f"There is no block called {block!r}: choose one of {', '.join(known)}.")
    if module not in ("ghost1", "ghost2"):
        raise BadInput(f"A block has the ghost modules ghost1 and ghost2, none called {module!r}.")
    if x.ndim != 4 or len(x) != 1:
        raise BadInput(f"One picture at a time: x must be (1, 3, H, W), not {tuple(x.shape)}.")
    x = net.act1(net.bn1(net.conv_stem(x)))
    for name, b in known.items():
        if name == block:
            break
        x = b(x)
    if module == "ghost2":
        x = b.ghost1(x)
        x = b.bn_dw(b.conv_dw(x)) if b.stride > 1 else x
        x = b.se(x) if b.se is not None else x
    ghosts = getattr(b, module)
    intrinsic = ghosts.primary_conv(x)[0]
    ghost = ghosts.cheap_operation(intrinsic[None])[0]
    kernels = ghosts.cheap_operation[0].weight[:, 0]
    r = _pearson(ghost, intrinsic.repeat_interleave(len(ghost) // len(intrinsic), 0))
    return GhostPairs(*(v.float().cpu().numpy() for v in (intrinsic, ghost, r, kernels)))


def latency_rounds(nets: dict[str, nn.Module], x: Tensor, rounds: int) -> Iterator[list[Timing]]:
    """Time `nets` on `x`, taking turns so that what else the machine does hits all alike; yields the Timings so far after every round. Stop by closing it."""
    if rounds < 1:
        raise BadInput(f"At least one round is needed to measure anything, not {rounds}.")
    for net in nets.values():
        _check_eval(net)
    taken: dict[str, list[float]] = {name: [] for name in nets}

    def run(net: nn.Module) -> float:
        with torch.inference_mode():
            began = time.perf_counter()
            _wait(net(x))
            return (time.perf_counter() - began) * 1e3

    for net in nets.values():
        run(net), run(net)  # the first calls also pay for choosing kernels and for memory
    for _ in range(rounds):
        for name, net in nets.items():
            taken[name].append(run(net))
        yield [Timing(name, statistics.median(t), min(t), max(t), len(t)) for name, t in taken.items()]


def latency(nets: dict[str, nn.Module], x: Tensor, rounds: int = 30) -> list[Timing]:
    """Median, fastest and slowest milliseconds of `nets` on `x`, measured in turns. Raises BadInput when a network is in training mode."""
    timings: list[Timing] = []
    for timings in latency_rounds(nets, x, rounds):
        pass
    return timings


@cache
def _contestants() -> dict[str, nn.Module]:
    from pttp.vision import torchvision

    plain = GhostNet().eval()
    return {"GhostNet": plain, "GhostNet, inference form": inference_form(plain), "MobileNetV3-Large": torchvision().models.mobilenet_v3_large().eval()}


def bench_rounds(size: int = 224, rounds: int = 30) -> Iterator[Bench]:
    """GhostNet against MobileNetV3-Large, here and now: a Bench after every round. The weights are random, which changes neither cost nor time.

    Raises BadInput for a `size` outside 32 to 1024.
    """
    if not 32 <= size <= 1024:
        raise BadInput(f"The side of the picture must lie between 32 and 1024 pixels, not {size}.")
    nets = _contestants()
    costs = {name: count(net, size) for name, net in nets.items() if name != "GhostNet, inference form"}
    costs["GhostNet, inference form"] = costs["GhostNet"]  # the same function: folding moves no multiplication between layers
    for timings in latency_rounds(nets, torch.randn(1, 3, size, size), rounds):
        rows = tuple(BenchRow(t.name, costs[t.name].macs, costs[t.name].parameters, t.median, t.fastest, t.slowest) for t in timings)
        yield Bench(size, timings[0].rounds, torch.get_num_threads(), rows)


def bench(size: int = 224, rounds: int = 30, progress: Progress | None = None) -> Bench:
    """The last of `bench_rounds`; `progress` is called after every round, and stops the measurement by raising."""
    last: Bench | None = None
    for last in bench_rounds(size, rounds):
        if progress:
            fastest = min(last.rows, key=lambda row: row.milliseconds)
            progress(last.rounds / rounds, f"Round {last.rounds} of {rounds}: {fastest.name} leads with {fastest.milliseconds:.1f} ms.")
    return last
