"""Reading the authors' .pkl files: what is admitted, what is refused, and that nothing in them is ever executed."""
from __future__ import annotations

import _codecs
import functools
import io
import json
import os
import pickle
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pttp.errors import WeightsError
from pttp.pointrend import official, published
from pttp.pointrend.model import PointRend, SemanticPointRend

OLD = {"mask_head.point_head.": "mask_point_head.", "mask_head.coarse_head.fc": "mask_coarse_head.coarse_mask_fc", "mask_head.coarse_head.": "mask_coarse_head."}


def their_name(name: str) -> str:
    """Our name -> the authors'; written down here once more, in the other direction."""
    name = re.sub(r"^backbone\.fpn\.inner_blocks\.(\d)\.0", lambda m: f"backbone.fpn_lateral{int(m[1]) + 2}", name)
    name = re.sub(r"^backbone\.fpn\.layer_blocks\.(\d)\.0", lambda m: f"backbone.fpn_output{int(m[1]) + 2}", name)
    name = re.sub(r"^backbone\.body\.(conv|bn)1\.", r"backbone.bottom_up.stem.\g<1>1.", name)
    name = re.sub(r"^backbone\.body\.layer(\d)", lambda m: f"backbone.bottom_up.res{int(m[1]) + 1}", name)
    name = name.replace(".downsample.0.", ".shortcut.").replace(".downsample.1.", ".shortcut.norm.")
    name = re.sub(r"\.bn(\d)\.", r".conv\1.norm.", name)
    name = re.sub(r"^rpn\.", "proposal_generator.rpn_head.", name)
    name = re.sub(r"^box_head\.(fc\d)", r"roi_heads.box_head.\1", name)
    name = re.sub(r"^box_head\.", "roi_heads.box_predictor.", name)
    return re.sub(r"^(point_head|coarse_head)\.", r"roi_heads.mask_head.\1.", name)


def small(**options) -> PointRend:
    """A whole PointRend, with few classes and one block a stage."""
    torch.manual_seed(0)
    return PointRend(num_classes=3, depths=(1, 1, 1, 1), **options)


def arrays_of(net: PointRend) -> dict[str, np.ndarray]:
    return {their_name(k): v.numpy() for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}


def older(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same in the older generation of names, with the constants that its files carry."""
    renamed = {}
    for name, array in arrays.items():
        for new, old in OLD.items():
            name = name.replace(new, old)
        renamed[name] = array
    extra = {"pixel_mean": np.zeros((3, 1, 1)), "pixel_std": np.ones((3, 1, 1)), "proposal_generator.anchor_generator.cell_anchors.0": np.zeros((3, 4))}
    return renamed | extra


def write(path, content, protocol: int = 2):
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("generation", [lambda a: a, older], ids=["newer names", "older names"])
def test_conversion(tmp_path, generation):
    net = small()
    file = write(tmp_path / "model_final.pkl", {"model": generation(arrays_of(net)), "__author__": "someone", "iteration": 7}, protocol=4)
    folder = official.save(file, tmp_path / "out")
    config = json.loads((folder / "config.json").read_text())
    assert config["kind"] == "instance" and config["net"] == {"num_classes": 3, "depths": [1, 1, 1, 1]}
    again = official.build(config)
    again.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    for (name, ours), theirs in zip(again.state_dict().items(), net.state_dict().values()):
        assert torch.equal(ours, theirs), name


def test_files_that_python_2_wrote(tmp_path):
    """Arrays' bytes are text there, to be read as latin-1; numpy's own module had another name, too."""
    text = bytes(range(256)) * 4
    by_hand = (
        b"\x80\x02}q\x00(X\x05\x00\x00\x00modelq\x01}q\x02X\x01\x00\x00\x00wq\x03"
        b"cnumpy.core.multiarray\n_reconstruct\nq\x04cnumpy\nndarray\nq\x05K\x00\x85U\x01b\x87R(K\x01M\x00\x01\x85"
        b"cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T\x00\x04\x00\x00" + text + b"tbsu."
    )
    (tmp_path / "old.pkl").write_bytes(by_hand)
    array = official.read(tmp_path / "old.pkl")["w"]
    assert array.dtype == np.dtype("<f4") and array.tobytes() == text


@pytest.mark.parametrize(
    ("groups", "width", "in_1x1"),
    [(1, 64, True), (2, 8, False)],
    ids=["ResNet", "ResNeXt"],
)
def test_the_kind_of_resnet_follows_from_the_shapes(groups, width, in_1x1):
    net = small(groups=groups, width_per_group=width, stride_in_1x1=in_1x1)
    _, config = official.tensors(arrays_of(net))
    again = official.build(config)
    strides = [again.backbone.body.layer2[0].conv1.stride, again.backbone.body.layer2[0].conv2.stride]
    assert strides == ([(2, 2), (1, 1)] if in_1x1 else [(1, 1), (2, 2)])
    assert (config["preprocess"]["std"] == [1, 1, 1]) == (groups == 1)


def test_semantic_networks_are_told_apart():
    with torch.device("meta"):
        net = SemanticPointRend(num_classes=5, depths=(1, 1, 1, 1))
    config = official.config_of(net.state_dict())
    assert config["kind"] == "semantic" and config["net"]["num_classes"] == 5
    assert isinstance(official.build(config), SemanticPointRend)


class Calls:
    """Pickled, this is an order to call `what` with `arguments` when the file is read."""

    def __init__(self, what, *arguments):
        self.order = what, arguments

    def __reduce__(self):
        return self.order


def touch(file: str) -> None:
    open(file, "w").close()


class Own:
    pass


def malicious(marker: str) -> dict[str, object]:
    return {
        "os.system": Calls(os.system, f"touch {marker}"),
        "eval": Calls(eval, f"open({marker!r}, 'w')"),
        "exec": Calls(exec, f"open({marker!r}, 'w')"),
        "open": Calls(open, marker, "w"),
        "getattr": Calls(getattr, "text", "upper"),
        "a function of the writer's own": Calls(touch, marker),
        "numpy.save": Calls(np.save, marker, "x"),
        "partial": functools.partial(touch, marker),
        "a class": Own,
        "an object": Own(),
        "a tensor": torch.zeros(2),
    }


@pytest.mark.parametrize("place", ["beside", "inside", "instead"])
@pytest.mark.parametrize("case", malicious(""))
def test_nothing_is_executed(tmp_path, case, place):
    order = malicious(str(tmp_path / "marker"))[case]
    content = {"beside": {"model": {}, "extra": order}, "inside": {"model": {"w": order}}, "instead": order}[place]
    file = write(tmp_path / "bad.pkl", content)
    with pytest.raises(WeightsError, match="cannot be read safely.* is not an array"):
        official.read(file)
    assert [f.name for f in tmp_path.iterdir()] == ["bad.pkl"]


def test_the_malicious_files_would_work(tmp_path):
    """Read by pickle itself, such a file does what it says: the test above tests something."""
    pickle.loads(pickle.dumps(malicious(str(tmp_path / "marker"))["a function of the writer's own"]))
    assert (tmp_path / "marker").exists()


def test_codecs_are_not_a_way_in():
    """_codecs.encode is admitted for arrays' bytes; no other codec may be reached through it."""
    for name in ("rot13", "zlib", "idna"):
        data = pickle.dumps({"model": Calls(_codecs.encode, "abc", name)}, protocol=2)
        with pytest.raises(pickle.UnpicklingError, match="encoding"):
            official.ArraysOnly(io.BytesIO(data), encoding="latin1").load()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "cannot be read safely"),
        (b"\x80\x02", "cannot be read safely"),
        (b"not a pickle at all", "cannot be read safely"),
        (pickle.dumps([1, 2]), "does not hold a model"),
        (pickle.dumps({"model": [1]}), "does not hold a model"),
        (pickle.dumps({"model": {"w": 1.0}}), "does not hold a model"),
        (pickle.dumps({"model": {3: np.zeros(1)}}), "does not hold a model"),
        (pickle.dumps({"model": {"w": np.array([{}, "x"], dtype=object)}}), "does not hold a model"),
        (pickle.dumps({"model": {"w": np.array(["x"])}}), "does not hold a model"),
        (pickle.dumps({"model": {"w": np.zeros(3, np.float32)}}), "not a PointRend network's"),
        (pickle.dumps({"model": {}}), "not a PointRend network's"),
    ],
)
def test_other_files_are_refused(tmp_path, content, sentence):
    (tmp_path / "x.pkl").write_bytes(content)
    with pytest.raises(WeightsError, match=sentence):
        official.save(tmp_path / "x.pkl", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_file():
    with pytest.raises(WeightsError, match="no file"):
        official.read("/nowhere/model_final.pkl")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda a: a.pop("roi_heads.box_head.fc1.bias"), r"missing: 1 \(box_head.fc1.bias\)"),
        (lambda a: a.update(surprise=np.zeros(1)), r"unexpected: 1 \(surprise\)"),
        (lambda a: a.update({"roi_heads.box_head.fc1.bias": np.zeros(3)}), r"of another shape: 1 \(box_head.fc1.bias\)"),
        (lambda a: a.update({"roi_heads.mask_head.point_head.predictor.weight": np.zeros(3)}), "not a PointRend network's"),
        (lambda a: a.update({"backbone.bottom_up.res2.0.conv2.weight": np.zeros((64, 0, 3, 3))}), "not a PointRend network's"),
        (lambda a: a.update({"backbone.bottom_up.res2.0.conv2.weight": np.zeros((64, 60, 3, 3))}), "not a PointRend network's"),
        (lambda a: a.update({"backbone.bottom_up.res2.900000000.conv2.weight": np.zeros((64, 64, 3, 3))}), "not a whole PointRend network"),
    ],
)
def test_what_is_wrong_is_named(change, sentence):
    arrays = arrays_of(small())
    change(arrays)
    with pytest.raises(WeightsError, match=sentence):
        official.tensors(arrays)


def test_published_files():
    assert len(published.PUBLISHED) == 6 and len({p.url for p in published.PUBLISHED}) == 6
    for p in published.PUBLISHED:
        assert re.fullmatch(r"https://dl\.fbaipublicfiles\.com/detectron2/PointRend/\w+/\w+/\d+/model_final_[0-9a-f]{6}\.pkl", p.url)
