"""Costs against hand computation, maps against what the network really passes on, and nothing left behind."""
from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from pttp.errors import BadInput
from pttp.ghostnet import study
from pttp.ghostnet.model import GhostModule, GhostNet
from tests.ghostnet.nets import assert_unchanged, random_net, snapshot


class Twice(nn.Module):
    """One layer, used twice."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return self.conv(self.conv(x))


@pytest.mark.parametrize(
    ("net", "size", "conv", "linear", "parameters"),
    [
        (nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), 8, 4 * 4 * 8 * 27, 0, 216),
        (nn.Conv2d(3, 6, (1, 5), groups=3), 9, 9 * 5 * 6 * 5, 0, 36),
        (nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 10), nn.ReLU(), nn.Linear(10, 2)), 4, 0, 480 + 20, 490 + 22),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 5, 1), nn.Flatten(), nn.Linear(5, 2)), 7, 7 * 7 * 12 + 20, 10, 16 + 8 + 25 + 12),
        (Twice(), 5, 2 * 25 * 9, 0, 12),
        # section 3.2: n/s of the maps cost h w c k k each, the others h w d d
        (GhostModule(3, 8, kernel_size=3, ratio=4, dw_size=5), 6, 36 * (2 * 3 * 9 + 6 * 25), 0, 2 * 27 + 4 + 6 * 25 + 12),
    ],
    ids=["stride", "groups", "linear", "mixed", "twice", "ghost module"],
)
def test_count_by_hand(net, size, conv, linear, parameters):
    assert study.count(net, size) == study.Cost(conv, linear, conv + linear, parameters)


@pytest.mark.parametrize("mode", [True, False])
def test_count_changes_nothing(mode):
    net = random_net(0.5).train(mode)
    before = snapshot(net)
    study.count(net, 64)
    assert_unchanged(net, before)


def test_ratio_costs():
    costs = study.ratio_costs((2, 3, 4), 0.5)
    assert {s: study.count(GhostNet(width=0.5, ratio=s)) for s in (2, 3, 4)} == costs
    assert costs[2].macs > costs[3].macs > costs[4].macs
    assert costs[2].parameters > costs[3].parameters > costs[4].parameters
    with pytest.raises(BadInput, match="at least 2"):
        study.ratio_costs((1, 2))


@pytest.mark.parametrize(("width", "h", "w"), [(1.0, 224, 224), (0.5, 97, 130)])
def test_block_table(width, h, w):
    net = random_net(width)
    before = snapshot(net)
    rows = study.block_table(net, torch.randn(1, 3, h, w), repeats=2)
    assert_unchanged(net, before)
    assert sum(row.parameters for row in rows) == sum(p.numel() for p in net.parameters())
    assert sum(row.macs for row in rows) == sum(study.layer_macs(net, (h, w)).values())
    assert [row.name for row in rows if "ghost bottleneck" in row.what] == study.blocks(net)
    assert len(study.blocks(net)) == 16
    assert all(row.milliseconds > 0 for row in rows)
    json.dumps([row.to_dict() for row in rows])
    seen = {}
    for row in rows:
        net.get_submodule(row.name).register_forward_hook(lambda m, i, y, name=row.name: seen.update({name: (*y.shape[1:], 1, 1)[:3]}))
    net(torch.randn(1, 3, h, w))
    assert {row.name: row.shape for row in rows} == seen


def test_block_table_keeps_the_batch_apart():
    net = random_net(0.5)
    one, two = (study.block_table(net, torch.randn(b, 3, 64, 64), repeats=1) for b in (1, 2))
    assert [(r.shape, r.macs) for r in one] == [(r.shape, r.macs) for r in two]


@pytest.mark.parametrize("ratio", [2, 3])
@pytest.mark.parametrize("module", ["ghost1", "ghost2"])
def test_ghost_pairs_are_what_the_network_passes_on(module, ratio):
    net = random_net(0.5, ratio)
    x = torch.randn(1, 3, 48, 64)
    for block in study.blocks(net):
        ghosts = net.get_submodule(f"{block}.{module}")
        passed = []
        with ghosts.register_forward_hook(lambda m, i, y: passed.append(y.clone())):
            net(x)
        before = snapshot(net)
        pairs = study.ghost_pairs(net, x, block, module)
        assert_unchanged(net, before)
        maps = np.concatenate([pairs.intrinsic, pairs.ghost])
        np.testing.assert_array_equal(maps[: ghosts.oup], passed[0][0].detach().numpy())
        m = len(pairs.intrinsic)
        assert len(pairs.ghost) == len(pairs.correlation) == len(pairs.kernels) == m * (ratio - 1)
        for j, (ghost, r, kernel) in enumerate(zip(pairs.ghost, pairs.correlation, pairs.kernels)):
            parent = pairs.intrinsic[j // (ratio - 1)]
            if np.ptp(ghost) and np.ptp(parent):
                assert r == pytest.approx(np.corrcoef(ghost.ravel().astype(float), parent.ravel().astype(float))[0, 1], abs=1e-5)
            else:
                assert r == 0
            np.testing.assert_array_equal(kernel, ghosts.cheap_operation[0].weight[j, 0].detach().numpy())


def test_correlation_finds_the_copies():
    net = random_net()
    ghosts = net.get_submodule("blocks.2.0.ghost2")
    with torch.no_grad():
        conv, bn, _ = ghosts.cheap_operation
        conv.weight.zero_()
        conv.weight[0, 0, 1, 1], conv.weight[1, 0, 1, 1] = 2, -0.5  # a copy, a negative, and flat ghosts
        bn.running_mean.zero_(), bn.bias.zero_(), bn.weight.fill_(1), bn.running_var.fill_(1)
    r = study.ghost_pairs(net, torch.randn(1, 3, 64, 64), "blocks.2.0", "ghost2").correlation
    np.testing.assert_allclose(r, [1, -1] + [0] * (len(r) - 2), atol=1e-6)


def test_visitors_do_not_disturb_each_other():
    net = random_net(0.5)
    pictures = [torch.randn(1, 3, 64, 64 + 16 * i) for i in range(6)]
    blocks = study.blocks(net)
    jobs = [(x, blocks[5 * i % 16]) for i, x in enumerate(pictures)]
    alone = [study.ghost_pairs(net, *job) for job in jobs]
    before = snapshot(net)
    with ThreadPoolExecutor(6) as pool:
        tables = [pool.submit(study.block_table, net, x, 1) for x in pictures[:2]]
        together = list(pool.map(lambda job: study.ghost_pairs(net, *job), jobs * 2))
        assert [len(t.result()) for t in tables] == [20, 20]
    assert_unchanged(net, before)
    for a, b in zip(alone * 2, together):
        np.testing.assert_allclose(a.ghost, b.ghost, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((torch.zeros(1, 3, 32, 32), "blocks.9.0"), "blocks.0.0, blocks.1.0"),
        ((torch.zeros(1, 3, 32, 32), "blocks.1.0", "ghost3"), "ghost1 and ghost2"),
        ((torch.zeros(2, 3, 32, 32), "blocks.1.0"), "One picture"),
        ((torch.zeros(3, 32, 32), "blocks.1.0"), "One picture"),
    ],
)
def test_ghost_pairs_says_what_is_wrong(arguments, words):
    with pytest.raises(BadInput, match=words):
        study.ghost_pairs(random_net(0.5), *arguments)


@pytest.mark.parametrize("look", [lambda net, x: study.block_table(net, x), lambda net, x: study.ghost_pairs(net, x, "blocks.0.0"), lambda net, x: study.latency({"net": net}, x, 1)])
def test_a_network_in_training_mode_is_refused(look):
    net = random_net(0.5).train()
    before = snapshot(net)
    with pytest.raises(BadInput, match="net.eval"):
        look(net, torch.randn(1, 3, 32, 32))
    assert_unchanged(net, before)


class Calls(nn.Module):
    def __init__(self, name: str, seconds: float, log: list[str]):
        super().__init__()
        self.name, self.seconds, self.log = name, seconds, log
        self.eval()

    def forward(self, x):
        self.log.append(self.name)
        time.sleep(self.seconds)
        return x


def test_latency_takes_turns():
    log: list[str] = []
    nets = {name: Calls(name, seconds, log) for name, seconds in (("slow", 0.02), ("quick", 0))}
    slow, quick = study.latency(nets, torch.zeros(1), 4)
    assert "".join(name[0] for name in log).endswith("sqsqsqsq")
    assert (slow.name, slow.rounds, quick.name, quick.rounds) == ("slow", 4, "quick", 4)
    assert 20 <= slow.fastest <= slow.median <= slow.slowest
    assert quick.median < slow.median
    with pytest.raises(BadInput, match="At least one round"):
        study.latency(nets, torch.zeros(1), 0)


def test_latency_can_be_stopped():
    log: list[str] = []
    rounds = study.latency_rounds({"net": Calls("net", 0, log)}, torch.zeros(1), 1000)
    assert [next(rounds)[0].rounds for _ in range(3)] == [1, 2, 3]
    rounds.close()
    assert len(log) < 10


def test_bench():
    told: list[tuple[float, str]] = []
    result = study.bench(64, 2, progress=lambda *what: told.append(what))
    assert [fraction for fraction, _ in told] == [0.5, 1.0]
    assert (result.size, result.rounds, result.threads) == (64, 2, torch.get_num_threads())
    names = ["GhostNet", "GhostNet, inference form", "MobileNetV3-Large"]
    assert [row.name for row in result.rows] == names
    ghost, form, mobile = result.rows
    cost = study.count(GhostNet(), 64)
    assert (ghost.macs, ghost.parameters) == (form.macs, form.parameters) == (cost.macs, cost.parameters)
    assert mobile.parameters == 5_483_032  # as torchvision documents
    assert all(0 < row.fastest <= row.milliseconds <= row.slowest for row in result.rows)
    json.dumps(result.to_dict())
    with pytest.raises(BadInput, match="between 32 and 1024"):
        study.bench(16)


def test_bench_stops_when_progress_raises():
    calls: list[float] = []

    def stop(fraction: float, words: str) -> None:
        calls.append(fraction)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study.bench(64, 50, progress=stop)
    assert calls == [0.02]
