"""PointRend's tab, used as a visitor would use it."""
from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

import pttp
from pttp.pointrend import masks

CHELSEA = Path(importlib.util.find_spec("skimage").origin).parent / "data" / "chelsea.png"  # 451 x 300


@pytest.fixture
def tab(visitor):
    visitor.open("pointrend")
    visitor.page.locator("#pointrend-weights").get_by_text("Embedded weights").first.wait_for(timeout=60_000)
    return visitor


@pytest.fixture(scope="module")
def session():
    return pttp.load("pointrend", "embedded").open(CHELSEA)


def give(tab, path: Path = CHELSEA) -> None:
    tab.page.locator("#pointrend-photo input[type=file]").set_input_files(path)
    tab.page.locator("#pointrend-canvas img").wait_for(timeout=60_000)
    tab.page.locator("#pointrend-card").get_by_text("Now click the thing you want").wait_for(timeout=60_000)


def place(tab, where: str = "#pointrend-canvas") -> tuple[float, float, float, float]:
    """Left, top, width and height of the picture as it is shown."""
    image = tab.page.locator(f"{where} img")
    image.scroll_into_view_if_needed()
    tab.page.wait_for_function("where => document.querySelector(where + ' img')?.naturalWidth > 0", arg=where)
    box, (w, h) = image.bounding_box(), image.evaluate("e => [e.naturalWidth, e.naturalHeight]")
    scale = min(box["width"] / w, box["height"] / h, 1)  # shown whole, never enlarged
    return box["x"] + (box["width"] - w * scale) / 2, box["y"] + (box["height"] - h * scale) / 2, w * scale, h * scale


def click(tab, x: float, y: float, where: str = "#pointrend-canvas", size: tuple[int, int] = (451, 300), at: tuple | None = None) -> None:
    """A click on the pixel (x, y) of the photo, wherever the picture is shown."""
    left, top, w, h = at or place(tab, where)
    tab.page.mouse.click(left + (x + 0.5) / size[0] * w, top + (y + 0.5) / size[1] * h)


def facts(tab) -> dict[str, str]:
    card = tab.page.locator("#pointrend-card")
    return dict(zip(card.locator("dt").all_inner_texts(), card.locator("dd").all_inner_texts()))


def wait_for_clicks(tab, n: int) -> dict[str, str]:
    tab.page.wait_for_function("n => [...document.querySelectorAll('#pointrend-card dt')].some(d => d.innerText === 'clicks' && d.nextElementSibling.innerText === String(n))", arg=n, timeout=60_000)
    return facts(tab)


def clicked_code(tab) -> tuple[list, list]:
    """The points and labels that the code panel shows: what has reached the server."""
    text = tab.page.locator(".cm-content").first.inner_text()
    points, labels = re.search(r"m\.click\((\[.*?\]), (\[[\d, ]*\])\)", text.replace("\n", " ")).groups()
    return [tuple(p) for p in json.loads(points.replace("(", "[").replace(")", "]"))], json.loads(labels)


def test_five_quick_clicks_none_lost(tab):
    """A fifth of a second apart, while the first are still being answered; each on the state that the one before has left."""
    give(tab)
    wanted = [(200, 150), (300, 160), (150, 220), (250, 60), (220, 250)]
    at = place(tab)
    for x, y in wanted:
        click(tab, x, y, at=at)
        tab.page.wait_for_timeout(200)
    wait_for_clicks(tab, 5)
    tab.page.wait_for_function("document.querySelector('.cm-content').innerText.split('(').length >= 7", timeout=20_000)
    points, labels = clicked_code(tab)
    assert labels == [1] * 5
    for (x, y), (ax, ay) in zip(sorted(points), sorted(wanted), strict=True):
        assert abs(x - ax) <= 2 and abs(y - ay) <= 2
    tab.clean()


def test_click_correct_undo_reset(tab):
    give(tab)
    click(tab, 200, 150)
    first = wait_for_clicks(tab, 1)
    tab.page.get_by_label("does not belong").check()
    click(tab, 240, 200)
    second = wait_for_clicks(tab, 2)
    assert first["pixels"] != second["pixels"]
    assert clicked_code(tab)[1] == [1, 0]
    tab.page.locator("#pointrend-undo").click()
    assert wait_for_clicks(tab, 1)["pixels"] == first["pixels"]
    tab.page.locator("#pointrend-reset").click()
    tab.page.locator("#pointrend-card").get_by_text("Now click the thing you want").wait_for(timeout=30_000)
    assert not tab.scrolls_sideways()
    tab.clean()


def test_the_answer_is_pythons_and_can_be_downloaded(tab, session, tmp_path):
    give(tab)
    click(tab, 200, 150, "#pointrend-photo")
    shown = wait_for_clicks(tab, 1)
    points, labels = clicked_code(tab)
    made = session.click(points, labels)
    assert shown["pixels"] == f"{made.mask.sum():,} of 135,300" and shown["expected overlap"] == f"{made.score:.0%}"

    def download(name: str) -> Path:
        with tab.page.expect_download(timeout=60_000) as waiting:
            tab.page.locator(f"#pointrend-{name}").click()
        path = tmp_path / waiting.value.suggested_filename
        waiting.value.save_as(path)
        return path

    assert np.array_equal(np.asarray(Image.open(download("png"))), 255 * made.mask.astype(np.uint8))
    cut = Image.open(download("cutout"))
    assert cut.mode == "RGBA" and np.asarray(cut)[..., 3].astype(bool).sum() == made.mask.sum()
    told = json.loads(download("coco").read_text())
    assert told["annotations"][0]["segmentation"] == masks.rle(made.mask)
    assert len(ElementTree.parse(download("svg")).getroot()) == 1
    tab.clean()


def test_several_objects_and_everything(tab, session):
    give(tab)
    click(tab, 200, 150)
    wait_for_clicks(tab, 1)
    tab.page.locator("#pointrend-next").click()
    tab.page.locator("#pointrend-card").get_by_text("1 finished").wait_for(timeout=30_000)
    assert abs(clicked_code(tab)[0][0][0] - 200) <= 2  # what was last done, until something new is
    click(tab, 420, 40)
    tab.page.locator("#pointrend-anyway:visible, #pointrend-card dd >> nth=0").first.wait_for(timeout=30_000)
    tab.page.locator("#pointrend-everything").click()
    rows = tab.page.locator("#pointrend-card tbody tr")
    if session.instances:
        rows.first.wait_for(timeout=60_000)
        assert rows.count() == len(session.instances)
        tab.page.wait_for_function("!document.querySelector('.cm-content').innerText.includes('m.click(')", timeout=20_000)
    tab.shot("pointrend-everything")
    tab.clean()


def test_plain_sky_is_said_to_be_empty_and_can_be_insisted_on(tab, tmp_path):
    sky = np.tile(np.linspace((90, 140, 220), (170, 200, 240), 240).astype(np.uint8)[:, None], (1, 320, 1))
    Image.fromarray(sky).save(tmp_path / "sky.png")
    give(tab, tmp_path / "sky.png")
    click(tab, 160, 100, size=(320, 240))
    tab.page.locator("#pointrend-card").get_by_text("Nothing found here").wait_for(timeout=30_000)
    tab.page.locator("#pointrend-anyway").click()
    wait_for_clicks(tab, 1)
    tab.page.get_by_text("[1], anyway=True)").first.wait_for(timeout=30_000)
    tab.clean()


def test_by_keyboard_and_outside(tab):
    give(tab)
    tab.page.locator("#pointrend-keyboard button").first.click()

    def point(x: int, y: int) -> None:
        for name, value in (("x", x), ("y", y)):
            tab.page.locator(f"#pointrend-{name} input").fill(str(value))
        tab.page.locator("#pointrend-add").focus()
        tab.page.keyboard.press("Enter")

    point(900, 20)
    tab.page.locator(".toast-body, .toast-wrap").get_by_text("outside of this picture of 451 x 300", exact=False).first.wait_for(timeout=30_000)
    point(200, 150)
    wait_for_clicks(tab, 1)
    assert clicked_code(tab) == ([(200, 150)], [1])
    tab.clean()


def test_look_inside(tab):
    give(tab)
    click(tab, 200, 150)
    wait_for_clicks(tab, 1)
    words = tab.page.locator("#pointrend-words")
    words.get_by_text("Doubled to 56 x 56").wait_for(timeout=60_000)
    assert re.search(r"logit [+-]\d", words.inner_text())
    box = tab.page.locator("#pointrend-step input[type=number]")
    for step, text in ((4, "Doubled to 224 x 224"), (0, "answers 7 x 7"), (1, "28 x 28 points")):
        box.fill(str(step))
        box.press("Enter")
        words.get_by_text(text).wait_for(timeout=30_000)
    before = words.inner_text()
    tab.page.locator("#pointrend-uncertainty img").click(position={"x": 100, "y": 60})
    tab.page.wait_for_function("old => document.querySelector('#pointrend-words').innerText !== old", arg=before, timeout=30_000)
    tab.page.locator("#pointrend-measure").click()
    tab.page.locator("#pointrend-costs tbody tr").nth(3).wait_for(timeout=60_000)
    assert "224 x 224" in tab.page.locator("#pointrend-costs").inner_text() and "16 times less often" in tab.page.locator("#pointrend-costs").inner_text()
    tab.shot("pointrend")
    assert not tab.scrolls_sideways()
    count = tab.page.locator("#pointrend-count input[type=number]")
    count.fill("49")
    count.press("Enter")
    tab.page.locator("#pointrend-step").get_by_text("then 7, 14, 28, 56, 112, 224").wait_for(timeout=30_000)
    box.fill("6")
    box.press("Enter")
    words.get_by_text("Doubled to 224 x 224").wait_for(timeout=30_000)
    tab.clean()


def test_an_example_is_ready_at_the_first_click(tab):
    tab.page.locator(".thumbnail-item, .gallery-item").nth(1).click()
    tab.page.locator("#pointrend-canvas img").wait_for(timeout=60_000)
    tab.page.wait_for_timeout(500)
    click(tab, 200, 150)
    wait_for_clicks(tab, 1)
    tab.clean()


def test_a_bad_file_gets_a_sentence_and_the_next_photo_an_answer(tab, tmp_path):
    (tmp_path / "holiday.png").write_text("this is not a picture")
    tab.page.locator("#pointrend-photo input[type=file]").set_input_files(tmp_path / "holiday.png")
    tab.page.locator(".toast-body, .toast-wrap").get_by_text("not a picture", exact=False).first.wait_for(timeout=60_000)
    assert "Traceback" not in tab.page.locator("body").inner_text()
    tab.page.locator("#pointrend-photo input[type=file]").wait_for(state="attached", timeout=60_000)
    give(tab)
    click(tab, 200, 150)
    wait_for_clicks(tab, 1)


def test_the_authors_weights_are_named_and_not_fetched(tab):
    tab.page.locator("#pointrend-published button").first.click()
    tab.page.locator("#pointrend-published").get_by_text("python -m pttp weights convert pointrend").wait_for(timeout=30_000)
    assert tab.page.locator("#pointrend-published tbody a").count() == 6
    assert not tab.scrolls_sideways()
    tab.clean()


def test_study_shows_equations_and_code(tab):
    tab.page.locator(".pt-study .katex-display").first.wait_for(timeout=60_000)
    assert tab.page.locator(".pt-study .katex-error").count() == 0
    lines = tab.page.locator(".pt-study details.pt-lines")
    assert lines.count() > 15
    lines.filter(has_text="subdivide").first.locator("summary").click()
    lines.get_by_text("most_uncertain").first.wait_for(timeout=30_000)
    assert not tab.scrolls_sideways()
    tab.clean()
