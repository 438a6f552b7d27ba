"""PolarMask's tab, used as a visitor would use it."""
from __future__ import annotations

import importlib.util
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pttp

CHELSEA = Path(importlib.util.find_spec("skimage").origin).parent / "data" / "chelsea.png"
TIMEOUT = 90_000


@pytest.fixture(scope="module")
def net():
    return pttp.load("polarmask", "embedded")


@pytest.fixture
def tab(visitor):
    visitor.open("polarmask")
    visitor.page.locator("#polarmask-weights").get_by_text("Embedded weights").first.wait_for(timeout=TIMEOUT)
    return visitor


def text(visitor, part: str) -> str:
    return visitor.page.locator(f"#polarmask-{part}").inner_text()


def wait_for(visitor, part: str, words: str) -> str:
    visitor.page.locator(f"#polarmask-{part}").get_by_text(words).first.wait_for(timeout=TIMEOUT)
    return text(visitor, part)


def wait_until(visitor, part: str, fits) -> str:
    """The part's words, as soon as `fits(words)`."""
    for _ in range(TIMEOUT // 100):
        if fits(words := text(visitor, part)):
            return words
        visitor.page.wait_for_timeout(100)
    pytest.fail(f"{part} still says: {words}")


def says(found):
    """Whether a card is this answer's, up to the half pixel that a click may be off."""

    def fits(words: str) -> bool:
        told = re.search(r"centre\s+(-?\d+), (-?\d+)\s+score\s+(\d\.\d\d)\s+centerness\s+(\d\.\d\d)", words)
        wanted = (*found.center, 100 * found.score, 100 * found.centerness)
        return bool(told) and np.abs(np.array([float(v) for v in told.groups()]) * (1, 1, 100, 100) - wanted).max() < 2.5 and found.label in words

    return fits


def upload(visitor, path: Path) -> None:
    visitor.page.locator("#polarmask-photo input[type=file]").set_input_files(path)


def open_chelsea(visitor) -> str:
    upload(visitor, CHELSEA)
    card = wait_for(visitor, "card", "centerness")
    visitor.page.locator("#polarmask-heat img").first.wait_for(timeout=TIMEOUT)
    return card


def click_in(visitor, part: str, x: float, y: float) -> None:
    """At the share (x, y) of the picture, which is fitted into its box."""
    image = visitor.page.locator(f"#polarmask-{part} img").first
    image.scroll_into_view_if_needed()
    visitor.page.wait_for_function("id => document.querySelector(id).naturalWidth > 0", arg=f"#polarmask-{part} img", timeout=TIMEOUT)
    box = image.bounding_box()
    w, h = image.evaluate("i => [i.naturalWidth, i.naturalHeight]")
    scale = min(box["width"] / w, box["height"] / h, 1)
    left, top = box["x"] + (box["width"] - w * scale) / 2, box["y"] + (box["height"] - h * scale) / 2
    visitor.page.mouse.click(left + x * w * scale, top + y * h * scale)


def download(visitor, part: str, folder: Path) -> Path:
    with visitor.page.expect_download(timeout=TIMEOUT) as waiting:
        visitor.page.locator(f"#polarmask-{part}").click()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def test_a_photo_is_answered_at_once_and_a_click_asks_for_another_contour(tab, net, tmp_path):
    card = open_chelsea(tab)
    best = net.predict(CHELSEA, 0)[0]
    assert says(best)(card)
    assert 'net.predict("photo.jpg", score=0.45)' in tab.page.locator(".cm-content:visible").first.inner_text()  # a question at its centre is answered otherwise
    for part, place in (("photo", (0.2, 0.8)), ("shown", (0.75, 0.4))):
        found = net.predict_at(CHELSEA, (place[0] * 451 - 0.5, place[1] * 300 - 0.5))
        assert not says(found)(text(tab, "card"))
        click_in(tab, part, *place)
        wait_until(tab, "card", says(found))
    assert "predict_at(" in tab.page.locator(".cm-content:visible").first.inner_text()
    assert not tab.scrolls_sideways()
    tab.shot("polarmask")
    tab.clean()


def test_a_point_in_numbers_and_the_downloads(tab, net, tmp_path):
    page = tab.page
    open_chelsea(tab)
    page.locator("#polarmask-numbers button").first.click()
    page.locator("#polarmask-x input").fill("300")
    page.locator("#polarmask-y input").fill("100")
    page.locator("#polarmask-go").click()
    found = net.predict_at(CHELSEA, (300, 100))
    wait_until(tab, "card", says(found))
    drawing = ET.parse(download(tab, "svg", tmp_path)).getroot()
    (polygon,) = drawing.iter("{http://www.w3.org/2000/svg}polygon")
    corners = np.array([[float(v) for v in p.split(",")] for p in polygon.get("points").split()])
    assert corners == pytest.approx(found.contour + 0.5, abs=0.3)
    told = json.loads(download(tab, "coco", tmp_path).read_text())
    assert told["image"] == {"width": 451, "height": 300} and told["annotations"][0]["category"] == found.label
    cut = Image.open(download(tab, "png", tmp_path))
    assert cut.mode == "RGBA" and cut.size == (451, 300) and ((np.asarray(cut)[..., 3] > 0) != found.mask).mean() < 0.002
    page.locator("#polarmask-x input").fill("5000")
    page.locator("#polarmask-go").click()
    page.locator(".toast-body, .toast-wrap").get_by_text("outside of this picture").first.wait_for(timeout=TIMEOUT)
    assert found.label in text(tab, "card")  # nothing is lost


def test_all_objects_with_a_score(tab, net):
    open_chelsea(tab)
    tab.page.locator("#polarmask-view").get_by_label("All objects").check()
    wait_for(tab, "card", f"{len(net.predict(CHELSEA))} object")
    tab.page.locator("#polarmask-view").get_by_label("One object").check()
    assert "answered in" not in wait_for(tab, "card", "centerness")  # nothing was asked anew
    box = tab.page.locator("#polarmask-score input[type=number]")
    box.fill("0.1")  # which shows all objects again
    box.press("Enter")
    wait_for(tab, "card", f"{len(net.predict(CHELSEA, 0.1))} object")
    assert tab.page.locator("#polarmask-view").get_by_label("All objects").is_checked()
    box.fill("1")
    box.press("Enter")
    wait_for(tab, "card", "Nothing reaches this score")
    tab.clean()


def test_the_ray_editor(tab):
    page = tab.page
    open_chelsea(tab)
    told = wait_for(tab, "edit", "No ray is moved yet")
    assert told.count("1.000") == 2
    length = page.locator("#polarmask-length input[type=number]")
    length.fill("5")
    length.press("Enter")
    told = wait_for(tab, "edit", "1 of 36 rays moved")
    assert "1.000" not in told
    first = float(re.search(r"\n(0\.\d{3})", told)[1])
    click_in(tab, "edited", 0.9, 0.5)
    told = wait_for(tab, "edit", "2 of 36 rays moved")
    assert float(re.search(r"\n(0\.\d{3})", told)[1]) != first
    page.locator("#polarmask-reset").click()
    wait_for(tab, "edit", "No ray is moved yet")
    tab.clean()


def test_the_number_of_rays_of_an_outline_of_ones_own(tab):
    page = tab.page
    open_chelsea(tab)
    wait_for(tab, "curve", "36 rays: IoU")
    corners = [(0.2, 0.2), (0.8, 0.2), (0.8, 0.8), (0.5, 0.3), (0.2, 0.8)]
    for i, corner in enumerate(corners):
        before = re.search(r"IoU [\d.]+", text(tab, "curve"))
        click_in(tab, "counted", *corner)
        if i < 2:
            wait_for(tab, "curve", f"{i + 1} so far")
        else:
            wait_until(tab, "curve", lambda words: (now := re.search(r"IoU [\d.]+", words)) and (before is None or now[0] != before[0]))
    many = float(re.search(r"36 rays: IoU ([\d.]+)", text(tab, "curve"))[1])
    assert 0.5 < many < 0.99
    box = page.locator("#polarmask-count input[type=number]")
    box.fill("8")
    box.press("Enter")
    few = float(re.search(r"8 rays: IoU ([\d.]+)", wait_for(tab, "curve", "8 rays: IoU"))[1])
    assert few < many
    page.locator("#polarmask-shape").get_by_label("my own outline").check()
    wait_for(tab, "lost", "IoU of the true rays")
    page.locator("#polarmask-clear").click()
    wait_for(tab, "curve", "at least three: 0 so far")
    wait_for(tab, "lost", "at least three corners")
    tab.clean()


def test_heat_maps_and_shapes(tab):
    page = tab.page
    open_chelsea(tab)
    assert page.locator("#polarmask-heat figure").count() == 3 and text(tab, "heat").count("It answered.") == 1
    page.locator("#polarmask-what").get_by_label("Something is here").check()
    wait_for(tab, "heat", "Something is here.")
    ring = re.search(r"0\.\d{3}", wait_for(tab, "lost", "IoU of the true rays"))[0]
    page.locator("#polarmask-shape").get_by_label("letter U").check()
    wait_until(tab, "lost", lambda words: (now := re.search(r"0\.\d{3}", words)) and now[0] != ring)
    assert not tab.scrolls_sideways()
    tab.clean()


def test_a_bad_file_gets_a_sentence_and_the_next_photo_an_answer(tab, tmp_path):
    (tmp_path / "holiday.png").write_text("this is not a picture")
    upload(tab, tmp_path / "holiday.png")
    tab.page.locator(".toast-body, .toast-wrap").get_by_text("not a picture", exact=False).first.wait_for(timeout=TIMEOUT)
    assert "Traceback" not in tab.page.locator("body").inner_text()
    tab.page.locator(".thumbnail-item:visible, .gallery-item:visible").nth(1).click()
    wait_for(tab, "card", "centerness")


def test_two_visitors_do_not_see_each_other(chromium, server, net):
    from .conftest import Visitor

    contexts = [chromium.new_context(viewport={"width": 1280, "height": 900}) for _ in range(2)]
    first, second = (Visitor(c.new_page(), server, "desktop").open("polarmask") for c in contexts)
    open_chelsea(first)
    wait_until(first, "card", says(net.predict(CHELSEA, 0)[0]))
    second.page.locator(".thumbnail-item:visible, .gallery-item:visible").nth(1).click()
    wait_for(second, "card", "centerness")
    assert says(net.predict(CHELSEA, 0)[0])(text(first, "card"))
    click_in(first, "shown", 0.75, 0.4)
    wait_until(first, "card", says(net.predict_at(CHELSEA, (0.75 * 451 - 0.5, 0.4 * 300 - 0.5))))
    for context in contexts:
        context.close()


def test_the_study_panel_shows_equations_and_code(tab):
    tab.page.locator(".pt-study .katex-display").first.wait_for(timeout=TIMEOUT)
    assert tab.page.locator(".pt-study .katex-error").count() == 0
    lines = tab.page.locator(".pt-study details.pt-lines").first
    lines.locator("summary").click()
    assert "def " in lines.inner_text()
    tab.clean()
