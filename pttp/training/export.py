"""What a finished training leaves in the room: model.safetensors (float16), config.json, metrics.json, MODEL_CARD.md; and numbers for prose."""
from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from torch import nn

MARKED = re.compile(r"(<!-- numbers -->\n).*?(<!-- /numbers -->)", re.S)


def write(folder: Path, net: nn.Module, config: dict, metrics: dict, card: str) -> None:
    """`metrics` holds "licence", "trained_on", "metrics" (with a one-line "headline") and whatever else the evaluation measured."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.detach().cpu().half().contiguous() if v.is_floating_point() else v.cpu() for k, v in net.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "config.json", config)
    write_json(folder / "metrics.json", metrics)
    (folder / "MODEL_CARD.md").write_text(card, encoding="utf-8")


def write_json(file: Path, value: dict) -> None:
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


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
