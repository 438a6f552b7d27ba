"""The recipe, end to end on a handful of made-up photos: it runs, resumes, and leaves weights that load; its pieces measure what they say."""
from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from pttp import trunk
from pttp.gfm import train
from pttp.gfm.model import Prediction
from pttp.gfm.slim import SlimGFM
from pttp.training import mattes
from tests.training.test_mattes import animal, soft_matte


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    photo, mask = animal()
    for folder, names in {"weizmann_horses": ("a", "b", "c"), "animals_misc": ("d", "e")}.items():
        for kind in ("images", "masks", "alpha"):
            (root / folder / kind).mkdir(parents=True)
        for name in names:
            Image.fromarray(photo).save(root / folder / "images" / f"{name}.jpg", quality=95)
            Image.fromarray(mask).save(root / folder / "masks" / f"{name}.png")
            Image.fromarray(soft_matte(mask)).save(root / folder / "alpha" / f"{name}.png")
        (root / folder / "val.txt").write_text(f"{names[-1]}\n")
    for kind in ("images", "instances"):
        (root / "feral_cats" / kind).mkdir(parents=True)
    Image.fromarray(photo).save(root / "feral_cats" / "images" / "f.jpg")
    Image.fromarray(mask // 255 * 3).save(root / "feral_cats" / "instances" / "f.png")
    (root / "general_photos" / "images").mkdir(parents=True)
    Image.new("RGB", (300, 200), (90, 90, 90)).save(root / "general_photos" / "images" / "0.jpg")
    samples = root / "samples"
    for kind in ("original", "result_alpha"):
        (samples / kind).mkdir(parents=True)
    Image.fromarray(photo).save(samples / "original" / "1.jpg")
    Image.fromarray(mask).save(samples / "result_alpha" / "1.png")
    torch.manual_seed(0)
    save_file({k: v.contiguous() for k, v in trunk.Lite0().state_dict().items()}, root / "lite0.safetensors")
    (root / "cache").mkdir()
    (root / "cache" / "animal_share.json").write_text(json.dumps({"0.jpg": 0.0}))
    return root


def options(root, run, *more: str) -> list[str]:
    chosen = {"data": root, "trunk": root / "lite0.safetensors", "official": root / "samples", "cache": root / "cache", "run": run, "out": run / "out", "pixels": 2 * 64**2}
    return [*(word for k, v in chosen.items() for word in (f"--{k}", str(v))), *more]


def test_the_recipe(root, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "SIDES", (64, 96))
    monkeypatch.setattr(train, "CANVAS", 160)
    monkeypatch.setattr(train, "SIZES", (64, 96))
    train.main(options(root, tmp_path, "--steps", "4", "--eval-every", "2"))
    rows = (tmp_path / "eval.csv").read_text().splitlines()
    assert len(rows) == 3 and "iou_horses,iou_all,iou_other_animals,mad,sad" in rows[0]
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    measured = metrics["metrics"]
    assert set(measured["by_size"]) == {"64", "96"} and measured["size"] in (64, 96)
    assert set(measured["by_size"]["64"]) == {"weizmann_horses", "animals_misc", "all"} and measured["by_size"]["64"]["all"]["photos"] == 2
    assert len(measured["official_samples"]["by_size"]["64"]) == 1 and measured["thumbnails"]["long_side"] == 160
    assert train.table(metrics) in (tmp_path / "out" / "MODEL_CARD.md").read_text()
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert {v.dtype for v in weights.values()} == {torch.float16, torch.int64}
    assert config.pop("size") == measured["size"]
    SlimGFM(**config).load_state_dict(weights)

    train.main(options(root, tmp_path, "--steps", "4", "--eval-every", "2"))  # finished: measured again, not trained again
    for a, b in zip(weights.values(), load_file(tmp_path / "out" / "model.safetensors").values(), strict=True):
        assert torch.equal(a, b)

    again = tmp_path / "again"
    train.main(options(root, again, "--steps", "1", "--start", str(tmp_path / "out")))
    more = json.loads((again / "out" / "metrics.json").read_text())["training"]
    assert more["started_from"] == metrics["training"] and more["views"] > metrics["training"]["views"] and "--start" in more["command"]
    close = load_file(again / "out" / "model.safetensors")["trunk.conv_stem.weight"] - weights["trunk.conv_stem.weight"]
    assert close.abs().max() < 0.01

    folders = [str(tmp_path / "out"), str(again / "out")]
    train.main(options(root, tmp_path / "mean", "--steps", "0", "--start", *folders))
    mean = json.loads((tmp_path / "mean" / "out" / "metrics.json").read_text())["training"]
    assert mean["started_from"] == [metrics["training"], more] and mean["views"] == more["views"] and "--start FOLDER FOLDER --steps 0" in mean["command"]


@pytest.fixture(scope="module")
def data(root, tmp_path_factory) -> mattes.Mattes:
    return mattes.mattes(root, "train", tmp_path_factory.mktemp("cache"), 160, chosen=mattes.sources(root, "train", mattes.EVERY))


def test_cats_come_with_a_closed_form_matte(data):
    _, mask = animal()
    (cat,) = torch.nonzero(data.folders == mattes.EVERY.index("feral_cats")).flatten().tolist()
    alpha = data.alpha[cat, 0, :120, :160].numpy().astype(int)
    assert np.abs(alpha - mask).mean() < 3 and np.array_equal(data.mask[cat, 0, :120, :160].numpy(), mask)


def test_batches_keep_their_pixels_and_repeat(data):
    others = train.Photos(torch.full((1, 3, 160, 160), 90, dtype=torch.uint8), torch.full((1, 2), 160), torch.tensor([-1]))
    draw = train.batches(data, others, 8 * 64**2, 0.3, 0.5, sides=(32, 64, 96))
    seen, nothing = set(), 0
    for step in range(12):
        views, again = (draw(step, torch.Generator().manual_seed(step)) for _ in range(2))
        n, _, side, _ = views.image.shape
        seen.add((side, n))
        assert torch.equal(views.image, again.image)
        empty = views.alpha.amax((1, 2, 3)) == 0
        nothing += int(empty.sum())
        assert torch.allclose(views.image[empty], views.bg[empty])
    assert seen == {(32, 32), (64, 8), (96, 4)}
    assert nothing > 20


def test_areas():
    alpha = torch.zeros(1, 1, 75, 75)
    alpha[..., :40] = 255
    alpha[..., 40] = 100
    row = train.areas(alpha)[0, 0, 30]
    assert row[:39].unique().tolist() == [255] and row[39:42].tolist() == [128] * 3 and row[42:].unique().tolist() == [0]


def test_the_loss_falls_with_the_truth():
    """Of a network that says the truth, a network that says nothing, and one that says the opposite, the first costs least."""

    class Says(SlimGFM):
        def glance_logits(self, maps):
            return self.logits

        def focus(self, maps):
            return [self.matte]

    net = Says()
    alpha = torch.zeros(1, 1, 96, 96)
    alpha[..., 20:70] = 1
    fg, bg = torch.rand(2, 1, 3, 96, 96)
    image = alpha * fg + (1 - alpha) * bg
    labels = train.losses.labels(train.areas(alpha * 255), 3)
    right = 20 * torch.nn.functional.one_hot(labels, 3).permute(0, 3, 1, 2).float()
    lost = []
    for logits, matte in ((right, alpha), (torch.zeros_like(right), alpha * 0 + 0.5), (right.flip(1), 1 - alpha)):
        net.logits, net.matte = logits, matte
        lost.append(train.Matting(net)(image, alpha, fg, bg))
    assert lost[0]["loss"] < 1e-4 < lost[1]["loss"] < lost[2]["loss"]
    truth = train.losses.Truth(*(255 * x for x in (image, alpha, fg, bg)), train.areas(255 * alpha), alpha, alpha)
    half = lost[1]
    expected = train.losses.parts("TT", Prediction(right, alpha * 0 + 0.5, alpha * 0 + 0.5), truth)
    for name in ("focus_alpha", "focus_laplacian", "fusion_alpha", "fusion_laplacian", "fusion_composition"):
        assert half[name].item() == pytest.approx(expected[name].item(), rel=1e-4)
    assert set(lost[0]) == {"loss", "glance_ce", "focus_alpha", "focus_laplacian", "fusion_alpha", "fusion_laplacian", "fusion_composition"}


def test_glance_learns_from_the_matte():
    """The expected matte, unlike the hard one, sends its errors to both branches."""
    torch.manual_seed(0)
    net = SlimGFM().train()
    fg, bg = torch.rand(2, 2, 3, 64, 64)
    alpha = torch.rand(2, 1, 64, 64)
    train.Matting(net)(alpha * fg + (1 - alpha) * bg, alpha, fg, bg)["fusion_composition"].backward()
    assert net.glance_head.weight.grad.abs().max() > 0 and net.focus_head.weight.grad.abs().max() > 0


class Painter(torch.nn.Module):
    """Says that everything redder than blue is animal; or nothing, ever."""

    def __init__(self, blind: bool = False):
        super().__init__()
        self.blind, self.sizes = blind, []
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x):
        self.sizes.append(tuple(x.shape[2:]))
        alpha = (x[:, :1] > x[:, 2:]).float() * (not self.blind)
        return Prediction(alpha, alpha, alpha)


def test_evaluation_measures(data):
    net = Painter()
    data = mattes.Mattes(**{**vars(data), "sizes": torch.tensor([[96, 160]] * len(data))})  # a size that the network works at, so that nothing is resized
    scores = train.evaluate(net, data, list(range(len(data))), 160)
    assert set(net.sizes) == {(96, 160)}
    assert scores["all"]["photos"] == len(data) == 4 and scores["weizmann_horses"]["photos"] == 2
    red, blue, truth = (x[:, 0, :96].float() for x in (data.pixels[:, :1], data.pixels[:, 2:], data.alpha))
    expected = ((red > blue).float() - truth / 255).abs().mean().item()
    assert scores["all"]["mad"] == pytest.approx(expected, abs=1e-4)
    assert scores["all"]["iou"] > 0.97 and scores["all"]["empty"] == 0
    thumbnails = train.evaluate(net, data, [0], 160, 40)
    assert thumbnails["all"]["iou"] > 0.85
    blind = train.evaluate(Painter(True), data, [0], 160)["all"]
    share = float((data.alpha[0, 0, :96] / 255).mean())
    assert blind["empty"] == 1 and blind["iou"] == 0 and blind["mad"] == pytest.approx(share, abs=1e-3) and blind["sad_transition"] > 0


def test_fixed_subset(data):
    assert train.fixed_subset(data, 1) == [int(torch.nonzero(data.folders == f)[0]) for f in data.folders.unique()]
    assert sorted(train.fixed_subset(data)) == list(range(len(data)))


def test_samples(root):
    (mad,) = train.samples(Painter(), root / "samples", 160)
    assert mad < 0.02
    (mad,) = train.samples(Painter(True), root / "samples", 160)
    assert mad > 0.1
