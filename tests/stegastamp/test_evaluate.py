"""Numbers that come out right where the answer is known, and an export that leaves a room's weights that load, answer and say how well."""
from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from pttp.stegastamp import evaluate, message, reading, study, train
from pttp.stegastamp.detect import Detector
from pttp.stegastamp.model import StegaStamp, he_init
from pttp.stegastamp.predict import Predictor
from pttp.training.export import write
from pttp.training.loop import fit

SIZE = 96


def photo(seed: int, width: int = 160, height: int = 120) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(40, 215, (8, 10, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for folder, count in (("general_photos", 3), ("animals_misc", 6)):
        (root / folder / "images").mkdir(parents=True)
        for i in range(count):
            photo(i, 160 + 10 * i, 120).save(root / folder / "images" / f"{i}.jpg", quality=95)
    (root / "animals_misc" / "val.txt").write_text("0\n1\n2\n3\n4\n5\n")
    return root


class Loud(torch.nn.Module):
    """A stamp that cannot be overlooked: cell i of a 10 x 10 grid turns light for 1, dark for 0, by `step`."""

    def __init__(self, step: float):
        super().__init__()
        self.step = step

    def forward(self, image: torch.Tensor, secret: torch.Tensor) -> torch.Tensor:
        signs = (2 * secret - 1).view(-1, 1, 10, 10)
        return self.step * torch.nn.functional.interpolate(signs, size=image.shape[-2:], mode="nearest").expand_as(image)


class Grid(torch.nn.Module):
    """Reads such cells on flat grey photos."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (torch.nn.functional.adaptive_avg_pool2d(x.mean(1, keepdim=True), 10).flatten(1) - 0.5) * 60


@pytest.fixture
def predictor(tmp_path):
    torch.manual_seed(0)
    predictor = evaluate.shipped(he_init(StegaStamp(SIZE, 100, 4)), tmp_path / "weights")
    predictor.form.encoder, predictor.form.decoder = Loud(0.1), Grid()
    return predictor


def stamped(predictor, photos, strength=1.0):
    """With the residual just as `Loud` gives it."""
    return evaluate.stamped(predictor, photos, evaluate.codes(len(photos), np.random.default_rng(0)), strength, steps=0)


@pytest.fixture
def grey():
    return [Image.new("RGB", (150 + 10 * i, 130), (127, 127, 127)) for i in range(4)]


def test_hiding(predictor, grey):
    squares = [picture.resize((SIZE, SIZE)) for picture in grey]
    native, network = (evaluate.hiding(photos, stamped(predictor, photos)) for photos in (grey, squares))
    expected = -20 * np.log10(0.1)
    assert network["psnr"] == pytest.approx(expected, abs=0.2)
    assert native["psnr"] == pytest.approx(expected, abs=0.6)  # bicubic rounds the cells' corners
    assert native["psnr_low"] <= native["psnr"] and 0 < native["ssim"] < 1


def test_ssim_of_a_picture_with_itself_is_one():
    assert evaluate.similarity(photo(0), photo(0)) == pytest.approx(1)
    assert evaluate.similarity(photo(0), study.noise(photo(0), 0.2)) < 0.7


def test_a_loud_stamp_survives_everything_and_a_silent_one_nothing(predictor, grey):
    rates = evaluate.reading_rates(predictor, grey, stamped(predictor, grey), tuple(evaluate.CONDITIONS))
    assert {n: rates[n]["read"] for n in evaluate.CONDITIONS} == dict.fromkeys(evaluate.CONDITIONS, 1.0)
    predictor.form.encoder.step = 0.0
    silent = evaluate.reading_rates(predictor, grey, stamped(predictor, grey), ("clean", "tilt"))
    assert silent["clean"]["read"] == silent["tilt"]["read"] == 0 and 0.3 < silent["clean"]["bits"] < 0.7
    assert silent["psnr"] > 50


def test_strength_shows_in_the_psnr(predictor, grey):
    half, whole = (evaluate.reading_rates(predictor, grey, stamped(predictor, grey, s), ("clean",))["psnr"] for s in (0.5, 1.0))
    assert half - whole == pytest.approx(6.0, abs=0.4)


@pytest.mark.parametrize("name", evaluate.CONDITIONS)
def test_every_condition_gives_the_decoder_its_square(name):
    rng = np.random.default_rng(0)
    picture = photo(1, 260, 200)
    seen = evaluate.CONDITIONS[name][1](picture, photo(2, 90, 200), SIZE, rng)
    assert seen.shape == (1, 3, SIZE, SIZE) and 0 <= float(seen.min()) and float(seen.max()) <= 1
    plain = evaluate.square(picture, SIZE)
    change = float((seen - plain).abs().mean())
    assert (change == 0) if name == "clean" else 0 < change < 0.06  # harmed, and still the same picture


def test_blur_and_noise_have_the_size_that_they_claim():
    flat = Image.new("RGB", (SIZE, SIZE), (128, 128, 128))
    noisy = evaluate.filtered(flat, SIZE, deviation=0.05, rng=np.random.default_rng(0))
    assert float(noisy.std()) == pytest.approx(0.05, rel=0.03)
    dot = Image.new("RGB", (SIZE, SIZE))
    dot.paste((255, 255, 255), (40, 40, 56, 56))
    edge = evaluate.filtered(dot, SIZE, sigma=2)[0, 0, 48]
    assert float(edge[40]) - float(edge[39]) == pytest.approx(1 / (2 * np.sqrt(2 * np.pi)), abs=0.01)  # the slope of a step is the Gaussian's peak


def test_a_tilted_picture_is_cut_out_where_it_is():
    turned = evaluate.tilted(photo(1), photo(2), SIZE, np.random.default_rng(3))
    plain = evaluate.square(photo(1), SIZE)
    assert (turned - plain)[..., 3:-3, 3:-3].abs().mean() < 0.015


def test_false_positives_are_counted(predictor):
    photos = [photo(i) for i in range(3)]
    none = evaluate.false_positives(predictor, photos, 20, 1)
    assert (none["crops"], none["looks"], none["lenient"], none["strict"], none["searched"], none["found_by_search"]) == (20, 80, 0, 0, 1, 0)
    assert none["bound_lenient_four_rotations"] < 1e-5 and none["bound_strict_one_look"] < 1e-8
    texts = ["aB3dE9x", "hello"]
    stamps = [predictor.encode(Image.new("RGB", (200, 200), (127, 127, 127)), t).image for t in texts]

    class Always(torch.nn.Module):
        def forward(self, x):
            return torch.from_numpy(message.pack("always") * 20.0 - 10).float().expand(len(x), -1)

    predictor.form.decoder = Always()
    assert evaluate.reads_something(predictor, stamps[0])


def test_crops_stay_in_their_photos():
    photos = [photo(i, 100 + 30 * i, 90) for i in range(3)]
    total = 0
    for picture, quads in evaluate.crops(photos, 50, np.random.default_rng(0)):
        total += len(quads)
        assert (quads >= 0).all() and (quads <= np.array(picture.size) - 1).all()
        assert (quads[:, 2] > quads[:, 0]).all()
    assert total == 50


def test_unseen_photos_are_those_kept_aside(data, tmp_path):
    assert len(evaluate.unseen(data, 4)) == 4 and len(evaluate.unseen(data, 100)) == 6
    with pytest.raises(SystemExit, match="no photos kept aside"):
        evaluate.unseen(tmp_path, 4)


def checkpoint(folder, net: StegaStamp, steps: int) -> None:
    """As training.loop.fit leaves it, as far as the export reads it."""
    folder.mkdir(parents=True)
    average = {"n_averaged": torch.tensor(steps)} | {f"module.{k}": v for k, v in net.state_dict().items()}
    torch.save({"step": steps, "average": average}, folder / "last.pt")


@pytest.mark.parametrize("detector", [False, True], ids=["without detector", "with detector"])
def test_export_at_any_time(data, tmp_path, detector, monkeypatch):
    """From checkpoints to a folder of weights that loads and says how well it does."""
    monkeypatch.setattr(evaluate, "QUICK", {"photos": 3, "clips": 1, "crops": 6, "searched": 1})
    filled = []
    monkeypatch.setattr(evaluate, "fill", lambda file, text: filled.append((file.name, text)))
    torch.manual_seed(0)
    checkpoint(tmp_path / "run" / "small", he_init(StegaStamp(64, 100, 8)), 30)
    last = he_init(StegaStamp(SIZE, 100, 8))
    checkpoint(tmp_path / "run" / "medium", last, 40)
    if detector:
        (tmp_path / "run" / "detector").mkdir()
        save_file({k: v.contiguous() for k, v in Detector().state_dict().items()}, tmp_path / "run" / "detector" / "detector.safetensors")
    train.main(["--export-only", "--quick", "--run", str(tmp_path / "run"), "--data", str(data), "--out", str(tmp_path / "out"), "--threads", "1"])
    out = tmp_path / "out"
    predictor = Predictor.from_pretrained(out)
    assert predictor.net.size == SIZE and (predictor.net.detector is not None) == detector
    weights = load_file(out / "model.safetensors")
    assert all(w.dtype == torch.float16 for w in weights.values() if w.is_floating_point())
    torch.testing.assert_close(weights["encoder.conv9.weight"].float(), last.encoder.conv9.weight.detach(), rtol=1e-3, atol=1e-5)
    metrics = json.loads((out / "metrics.json").read_text())
    m = metrics["metrics"]
    assert metrics["training"]["steps"] == {"small": 30, "medium": 40}
    assert metrics["training"]["command"] == "python -m pttp.stegastamp.train --small 30 --medium 40 --large 0"
    assert metrics["trained_on"].startswith("3 unlabelled photos") and m["headline"].startswith("PSNR ")
    assert set(m["conditions"]) == set(evaluate.CONDITIONS) and m["conditions"]["clean"]["read"] == 0, "an untrained network reads nothing"
    assert (m["camera"] is not None) == detector
    table = evaluate.table(metrics)
    assert filled == [("NOTES.md", table)] and table in (out / "MODEL_CARD.md").read_text()
    assert ("Camera path" in table) == detector and "other photos" in table


@pytest.mark.parametrize("own", [False, True], ids=["started with a detector", "and with one of its own"])
def test_going_on_from_finished_weights(data, tmp_path, own, monkeypatch):
    """At another size, too; their detector comes along, unless the run has a newer one, and so do their views."""
    torch.manual_seed(0)
    finished = he_init(StegaStamp(64, 100, 4))
    finished.detector = Detector()
    training = {"steps": {"small": 7}, "views": 112, "command": "python -m pttp.stegastamp.train --small 7"}
    write(tmp_path / "finished", finished, finished.config, {"training": training}, "")
    told, seeds = [], []
    monkeypatch.setattr(train, "export", lambda net, folder, root, words, training, quick: told.append((net, words, training)))
    monkeypatch.setattr(train, "fit", lambda *args, seed, **options: seeds.append(seed) or fit(*args, seed=seed, **options))
    newer = Detector()
    if own:
        (tmp_path / "run" / "detector").mkdir(parents=True)
        save_file({k: v.contiguous() for k, v in newer.state_dict().items()}, tmp_path / "run" / "detector" / "detector.safetensors")
    train.main(["--start", str(tmp_path / "finished"), "--run", str(tmp_path / "run"), "--data", str(data), "--small", "1", "--medium", "0", "--large", "0", "--seed", "3", "--threads", "1"])
    [(net, words, said)] = told
    assert seeds == [3] and net.size == 96 and net.locator_grid == 4
    theirs = (newer if own else finished.detector).state_dict()["centre.weight"]
    torch.testing.assert_close(net.detector.state_dict()["centre.weight"], theirs, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(net.encoder.conv3.weight, finished.encoder.conv3.weight, rtol=0.1, atol=1e-2)  # one small step away
    assert said["steps"] == {"small": 1} and said["views"] == 16 + 112 and said["started_from"] == training and "128 random views" in words
    assert said["command"] == "python -m pttp.stegastamp.train --start FOLDER --small 1 --medium 0 --large 0 --seed 3"

    other = he_init(StegaStamp(64, 100, 4))
    other.detector = Detector()
    write(tmp_path / "other", other, other.config, {"training": training}, "")
    mean = train.started([tmp_path / "finished", tmp_path / "other"])
    for name in ("encoder.conv3.weight", "detector.centre.weight"):
        a, b, between = (net.state_dict()[name] for net in (finished, other, mean))
        torch.testing.assert_close(between, (a + b) / 2, rtol=1e-3, atol=1e-4)


def test_nothing_to_export(data, tmp_path):
    with pytest.raises(SystemExit, match="train first"):
        train.main(["--export-only", "--run", str(tmp_path), "--data", str(data)])


def test_table_says_what_the_metrics_say(data, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "QUICK", {"photos": 3, "clips": 1, "crops": 6, "searched": 1})
    measured = evaluate.evaluate(evaluate.shipped(StegaStamp(SIZE, 100, 4), tmp_path), data, quick=True, say=lambda _: None)
    measured["conditions"]["jpeg50"] = {"bits": 0.98765, "read": 0.871}
    measured["camera"] = {"clips": 7, "frames": 42, "read": 0.714, "read_in_first_frame": 0.5, "found": 0.9, "frames_with_wrong_message": 0, "corners_known": {"bits": 0.955, "read": 0.8}}
    text = evaluate.table({"metrics": measured})
    assert "| JPEG 50 | 98.77% | 87.1% |" in text or "| JPEG 50 | 98.76% | 87.1% |" in text
    assert "7 clips" in text and "**71.4%**" in text and "0 of 42" in text and "0.955" in text
    assert reading.STRICT_REPAIRS == 4 and "†" in text
