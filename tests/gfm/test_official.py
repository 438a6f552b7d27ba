"""The authors' checkpoint files: doubled names, and everything that is not one."""
from __future__ import annotations

import json
import pickle
import zipfile

import pytest
import torch
from safetensors.torch import load_file

from pttp.errors import WeightsError
from pttp.gfm import official
from pttp.gfm.model import GFM


def checkpoint(backbone: str, rosta: str, value: float = 0.0) -> dict[str, torch.Tensor]:
    """The names and shapes of the authors' file; one number fills every tensor, so that the file is small."""
    with torch.device("meta"):
        net = GFM(backbone, rosta)
    number = torch.full((), value)
    state = {}
    for name, v in net.state_dict().items():
        filled = number.expand(v.shape) if v.is_floating_point() else torch.zeros((), dtype=torch.int64)
        state[name] = filled
        if twin := official.twin(backbone, name):
            state[twin] = filled
    for start in official.UNUSED[backbone]:
        state[f"{start}weight"] = number.expand(3)
    return state


@pytest.fixture(scope="module")
def r34_ft() -> dict[str, torch.Tensor]:
    return checkpoint("r34", "FT")


def test_doubled_names_are_there(r34_ft):
    assert {"resnet.conv1.weight", "encoder0.0.weight", "resnet.layer1.2.bn2.bias", "encoder1.1.2.bn2.bias", "resnet.fc.weight"} <= set(r34_ft)


def test_either_name_is_enough(r34_ft):
    first = {k: v for k, v in r34_ft.items() if not k.startswith("resnet.")}
    second = {k: v for k, v in r34_ft.items() if not k.startswith("encoder")}
    for state in (first, second):
        config, tensors = official.from_state(state, "FT")
        assert config == {"backbone": "r34", "rosta": "FT"}
        assert not any(k.startswith("resnet.") for k in tensors) and "encoder4.2.bn2.running_var" in tensors


def test_the_stage_wins_over_its_twin(r34_ft):
    other = torch.ones(()).expand(r34_ft["resnet.conv1.weight"].shape)
    _, tensors = official.from_state({**r34_ft, "resnet.conv1.weight": other}, "FT")
    assert not tensors["encoder0.0.weight"].any()
    _, tensors = official.from_state({**r34_ft, "encoder0.0.weight": other}, "FT")
    assert tensors["encoder0.0.weight"].all()


@pytest.mark.parametrize("backbone, rosta", [("r34", "TT"), ("r34", "RIM"), ("d121", "TT"), ("r34_2b", "BT"), ("r34_2b", "RIM"), ("r101", "FT")])
def test_variant(backbone, rosta):
    found, possible = official.variant(checkpoint(backbone, rosta))
    assert found == backbone and rosta in possible and len(possible) == (2 if rosta in ("FT", "BT") else 1)


@pytest.mark.parametrize(
    "change, rosta, message",
    [
        ({}, None, "FT and BT: say which"),
        ({}, "TT", "not TT"),
        ({"encoder4.0.conv1.weight": None, "resnet.layer4.0.conv1.weight": None}, "FT", r"missing: 1 \(encoder4.0.conv1.weight\)"),
        ({"head.weight": torch.zeros(1)}, "FT", r"unexpected: 1 \(head.weight\)"),
        ({"psp4.0.bias": torch.zeros(7)}, "FT", r"another shape: 1 \(psp4.0.bias\)"),
    ],
)
def test_what_does_not_fit(r34_ft, change, rosta, message):
    state = {k: v for k, v in {**r34_ft, **change}.items() if v is not None}
    with pytest.raises(WeightsError, match=message):
        official.from_state(state, rosta)


def test_file_to_folder(r34_ft, tmp_path):
    file = tmp_path / "gfm_r34_ft.pth"
    torch.save(r34_ft, file)
    folder = official.save(file, tmp_path / "out")
    config = json.loads((folder / "config.json").read_text())
    assert config == {"backbone": "r34", "rosta": "FT"}
    with torch.device("meta"):
        net = GFM(**config)
    net.load_state_dict(load_file(folder / "model.safetensors"), strict=True, assign=True)
    file = file.rename(tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match="say which"):
        official.convert(file)
    assert official.network(file, "BT").rosta == "BT"


class Explodes:
    def __reduce__(self):
        return exec, ("raise RuntimeError('executed')",)


def no_state(path):
    torch.save({"epoch": 3}, path)


def archive(path):
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("gfm_r34_tt.pth", b"")


@pytest.mark.parametrize(
    "write, message",
    [
        (lambda path: None, "There is no file"),
        (lambda path: path.write_bytes(b""), "cannot be read|can be read safely"),
        (lambda path: path.write_bytes(b"<html>Quota exceeded</html>"), "can be read safely"),
        (lambda path: path.write_bytes(pickle.dumps(Explodes(), protocol=2)), "can be read safely"),
        (archive, "unpack it first"),
        (no_state, "not a state dict"),
    ],
    ids=["missing", "empty", "html", "pickle", "archive", "no state dict"],
)
def test_files_that_are_no_checkpoint(write, message, tmp_path):
    write(tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=message):
        official.convert(tmp_path / "x.pth")
