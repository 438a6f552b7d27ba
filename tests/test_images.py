"""pttp.images: every file of the corpus, and what people hand in from Python."""
from __future__ import annotations

import http.server
import io
import json
import os
import re
import subprocess
import sys
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pttp import images
from pttp.errors import BadImage, BadInput, PTTPError
from tests import corpus

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL.TiffImagePlugin", "ignore::PIL.Image.DecompressionBombWarning")
ROOT = Path(__file__).parent.parent
SMALL = [name for name in corpus.GOOD if not name.startswith("photo")]
ONE_SENTENCE = re.compile(r"[A-Z'].*: .*[^.]\.", re.DOTALL)  # what is the matter: what helps


def check(case: corpus.Case, image: Image.Image) -> None:
    assert (image.mode, image.size) == ("RGB", case.size)
    for at, colour in case.pixels.items():
        assert np.abs(np.subtract(image.getpixel(at), colour)).max() <= case.tolerance, (at, image.getpixel(at), colour)


@pytest.mark.parametrize("name", corpus.NAMES)
def test_corpus_as_path(cases, name):
    case = cases[name]
    if case.ok:
        check(case, images.read(case.path))
        return
    with pytest.raises(BadImage, match=re.escape(case.words)) as refusal:
        images.read(case.path)
    assert ONE_SENTENCE.fullmatch(str(refusal.value))
    with pytest.raises(BadImage):
        images.read(case.path, alpha=True)


@pytest.mark.parametrize("name", [*SMALL, *(name for name in corpus.BAD if name != "missing.png")])
def test_corpus_as_content(cases, name):
    case = cases[name]
    content = case.path.read_bytes()
    with open(case.path, "rb") as file:
        for given in (content, io.BytesIO(content), file):
            if case.ok:
                check(case, images.read(given))
            else:
                with pytest.raises(BadImage, match=re.escape(case.words)):
                    images.read(given)
        assert not file.closed


@pytest.mark.parametrize("name", SMALL)
def test_corpus_as_pil_image(cases, name):
    case = cases[name]
    with Image.open(case.path) as opened:
        once = images.read(opened)
    check(case, once)
    again = images.read(once)  # upright and in sRGB already: nothing is applied twice
    assert np.array_equal(np.asarray(again), np.asarray(once))
    assert again is not once and not once.info and not once.getexif()


@pytest.mark.parametrize("name", SMALL)
def test_corpus_with_alpha(cases, name):
    case = cases[name]
    image = images.read(case.path, alpha=True)
    assert (image.mode, image.size) == ("RGBA", case.size)
    on_white = Image.new("RGB", image.size, "white")
    on_white.paste(image, mask=image.getchannel("A"))
    check(case, on_white)


@pytest.mark.parametrize(
    "name, left_top, right_top",
    [
        ("plain.png", 255, 255),
        ("rgba.png", 255, 0),
        ("grey_alpha.png", 255, 0),
        ("palette_transparent.png", 255, 0),
        ("colour_key.png", 255, 0),
        ("grey16_colour_key.png", 255, 0),
        ("rgba16.png", 255, 0),
        ("transparent.gif", 255, 0),
        ("alpha.webp", 255, 0),
        ("profile_rgba.png", 255, 0),
        ("cmyk_adobe.jpg", 255, 255),
    ],
)
def test_opacity(cases, name, left_top, right_top):
    image = images.read(cases[name].path, alpha=True)
    assert [image.getpixel(at)[3] for at in (corpus.LEFT_TOP, corpus.RIGHT_TOP)] == [left_top, right_top]


MEASURE = """
import json, sys, time, warnings
from pttp import images
warnings.simplefilter("ignore")

def status(key):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024

try:  # every decoder loaded, none of them counted
    images.read(sys.argv[1])
except images.BadImage:
    raise SystemExit("the warm-up picture must be readable")
for path in sys.argv[2:]:
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")
    before, start = status("VmRSS"), time.perf_counter()
    try:
        images.read(path)
    except images.BadImage:
        pass
    print(json.dumps({"file": path, "seconds": time.perf_counter() - start, "megabytes": status("VmHWM") - before}))
"""


def test_the_bombs_are_real(cases):
    """Behind its header the bomb has all the pixels that it announces."""
    assert zlib.decompress(corpus.squeezed_zeros(5_000_001)) == bytes(5_000_001)
    content = cases["bomb_100_megapixels.png"].path.read_bytes()
    assert len(content) < 500_000
    unfold, length = zlib.decompressobj(), 0
    rest = content[content.index(b"IDAT") + 4 : -16]  # without the checksum and the IEND chunk
    while rest:
        length += len(unfold.decompress(rest, 1 << 20))
        rest = unfold.unconsumed_tail
    assert length == 30_001 * 10_000 and unfold.eof


@pytest.mark.parametrize("name", SMALL)
def test_cut_anywhere(cases, name):
    """A picture that lost its end is refused, or whole: never a traceback, never another size."""
    content = cases[name].path.read_bytes()
    for tenth in range(1, 10):
        try:
            image = images.read(content[: len(content) * tenth // 10])
        except BadImage:
            continue
        check(cases[name], image)


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the peak memory of one call can only be measured on Linux")
def test_bombs_cost_little(cases):
    """At most 1 s and 50 MB of memory each, measured in a process of its own."""
    names = [*corpus.BOMBS, "photo_48_megapixels.jpg"]
    command = [sys.executable, "-c", MEASURE, *(str(cases[name].path) for name in ("plain.tif", *names))]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert result.returncode == 0, result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(rows) == len(names)
    for row in rows:
        print(f"{Path(row['file']).name:45} {row['seconds']:6.3f} s {row['megabytes']:6.1f} MB")
    assert rows.pop()["megabytes"] > 100  # the meter sees what a picture really costs
    assert [row for row in rows if row["seconds"] > 1 or row["megabytes"] > 50] == []


@pytest.mark.parametrize("name", corpus.BOMBS)
def test_warnings_that_are_errors_change_nothing(cases, name):
    case = cases[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if case.ok:
            check(case, images.read(case.path))
        else:
            with pytest.raises(BadImage, match=re.escape(case.words)):
                images.read(case.path)


def test_pixel_budget_can_be_set(cases):
    w, h = cases["plain.png"].size
    assert images.read(cases["plain.png"].path, max_pixels=w * h).size == (w, h)
    for given in (cases["plain.png"].path, Image.new("RGB", (w, h)), np.zeros((h, w, 3), np.uint8)):
        with pytest.raises(BadImage, match="shrink it first"):
            images.read(given, max_pixels=w * h - 1)


@pytest.mark.parametrize(
    "given, words",
    [
        (None, "no picture yet"),
        (7, "A int is not a picture"),
        ([[0]], "A list is not a picture"),
        (b"", "empty (0 bytes)"),
        (io.StringIO("text"), 'mode "rb"'),
        (np.zeros((4, 4), np.uint8), "(4, 4) uint8"),
        (np.zeros((4, 4, 4), np.uint8), "(4, 4, 4) uint8"),
        (np.zeros((1, 4, 4, 3), np.uint8), "(1, 4, 4, 3) uint8"),
        (np.zeros((3, 4, 4), np.uint8), "(3, 4, 4) uint8"),
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((4, 4, 3), np.int64), "int64"),
        (np.zeros((4, 4, 3), bool), "bool"),
        (np.zeros((4, 4, 3), object), "object"),
        (np.full((4, 4, 3), np.nan), "NaN"),
        (np.full((4, 4, 3), np.inf, np.float16), "NaN"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (np.zeros((4, 0, 3), np.uint8), "no pixels"),
        (Image.new("RGB", (0, 4)), "no pixels"),
        ("", "no file ''"),
        ("nowhere/at/all.png", "no file 'nowhere/at/all.png'"),
        ("a\0b.png", "cannot be opened"),
        ("x" * 5000, "cannot be opened"),
        (str(ROOT), "is a folder"),
        (ROOT, "is a folder"),
        (__file__ + "/x.png", "no file"),
        ("/dev/zero", "not an ordinary file"),
    ],
    ids=lambda value: None if isinstance(value, str) else type(value).__name__,
)
def test_refused(given, words):
    with pytest.raises(BadImage, match=re.escape(words)) as refusal:
        images.read(given)
    assert len(str(refusal.value)) < 300


@pytest.mark.parametrize("given", ["{}/a.png", " {}/a.png", "HTTPS://example.org/a.png", "data:image/png;base64,iVBORw0KGgo=", "file:///etc/hostname", "ftp://example.org/a.png"])
@pytest.mark.parametrize("kind", [str, Path])
def test_links_are_not_followed(given, kind):
    asked = []

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)

    with http.server.HTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        with pytest.raises(BadImage, match="download the picture first"):
            images.read(kind(given.format(f"http://127.0.0.1:{server.server_port}")))
        server.shutdown()
    assert asked == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_named_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(BadImage, match="not an ordinary file"):
        images.read(tmp_path / "pipe.png")


def test_stream_that_cannot_seek(cases):
    read_end, write_end = os.pipe()
    with os.fdopen(write_end, "wb") as writer:
        writer.write(cases["plain.png"].path.read_bytes())
    with os.fdopen(read_end, "rb") as pipe:
        check(cases["plain.png"], images.read(pipe))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "LA", "PA", "RGBX", "RGBa", "La", "I;16", "I;16L", "I;16B", "I;16N"])
@pytest.mark.parametrize("alpha", [False, True])
def test_every_mode_of_pillow(mode, alpha):
    image = images.read(Image.new(mode, (5, 4)), alpha=alpha)
    assert (image.mode, image.size) == ("RGBA" if alpha else "RGB", (5, 4))


@pytest.mark.parametrize(
    "values, expected",
    [
        (np.array([[0, 128, 255]], np.int32), [0, 128, 255]),
        (np.array([[0, 32896, 65535]], np.int32), [0, 128, 255]),
        (np.array([[0, 1000000, 4000000]], np.int32), [0, 64, 255]),
        (np.array([[-10, 0, 30]], np.int32), [0, 64, 255]),
        (np.array([[0, 0.5, 1]], np.float32), [0, 128, 255]),
        (np.array([[0, 127.6, 255]], np.float32), [0, 128, 255]),
        (np.array([[0, 32896, 65535]], np.float32), [0, 128, 255]),
        (np.array([[-1, 0, 1]], np.float32), [0, 128, 255]),
        (np.array([[1e6, 1e6, 1e6]], np.float32), [0, 0, 0]),
        (np.array([[0, 32896, 65535]], np.uint16), [0, 128, 255]),
        (np.array([[0, 255, 256]], np.uint16), [0, 1, 1]),
    ],
)
def test_deep_samples_are_scaled(values, expected):
    assert images.to_array(Image.fromarray(values))[0].tolist() == [[v, v, v] for v in expected]


def test_array_is_copied():
    array = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
    for given in (array, array[::-1], array[:, ::2]):
        out = images.to_array(given)
        assert np.array_equal(out, given) and out.flags.writeable and not np.shares_memory(out, given)
    image = images.read(array)
    image.putpixel((0, 0), (9, 9, 9))
    assert array[0, 0].tolist() == [0, 1, 2]


def test_the_image_that_was_given_stays_as_it_is(cases):
    with Image.open(cases["exif6.png"].path) as image:
        before = (image.size, dict(image.info))
        images.read(image)
        assert (image.size, dict(image.info)) == before and image.getexif()[0x0112] == 6


@pytest.mark.parametrize(
    "size, longest, expected",
    [((64, 48), 32, (32, 24)), ((48, 64), 32, (24, 32)), ((64, 48), 64, (64, 48)), ((64, 48), 1000, (64, 48)), ((10000, 1), 100, (100, 1)), ((1, 1), 1, (1, 1)), ((3, 2), 1, (1, 1))],
)
def test_fit(size, longest, expected):
    assert images.fit(Image.new("RGB", size, corpus.RED), longest).size == expected


def test_fit_keeps_colours_and_refuses_nothing_wide():
    image = images.fit(corpus.scene(), 16)
    assert [image.getpixel((x, y)) for y in (2, 9) for x in (3, 12)] == list(corpus.QUADRANTS.values())
    with pytest.raises(BadInput, match="at least 1"):
        images.fit(corpus.scene(), 0)


def test_files(tmp_path):
    for name in ("b.PNG", "a.jpg", "notes.txt", ".hidden.png", "deep/c.webp", "deep/żółw.gif", ".thumbnails/d.png", "empty/readme.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    inside = [tmp_path / name for name in ("a.jpg", "b.PNG", "deep/c.webp", "deep/żółw.gif")]
    assert images.files([tmp_path]) == inside
    with pytest.raises(BadInput, match="empty name"):
        images.files(["a.jpg", ""])
    assert images.files([str(tmp_path / "notes.txt"), tmp_path, "missing.png"]) == [tmp_path / "notes.txt", *inside, Path("missing.png")]
    for nothing in ([], [tmp_path / "empty"]):
        with pytest.raises(BadInput, match="no picture to work on"):
            images.files(nothing)


@pytest.mark.parametrize("name, kind, exact", [("a.png", "PNG", True), ("A.PNG", "PNG", True), ("żółw.jpg", "JPEG", False), ("a.jpeg", "JPEG", False), ("a.webp", "WEBP", False)])
def test_save(tmp_path, name, kind, exact):
    assert images.save(corpus.scene(), tmp_path / name) == tmp_path / name
    with Image.open(tmp_path / name) as image:
        assert image.format == kind
    assert np.abs(images.to_array(tmp_path / name)[8:16, 8:16].astype(int) - corpus.RED).max() <= (0 if exact else 8)
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name, opaque", [("a.jpg", True), ("a.png", False), ("a.webp", False)])
def test_save_transparency(tmp_path, name, opaque):
    cutout = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    images.save(cutout, str(tmp_path / name))
    assert images.read(tmp_path / name).getpixel((8, 8)) == corpus.WHITE
    assert images.read(tmp_path / name, alpha=True).getpixel((8, 8))[3] == (255 if opaque else 0)


def test_save_quality(tmp_path):
    noise = Image.effect_noise((64, 64), 60)
    sizes = [images.save(noise, tmp_path / "a.jpg", quality=quality).stat().st_size for quality in (10, 92, 100)]
    assert sizes[0] < sizes[1] < sizes[2]


@pytest.mark.parametrize(
    "name, options, words",
    [
        ("a.gif", {}, "'a.gif' cannot be written: end the name in .png, .jpg or .webp."),
        ("a", {}, "'a' cannot be written: end the name"),
        ("a.png.txt", {}, "'a.png.txt' cannot be written: end the name"),
        ("x" * 300 + "/a.png", {}, "no folder"),
        ("nowhere/a.png", {}, "no folder"),
        ("a.jpg", {"quality": 0}, "between 1 and 100"),
        ("a.jpg", {"quality": 101}, "between 1 and 100"),
        ("taken.png", {}, "is a folder"),
        ("", {}, "end the name"),
        ("x" * 300 + ".png", {}, "could not be written"),
    ],
)
def test_save_refuses(tmp_path, name, options, words):
    (tmp_path / "taken.png").mkdir()
    with pytest.raises(BadInput, match=re.escape(words)):
        images.save(corpus.scene(), tmp_path / name, **options)
    assert os.listdir(tmp_path) == ["taken.png"]


def test_a_failed_save_leaves_the_old_file(tmp_path):
    old = images.save(corpus.scene(), tmp_path / "a.webp").read_bytes()
    with pytest.raises(PTTPError, match="could not be written"):
        images.save(Image.new("RGB", (20000, 1)), tmp_path / "a.webp")  # WebP ends at 16383
    assert (tmp_path / "a.webp").read_bytes() == old and os.listdir(tmp_path) == ["a.webp"]


def test_write_text(tmp_path):
    (tmp_path / "taken").mkdir()
    assert images.write_text("żółw\n", tmp_path / "a.svg") == tmp_path / "a.svg" and (tmp_path / "a.svg").read_bytes() == "żółw\n".encode()
    for name, words in (("nowhere/a.svg", "There is no folder"), ("a.svg/b", "There is no folder"), ("taken", "is a folder"), ("x" * 300, "could not be written")):
        with pytest.raises(BadInput, match=words):
            images.write_text("new", tmp_path / name)
    with pytest.raises(BadInput, match="could not be written"):
        images.write_text("half \ud800 written", tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_text(encoding="utf-8") == "żółw\n" and sorted(os.listdir(tmp_path)) == ["a.svg", "taken"]


def test_make_folder(tmp_path):
    (tmp_path / "file").touch()
    for _ in range(2):
        assert images.make_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b" and (tmp_path / "a" / "b").is_dir()
    for name in ("file", "file/b", "x" * 300):
        with pytest.raises(BadInput, match="could not be made") as refusal:
            images.make_folder(tmp_path / name)
        assert ONE_SENTENCE.fullmatch(str(refusal.value)) or str(refusal.value).startswith("The folder")


@pytest.mark.parametrize(
    "name, suffixes, words",
    [
        ("a.jpeg", (".png", ".jpg", ".webp"), None),
        ("A.PNG", (".png",), None),
        ("a", (), None),
        ("a.jpeg", (".png", ".webp"), "end the name in .png or .webp."),
        ("a.svgz", (".svg",), "end the name in .svg."),
        ("a.gif", (".png", ".jpg", ".webp"), "end the name in .png, .jpg or .webp."),
        ("no/a.svg", (".svg",), "There is no folder"),
    ],
)
def test_place(tmp_path, name, suffixes, words):
    if words is None:
        assert images.place(tmp_path / name, suffixes) == tmp_path / name
    else:
        with pytest.raises(BadInput, match=re.escape(words)):
            images.place(tmp_path / name, suffixes)
    assert not os.listdir(tmp_path)


def test_place_in_a_folder_that_is_closed(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(BadInput, match="its folder is read-only"):
        images.place(tmp_path / "a.png")


def test_imports_no_torch():
    code = "import sys, pttp.images; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
