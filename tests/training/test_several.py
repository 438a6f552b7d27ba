"""Two processes train as one: they end after the same step with the same weights, and only the main one writes."""
from __future__ import annotations

import csv
import json
import os
import signal
import socket
import time
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import multiprocessing, nn

from pttp.training import loop


class Line(nn.Module):
    """y = 3 x - 1, to be found. It counts its steps, and asks process 1 alone to stop in step `stop`. `idle` is a head that this batch needs in process 0 only."""

    def __init__(self, rank: int, stop: int = 0):
        super().__init__()
        torch.manual_seed(rank)  # only the main process's first weights count
        self.net = nn.ModuleDict({"used": nn.Linear(1, 1), "idle": nn.Linear(1, 1)})
        self.rank, self.stop, self.steps = rank, stop, 0

    def forward(self, x, y):
        self.steps += 1
        if self.rank and self.steps == self.stop:
            os.kill(os.getpid(), signal.SIGTERM)
        heads = ("used",) if self.rank else ("used", "idle")
        return {"loss": sum((self.net[name](x) - y).square().mean() for name in heads)}


def batch(step, generator):
    x = torch.rand(8, 1, generator=generator)
    return x, 3 * x - 1


def train(rank: int, folder: Path, steps, stop: int = 0) -> dict:
    objective = Line(rank, stop)
    try:
        net, ended = loop.fit(objective, objective.net, batch, folder=folder, steps=steps, groups=loop.parameter_groups(objective.net, 0.05, 0.0), log_every=1, say=lambda _: None), "done"
    except SystemExit as e:
        net, ended = objective.net, str(e)
    return {"steps": objective.steps, "ended": ended, "weights": [p.tolist() for p in [*net.parameters(), *objective.net.parameters()]]}


def process(rank: int, port: int, folder: Path) -> None:
    """Each has a folder of its own, as on two machines, and the clock of the second runs three times too fast."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    torch.set_num_threads(1)
    loop.time = SimpleNamespace(monotonic=lambda: (1 + 2 * rank) * time.monotonic())
    own = folder / f"machine{rank}"
    told = {
        "steps": train(rank, own / "steps", 3),
        "minutes": train(rank, own / "minutes", loop.Minutes(1 / 60)),
        "stopped": train(rank, own / "stopped", 12, stop=5),
        "resumed": train(rank, own / "stopped", 12),
    }
    (folder / f"told{rank}.json").write_text(json.dumps(told))
    loop.leave_to_main()
    (folder / f"exported{rank}").touch()


def test_two_processes(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    both = multiprocessing.spawn(process, (port, tmp_path), nprocs=2, join=False)
    ends = time.monotonic() + 90
    try:
        while not both.join(timeout=1):
            assert time.monotonic() < ends, "the processes wait for each other"
    finally:
        for p in both.processes:
            p.kill()

    told, others = (json.loads((tmp_path / f"told{rank}.json").read_text()) for rank in (0, 1))
    assert told == others
    assert told["steps"]["steps"] == 3 and told["minutes"]["steps"] > 3
    assert told["stopped"]["steps"] == 5 and "stopped after step 5 of 12" in told["stopped"]["ended"]
    assert told["resumed"]["steps"] == 7, "the other machine has no checkpoint, and goes on from the main one's"
    assert [f.name for f in tmp_path.glob("exported*")] == ["exported0"]
    assert not [f for f in (tmp_path / "machine1").rglob("*") if f.is_file()]
    for name, steps in (("steps", 3), ("minutes", told["minutes"]["steps"]), ("stopped", 12)):
        assert loop.made(tmp_path / "machine0" / name) == steps
        assert loop.drawn(tmp_path / "machine0" / name) == 2 * steps, "each draws batches of its own"
        assert len(list(csv.DictReader((tmp_path / "machine0" / name / "log.csv").open()))) == steps
