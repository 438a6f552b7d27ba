"""The recipe, end to end on a handful of made-up photos: it runs, resumes, and leaves a room's weights that load and answer."""
from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from pttp import trunk
from pttp.ghostnet import train
from pttp.ghostnet.classes import wnids
from pttp.ghostnet.predict import Predictor


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    (root / "tiny_imagenet").mkdir()
    for split in ("train", "val"):
        with zipfile.ZipFile(root / "tiny_imagenet" / f"{split}.zip", "w") as archive:
            for i, wnid in enumerate(wnids()[:6]):
                file = io.BytesIO()
                Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(file, "WEBP")
                archive.writestr(f"{wnid}/{i}.webp", file.getvalue())
    (root / "general_photos" / "images").mkdir(parents=True)
    for i in range(4):
        Image.fromarray(rng.integers(0, 255, (60, 80, 3), np.uint8)).save(root / "general_photos" / "images" / f"{i}.jpg")
    (root / "animals_misc" / "images").mkdir(parents=True)
    for i in range(2):
        Image.fromarray(rng.integers(0, 255, (60, 80, 3), np.uint8)).save(root / "animals_misc" / "images" / f"{i}.jpg")
    (root / "animals_misc" / "val.txt").write_text("0\n1\n")
    torch.manual_seed(0)
    save_file({k: v.contiguous() for k, v in trunk.Lite0().state_dict().items()}, root / "teacher.safetensors")
    return root


def test_the_recipe(data, tmp_path, monkeypatch):
    filled = []
    monkeypatch.setattr(train, "fill", lambda file, text: filled.append(text))
    options = ["--data", str(data), "--teacher", str(data / "teacher.safetensors"), "--run", str(tmp_path / "run"), "--out", str(tmp_path / "out"), "--size", "64", "--small", "32", "--large", "64", "--sharp", "64", "--batch", "8"]
    train.main([*options, "--adapt", "2", "--blocks", "2", "--distil", "2", "--finish", "2"])
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"adapt", "blocks", "distil", "finish"}
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["metrics"]["tiny_imagenet_val"]["photos"] == 6 and metrics["training"]["views"] == 8 * 6
    assert metrics["metrics"]["sharp_photos"]["photos"] == 2
    assert metrics["metrics"]["headline"] in (tmp_path / "out" / "metrics.json").read_text()
    assert not filled, "the lesson tells of the weights that are shipped"
    assert train.table(metrics) in (tmp_path / "out" / "MODEL_CARD.md").read_text()
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert {v.dtype for v in weights.values()} == {torch.float16, torch.int64}
    net = Predictor.from_pretrained(str(tmp_path / "out"))
    assert net.preprocess.size == metrics["metrics"]["tiny_imagenet_val"]["size"]
    assert len(net.predict(Image.new("RGB", (50, 40)), top=3).names) == 3

    train.main([*options, "--adapt", "2", "--blocks", "2", "--distil", "2", "--finish", "2"])
    for a, b in zip(weights.values(), load_file(tmp_path / "out" / "model.safetensors").values(), strict=True):
        assert torch.equal(a, b)

    train.main([*options, "--start", str(tmp_path / "out"), "--run", str(tmp_path / "again"), "--out", str(tmp_path / "more"), "--adapt", "0", "--blocks", "0", "--distil", "1", "--finish", "0"])
    more = json.loads((tmp_path / "more" / "metrics.json").read_text())["training"]
    assert more["views"] == 8 * 7 and more["started_from"]["views"] == 8 * 6 and "--start" in more["command"]

    folders = [tmp_path / "out", tmp_path / "more"]
    train.main([*options, "--start", *map(str, folders), "--run", str(tmp_path / "none"), "--out", str(tmp_path / "mean"), "--adapt", "0", "--blocks", "0", "--distil", "0", "--finish", "0"])
    mean = json.loads((tmp_path / "mean" / "metrics.json").read_text())["training"]
    assert mean["views"] == 8 * 7 and len(mean["started_from"]) == 2 and "--start FOLDER FOLDER" in mean["command"]
    a, b, c = (load_file(folder / "model.safetensors")["conv_stem.weight"].float() for folder in (*folders, tmp_path / "mean"))
    assert not torch.equal(a, b) and torch.allclose((a + b) / 2, c, atol=1e-3)


def test_accuracy_counts():
    """An answer that knows the label is always right; one that is off by one class is right among five."""
    photos = train.Photos(torch.zeros(8, 3, 8, 8, dtype=torch.uint8), torch.full((8, 2), 8), torch.arange(8) + 100)
    photos.pixels[:, 0] = torch.arange(8, dtype=torch.uint8).view(-1, 1, 1) * 10

    def knowing(shift):
        def answer(x):
            label = (x[:, 0].mean((1, 2)) * 25.5).round().long() + 100
            return -(torch.arange(1000) - (label[:, None] + shift)).abs().float()

        return answer

    assert train.accuracy(knowing(0), photos, 8) == {"top1": 1.0, "top5": 1.0, "top1_200": 1.0, "top5_200": 1.0}
    assert train.accuracy(knowing(1), photos, 8)["top1"] == 0.0
    assert train.accuracy(knowing(1), photos, 8)["top5"] == 1.0
    assert train.accuracy(knowing(500), photos, 8)["top5"] == 0.0


@pytest.mark.parametrize(("error", "expected"), [(0.0, 0.0), (1.0, 1.0)])
def test_unexplained_variance(error, expected):
    g = torch.Generator().manual_seed(0)
    target = torch.randn(4, 5, 9, 9, generator=g) * 3 + 2
    guess = target if not error else target.mean((0, 2, 3), keepdim=True).expand_as(target)
    assert train.unexplained(guess, target).item() == pytest.approx(expected, abs=1e-3)
