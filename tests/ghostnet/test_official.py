"""The authors' checkpoint: converted as it is, and nothing else let in."""
from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import pttp
from pttp.errors import WeightsError
from pttp.ghostnet import official
from pttp.ghostnet.model import GhostNet
from pttp.training.export import write
from tests.ghostnet.nets import random_net
from tests.oracles import common

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return random_net(seed=5).state_dict()


def written(tmp_path: Path, content) -> Path:
    file = tmp_path / "state_dict_73.98.pth"
    torch.save(content, file)
    return file


def test_convert_keeps_names_order_and_values(tmp_path, state):
    tensors = official.convert(written(tmp_path, state))
    assert list(tensors) == list(GhostNet().state_dict())
    assert all(torch.equal(tensors[k], v) and tensors[k].dtype == v.dtype for k, v in state.items())


@pytest.mark.parametrize("legacy", [False, True])
def test_old_and_new_files_in_any_precision_and_order(tmp_path, state, legacy):
    file = tmp_path / "x.pth"
    torch.save({k: v.half() if v.is_floating_point() else v for k, v in reversed(state.items())}, file, _use_new_zipfile_serialization=not legacy)
    tensors = official.convert(str(file))
    assert list(tensors) == list(state)
    assert all(torch.equal(tensors[k], v.half().float() if v.is_floating_point() else v) for k, v in state.items())


def test_the_authors_logits(tmp_path):
    wanted = common.tensors("ghostnet", "network")
    shapes = {k: shape for k, (shape, dtype) in common.facts("ghostnet", "keys")["1.0"].items() if dtype == "float32"}
    counters = {k: torch.tensor(0) for k, (_, dtype) in common.facts("ghostnet", "keys")["1.0"].items() if dtype == "int64"}
    net = GhostNet().eval()
    net.load_state_dict(official.convert(written(tmp_path, common.values("ghostnet", shapes) | counters)), strict=True)
    with torch.inference_mode():
        common.assert_within(net(wanted["x_97x129"]), wanted["w1.0.logits_97x129"], 2e-5)


def test_saved_folder_is_one_that_loads(tmp_path, state):
    folder = official.save(written(tmp_path, state), tmp_path / "new" / "folder")
    assert sorted(f.name for f in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert {v.dtype for v in load_file(folder / "model.safetensors").values()} == {torch.float32, torch.int64}
    preprocess = json.loads((folder / "config.json").read_text())["preprocess"]
    assert (preprocess["size"], preprocess["size"] / preprocess["crop"], preprocess["interpolation"]) == (224, 256, "bilinear")
    net = pttp.load("ghostnet", str(folder))
    assert all(torch.equal(v.cpu(), state[k]) for k, v in net.net.state_dict().items())
    assert (net.preprocess.size, net.preprocess.crop) == (224, 0.875)


def test_as_a_command(tmp_path, state):
    command = [sys.executable, "-m", "pttp.ghostnet.official"]
    done = subprocess.run([*command, written(tmp_path, state), tmp_path / "out"], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "model.safetensors").is_file()
    failed = subprocess.run([*command, tmp_path / "none.pth", tmp_path / "out2"], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert failed.returncode == 1
    assert failed.stderr.strip() == f"There is no file {tmp_path / 'none.pth'}."
    assert not (tmp_path / "out2").exists()


class Harm:
    """Unpickling it creates a file."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("kind", ["torch", "legacy torch", "pickle", "beside good tensors"])
def test_a_pickle_with_code_does_not_run(tmp_path, state, kind):
    mark, file = tmp_path / "harm", tmp_path / "state_dict_73.98.pth"
    if kind == "pickle":
        file.write_bytes(pickle.dumps(Harm(mark), protocol=2))
    else:
        content = {**state, "extra": Harm(mark)} if kind == "beside good tensors" else Harm(mark)
        torch.save(content, file, _use_new_zipfile_serialization=kind != "legacy torch")
    assert not mark.exists()
    with pytest.raises(WeightsError, match="read safely"):
        official.convert(file)
    with pytest.raises(WeightsError, match="read safely"):
        official.save(file, tmp_path / "out")
    assert not mark.exists()
    assert not (tmp_path / "out").exists()
    pickle.loads(pickle.dumps(Harm(mark)))
    assert mark.exists()  # it would have harmed


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as z:
        z.writestr("hello.txt", "no tensors here")
    return buffer.getvalue()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", _zip(), b"\x80\x02" + b"\x00" * 50, b"PK\x03\x04 cut off"], ids=["empty", "text", "zip", "noise", "cut off"])
def test_files_that_are_no_checkpoints(tmp_path, content):
    file = tmp_path / "x.pth"
    file.write_bytes(content)
    with pytest.raises(WeightsError, match="x.pth is not a checkpoint"):
        official.convert(file)


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(WeightsError, match="There is no file"):
        official.convert(tmp_path / "none.pth")
    with pytest.raises(WeightsError, match="is not a checkpoint"):
        official.convert(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: list(s.values()), "not a state dict"),
        (lambda s: {"state_dict": s}, "not a state dict"),
        (lambda s: {**s, "bn1.weight": [1.0]}, "not a state dict"),
        (lambda s: {k: v for k, v in s.items() if k != "bn1.weight"}, r"missing: 1 \(bn1.weight\)"),
        (lambda s: {**s, "head.weight": torch.zeros(1)}, r"unexpected: 1 \(head.weight\)"),
        (lambda s: {**s, 3: torch.zeros(1)}, r"unexpected: 1 \(3\)"),
        (lambda s: {**s, "bn1.weight": torch.zeros(17)}, r"of another shape: 1 \(bn1.weight\)"),
        (lambda s: random_net(0.5).state_dict(), "of another shape: "),
        (lambda s: {f"module.{k}": v for k, v in s.items()}, r"missing: 512 .* unexpected: 512"),
    ],
)
def test_anything_but_ghostnet_is_refused(tmp_path, state, change, words):
    with pytest.raises(WeightsError, match=words):
        official.convert(written(tmp_path, change(state)))


def test_weights_of_other_classes_are_refused(tmp_path):
    """Their answers would get ImageNet's names."""
    net = random_net(num_classes=10, width=0.5)
    write(tmp_path, net, {"num_classes": 10, "width": 0.5}, {}, "")
    with pytest.raises(WeightsError, match="tell 10 classes apart, and names are known for ImageNet's 1,000"):
        pttp.load("ghostnet", str(tmp_path))
