"""The predictor's doors, on the embedded weights: stamping any picture, reading it back turned, cropped, compressed, found in a scene; and bad input."""
from __future__ import annotations

import importlib.util
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pttp
from pttp import images
from pttp.errors import BadImage, BadInput, MessageTooLong, NoStampFound, WeightsError
from pttp.stegastamp import detect, geometry, links, message, reading, study, tune
from pttp.stegastamp.model import StegaStamp
from pttp.training.export import write

SKIMAGE = Path(importlib.util.find_spec("skimage").origin).parent / "data"
PHOTOS = {"chelsea": SKIMAGE / "chelsea.png", "coffee": SKIMAGE / "coffee.png", "astronaut": SKIMAGE / "astronaut.png"}
TEXT = "aB3 é!"


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    predictor = pttp.load("stegastamp", "embedded")
    predictor.links = links.Links(tmp_path_factory.mktemp("registry") / "links.sqlite")
    return predictor


@pytest.fixture(scope="module")
def stamps(net):
    """The three photos at strength 1 with a message each."""
    return {name: net.encode(path, f"{i} {TEXT}"[:6]) for i, (name, path) in enumerate(PHOTOS.items())}


def test_the_embedded_weights_have_a_detector(net):
    assert net.net.detector is not None


@pytest.mark.parametrize("name", PHOTOS)
def test_round_trip(net, stamps, name):
    stamp, plain = stamps[name], images.to_array(PHOTOS[name])
    got = np.asarray(stamp.image, np.float32)
    assert stamp.image.size == Image.open(PHOTOS[name]).size and stamp.image.mode == "RGB" and stamp.verified
    assert stamp.residual.shape == got.shape and stamp.residual.dtype == np.float32
    assert np.abs(np.clip(plain + 255 * stamp.residual, 0, 255) - got).max() <= 0.5 + 1e-3
    assert stamp.psnr == pytest.approx(-10 * np.log10(((got - plain) ** 2).mean() / 255**2), abs=0.01)
    assert np.array_equal(stamp.bits, message.pack(stamp.message)) and stamp.link is None
    read = net.decode(stamp.image)
    assert (read.message, read.link, read.rotation) == (stamp.message, None, 0)
    assert np.array_equal(read.bits, stamp.bits) and 0 <= read.corrected <= message.REPAIRS and 0.5 < read.confidence <= 1
    assert np.array_equal(read.quad, reading.whole(*stamp.image.size))
    assert ((read.probabilities > 0.5) != stamp.bits)[: message.CODE].sum() == read.corrected


def test_results_are_json_without_pixels(net, stamps):
    stamp = stamps["chelsea"]
    told = json.loads(json.dumps([stamp.to_dict(), net.decode(stamp.image).to_dict()]))
    assert told[0]["message"] == told[1]["message"] == stamp.message
    assert told[0]["bits"] == told[1]["bits"] == "".join(map(str, stamp.bits)) and len(told[1]["quad"]) == 4
    assert (told[0]["width"], told[0]["height"]) == stamp.image.size


@pytest.mark.parametrize("text", ["a", "1234567", "🙂abc", "日本", " x y ", "é\u0301"])
def test_any_seven_bytes(net, text):
    assert net.decode(net.encode(PHOTOS["coffee"], text).image).message == text.rstrip(" ")


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("name", PHOTOS)
def test_four_rotations(net, stamps, name, turns):
    turned = stamps[name].image.rotate(-90 * turns, expand=True)
    read = net.decode(turned)
    w, h = turned.width - 1, turned.height - 1
    assert (read.message, read.rotation) == (stamps[name].message, 90 * turns)
    assert read.quad[0].tolist() == [[0, 0], [w, 0], [w, h], [0, h]][turns]


@pytest.mark.parametrize("size", [(64, 64), (96, 300), (900, 200), (1600, 1200)])
def test_any_size_and_aspect(net, size):
    photo = Image.open(PHOTOS["coffee"]).convert("RGB").resize(size, Image.Resampling.LANCZOS)
    stamp = net.encode(photo, "any")
    assert stamp.image.size == size and stamp.verified and net.decode(stamp.image).message == "any"


def test_path_array_and_image_are_the_same(net):
    path = PHOTOS["chelsea"]
    one, *others = (net.encode(given, "same").image for given in (path, str(path), images.to_array(path), Image.open(path)))
    assert all(np.array_equal(np.asarray(one), np.asarray(other)) for other in others)


def test_transparency_is_kept(net):
    photo = Image.open(PHOTOS["coffee"]).convert("RGBA")
    alpha = Image.fromarray(np.tile(np.linspace(120, 255, photo.width).astype(np.uint8), (photo.height, 1)))
    photo.putalpha(alpha)
    stamp = net.encode(photo, "glass")
    assert stamp.image.mode == "RGBA" and np.array_equal(np.asarray(stamp.image.getchannel("A")), np.asarray(alpha))
    assert stamp.verified == (net.reads_back(stamp.image, "glass")) and not net.reads_back(stamp.image, "other")
    photo.putalpha(255)
    assert net.encode(photo, "glass").image.mode == "RGB"


def test_the_camera_held_upright(net, stamps):
    """A photo whose EXIF block says that it lies on its side is stamped as people see it, and comes out upright without that block."""
    photo, exif, file = Image.open(PHOTOS["chelsea"]).convert("RGB"), Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    photo.rotate(90, expand=True).save(file, "JPEG", quality=95, exif=exif)
    stamp = net.encode(Image.open(file), "up")
    assert stamp.image.size == photo.size and not stamp.image.getexif()
    assert net.decode(stamp.image).rotation == 0 and stamp.verified


@pytest.mark.parametrize("quality", [95, 80, 60])
def test_jpeg(net, stamps, quality, tmp_path):
    for stamp in stamps.values():
        assert net.decode(images.save(stamp.image, tmp_path / "a.jpg", quality)).message == stamp.message


@pytest.mark.parametrize("box", [(0.05, 0, 1, 1), (0, 0, 0.92, 1), (0.03, 0.03, 0.97, 0.97), (0, 0.06, 1, 1)], ids=str)
def test_crops(net, stamps, box):
    for stamp in stamps.values():
        w, h = stamp.image.size
        cut = stamp.image.crop((round(box[0] * w), round(box[1] * h), round(box[2] * w), round(box[3] * h)))
        assert net.decode(cut).message == stamp.message


@pytest.mark.parametrize("longest", [300, 1500])
def test_resized(net, stamps, longest):
    for stamp in stamps.values():
        scale = longest / max(stamp.image.size)
        assert net.decode(stamp.image.resize([round(n * scale) for n in stamp.image.size], Image.Resampling.BICUBIC)).message == stamp.message


@pytest.mark.parametrize("name", [*PHOTOS, "flat", "noise"])
def test_plain_pictures_are_not_read(net, name):
    flat = {"flat": Image.new("RGB", (300, 200), (90, 140, 200)), "noise": Image.effect_noise((300, 200), 90).convert("RGB")}
    with pytest.raises(NoStampFound, match="show the whole stamped picture"):
        net.decode(flat.get(name) or PHOTOS[name])


@pytest.mark.parametrize("steps", [0, tune.STEPS])
def test_strength_scales_what_is_added(net, steps):
    faint, strong = (net.encode(PHOTOS["astronaut"], "s", strength, steps) for strength in (0.5, 2))
    assert steps or np.abs(4 * faint.residual - strong.residual).max() < 1e-5
    assert faint.psnr > strong.psnr + 6 and strong.verified


# --- links


LINK = "https://example.org/a/very/long/path?with=a&query#and-a-fragment"


def test_a_link_of_any_length(net):
    stamp = net.encode(PHOTOS["coffee"], f"  {LINK} ")
    assert stamp.link == LINK and links.is_code(stamp.message) and net.links.get(stamp.message) == LINK
    read = net.decode(stamp.image)
    assert (read.message, read.link) == (stamp.message, LINK)
    assert net.encode(PHOTOS["chelsea"], LINK).message == stamp.message


def test_a_code_that_was_never_given_out_is_text(net):
    assert links.is_code("zzzzzzz")
    read = net.decode(net.encode(PHOTOS["coffee"], "zzzzzzz").image)
    assert (read.message, read.link) == ("zzzzzzz", None)


def test_another_registry_does_not_know_it(net, tmp_path):
    stamp, ours = net.encode(PHOTOS["coffee"], LINK), net.links
    try:
        net.links = links.Links(tmp_path / "other.sqlite")
        read = net.decode(stamp.image)
    finally:
        net.links = ours
    assert (read.message, read.link) == (stamp.message, None)


def test_a_damaged_registry_is_kept_aside(net, tmp_path):
    file, ours = tmp_path / "links.sqlite", net.links
    file.write_bytes(b"this is no database" * 100)
    try:
        net.links = links.Links(file)
        with pytest.warns(UserWarning, match="kept as"):
            stamp = net.encode(PHOTOS["coffee"], LINK)
        assert net.decode(stamp.image).link == LINK and "damaged" in net.links.notice
    finally:
        net.links = ours
    (aside,) = tmp_path.glob("links.sqlite.damaged-*")
    assert aside.read_bytes() == b"this is no database" * 100


# --- bad input


def picture(mode: str = "RGB", size: tuple[int, int] = (200, 150), colour=(10, 200, 90)) -> Image.Image:
    return Image.new(mode, size, colour)


@pytest.mark.parametrize(
    ("image", "text", "strength", "error", "words"),
    [
        (picture(size=(63, 400)), "a", 1, BadImage, "63 x 400: a stamp needs at least 64 pixels"),
        (picture("RGBA", colour=(9, 9, 9, 0)), "a", 1, BadImage, "fully transparent"),
        (np.zeros((80, 80), np.uint8), "a", 1, BadImage, "give (H, W, 3)"),
        ("nowhere.png", "a", 1, BadImage, "There is no file"),
        (None, "a", 1, BadImage, "no picture yet"),
        (picture(), "", 1, BadInput, "message is empty"),
        (picture(), "   ", 1, BadInput, "message is empty"),
        (picture(), "12345678", 1, MessageTooLong, "takes 8 bytes and a stamp holds 7"),
        (picture(), "🙂🙂", 1, MessageTooLong, "takes 8 bytes"),
        (picture(), "example.org/page", 1, MessageTooLong, "begin it with https://"),
        (picture(), "\ud800", 1, MessageTooLong, "surrogate"),
        (picture(), "a\x07b", 1, BadInput, "control character"),
        (picture(), "a\nb", 1, BadInput, "control character"),
        (picture(), "a\u200bb", 1, BadInput, "control character"),
        (picture(), "https://", 1, BadInput, "names no host"),
        (picture(), "http://a b", 1, BadInput, "space or an invisible"),
        (picture(), "https://example.org/" + "x" * 2048, 1, BadInput, "links of up to 2048"),
        (picture(), "a", 0.29, BadInput, "between 0.3 and 2"),
        (picture(), "a", 2.01, BadInput, "between 0.3 and 2"),
        (picture(), "a", float("nan"), BadInput, "between 0.3 and 2"),
    ],
)
def test_bad_input_is_a_sentence(net, image, text, strength, error, words):
    known = len(net.links)
    with pytest.raises(error) as caught:
        net.encode(image, text, strength)
    assert words in str(caught.value) and str(caught.value).endswith(".") and len(net.links) == known


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (8, 8), (15, 16)])
def test_too_small_to_read(net, size):
    for read in (net.decode, net.decode_all, net.scan):
        with pytest.raises(NoStampFound, match=f"too small to hold a stamp: it is {size[0]} x {size[1]}, and 16 pixels"):
            read(picture(size=size))


@pytest.mark.parametrize("size", [(16, 16), (16, 300)])
def test_just_large_enough_to_be_looked_at(net, size):
    with pytest.raises(NoStampFound, match="show the whole stamped picture"):
        net.decode(picture(size=size))
    assert net.scan(picture(size=size)) == []


def test_flat_and_animated_pictures_are_stamped(net):
    """A flat colour is the hardest picture to hide anything in: it is stamped, and `verified` says honestly whether that is of use."""
    stamp = net.encode(picture(), "flat")
    assert stamp.image.size == (200, 150) and stamp.verified == net.reads_back(stamp.image, "flat")
    file = io.BytesIO()
    first, second = (Image.open(PHOTOS[name]).convert("RGB").resize((300, 200)) for name in ("coffee", "chelsea"))
    first.save(file, "GIF", save_all=True, append_images=[second], duration=100)
    moving = net.encode(Image.open(file), "first")
    assert moving.image.size == (300, 200) and net.decode(moving.image).message == "first"
    assert np.abs(np.asarray(moving.image, float) - np.asarray(first, float)).mean() < np.abs(np.asarray(moving.image, float) - np.asarray(second, float)).mean()


# --- in a scene


def scene(stamps, quads: dict[str, np.ndarray], size: tuple[int, int] = (1280, 720)) -> Image.Image:
    room = Image.fromarray(np.uint8(np.linspace((60, 70, 80), (190, 180, 160), size[0])[None].repeat(size[1], 0)))
    for name, quad in quads.items():
        room = study.onto(stamps[name].image, quad, size, room)
    return room


ONE = {"coffee": np.array([[330.0, 120], [900, 90], [960, 560], [300, 600]])}
TWO = {"coffee": np.array([[60.0, 130], [590, 90], [600, 520], [50, 490]]), "astronaut": np.array([[700.0, 150], [1180, 170], [1200, 640], [690, 650]])}


@pytest.mark.parametrize("quads", [ONE, TWO], ids=["one", "two"])
def test_found_in_a_scene(net, stamps, quads):
    frame = np.asarray(scene(stamps, quads))
    found = net.find(frame)
    assert len(found) == len(quads)
    for true in quads.values():
        assert max(detect.quad_iou(geometry.clockwise(true), np.asarray(q, np.float64)) for q in found) > 0.85
    read = {r.message: r for r in net.scan(frame)}
    assert set(read) == {stamps[name].message for name in quads}
    for name, true in quads.items():
        side = np.linalg.norm(true - np.roll(true, 1, 0), axis=1).mean()
        assert np.linalg.norm(read[stamps[name].message].quad - true, axis=1).max() < 0.06 * side
    assert {r.message for r in net.decode_all(frame)} == set(read)


def test_a_stamp_upside_down_in_a_scene(net, stamps):
    (read,) = net.scan(scene(stamps, {"coffee": np.roll(ONE["coffee"], 2, 0)}))
    assert (read.message, read.rotation) == (stamps["coffee"].message, 180)
    assert np.linalg.norm(read.quad[0] - ONE["coffee"][2]) < 40


def test_a_video_reads_what_a_frame_shows(net, stamps):
    frame = np.asarray(scene(stamps, ONE))
    watch = net.watch()
    for i in range(10):
        tracks = watch.add(net.look(frame), i * 0.1)
        if tracks and net.tracked(tracks[0]):
            break
    read = net.tracked(tracks[0])
    assert read.message == stamps["coffee"].message and tracks[0].confidence == 1


def test_nothing_is_found_where_no_picture_is(net):
    frame = np.asarray(scene({}, {}))
    assert net.scan(frame) == [] and net.watch().add(net.look(frame), 0.0) == []


def test_a_frame_too_small_for_a_stamp(net):
    for door in (net.find, net.scan, net.decode):
        with pytest.raises(NoStampFound, match="too small to hold a stamp: it is 300 x 9"):
            door(Image.new("RGB", (300, 9)))


def test_weights_of_another_number_of_bits_are_refused(tmp_path):
    other = StegaStamp(64, 96, 4)
    write(tmp_path, other, other.config, {}, "")
    with pytest.raises(WeightsError, match="hide 96 bits, and a message is made of 100"):
        pttp.load("stegastamp", str(tmp_path))
