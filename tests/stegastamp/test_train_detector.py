"""The detector's recipe: a loss that knows no first corner, scores that mean what they say, and a run that resumes where it was."""
from __future__ import annotations

import csv
import json
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from pttp.stegastamp import detect, scenes, train_detector
from pttp.stegastamp.detect import Detector, Found
from pttp.stegastamp.model import StegaStamp
from pttp.trunk import Trunk

QUAD = np.array([[40, 30], [160, 40], [150, 110], [45, 105]], np.float64)


def maps(quads: np.ndarray) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(m)[None] for m in detect.targets(quads, 128, 192))


def test_the_corner_loss_takes_any_first_corner():
    _, _, corners, scale = maps(QUAD[None])
    for k in range(4):
        turned = corners.view(1, 4, 2, *corners.shape[-2:]).roll(k, 1).view_as(corners)
        assert float(train_detector.Draw.corner_loss(turned, corners, scale)) == 0
    off = train_detector.Draw.corner_loss(corners + 0.1, corners, scale)
    assert float(off) == pytest.approx(2 * 0.1 * detect.UNIT / detect.mean_side(QUAD), rel=1e-4)
    mirrored = corners.view(1, 4, 2, *corners.shape[-2:]).flip(1).view_as(corners)
    assert float(train_detector.Draw.corner_loss(mirrored, corners, scale)) > 0.2


def test_losses_fall_to_nothing_at_the_targets():
    """The right maps cost almost nothing; an empty frame costs no corners."""

    class Says(torch.nn.Module):
        def __init__(self, target):
            super().__init__()
            self.target = target

        def forward(self, frames):
            mask, centre, corners, _ = self.target
            return detect.Maps(mask.clamp(1e-6, 1 - 1e-6).logit()[:, None], centre.clamp(1e-6, 1 - 1e-6).logit()[:, None], corners)

    frames = torch.zeros(1, 3, 128, 192, dtype=torch.uint8)
    right, empty = maps(QUAD[None]), maps(np.zeros((0, 4, 2)))
    losses = train_detector.Draw(Says(right))(frames, *right)
    assert float(losses["mask"]) == pytest.approx(0, abs=1e-4) and float(losses["corners"]) == 0
    assert float(train_detector.Draw(Says(empty))(frames, *right)["mask"]) > 1
    assert float(train_detector.Draw(Says(empty))(frames, *empty)["corners"]) == 0


def test_everything_is_trained_but_the_trunks_statistics():
    torch.manual_seed(0)
    objective = train_detector.Draw(Detector()).train()
    frames = torch.randint(0, 256, (2, 3, 128, 192), dtype=torch.uint8)
    targets = (torch.cat([m, m]) for m in maps(QUAD[None]))
    objective(frames, *targets)["loss"].backward()
    assert not [n for n, p in objective.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


@pytest.mark.parametrize(
    "found, expected",
    [
        ([], dict(recall80=0, recall90=0, corner_median=100, within3=0, false=0)),
        ([QUAD], dict(recall80=1, recall90=1, corner_median=0, corner_p95=0, within3=1, false=0)),
        ([np.roll(QUAD, 1, 0)], dict(recall80=1, corner_median=0, within3=1)),
        ([QUAD + 100], dict(recall80=0, within3=0, false=1)),
        ([QUAD, QUAD + 100], dict(recall80=1, within3=1, false=1)),
        ([QUAD + (0.05 * detect.mean_side(QUAD), 0)], dict(recall80=1, corner_median=5, within3=0, false=0)),
    ],
)
def test_scores(found, expected):
    got = train_detector.scores([[Found(q, 1.0) for q in found]], [QUAD[None]])
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, abs=1e-6), name


def test_scenes_without_a_picture_count_only_false_alarms():
    nothing = np.zeros((0, 4, 2))
    got = train_detector.scores([[Found(QUAD, 1.0)], [], [Found(QUAD, 1.0)]], [nothing, nothing, QUAD[None]])
    assert got["false"] == pytest.approx(1 / 3) and got["recall80"] == 1


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A few made-up photos as training expects them: some for training, some named by a validation list; and a trunk."""
    root = tmp_path_factory.mktemp("shared") / "data"
    rng = np.random.default_rng(0)
    for folder, names in (("general_photos", [f"g{i}" for i in range(6)]), ("ecssd_salient", [f"e{i}" for i in range(6)])):
        (root / folder / "images").mkdir(parents=True)
        for name in names:
            coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8))
            coarse.resize((180, 140), Image.Resampling.BICUBIC).save(root / folder / "images" / f"{name}.jpg")
    (root / "ecssd_salient" / "val.txt").write_text("e2\ne3\ne4\ne5\n")
    weights = root.parent / "weights"
    weights.mkdir()
    torch.manual_seed(0)
    save_file({k: v.contiguous() for k, v in Trunk(16).state_dict().items()}, weights / "efficientnet_lite0.safetensors")
    return root


def run(data, folder, *more: str) -> None:
    threads = torch.get_num_threads()
    common = ["--data", str(data), "--run", str(folder), "--batch", "2", "--photos", "4", "--scenes", "3", "--eval-every", "2"]
    train_detector.main([*common, *more, "--threads", str(threads)])


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    sizes, train_detector.SIZES = train_detector.SIZES, ((64, 96),)
    try:
        run(data, folder, "--steps", "3")
    finally:
        train_detector.SIZES = sizes
    return folder


def test_the_recipe_runs_and_writes_a_detector(trained):
    net = Detector()
    net.load_state_dict(load_file(trained / "detector.safetensors"), strict=True)
    assert all(t.dtype != torch.float16 for t in net.state_dict().values())
    with (trained / "eval.csv").open() as f:
        rows = list(csv.DictReader(f))
    assert [r["step"] for r in rows] == ["2", "3"] and 0 <= float(rows[-1]["recall80"]) <= 1


def test_a_finished_run_is_not_run_again(data, trained):
    before = load_file(trained / "detector.safetensors")
    run(data, trained, "--steps", "3")
    after = load_file(trained / "detector.safetensors")
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_a_run_resumes_where_it_was(data, tmp_path, monkeypatch):
    """Stopped after the second step and started again, it ends with the numbers of the run that was not stopped."""
    monkeypatch.setattr(train_detector, "SIZES", ((64, 96),))
    batches = train_detector.batches

    def stopping(*args, **kwargs):
        draw = batches(*args, **kwargs)

        def once(step, g):
            if step == 1:
                signal.raise_signal(signal.SIGTERM)
            return draw(step, g)

        return once

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    old = signal.getsignal(signal.SIGTERM)
    try:
        run(data, whole, "--steps", "4")
        with monkeypatch.context() as m:
            m.setattr(train_detector, "batches", stopping)
            with pytest.raises(SystemExit, match="step 2 of 4"):
                run(data, parts, "--steps", "4")
        assert torch.load(parts / "last.pt", weights_only=True)["step"] == 2
        run(data, parts, "--steps", "4")
    finally:
        signal.signal(signal.SIGTERM, old)
    a, b = (load_file(f / "detector.safetensors") for f in (whole, parts))
    for name in a:
        torch.testing.assert_close(a[name], b[name], msg=name)


def test_it_goes_on_from_a_detector_with_real_stamps(data, trained, tmp_path, monkeypatch):
    """The encoder's folder as the room ships it, in float16."""
    monkeypatch.setattr(train_detector, "SIZES", ((64, 96),))
    torch.manual_seed(0)
    stamp = StegaStamp(64, 100, 4)
    (tmp_path / "stamp").mkdir()
    save_file({k: v.half().contiguous() for k, v in stamp.state_dict().items()}, tmp_path / "stamp" / "model.safetensors")
    (tmp_path / "stamp" / "config.json").write_text(json.dumps(stamp.config))
    run(data, tmp_path / "run", "--steps", "1", "--lr", "0", "--stamp", str(tmp_path / "stamp"), "--start", str(trained / "detector.safetensors"))
    first, then = load_file(trained / "detector.safetensors"), load_file(tmp_path / "run" / "detector.safetensors")
    kept = [k for k in first if not k.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    assert all(torch.equal(first[k], then[k]) for k in kept)


def test_photos_aside_are_not_trained_on(data):
    training, aside = scenes.photo_paths(data), scenes.photo_paths(data, keep_aside=False)
    assert {p.stem for p in aside} == {"e2", "e3", "e4", "e5"}
    assert len(training) == 8 and not set(training) & set(aside)


def test_unseen_scenes_are_the_same_every_time(data):
    a, b = (train_detector.unseen_scenes(data, None, 4, (90, 160)) for _ in range(2))
    assert len(a.frames) == 4
    for x, y, p, q in zip(a.frames, b.frames, a.quads, b.quads, strict=True):
        assert np.array_equal(x, y) and np.array_equal(p, q)
