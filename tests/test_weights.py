"""pttp.weights: embedded weights and paths, strict loading, and what is saved or published comes back."""
from __future__ import annotations

import copy
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save, save_file

from pttp import weights
from pttp.errors import BadInput, WeightsError
from pttp.ghostnet.model import GhostNet
from tests.tiny_room import CONFIG, HOME, METRICS, Predictor, Tiny, assert_one_sentence, files, point_to, room, same, server, write  # noqa: F401  fixtures

ROOT = Path(__file__).parents[1]


def test_importing_is_light():
    code = "import sys, pttp.weights, pttp.cli_weights; print([m for m in ('torch', 'huggingface_hub', 'gradio', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip() == "[]"


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
        ({"width": 5}, r"of another shape: 6 \(conv.weight is \(5, 3, 3, 3\), not \(3, 3, 3, 3\), conv.bias .*, \.\.\.\)"),
        ({"extra": True}, r"unexpected: 2 \(extra.bias, extra.weight\)"),
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
    with pytest.raises(WeightsError, match=r"missing: 2 \(conv.bias, bn.weight\)"):
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
