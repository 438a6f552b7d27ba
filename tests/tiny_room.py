"""A tiny room, with its weights on disk and on the small Hub of fake_hub.py: what the tests of weights share."""
from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save
from torch import nn

from pttp import hub, weights
from pttp.papers import HubWeights, Link, Paper
from tests.fake_hub import FakeHub

HOME = "owner/tiny-weights"


class Tiny(nn.Module):
    def __init__(self, width: int = 3, extra: bool = False):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        self.bn = nn.BatchNorm2d(width)
        self.extra = nn.Linear(2, 2) if extra else None

    def forward(self, x):
        return self.bn(self.conv(x)).mean((2, 3))


class Predictor(weights.Pretrained):
    room = "tiny"

    @staticmethod
    def build(config):
        return Tiny(**{k: config[k] for k in ("width", "extra") if k in config})

    def ready(self):
        self.scale = self.config["preprocess"]["scale"]


CONFIG = {"width": 3, "preprocess": {"scale": 0.5}}
METRICS = {"licence": "MIT", "trained_on": "noise", "metrics": {"headline": "top-1 12.3 %", "val": {"top1": 0.123}}, "training": {"steps": 7}}


def files(seed: int = 0, config: dict | None = CONFIG, metrics: dict | None = METRICS, **options) -> dict[str, bytes]:
    """A repository or folder in Hub format, with random float16 weights."""
    torch.manual_seed(seed)
    state = {k: v.half() if v.is_floating_point() else v for k, v in Tiny(**options).state_dict().items()}
    told = {"config.json": config, "metrics.json": metrics}
    return {"model.safetensors": save(state), **{name: json.dumps(value).encode() for name, value in told.items() if value is not None}}


def write(folder: Path, named: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in named.items():
        (folder / name).write_bytes(data)
    return folder


def paper(name: str, home: HubWeights | None = None) -> Paper:
    return Paper(name, 0, name.title(), f"On {name}", ("A. Author",), "Venue", "task", "summary", "abstract", (Link("arXiv", ""),), "#000000", hub=home)


@pytest.fixture
def room(tmp_path, monkeypatch):
    """The rooms "tiny" (with a home on the Hub), "homeless" and "bare" (no embedded weights), an empty cache, and no memory of failures."""
    home = HubWeights(HOME, "Apache-2.0", "data", "top-1 99 %")
    records = importlib.import_module("pttp.papers")  # `pttp.papers` is also a function
    monkeypatch.setattr(records, "_PAPERS", (*records._PAPERS, paper("tiny", home), paper("homeless"), paper("bare", HubWeights("owner/none", "", "", ""))))
    monkeypatch.setattr(weights, "embedded_folder", lambda room: tmp_path / "embedded" / room)
    for name in ("tiny", "homeless"):
        write(tmp_path / "embedded" / name, files())
    monkeypatch.setattr(hub, "_failures", {})
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.setattr(constants, name, True)
    for name in ("HF_HUB_OFFLINE", "PTTP_HUB", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def point_to(url: str, monkeypatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", url)
    # what the client itself read from HF_ENDPOINT when it was imported
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.fixture
def server(room, monkeypatch):
    with FakeHub() as fake:
        point_to(fake.url, monkeypatch)
        yield fake


def assert_one_sentence(text: str) -> None:
    assert "\n" not in text and "Traceback" not in text and text.endswith("."), text


def same(a: nn.Module, b: nn.Module) -> bool:
    one, two = a.state_dict(), b.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[k].cpu(), two[k].cpu()) for k in one)
