"""`python -m pttp weights ...`, each in a process of its own, with the real client against the small Hub of fake_hub.py."""
from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from pttp.ghostnet.model import GhostNet
from tests.tiny_room import METRICS, room, server, write  # noqa: F401  fixtures

ROOT = Path(__file__).parents[1]


@pytest.fixture
def command(server, room):
    """Runs `python -m pttp ...` with an embedded GhostNet, against the fake Hub."""
    torch.manual_seed(0)
    state = {k: v.half() if v.is_floating_point() else v for k, v in GhostNet(num_classes=10, width=0.5).state_dict().items()}
    config = json.dumps({"num_classes": 10, "width": 0.5}).encode()
    write(room / "embedded" / "ghostnet", {"model.safetensors": save(state), "config.json": config, "metrics.json": json.dumps(METRICS).encode()})
    start = (
        "import pathlib, pttp.weights, pttp.cli;"
        f"pttp.weights.embedded_folder = lambda room: pathlib.Path({str(room / 'embedded')!r}) / room;"
        "pttp.cli.main()"
    )
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "PTTP_", "HUGGING"))}
    base = {**clean, "HF_ENDPOINT": server.url, "HF_HOME": str(room / "hf"), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}

    def run(*words: str, **env: str) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, "-c", start, *words], cwd=ROOT, env={**base, **env}, capture_output=True, text=True, timeout=60)

    return run


def test_command_list(command, server):
    done = command("weights", "list")
    assert done.returncode == 0 and done.stderr == ""
    assert "hub:timm/ghostnet_100.in1k (to be fetched)" in done.stdout and "none yet" in done.stdout
    offline = json.loads(command("weights", "list", "--json", HF_HUB_OFFLINE="1").stdout)
    row = next(r for r in offline if r["room"] == "ghostnet")
    assert (row["source"], row["licence"], row["metrics"]["headline"]) == ("embedded", "MIT", "top-1 12.3 %")
    assert [r["room"] for r in offline] == ["pointrend", "polarmask", "gfm", "ghostnet", "stegastamp", "cagan"]
    assert server.requests == [], "a list asks nobody"


def test_command_push_then_show(command, server):
    done = command("weights", "push", "ghostnet", "--owner", "me", "--private", HF_TOKEN="hf_secret")
    assert done.returncode == 0, done.stderr
    commit = server.repos["me/pttp-ghostnet"]["main"]
    assert done.stdout.strip() == f"{server.url}/me/pttp-ghostnet/commit/{commit}" and server.private["me/pttp-ghostnet"]
    shown = json.loads(command("weights", "show", "ghostnet", "--json", PTTP_HUB="me").stdout)
    assert shown["source"] == f"hub:me/pttp-ghostnet@{commit}" and shown["config"]["width"] == 0.5
    text = command("weights", "show", "ghostnet", "--source", "embedded").stdout
    assert "source      embedded" in text and "licence     MIT" in text


@pytest.mark.parametrize(
    "words, sentence",
    [
        (("show", "nobody"), "no paper called 'nobody'"),
        (("show", "ghostnet", "--source", "hub:no/body"), "no repository no/body"),
        (("push", "ghostnet"), "--owner"),
    ],
)
def test_command_mistakes(command, words, sentence):
    done = command("weights", *words)
    assert done.returncode == 2 and sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and done.stdout == ""
