"""The training loop that all recipes share: accelerate, EMA, cosine schedule, checkpoints that resume, a CSV log."""
from __future__ import annotations

import csv
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedDataParallelKwargs, broadcast_object_list, gather, parse_flag_from_env
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

Batch = Callable[[int, torch.Generator], tuple]


def processes() -> PartialState:
    """This process among those of the training, one or many; its `device` is a GPU of its own, else the CPU. The first call joins them."""
    cpu = not torch.cuda.is_available() or parse_flag_from_env("ACCELERATE_USE_CPU")
    return PartialState(cpu=cpu, timeout=timedelta(hours=2))  # the others wait while the main one prepares photos or measures


def leave_to_main() -> None:
    """Ends every process but the main one: what follows a training is done once, and the checkpoints are the main one's, maybe on another machine."""
    here = processes()
    here.wait_for_everyone()
    here.destroy_process_group()
    if not here.is_main_process:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)  # an ordinary exit aborts now and then, in a thread that the process group leaves behind


def agreed(seconds: float, stopped: bool) -> tuple[float, bool]:
    """The main process's clock, and whether any process was asked to stop. One that left the loop a step early would let the others wait for its gradients."""
    told = gather(torch.tensor([[seconds, stopped]], dtype=torch.float64, device=processes().device))
    return float(told[0, 0]), bool(told[:, 1].any())


def cosine(step: int, steps: int, warmup: int, floor: float = 0.01) -> float:
    """Learning-rate factor: linear warm-up, then half a cosine down to `floor`."""
    if step < warmup:
        return (step + 1) / warmup
    t = (step - warmup) / max(1, steps - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(t, 1.0)))


class Minutes(float):
    """A budget of time where a number of steps is expected."""

    def __str__(self) -> str:
        return f"{float(self):g}m"


def amount(text: str) -> int | Minutes:
    """How long to train, as a command line says it: "3000" steps, or "12m", as many as twelve minutes allow."""
    return Minutes(text[:-1]) if text.endswith("m") else int(text)


def made(folder: Path) -> int:
    """The steps that the training in `folder` has made; 0 where there was none."""
    last = folder / "last.pt"
    return torch.load(last, map_location="cpu", weights_only=True)["step"] if last.is_file() else 0


def drawn(folder: Path) -> int:
    """The batches that it has drawn: in a step each of its processes draws one."""
    last = folder / "last.pt"
    saved = torch.load(last, map_location="cpu", weights_only=True) if last.is_file() else {"step": 0}
    return saved.get("batches", saved["step"])


def parameter_groups(module: nn.Module, lr: float, weight_decay: float) -> list[dict]:
    """Weight decay for matrices and kernels only: normalisation scales and biases are left alone."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trainable if p.ndim > 1], "lr": lr, "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "lr": lr, "weight_decay": 0.0},
    ]


def trunk_groups(net: nn.Module, lr: float, weight_decay: float) -> list[dict]:
    """For a network with a `trunk` that has learnt already: a fifth of the learning rate there, all of it for the other children."""
    heads = nn.ModuleList(module for name, module in net.named_children() if name != "trunk")
    return [*parameter_groups(heads, lr, weight_decay), *parameter_groups(net.trunk, lr / 5, weight_decay)]


class Log:
    """One CSV file; new columns are not allowed after the first row, so that it stays a table."""

    def __init__(self, path: Path):
        self.path = path

    def row(self, **values) -> None:
        new = not self.path.exists()
        with self.path.open("a", newline="") as f:
            writer = csv.DictWriter(f, fieldnames=list(values))
            if new:
                writer.writeheader()
            writer.writerow({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in values.items()})


def fit(
    objective: nn.Module,
    averaged: nn.Module,
    batch: Batch,
    *,
    folder: Path,
    steps: int | Minutes,
    groups: list[dict],
    warmup: int = 100,
    clip: float = 5.0,
    ema: float = 0.999,
    seed: int = 0,
    bf16: bool = True,
    log_every: int = 50,
    save_seconds: float = 180.0,
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
    eval_every: int = 0,
    say: Callable[[str], None] = print,
) -> nn.Module:
    """Minimise `objective(*batch)` and return the moving average of `averaged`, a part of `objective`.

    `objective(*batch(step, generator))` returns a dict of scalar losses; "loss" is the one to minimise, the others are logged. `batch`
    must draw everything random from the generator that it is given: it is seeded by the step, and so is torch itself (for dropout), so a resumed
    run sees what the uninterrupted one would have seen. The state is written to `folder/last.pt` every `save_seconds` and at the end; a run that finds it
    there goes on from it; so does one that was asked to stop (SIGTERM), which saves first. The log is `folder/log.csv`, evaluations go to `folder/eval.csv`.

    Of several processes (`accelerate launch`) each draws batches of its own; clock, checkpoint, evaluation and log are the main one's.

    With `steps` in Minutes the learning rate follows the clock. A training that is short beside `warmup` and `ema` gets less of both. `bf16`: on a GPU only.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(steps, int):
        warmup, ema = min(warmup, max(1, steps // 10)), min(ema, 1 - 10 / max(20, steps))  # the average is over a tenth, at most
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")
    device = processes().device
    some_idle = DistributedDataParallelKwargs(find_unused_parameters=True)  # a batch without objects leaves the heads for them alone
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="bf16" if bf16 and device.type == "cuda" else "no", kwargs_handlers=[some_idle])
    objective.to(device)
    average = AveragedModel(averaged, multi_avg_fn=get_ema_multi_avg_fn(ema), use_buffers=False)
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), eps=1e-6)
    base = [g["lr"] for g in optimizer.param_groups]
    prepared, optimizer = accelerator.prepare(objective, optimizer)
    main, several = accelerator.is_main_process, accelerator.num_processes > 1

    start, seconds, batches = 0, 0.0, 0
    last = folder / "last.pt"
    saved = torch.load(last, map_location="cpu", weights_only=True) if main and last.exists() else None
    if several:
        [saved] = broadcast_object_list([saved])
    if saved:
        accelerator.unwrap_model(prepared).load_state_dict(saved["objective"], strict=False)
        average.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
        start, seconds, batches = saved["step"], saved["seconds"], saved.get("batches", saved["step"])
        if main:
            say(f"{folder.name}: resuming at step {start} of {steps}, after {seconds / 60:.0f} minutes")

    def save(step: int) -> None:
        if not main:
            return
        trained = {k for k, p in objective.named_parameters() if p.requires_grad} | {k for k, _ in objective.named_buffers()}
        state = {
            "objective": {k: v for k, v in accelerator.unwrap_model(prepared).state_dict().items() if k in trained},
            "average": average.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
            "batches": batches,
            "seconds": seconds,
        }
        partial = last.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(last)  # atomic: a kill leaves either the old checkpoint or the new one

    def test(step: int) -> None:
        if not (main and evaluate):
            return
        sync_buffers(averaged, average.module)
        average.module.eval()
        scores = evaluate(average.module)
        Log(folder / "eval.csv").row(step=step, minutes=seconds / 60, **scores)
        say(f"{folder.name} {step}/{steps}: " + "  ".join(f"{k} {v:.4f}" for k, v in scores.items()))

    stop, heard = threading.Event(), threading.current_thread() is threading.main_thread()
    if heard:
        before = signal.signal(signal.SIGTERM, lambda *_: stop.set())
    log, sums, seen, saved_at = Log(folder / "log.csv"), {}, 0, time.monotonic()
    step, timed = start, isinstance(steps, Minutes)
    while seconds < 60 * steps if timed else step < steps:
        began = time.monotonic()
        factor = cosine(step, round(step * 60 * steps / seconds) if timed and seconds else steps, warmup)
        for group, lr in zip(optimizer.param_groups, base, strict=True):
            group["lr"] = lr * factor
        generator = torch.Generator().manual_seed((seed * 1_000_003 + step) * 64 + accelerator.process_index)
        torch.manual_seed(generator.initial_seed())
        prepared.train()
        with accelerator.autocast():
            losses = prepared(*batch(step, generator))
        optimizer.zero_grad(set_to_none=True)
        accelerator.backward(losses["loss"])
        norm = accelerator.clip_grad_norm_(prepared.parameters(), clip)
        if torch.isfinite(norm):  # a single broken batch must not end a run of hours
            optimizer.step()
            average.update_parameters(averaged)
        for k, v in {**losses, "norm": norm}.items():
            sums[k] = sums.get(k, 0.0) + (v.detach() if isinstance(v, Tensor) else v)  # no float(): a GPU need not be waited for in every step
        seen += 1
        step += 1
        batches += accelerator.num_processes
        seconds += time.monotonic() - began
        if seen == log_every:
            if main:
                log.row(step=step, minutes=seconds / 60, lr=base[0] * factor, **{k: float(v) / seen for k, v in sums.items()})
            sums, seen = {}, 0
        if eval_every and step % eval_every == 0 and step != steps:
            test(step)
        stopped = stop.is_set()
        if several:
            seconds, stopped = agreed(seconds, stopped)
        if stopped or time.monotonic() - saved_at > save_seconds:
            save(step)
            saved_at = time.monotonic()
        if stopped:
            accelerator.wait_for_everyone()  # a launcher may end the main process soon after the first one that leaves
            raise SystemExit(f"{folder.name}: stopped after step {step} of {steps}; the same command goes on from there")
    if start < step:
        save(step)
    if heard:  # nobody listens any more: what follows, minutes of measuring maybe, can be ended as any process
        signal.signal(signal.SIGTERM, before)
    if start < step:
        test(step)
    sync_buffers(averaged, average.module)
    return average.module.eval()


def sync_buffers(source: nn.Module, target: nn.Module) -> None:
    """Copy buffers (batch-norm statistics are running averages already, they need no second one)."""
    theirs = dict(source.named_buffers())
    with torch.no_grad():
        for name, buffer in target.named_buffers():
            buffer.copy_(theirs[name])
