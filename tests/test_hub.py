"""pttp.hub with the real huggingface_hub client: what "auto" and "hub:" do when all goes well, and when it does not."""
from __future__ import annotations

import importlib
import pickle
import socket
import threading
import time

import pytest
import torch
from safetensors.torch import save

from pttp import hub, weights
from pttp.errors import WeightsError
from pttp.papers import HubWeights
from tests.tiny_room import CONFIG, HOME, Predictor, assert_one_sentence, files, paper, point_to, room, server  # noqa: F401  fixtures

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
    "unknown name": "no network, or its name is unknown",
}
SLOW = {"truncate", "stall", "hang", "unroutable", "unknown name"}  # these fail only when patience ends; every other one must fail at once


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
        named["model.safetensors"] = pickle_bomb()
    elif what == "half a file":
        named["model.safetensors"] = named["model.safetensors"][:400]
    elif what == "broken config":
        named["config.json"] = b"{'width': 3"
    elif what in ("truncate", "stall"):
        named["model.safetensors"] = save({"big": torch.rand(500_000)})
    if what != "missing":
        server.put(HOME, named)
    server.faults[HOME] = what
    hanging = []
    if what == "pinned":
        records = importlib.import_module("pttp.papers")
        pinned = paper("tiny", HubWeights(HOME, "", "", "", sha256="0" * 64))
        monkeypatch.setattr(records, "_PAPERS", tuple(pinned if p.name == "tiny" else p for p in records._PAPERS))
    elif what == "refused":
        point_to("http://127.0.0.1:9", monkeypatch)
    elif what == "unknown name":
        point_to("http://hub.invalid", monkeypatch)
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
    for s in hanging:
        s.close()


def pickle_bomb() -> bytes:
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
