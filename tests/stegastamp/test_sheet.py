"""The print sheet: one PDF page of A4 whose millimetres are true and whose pictures are what was given."""
from __future__ import annotations

import importlib.util
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pttp
from pttp.errors import BadImage
from pttp.stegastamp import sheet

COFFEE = Path(importlib.util.find_spec("skimage").origin).parent / "data" / "coffee.png"
POINT = 25.4 / 72  # millimetres


def printed(data: bytes) -> tuple[Image.Image, np.ndarray]:
    """The picture on the PDF's only page, and the page's size in millimetres."""
    assert data.startswith(b"%PDF-") and data.rstrip().endswith(b"%%EOF") and len(re.findall(rb"/Type\s*/Page\b", data)) == 1
    box = [float(n) for n in re.search(rb"/MediaBox\s*\[\s*([\d. ]+)\]", data)[1].split()]
    start = data.index(b"\xff\xd8\xff")
    return Image.open(io.BytesIO(data[start:])).convert("RGB"), np.array(box[2:]) * POINT


@pytest.mark.parametrize("size", [(600, 400), (300, 300), (200, 700)], ids=str)
def test_sizes_are_true_millimetres(size):
    """Of a red picture: every red patch on the page is as large as its caption says."""
    page, millimetres = printed(sheet.pdf(Image.new("RGB", size, (220, 30, 40)), "Hello!"))
    assert millimetres == pytest.approx((210, 297), abs=0.05)
    scale = millimetres[0] / page.width
    assert scale == pytest.approx(millimetres[1] / page.height, rel=1e-3)
    red = (np.asarray(page, int) @ (1, -1, 0)) > 120
    longer = []
    for side, (left, top, right, bottom) in sheet.places(size):
        patch = red[round((top - 1) / scale) : round((bottom + 1) / scale), round((left - 1) / scale) : round((right + 1) / scale)]
        width, height = (scale * (np.ptp(np.flatnonzero(patch.any(axis))) + 1) for axis in (0, 1))
        assert (width, height) == pytest.approx((side * size[0] / max(size), side * size[1] / max(size)), abs=0.2)
        longer.append(side)
    assert longer == sorted(longer, reverse=True) and longer[0] == 100 and longer[-1] == 10
    areas = sum(side**2 * size[0] * size[1] / max(size) ** 2 for side in longer)
    assert red.sum() * scale**2 == pytest.approx(areas, rel=0.01), "red anywhere else, or pictures that overlap"


def test_the_ruler_is_as_long_as_it_says():
    page, millimetres = printed(sheet.pdf(Image.new("RGB", (300, 300), "white"), "Hello!"))
    dark = np.asarray(page.convert("L")) < 128
    longest = max(max((len(run) for run in "".join("#" if d else " " for d in row).split()), default=0) for row in dark)
    assert longest * millimetres[0] / page.width == pytest.approx(sheet.RULER, abs=0.4)


def test_the_pictures_on_it_can_be_read(tmp_path, monkeypatch):
    monkeypatch.setenv("PTTP_LINKS", str(tmp_path / "links.sqlite"))
    net = pttp.load("stegastamp", "embedded")
    stamp = net.encode(COFFEE, "https://example.org/print")
    page, millimetres = printed(sheet.pdf(stamp.image, stamp.message, stamp.link))
    scale = page.width / millimetres[0]
    for side, box in sheet.places(stamp.image.size):
        if side >= 30:  # 354 pixels
            assert net.decode(page.crop([round(n * scale) for n in box])).link == "https://example.org/print", side


@pytest.mark.parametrize(
    ("link", "words"),
    [
        ("https://example.org/a?b=c#d", "https://example.org/a?b=c#d"),
        ("https://bücher.example/ü?x=é", "https://xn--bcher-kva.example/%C3%BC?x=%C3%A9"),
        ("http://user@example.org:8080/%20", "http://user@example.org:8080/%20"),
    ],
)
def test_links_are_spelled_in_letters_that_print(link, words):
    assert sheet.spelled(link) == words


@pytest.mark.parametrize(("text", "words"), [("Hello!", "Hello!"), ("é", "é"), ("🙂abc", "U+1F642abc"), ("日", "U+65E5")])
def test_messages_are_spelled_in_letters_that_print(text, words):
    assert sheet.plain(text) == words


def test_long_links_and_transparency_fit():
    page, _ = printed(sheet.pdf(Image.new("RGBA", (300, 200), (200, 0, 0, 0)), "aB3dE9x", "https://example.org/" + "very-long/" * 150))
    assert (np.asarray(page)[:, -sheet.px(10) :] > 250).all(), "something runs over the right margin"
    (_, (left, top, right, bottom)), *_ = sheet.places((300, 200))
    assert (np.asarray(page.crop([sheet.px(n) for n in (left + 2, top + 2, right - 2, bottom - 2)])) > 250).all(), "transparent is white on paper"


def test_what_is_no_picture():
    with pytest.raises(BadImage, match="There is no file"):
        sheet.pdf("nowhere.png", "a")
