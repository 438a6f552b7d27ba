"""pttp.weights and pttp.hub with the real huggingface_hub client, against the small Hub of fake_hub.py."""
from __future__ import annotations

import copy
import importlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard, constants
from safetensors.torch import load_file, save, save_file
from torch import nn

from pttp import hub, weights
from pttp.errors import BadInput, WeightsError
from pttp.ghostnet.model import GhostNet
from pttp.papers import HubWeights, Link, Paper
from tests.fake_hub import FakeHub

ROOT = Path(__file__).parents[1]
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
    return Paper(name, 0, name.title(), f"On {name}", ("A. Author",), "Venue", "task", "summary", "abstract", (Link("arXiv", ""),), "#000000", runs=True, hub=home)


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
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
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


def test_importing_is_light():
    code = "import sys, pttp.weights, pttp.cli_weights; print([m for m in ('torch', 'huggingface_hub', 'gradio', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip() == "[]"


# --- choosing ---------------------------------------------------------------------------------------------------------------------------------


def test_embedded(room):
    info = weights.find("tiny", "embedded").info
    file = room / "embedded" / "tiny" / "model.safetensors"
    assert (info.source, info.file, info.bytes) == ("embedded", file, file.stat().st_size)
    assert (info.licence, info.trained_on, info.metrics) == ("MIT", "noise", METRICS["metrics"])
    assert info.parameters == sum(p.numel() for p in Tiny().parameters())
    assert json.loads(json.dumps(info.to_dict()))["file"] == str(file)


def test_auto_without_a_home(room):
    found = weights.find("homeless")
    assert found.info.source == "embedded" and "no network" in found.info.why and found.config == CONFIG


def test_auto_takes_the_hub_then_its_cache(server):
    commit = server.put(HOME, files(1, metrics=None))
    told = []
    info = weights.find("tiny", progress=lambda fraction, sentence: told.append((fraction, sentence))).info
    assert info.source == f"hub:{HOME}@{commit}"
    assert (info.licence, info.trained_on, info.metrics) == ("Apache-2.0", "data", {"headline": "top-1 99 %"})
    assert told[0][0] == 0 and all(0 <= fraction <= 1 and HOME in sentence for fraction, sentence in told)
    n = len(server.requests)
    again = weights.find("tiny").info
    assert (again.source, len(server.requests)) == (info.source, n) and "cache" in again.why


def test_progress_grows_and_slow_is_not_dead(server, monkeypatch):
    monkeypatch.setattr(hub, "PATIENCE", 1.0)
    server.put(HOME, {"model.safetensors": save({"big": torch.zeros(500_000)}), "config.json": b"{}"})
    server.chunk, server.pause = 200_000, 0.15
    told, thread = [], set()
    start = time.monotonic()
    info = weights.find("tiny", progress=lambda fraction, sentence: (told.append(fraction), thread.add(threading.current_thread()))).info
    assert info.source.startswith("hub:") and time.monotonic() - start > hub.PATIENCE
    assert told == sorted(told) and len({round(f, 2) for f in told}) >= 5
    assert thread == {threading.current_thread()}


def test_all_files_are_of_the_commit_that_the_branch_was(server):
    commit = server.put(HOME, files())
    weights.find("tiny")
    asked = [r for r in server.requests if "/resolve/" in r]
    assert [r for r in asked if "/resolve/main/" in r] == [f"HEAD /{HOME}/resolve/main/model.safetensors"]
    assert all("/resolve/main/" in r or f"/resolve/{commit}/" in r for r in asked) and len(asked) > 3


def test_pttp_hub_is_the_home(server, monkeypatch):
    monkeypatch.setenv("PTTP_HUB", "someone")
    commit = server.put("someone/pttp-homeless", files(2))
    info = weights.find("homeless").info
    assert (info.source, info.licence) == (f"hub:someone/pttp-homeless@{commit}", "MIT")


def test_offline_asks_nobody(server, monkeypatch):
    server.put(HOME, files())
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    info = weights.find("tiny").info
    assert info.source == "embedded" and "HF_HUB_OFFLINE" in info.why
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE"):
        weights.find("tiny", f"hub:{HOME}")
    assert server.requests == []


@pytest.mark.parametrize("source", ["auto", f"hub:{HOME}", f"hub:{HOME}@v1"])
def test_offline_with_a_cache(server, monkeypatch, source):
    commit = server.put(HOME, files(), "main")
    server.repos[HOME]["v1"] = commit
    weights.find("tiny", source)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    n = len(server.requests)
    assert weights.find("tiny", source).info.source == f"hub:{HOME}@{commit}"
    assert len(server.requests) == n


def test_a_cached_repository_outlives_the_hub(server, monkeypatch):
    old = server.put(HOME, files())
    weights.find("tiny", f"hub:{HOME}")
    new = server.put(HOME, files(1))
    assert weights.find("tiny", f"hub:{HOME}").info.source.endswith(new), "asked for by name, the newest is taken"
    point_to("http://127.0.0.1:9", monkeypatch)
    info = weights.find("tiny", f"hub:{HOME}").info
    assert info.source.endswith(new) and "could not be reached" in info.why
    assert weights.find("tiny", f"hub:{HOME}@{old}").info.source.endswith(old), "a commit that is here needs no Hub"


@pytest.mark.parametrize("path", ["folder", "folder/model.safetensors"])
def test_a_path(room, path):
    write(room / "folder", files(config={**CONFIG, "width": 5}, width=5))
    found = weights.find("tiny", room / path)
    assert (found.info.source, found.config["width"], found.info.licence) == ("path", 5, "MIT")
    assert Predictor.from_pretrained(str(room / path)).net.conv.out_channels == 5


@pytest.mark.parametrize(
    "name, source, kind, words",
    [
        ("nobody", "auto", BadInput, "no paper called 'nobody'"),
        ("bare", "embedded", WeightsError, "no embedded weights yet"),
        ("tiny", "hub:nonsense", WeightsError, "hub:owner/name"),
        ("tiny", "hub:a/b@../../etc", WeightsError, "hub:owner/name"),
        ("tiny", "/nowhere/x.safetensors", WeightsError, "no file"),
        ("tiny", "owner/name", WeightsError, "write hub:owner/name"),
        ("tiny", "x" * 5000, WeightsError, "no file"),
        ("tiny", __file__, WeightsError, "not a .safetensors file"),
    ],
)
def test_mistakes(room, name, source, kind, words):
    with pytest.raises(kind, match=words) as caught:
        weights.find(name, source)
    assert_one_sentence(str(caught.value))


# --- what a Hub can do wrong ------------------------------------------------------------------------------------------------------------------

FAILURES = {
    "gated": "is gated",
    "unauthorised": "refused access",
    "forbidden": "refused access",
    "broken": "(500)",
    "no-hub": "is not a Hub",
    "missing": "no repository owner/tiny-weights",
    "no config": "holds no config.json",
    "no weights": "holds no model.safetensors",
    "truncate": "broke off at",
    "stall": "stopped at",
    "hang": "could not be reached",
    "wrong": "SHA-256",
    "pinned": "SHA-256",
    "not safetensors": "not a whole safetensors file",
    "pickle": "not a whole safetensors file",
    "half a file": "not a whole safetensors file",
    "broken config": "not a JSON object",
    "refused": "could not be reached",
    "unroutable": "could not be reached",
}
SLOW = {"truncate", "stall", "hang", "unroutable"}  # these fail only when patience ends; every other one must fail at once


def assert_one_sentence(text: str) -> None:
    assert "\n" not in text and "Traceback" not in text and text.endswith("."), text


@pytest.fixture
def broken(request, server, monkeypatch):
    """The home of "tiny" with one failure of the table."""
    what = request.param
    named = files(1)
    if what in ("no config", "no weights"):
        del named["config.json" if what == "no config" else "model.safetensors"]
    elif what == "not safetensors":
        named["model.safetensors"] = b"<html>not here</html>" * 50
    elif what == "pickle":
        named["model.safetensors"] = pickle_that_would_write(server)
    elif what == "half a file":
        named["model.safetensors"] = named["model.safetensors"][:400]
    elif what == "broken config":
        named["config.json"] = b"{'width': 3"
    elif what in ("truncate", "stall"):
        named["model.safetensors"] = save({"big": torch.rand(500_000)})
    if what != "missing":
        server.put(HOME, named)
    server.faults[HOME] = what
    hanging = None
    if what == "pinned":
        records = importlib.import_module("pttp.papers")
        pinned = paper("tiny", HubWeights(HOME, "", "", "", sha256="0" * 64))
        monkeypatch.setattr(records, "_PAPERS", tuple(pinned if p.name == "tiny" else p for p in records._PAPERS))
    elif what == "refused":
        point_to("http://127.0.0.1:9", monkeypatch)
    elif what == "unroutable":  # a queue that is full: connecting gets no answer at all
        hanging = [socket.create_server(("127.0.0.1", 0), backlog=0)]
        port = hanging[0].getsockname()[1]
        for _ in range(4):
            waiting = socket.socket()
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
            hanging.append(waiting)
        point_to(f"http://127.0.0.1:{port}", monkeypatch)
    yield what
    for s in hanging or ():
        s.close()


def pickle_that_would_write(server) -> bytes:
    import pickle

    class Bomb:
        def __reduce__(self):
            return exec, ("raise SystemExit('the pickle was executed')",)

    return pickle.dumps(Bomb())


@pytest.mark.parametrize("broken", FAILURES, indirect=True)
def test_failures_of_the_hub(broken, room):
    start = time.monotonic()
    with pytest.raises(WeightsError) as caught:
        weights.find("tiny", f"hub:{HOME}")
    took = time.monotonic() - start
    assert FAILURES[broken] in str(caught.value)
    assert_one_sentence(str(caught.value))
    assert took < (10 if broken in SLOW else 2), f"{took:.1f} s"


@pytest.mark.parametrize("broken", [f for f in FAILURES if f not in SLOW], indirect=True)
def test_auto_survives_and_says_why(broken, room):
    predictor = Predictor.from_pretrained()
    assert predictor.weights.source == "embedded"
    assert predictor.weights.why.startswith("Embedded weights: ") and FAILURES[broken] in predictor.weights.why
    start = time.monotonic()
    assert Predictor.from_pretrained().weights.source == "embedded"
    assert time.monotonic() - start < 1


def test_wrong_bytes_do_not_stay(server):
    server.put(HOME, files(1))
    server.faults[HOME] = "wrong"
    assert weights.find("tiny").info.source == "embedded"
    server.faults.clear()
    hub._failures.clear()
    assert weights.find("tiny").info.source.startswith("hub:")


def test_a_cached_file_that_rotted_is_fetched_again(server):
    server.put(HOME, files(1))
    file = weights.find("tiny").info.file
    good = file.read_bytes()
    file.resolve().write_bytes(good[:-4] + b"\1\2\3\4")
    again = weights.find("tiny").info
    assert again.source.startswith("hub:") and again.file.read_bytes() == good


def test_a_failed_hub_is_not_asked_again_at_once(server, monkeypatch):
    """Neither for the same repository nor, when nothing answers, for another tab's."""
    monkeypatch.setenv("PTTP_HUB", "someone")
    weights.find("tiny")
    n = len(server.requests)
    assert "no repository" in weights.find("tiny").info.why and len(server.requests) == n
    weights.find("homeless")
    assert len(server.requests) > n, "another repository may well be there"
    server.faults["someone/pttp-tiny"] = "broken"
    hub._failures.clear()
    weights.find("tiny")
    n = len(server.requests)
    assert "(500)" in weights.find("homeless").info.why and len(server.requests) == n
    monkeypatch.setattr(hub, "RETRY_AFTER", 0.0)
    server.faults.clear()
    server.put("someone/pttp-tiny", files())
    assert weights.find("tiny").info.source.startswith("hub:")


def test_several_tabs_fetch_once(server):
    server.put(HOME, {"model.safetensors": save({"big": torch.zeros(300_000)}), "config.json": b"{}"})
    server.chunk, server.pause = 100_000, 0.03
    sources = []
    threads = [threading.Thread(target=lambda: sources.append(weights.find("tiny").info.source)) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(sources) == 4 and len(set(sources)) == 1 and sources[0].startswith("hub:")
    assert sum("/resolve/main/" in r for r in server.requests) == sum(r.startswith("GET /storage/") for r in server.requests) == 1


def test_without_embedded_weights_both_reasons_are_told(server):
    with pytest.raises(WeightsError, match="no repository owner/none.*; and Bare has no embedded weights yet"):
        weights.find("bare")


# --- loading ----------------------------------------------------------------------------------------------------------------------------------


def test_half_becomes_the_networks_own_type(room):
    predictor = Predictor.from_pretrained("embedded")
    stored = load_file(predictor.weights.file)
    assert predictor.net.conv.weight.dtype == torch.float32 and stored["conv.weight"].dtype == torch.float16
    assert torch.equal(predictor.net.conv.weight.cpu(), stored["conv.weight"].float())
    assert not predictor.net.training and predictor.scale == 0.5 and predictor.device == weights.device()
    assert predictor.weights.parameters == 3 * 3 * 9 + 3 + 6
    assert isinstance(predictor.net, Tiny)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"width": 5}, r"of another shape 6 \(conv.weight is \(5, 3, 3, 3\), not \(3, 3, 3, 3\), conv.bias .*, \.\.\.\)"),
        ({"extra": True}, r"unexpected 2 \(extra.bias, extra.weight\)"),
    ],
)
def test_wrong_architecture(server, options, words):
    server.put(HOME, files(**options))
    with pytest.raises(WeightsError, match=words) as caught:
        Predictor.from_pretrained(f"hub:{HOME}")
    assert_one_sentence(str(caught.value))
    info = Predictor.from_pretrained().weights
    assert info.source == "embedded" and "does not fit this tiny network" in info.why


def test_missing_keys_are_named_and_counters_are_not_needed(room):
    state = Tiny().state_dict()
    del state["bn.num_batches_tracked"]
    save_file(state, room / "old.safetensors")
    (room / "config.json").write_text(json.dumps(CONFIG))
    assert Predictor.from_pretrained(room / "old.safetensors").weights.source == "path"
    del state["conv.bias"], state["bn.weight"]
    save_file(state, room / "less.safetensors")
    with pytest.raises(WeightsError, match=r"missing 2 \(conv.bias, bn.weight\)"):
        Predictor.from_pretrained(room / "less.safetensors")


@pytest.mark.parametrize("config", [{"width": "three", "preprocess": {"scale": 1}}, {"width": -1, "preprocess": {"scale": 1}}, {"width": 3}])
def test_a_config_that_does_not_fit(server, config):
    server.put(HOME, files(config=config))
    with pytest.raises(WeightsError, match="config.json in hub:owner/tiny-weights@[0-9a-f]{40} does not describe"):
        Predictor.from_pretrained(f"hub:{HOME}")
    assert Predictor.from_pretrained().weights.source == "embedded"


@pytest.mark.parametrize("cut", [0, 5, 8, 200, -1])
def test_a_damaged_file_is_a_sentence(room, cut):
    named = files()
    named["model.safetensors"] = named["model.safetensors"][:cut]
    for call in (weights.find, lambda name, source: Predictor.from_pretrained(source)):
        with pytest.raises(WeightsError, match="not a whole safetensors file") as caught:
            call("tiny", write(room / "cut", named))
        assert_one_sentence(str(caught.value))


# --- saving and publishing --------------------------------------------------------------------------------------------------------------------


def same(a: nn.Module, b: nn.Module) -> bool:
    one, two = a.state_dict(), b.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[k].cpu(), two[k].cpu()) for k in one)


@pytest.mark.parametrize("how", ["save_pretrained", "push_to_hub", "push"])
def test_round_trip(server, room, monkeypatch, how):
    """What is saved or pushed is what comes back: by hub:, by a path, and by the mixin's own from_pretrained; config keys of ours survive."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    first = Predictor.from_pretrained("embedded")
    if how == "save_pretrained":
        first.save_pretrained(room / "saved")
        source = where = str(room / "saved")
    else:
        url = first.push_to_hub("me/pttp-tiny", private=True) if how == "push_to_hub" else weights.push("tiny", "me/pttp-tiny", private=True)
        commit = server.repos["me/pttp-tiny"]["main"]
        assert url == f"{server.url}/me/pttp-tiny/commit/{commit}" and server.private["me/pttp-tiny"]
        source, where = "hub:me/pttp-tiny", "me/pttp-tiny"
    second = Predictor.from_pretrained(source)
    assert same(first.net, second.net) and second.config == CONFIG
    assert (second.weights.licence, second.weights.metrics) == ("MIT", METRICS["metrics"])
    third = weights.hub_class(Tiny).from_pretrained(where)
    assert isinstance(third, Tiny) and same(first.net, third) and not third.training
    card = ModelCard.load(Path(source) / "README.md" if how == "save_pretrained" else where)
    assert (card.data.library_name, card.data.license) == ("pttp", "mit") and "On tiny" in card.text

    third.save_pretrained(room / "again")
    assert json.loads((room / "again" / "config.json").read_text())["width"] == 3
    second.net.save_pretrained(room / "by the net")
    assert same(Predictor.from_pretrained(room / "by the net").net, first.net)


def test_published_weights_are_the_embedded_file(server, room, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    (room / "embedded" / "tiny" / "MODEL_CARD.md").write_text("---\nlicense: other\n---\n# Our card\n")
    weights.push("tiny", "me/pttp-tiny")
    held = server.commits[server.repos["me/pttp-tiny"]["main"]]
    assert held["model.safetensors"] == (room / "embedded" / "tiny" / "model.safetensors").read_bytes()
    assert held["README.md"].startswith(b"---\nlicense: other\n---\n# Our card")
    assert json.loads(held["metrics.json"]) == METRICS


@pytest.mark.parametrize("problem, words", [("no token", "no repository|refused"), ("refused", "could not be reached"), ("name", "owner/name")])
def test_push_failures(server, room, monkeypatch, problem, words):
    if problem != "no token":
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
    if problem == "refused":
        point_to("http://127.0.0.1:9", monkeypatch)
    repo = "a/b/c" if problem == "name" else "me/pttp-tiny"
    for push in (lambda: weights.push("tiny", repo), lambda: Predictor.from_pretrained("embedded").push_to_hub(repo)):
        with pytest.raises(WeightsError, match=words) as caught:
            push()
        assert "\n" not in str(caught.value)


def test_an_unnamed_licence_is_called_other(room):
    info = weights.find("tiny", "embedded").info
    card = ModelCard(weights.model_card(replace(info, licence="research only (terms of the photos)")))
    assert (card.data.license, card.data.license_name) == ("other", "research-only-terms-of-the-photos")


# --- a real network ---------------------------------------------------------------------------------------------------------------------------


class Ghost(weights.Pretrained):
    room = "ghostnet"

    @staticmethod
    def build(config):
        return GhostNet(**{k: config[k] for k in ("num_classes", "width", "dropout", "ratio") if k in config})


def test_ghostnet_from_timm_s_repository(server):
    """The record's own home, in timm's format: no metrics.json, timm's config.json, float32."""
    torch.manual_seed(0)
    net = GhostNet()
    config = {"architecture": "ghostnet_100", "num_classes": 1000, "num_features": 1280, "pretrained_cfg": {"input_size": [3, 224, 224], "crop_pct": 0.875}}
    commit = server.put("timm/ghostnet_100.in1k", {"model.safetensors": save(net.state_dict()), "config.json": json.dumps(config).encode()})
    ghost = Ghost.from_pretrained()
    assert ghost.weights.source == f"hub:timm/ghostnet_100.in1k@{commit}" and ghost.config == config
    assert (ghost.weights.licence, ghost.weights.metrics["headline"][:7]) == ("Apache-2.0", "73.98 %")
    assert ghost.weights.parameters == sum(p.numel() for p in net.parameters())
    assert weights.find("ghostnet").info.parameters == ghost.weights.parameters, "the file's header tells the same number"
    assert same(ghost.net, net)


def test_ghostnet_saved_and_still_a_module(server, room):
    torch.manual_seed(0)
    net = GhostNet(num_classes=10, width=0.5)
    config = {"num_classes": 10, "width": 0.5, "preprocess": {"size": 96}}
    folder = write(room / "half", {"model.safetensors": save(net.state_dict()), "config.json": json.dumps(config).encode()})
    ghost = Ghost.from_pretrained(folder)
    ghost.net.to(memory_format=torch.channels_last)
    ghost.save_pretrained(room / "saved")
    again = Ghost.from_pretrained(room / "saved")
    assert again.config == config and same(again.net, net)
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        expected = net.eval()(x)
        for same_net in (again.net, copy.deepcopy(again.net)):
            assert torch.allclose(same_net(x.to(again.device)).cpu(), expected, atol=1e-5)


# --- the command line, in a process of its own ------------------------------------------------------------------------------------------------


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
    assert "me/pttp-ghostnet" in command("weights", "list", PTTP_HUB="me").stdout


@pytest.mark.parametrize(
    "words, sentence",
    [
        (("show", "nobody"), "no paper called 'nobody'"),
        (("show", "ghostnet", "--source", "hub:no/body"), "no repository no/body"),
        (("show", "ghostnet", "--source", "/nowhere"), "no file /nowhere"),
        (("push", "ghostnet"), "--owner"),
        (("push", "cagan", "--owner", "me"), "no embedded weights"),
    ],
)
def test_command_mistakes(command, words, sentence):
    done = command("weights", *words)
    assert done.returncode == 2 and sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and done.stdout == ""
