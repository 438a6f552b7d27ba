"""Attacks do what they say and say where the corners go; reports count what was flipped."""
from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from pttp.errors import BadInput
from pttp.stegastamp import message, reading, study
from pttp.stegastamp.model import StegaStamp
from pttp.stegastamp.predict import Predictor, Stamp
from pttp.training.export import write


def photo(width: int = 180, height: int = 120) -> Image.Image:
    """Smooth colours, so that a picture that was moved and moved back can be compared."""
    coarse = np.random.default_rng(0).integers(0, 255, (6, 9, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, np.float64)


def error(a: Image.Image, b: Image.Image) -> float:
    return float(np.abs(pixels(a) - pixels(b)).mean())


class Transparent(torch.nn.Module):
    """Reads the bits from a 10 x 10 grid of light and dark cells, whatever picture is around them: a decoder whose errors can be made by hand."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        cells = torch.nn.functional.avg_pool2d(x.mean(1, keepdim=True), x.shape[-1] // 10)[..., :10, :10]
        return (cells.flatten(1) - 0.5) * 40


def cells(bits: np.ndarray, size: int = 320) -> Image.Image:
    grid = np.where(bits.reshape(10, 10) > 0, 230, 25).astype(np.uint8)
    return Image.fromarray(np.kron(grid, np.ones((size // 10, size // 10), np.uint8))).convert("RGB")


@pytest.fixture(scope="module")
def predictor(tmp_path_factory) -> Predictor:
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    net = StegaStamp(160, 100, 4)
    write(folder, net, net.config, {"licence": "none", "trained_on": "nothing", "metrics": {"headline": "none"}}, "")
    predictor = Predictor.from_pretrained(folder)
    predictor.form.decoder = Transparent()
    return predictor


@pytest.fixture(scope="module")
def stamp() -> Stamp:
    bits = message.pack("aB3dE9x")
    picture = cells(bits)
    return Stamp(picture, np.zeros((320, 320, 3), np.float32), "aB3dE9x", None, bits, 1.0, 30.0, True)


@pytest.mark.parametrize("name", study.ATTACKS)
def test_every_slider_is_sound(name):
    a = study.ATTACKS[name]
    assert a.low <= a.neutral <= a.high and a.low < a.high and a.step > 0 and a.label and a.unit
    for amount in (a.low, (a.low + a.high) / 2, a.high):
        for size in ((180, 120), (64, 200), (700, 500)):
            image = photo(*size)
            before = image.copy()
            out = a.apply(image, amount)
            corners, room = a.place(size, amount)
            assert out.mode == "RGB" and out.size == room and corners.shape == (4, 2)
            assert image == before, "the visitor's picture is not painted over"
            assert out == a.apply(image, amount), "the same every time"


@pytest.mark.parametrize("name", study.ATTACKS)
def test_neutral_leaves_the_picture_as_it_is(name):
    image = photo()
    a = study.ATTACKS[name]
    assert study.attack(image, {name: a.neutral}) == image
    if name != "jpeg":  # even the best file is one
        assert a.apply(image, a.neutral) == image


@pytest.mark.parametrize("name", [n for n in study.ATTACKS if n != "rotation"])
def test_more_is_worse(name):
    """A rotation is left out: with the corners known it costs one resampling, whatever the angle."""
    a = study.ATTACKS[name]
    image = photo(300, 300)
    worst = a.high if a.neutral < a.high else a.low
    amounts = np.linspace(a.neutral, worst, 5)[1:]
    losses = []
    for amount in amounts:
        out, quad = study.attack(image, {name: amount}), study.corners_after(image.size, {name: amount})
        seen = reading.squares(reading.tensor(out, "cpu"), quad[None], 300)[0]
        losses.append(float((seen - reading.tensor(image, "cpu")).abs().mean()))
    assert losses[0] > 0 and losses[-1] > 1.2 * losses[0]
    assert all(b >= a * 0.98 for a, b in zip(losses, losses[1:]))


@pytest.mark.parametrize("amounts", [{"rotation": 23}, {"rotation": -40}, {"perspective": 40}, {"crop": 20}, {"resize": 150}, {"crop": 10, "rotation": 9, "perspective": 25, "resize": 170}])
@pytest.mark.parametrize("size", [(180, 120), (240, 240)])
def test_known_corners_are_where_the_picture_went(amounts, size):
    """Cut out at its corners, the attacked picture is the original again."""
    image = photo(*size)
    quad = study.corners_after(size, amounts)
    seen = reading.squares(reading.tensor(study.attack(image, amounts), "cpu"), quad[None], 96)[0]
    plain = reading.squares(reading.tensor(image, "cpu"), reading.whole(*size)[None], 96)[0]
    edge = 14 if "crop" in amounts else 3  # what was cut off cannot come back
    assert (seen - plain)[:, edge:-edge, edge:-edge].abs().mean() < 0.012
    wrong = reading.squares(reading.tensor(study.attack(image, amounts), "cpu"), (quad + 6)[None], 96)[0]
    assert (wrong - plain)[:, edge:-edge, edge:-edge].abs().mean() > 0.02, "six pixels off would show"


def test_what_single_attacks_do():
    image = photo(200, 100)
    flat = Image.new("RGB", (256, 256), (100, 100, 100))
    assert (pixels(study.occlude(flat, 25)) == 128).all(-1).mean() == pytest.approx(0.25)
    assert study.crop(image, 20).size == (160, 80) and study.crop(image, 20) == image.crop((20, 10, 180, 90))
    assert (pixels(study.brighten(flat, 0.1)) == 126).all() and (pixels(study.brighten(flat, -0.6)) == 0).all()
    assert (pixels(study.contrast(flat, 2)) == 72).all()
    grain = pixels(study.noise(flat, 0.05)) - 100
    assert grain.std() == pytest.approx(0.05 * 255, rel=0.02) and abs(grain.mean()) < 0.1
    assert study.resize(image, 100).size == (100, 50) and study.resize(image, 400) == image
    right = study.rotate(image, 90)
    assert right.size == (100, 200) and error(right, image.transpose(Image.Transpose.ROTATE_270)) < 1


def test_pixels_mean_the_same_for_every_size():
    """A blur or grain of so many pixels of 256 does to a large picture what it does to a small one."""
    small, large = photo(256, 256), photo(1024, 1024)
    for harm in (lambda x: study.blur(x, 4), lambda x: study.noise(x, 0.1)):
        shrunk = harm(large).resize((256, 256), Image.Resampling.BOX)
        assert error(shrunk, harm(small)) < 0.25 * error(harm(small), small)


def test_jpeg_is_a_real_file():
    image = photo(128, 128)
    again = study.jpeg(image, 40)
    assert error(again, image) > 0.2 and error(again, study.jpeg(again, 40)) < error(again, image)


@pytest.mark.parametrize(("amounts", "words"), [({"rain": 1}, "choose from occlusion"), ({"jpeg": 0}, "JPEG quality goes from 1 to 100"), ({"rotation": 90}, "-45 to 45 degrees")])
def test_sliders_out_of_range(amounts, words):
    with pytest.raises(BadInput, match=words):
        study.attack(photo(), amounts)
    with pytest.raises(BadInput, match=words):
        study.corners_after((10, 10), amounts)


def test_order_is_that_of_the_camera_not_of_the_dictionary():
    image = photo()
    assert study.attack(image, {"jpeg": 10, "crop": 30}) == study.jpeg(study.crop(image, 30), 10)


def test_transparent_parts_are_laid_on_white():
    clear = photo()
    clear.putalpha(0)
    assert (pixels(study.attack(clear, {})) == 255).all()


@pytest.mark.parametrize(
    ("flips", "left", "readable"),
    [([], 5, True), ([0], 4, True), ([3, 17, 40, 55, 90], 0, True), ([3, 17, 40, 55, 80, 90], 0, False), ([91, 99], 5, True), ([91, 95, 99], 5, False), ([10, 91, 92], 4, True)],
)
def test_report_counts_flips(flips, left, readable):
    bits = message.pack("aB3dE9x")
    read = bits.copy()
    read[flips] ^= 1
    r = study.report((read * 2.0 - 1) * 9, bits, np.zeros((4, 2)))
    assert (np.flatnonzero(r.wrong).tolist(), r.left, r.readable) == (flips, left, readable)
    assert r.flips_in_code == sum(i < 91 for i in flips) and r.bit_accuracy == pytest.approx(1 - len(flips) / 100)
    assert r.message == ("aB3dE9x" if readable else None)
    json.dumps(r.to_dict())


def test_another_message_is_not_what_was_sent():
    r = study.report((message.pack("other") * 2.0 - 1) * 9, message.pack("aB3dE9x"), np.zeros((4, 2)))
    assert r.message == "other" and not r.readable


def test_three_ways_to_read_a_turned_picture(predictor, stamp):
    turned = study.attack(stamp.image, {"rotation": 30})
    known = study.compare(predictor, turned, stamp.bits, study.corners_after(stamp.image.size, {"rotation": 30}))
    assert known.readable and known.left == 5
    nobody = study.compare(predictor, turned, stamp.bits)
    assert not nobody.readable and nobody.bit_accuracy < 0.9
    framed = Image.new("RGB", (400, 400), "gray")
    framed.paste(stamp.image, (40, 40))
    assert not study.compare(predictor, framed, stamp.bits).readable
    assert study.compare(predictor, framed, stamp.bits, search=True).readable  # one of the windows that are tried
    lying = stamp.image.transpose(Image.Transpose.ROTATE_90)
    whole = study.compare(predictor, lying, stamp.bits)
    assert whole.readable and np.allclose(whole.quad[0], (0, 319))  # a quarter turn is found; its own top left is now below


@pytest.mark.parametrize("name", study.ATTACKS)
def test_curves(predictor, stamp, name):
    told: list[tuple[float, str]] = []
    curve = study.break_points(predictor, stamp, name, lambda *what: told.append(what), points=7)
    a = study.ATTACKS[name]
    n = len(curve.amounts)
    assert len(curve.bit_accuracy) == len(curve.readable) == len(told) == n and told[-1][0] == 1
    assert (a.low <= curve.amounts).all() and (curve.amounts <= a.high).all() and a.neutral in curve.amounts
    assert curve.readable[np.flatnonzero(curve.amounts == a.neutral)[0]], "untouched it is read"
    assert (curve.breaks_at is None) == curve.readable.all()
    json.dumps(curve.to_dict())


def test_a_curve_finds_the_mildest_breaking_amount(predictor, stamp):
    curve = study.break_points(predictor, stamp, "rotation", corners_known=False, points=31)
    assert abs(curve.breaks_at) == np.abs(curve.amounts[~curve.readable]).min() > 0
    assert study.break_points(predictor, stamp, "rotation", points=7).breaks_at is None, "with the corners known a turn is harmless"
    lines = study.as_csv([curve]).splitlines()
    assert lines[0] == "attack,unit,amount,bit_accuracy,readable" and len(lines) == 32
    assert lines[1].startswith("rotation,degrees,-45,")


def test_a_curve_can_be_stopped_and_asks_for_a_known_attack(predictor, stamp):
    def stop(fraction: float, words: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study.break_points(predictor, stamp, "jpeg", stop)
    with pytest.raises(BadInput, match="no attack called 'rain'"):
        study.break_points(predictor, stamp, "rain")


def test_residual_picture():
    residual = np.zeros((4, 6, 3), np.float32)
    residual[0, 0], residual[1, 1], residual[2, 2] = 0.02, -0.02, 1
    shown = pixels(study.residual_picture(residual))
    assert shown.shape == (4, 6, 3)
    assert [shown[i, i, 0] for i in range(4)] == pytest.approx([127.5 + 51, 127.5 - 51, 255, 127.5], abs=0.6)
    assert pixels(study.residual_picture(residual, gain=20))[0, 0, 0] == pytest.approx(127.5 + 102, abs=0.6)
