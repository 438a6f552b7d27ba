"""Reading the authors' mmdetection checkpoints."""
from __future__ import annotations

import json
import os

import pytest
import torch
from safetensors.torch import load_file

from pttp.errors import WeightsError
from pttp.polarmask import official
from pttp.polarmask.model import PolarMask


def small() -> PolarMask:
    """A whole PolarMask, with few classes, one block a stage and 12 rays."""
    torch.manual_seed(0)
    net = PolarMask(num_classes=3, depths=(1, 1, 1, 1), rays=12)
    torch.nn.init.uniform_(net.head.scales_bbox)
    torch.nn.init.uniform_(net.head.scales_mask)
    return net


def theirs(net: PolarMask) -> dict[str, torch.Tensor]:
    """The state dict by the authors' names; written down here once more, in the other direction."""
    state = {}
    for name, tensor in net.state_dict().items():
        for ours, their in (
            ("backbone.body.", "backbone."),
            ("backbone.fpn.extra_blocks.p6.", "neck.fpn_convs.3.conv."),
            ("backbone.fpn.extra_blocks.p7.", "neck.fpn_convs.4.conv."),
            *((f"backbone.fpn.inner_blocks.{i}.0.", f"neck.lateral_convs.{i}.conv.") for i in range(3)),
            *((f"backbone.fpn.layer_blocks.{i}.0.", f"neck.fpn_convs.{i}.conv.") for i in range(3)),
            ("head.", "bbox_head."),
        ):
            if name.startswith(ours):
                name = their + name.removeprefix(ours)
                break
        if "scales_" in name:
            state |= {f"{name}.{i}.scale": x.clone() for i, x in enumerate(tensor)}
        else:
            state[name] = tensor
    return state


@pytest.mark.parametrize(
    "wrap",
    [lambda s: {"state_dict": s, "meta": {"epoch": 12, "config": "x"}, "optimizer": {"state": {}}}, lambda s: s],
    ids=["checkpoint", "state dict"],
)
@pytest.mark.parametrize(
    ("counters", "zipped"), [(True, True), (False, True), (True, False)], ids=["with counters", "without counters", "in the file format of 2019"]
)
def test_conversion(tmp_path, wrap, counters, zipped):
    net = small()
    state = {k: v for k, v in theirs(net).items() if counters or not k.endswith("num_batches_tracked")}
    torch.save(wrap(state), tmp_path / "epoch_12.pth", _use_new_zipfile_serialization=zipped)
    folder = official.save(tmp_path / "epoch_12.pth", tmp_path / "out")
    config = json.loads((folder / "config.json").read_text())
    assert config["net"] == {"num_classes": 3, "depths": [1, 1, 1, 1], "rays": 12}
    again = official.build(config)
    again.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    for (name, ours), wanted in zip(again.state_dict().items(), net.state_dict().values()):
        assert torch.equal(ours, wanted), name


def test_names_of_parallel_training():
    net = small()
    state, _ = official.tensors({f"module.{k}": v for k, v in theirs(net).items()})
    assert all(torch.equal(state[k], v) for k, v in net.state_dict().items())


class Calls:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("wrap", [lambda c: c, lambda c: {"state_dict": {}, "meta": c}, lambda c: {"state_dict": {"w": c}}])
def test_nothing_is_executed(tmp_path, wrap):
    torch.save(wrap(Calls(tmp_path / "marker")), tmp_path / "bad.pth")
    with pytest.raises(WeightsError, match="cannot be read safely|that can be read safely"):
        official.read(tmp_path / "bad.pth")
    assert [f.name for f in tmp_path.iterdir()] == ["bad.pth"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([1, 2], "is not a state dict"),
        ({"state_dict": 3}, "does not hold a state dict"),
        ({"a": 1.0}, "does not hold a state dict"),
        ({"w": torch.zeros(1)}, "not a PolarMask network's"),
        ({}, "not a PolarMask network's"),
    ],
)
def test_other_files_are_refused(tmp_path, content, sentence):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=sentence):
        official.save(tmp_path / "x.pth", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_files_that_are_no_checkpoints(tmp_path):
    (tmp_path / "x.pth").write_bytes(b"nothing of the kind")
    with pytest.raises(WeightsError, match="can be read safely"):
        official.read(tmp_path / "x.pth")
    with pytest.raises(WeightsError, match="no file"):
        official.read(tmp_path / "y.pth")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: s.pop("bbox_head.polar_reg.bias"), r"missing: 1 \(head.polar_reg.bias\)"),
        (lambda s: s.pop("bbox_head.scales_mask.3.scale"), r"missing: 1 \(head.scales_mask\)"),
        (lambda s: s.update({"bbox_head.scales_mask.3.scale": torch.ones(2)}), r"missing: 1 \(head.scales_mask\)"),
        (lambda s: s.update(surprise=torch.zeros(1)), r"unexpected: 1 \(surprise\)"),
        (lambda s: s.update({"neck.fpn_convs.4.conv.bias": torch.zeros(3)}), "of another shape: 1"),
        (lambda s: s.update({"bbox_head.polar_cls.bias": torch.zeros(3, 1)}), "not a PolarMask network's"),
        (lambda s: [s.pop(k) for k in list(s) if ".layer3." in k], "not a PolarMask network's"),
    ],
)
def test_what_is_wrong_is_named(change, sentence):
    state = theirs(small())
    change(state)
    with pytest.raises(WeightsError, match=sentence):
        official.tensors(state)
