"""pttp.checkpoints: a disk that refuses is a sentence."""
from __future__ import annotations

import json

import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError

from pttp import checkpoints
from pttp.errors import BadInput

STATE = {"a": torch.ones(2)}


def test_save(tmp_path):
    folder = checkpoints.save(STATE, {"size": 3}, tmp_path / "new" / "folder")
    assert json.loads((folder / "config.json").read_text()) == {"size": 3} and torch.equal(safetensors.torch.load_file(folder / "model.safetensors")["a"], STATE["a"])


@pytest.mark.parametrize("taken, words", [("", "could not be made"), ("model.safetensors/x", "is a folder"), ("config.json/x", "is a folder")])
def test_something_is_in_the_way(tmp_path, taken, words):
    folder = tmp_path / "out"
    (folder / taken).parent.mkdir(parents=True, exist_ok=True)
    (folder / taken).touch()
    with pytest.raises(BadInput, match=words):
        checkpoints.save(STATE, {}, folder)


@pytest.mark.parametrize("error", [SafetensorError("I/O error: no space left"), OSError("no space left")])
def test_a_full_disk(tmp_path, monkeypatch, capsys, error):
    def full(*_, **__):
        raise error

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(SystemExit, match="model.safetensors could not be written .*no space left"):
        checkpoints.in_words(lambda: checkpoints.save(STATE, {}, tmp_path))
    assert capsys.readouterr().out == ""
