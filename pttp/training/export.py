"""What a finished training leaves in the room: model.safetensors (float16), config.json, metrics.json, MODEL_CARD.md; and numbers for prose."""
from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from pttp import trunk

MARKED = re.compile(r"(<!-- numbers -->\n).*?(<!-- /numbers -->)", re.S)


def write(folder: Path, net: nn.Module, config: dict, metrics: dict, card: str) -> None:
    """`metrics` holds "licence", "trained_on", "metrics" (with a one-line "headline") and whatever else the evaluation measured."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.detach().cpu().half().contiguous() if v.is_floating_point() else v.cpu() for k, v in net.state_dict().items()}
    partial = folder / "model.partial"  # never written in place: a page that runs may have the file open
    save_file(state, partial, metadata={"format": "pt"})
    partial.replace(folder / "model.safetensors")
    write_json(folder / "config.json", config)
    write_json(folder / "metrics.json", metrics)
    (folder / "MODEL_CARD.md").write_text(card, encoding="utf-8")


def write_json(file: Path, value: dict) -> None:
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


LICENCE = "research and education, non-commercial (the terms of the training photos)"
# what the masks of training/instances.py are made from
MASKS = """**Data and licences.** coco_mini (COCO 2017: annotations CC BY 4.0, photos under various Creative Commons licences, many non-commercial), street cats (public domain as
published), Penn-Fudan pedestrians (research), Oxford-IIIT Pets (CC BY-SA 4.0), Weizmann horses (research), ECSSD (research), Caltech-101 animals (CC BY 4.0) and other
animals (licence not stated). The fine borders of pets, horses, salient things and animals come from mattes made by a salient-object network and mended with the hand-made
masks."""


def head(task: str, *tags: str) -> str:
    """How every MODEL_CARD.md begins: the Hub's front matter."""
    return f"---\nlicense: other\nlicense_name: non-commercial-research\nlibrary_name: pttp\npipeline_tag: {task}\ntags: [{', '.join(tags)}, pytorch]\n---"


def command(module: str, parser: argparse.ArgumentParser, a: argparse.Namespace, names: Iterable[str], processes: float = 1) -> str:
    """The command line that repeats a training of so many `processes`: what of `names` differs from the defaults, without paths."""
    start = getattr(a, "start", None) or []
    start = ["--start" + " FOLDER" * (len(start) if isinstance(start, list) else 1)] if start else []
    python = f"accelerate launch --num_processes {round(processes)} -m" if round(processes) > 1 else "python -m"
    return " ".join([f"{python} {module}", *start, *(f"--{k.replace('_', '-')} {getattr(a, k)}" for k in names if getattr(a, k) != parser.get_default(k))])


def started_from(folder: Path) -> dict:
    """The "training" of the weights that a training went on from."""
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["training"]


def gone_on(training: dict, folders: list[Path] | None) -> dict:
    """The record of a training that went on from the weights in `folders`, or from the mean of several: theirs is in it, and their views count.

    A training without steps that took one folder has only measured it: then that folder's record stays.
    """
    before = [started_from(folder) for folder in folders or ()]
    if not before:
        return training
    if len(before) == 1 and not training["views"]:
        return before[0]
    return {**training, "views": training["views"] + views_of(before), "started_from": before if len(before) > 1 else before[0]}


def views_of(trainings: list[dict]) -> int:
    """Views behind the mean of several trainings; beginnings that they share are counted once."""
    own = {}

    def add(training: dict) -> None:
        before = training.get("started_from", [])
        before = before if isinstance(before, list) else [before]
        own[json.dumps(training, sort_keys=True)] = training["views"] - views_of(before)
        for earlier in before:
            add(earlier)

    for training in trainings:
        add(training)
    return sum(own.values())


def mean_of(folders: list[Path]) -> dict[str, Tensor]:
    """The mean of the weights in several folders (of one: its weights); counters, as batch norm's, are those of the first.

    Networks that went on from one start with other batches lie in one basin, each off its middle to another side: the mean can be better than any of them ("model soups", Wortsman et al., ICML 2022).
    """
    states = [tensors(folder / "model.safetensors") for folder in folders]
    return {k: torch.stack([state[k] for state in states]).mean(0) if v.is_floating_point() else v for k, v in states[0].items()}


def add_start(p: argparse.ArgumentParser) -> None:
    """`--start FOLDER [FOLDER ...]`, the same in every recipe."""
    p.add_argument("--start", type=Path, nargs="+", metavar="FOLDER", help="trained weights (model.safetensors, metrics.json) to go on from; of several, their mean")


def precision_rows(detection: dict[str, dict]) -> list[str]:
    """Mask AP by set as lines of Markdown."""
    lines = ["| set | photos | AP | AP50 | AR |", "|---|---|---|---|---|"]
    return lines + [f"| {name} | {v['photos']} | {v['ap']:.1%} | {v['ap50']:.1%} | {v['ar']:.1%} |" for name, v in detection.items()]


def tensors(file: Path) -> dict[str, Tensor]:
    """A safetensors file as float32."""
    from safetensors.torch import load_file

    return {k: v.float() if v.is_floating_point() else v for k, v in load_file(file).items()}


def start_trunk(net: trunk.Trunk, file: Path) -> None:
    """Give a trunk, whole or cut, the weights of EfficientNet-Lite0's file, or of any room's model.safetensors."""
    state = tensors(file)
    state = trunk.trunk_tensors({k.removeprefix("trunk."): v for k, v in state.items() if k.startswith("trunk.")} or state)
    own = net.state_dict()
    net.load_state_dict({k: v for k, v in state.items() if k in own})


def freeze_trunk(net: nn.Module) -> nn.Module:
    """Hold the stem, the stages to stride 4 and all batch norms of `net.trunk`: what there is to learn lies above, and half of the backward pass is saved."""
    for module in net.trunk.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(False)
    for module in (net.trunk.conv_stem, *net.trunk.blocks[:2]):
        module.requires_grad_(False)
    return net


def fill(file: Path, text: str) -> None:
    """Replace what stands between the `<!-- numbers -->` marks of `file`, so that numbers in prose come from a command."""
    old = file.read_text(encoding="utf-8")
    new, n = MARKED.subn(lambda m: f"{m[1]}{text.rstrip()}\n{m[2]}", old)
    if n != 1:
        raise ValueError(f"{file} needs exactly one pair of number marks, it has {n}")
    file.write_text(new, encoding="utf-8")


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def half(net: nn.Module) -> nn.Module:
    """A copy whose weights have been through float16 and back."""
    import copy

    twin = copy.deepcopy(net)
    with torch.no_grad():
        for tensor in (*twin.parameters(), *twin.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(tensor.half().float())
    return twin.eval()
