"""GhostNet's tab, used as a visitor would use it."""
from __future__ import annotations

import csv
import importlib.util
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

import pttp

CHELSEA = Path(importlib.util.find_spec("skimage").origin).parent / "data" / "chelsea.png"


@pytest.fixture
def tab(visitor):
    visitor.open("ghostnet")
    visitor.page.locator(".pt-header:visible").wait_for()
    visitor.page.locator("#ghostnet-weights").get_by_text("Embedded weights").first.wait_for(timeout=60_000)
    return visitor


def upload(visitor, path: Path) -> None:
    visitor.page.locator("#ghostnet-photo input[type=file]").set_input_files(path)


def names(visitor) -> list[str]:
    return visitor.page.locator("#ghostnet-answer .pt-name").all_inner_texts()


def wait_for_answer(visitor) -> list[str]:
    visitor.page.locator("#ghostnet-answer .pt-bar").first.wait_for(timeout=60_000)
    return names(visitor)


def test_upload_a_photo_read_the_answer(tab, tmp_path):
    drawing = Image.fromarray(np.tile(np.linspace(40, 220, 300, dtype=np.uint8)[None, :, None], (200, 1, 3)))
    ImageDraw.Draw(drawing).ellipse((60, 40, 240, 160), fill=(230, 120, 20))
    drawing.save(tmp_path / "drawing.png")
    expected = pttp.load("ghostnet", "embedded").predict(tmp_path / "drawing.png")
    upload(tab, tmp_path / "drawing.png")
    assert wait_for_answer(tab) == list(expected.names)
    shown = [float(v.rstrip("%")) / 100 for v in tab.page.locator("#ghostnet-answer .pt-value").all_inner_texts()]
    assert shown == pytest.approx(expected.probabilities, abs=6e-4)
    assert re.search(r"Answered in \d+ ms", tab.page.locator("#ghostnet-answer").inner_text())
    tab.clean()


def test_an_example_is_answered_at_the_first_click_and_can_be_looked_into(tab):
    page = tab.page
    page.locator(".thumbnail-item, .gallery-item").nth(2).click()
    expected = pttp.load("ghostnet", "embedded").predict(CHELSEA)
    assert wait_for_answer(tab) == list(expected.names)

    page.locator("#ghostnet-maps .pt-pair").first.wait_for(timeout=60_000)
    first = page.locator("#ghostnet-maps").inner_text()
    assert re.search(r"r = [+-][01]\.\d\d", first)
    assert page.locator("#ghostnet-maps .pt-pair").first.locator("img").count() == 3
    page.locator("#ghostnet-block input").click()
    page.get_by_role("option", name="5.0", exact=False).first.click()
    page.wait_for_function("old => document.querySelector('#ghostnet-maps').innerText !== old", arg=first, timeout=60_000)

    page.locator("#ghostnet-measure").click()
    rows = page.locator("#ghostnet-table tbody tr")
    rows.first.wait_for(timeout=120_000)
    assert rows.count() >= 16
    assert not tab.scrolls_sideways()
    tab.shot("ghostnet")
    tab.clean()


def test_answer_and_blocks_can_be_downloaded(tab, tmp_path):
    upload(tab, CHELSEA)
    wait_for_answer(tab)

    def download(name: str) -> str:
        with tab.page.expect_download(timeout=60_000) as waiting:
            tab.page.locator(f"#ghostnet-{name}").click()
        waiting.value.save_as(tmp_path / waiting.value.suggested_filename)
        return (tmp_path / waiting.value.suggested_filename).read_text()

    expected = pttp.load("ghostnet", "embedded").predict(CHELSEA)
    assert json.loads(download("json"))["names"] == list(expected.names)
    tab.page.locator("#ghostnet-measure").click()
    rows = tab.page.locator("#ghostnet-table tbody tr")
    rows.first.wait_for(timeout=120_000)
    assert len(list(csv.DictReader(io.StringIO(download("csv"))))) == rows.count()
    tab.page.locator("#ghostnet-photo button[aria-label='Remove Image']").click()  # what was measured on it goes with it
    rows.first.wait_for(state="detached", timeout=60_000)
    tab.page.locator("#ghostnet-csv").wait_for(state="hidden", timeout=60_000)
    assert not tab.scrolls_sideways()
    tab.clean()


def test_code_panel_says_what_was_done(tab):
    tab.page.locator(".thumbnail-item, .gallery-item").nth(0).click()
    wait_for_answer(tab)
    tab.page.get_by_text('pttp.load("ghostnet")').first.wait_for(timeout=30_000)
    tab.clean()


def test_study_shows_equations_and_code(tab):
    page = tab.page
    page.locator(".pt-study .katex-display").first.wait_for(timeout=60_000)
    assert page.locator(".pt-study .katex-error").count() == 0
    lines = page.locator(".pt-study details.pt-lines").first
    lines.locator("summary").click()
    assert "torch.cat([intrinsic, ghost], 1)" in lines.inner_text()
    tab.clean()


def test_the_ratio_slider_counts(tab):
    page = tab.page
    cost = page.locator("#ghostnet-ratio-cost")
    cost.get_by_text("5.18 M").first.wait_for(timeout=60_000)
    box = page.locator("#ghostnet-ratio input[type=number]")
    box.fill("4")
    box.press("Enter")
    cost.get_by_text("s = 4").first.wait_for(timeout=60_000)
    tab.clean()


def test_race_against_mobilenet(tab):
    tab.page.locator("#ghostnet-race").click()
    bench = tab.page.locator("#ghostnet-bench")
    bench.get_by_text("MobileNetV3-Large").first.wait_for(timeout=180_000)
    assert len(re.findall(r"\d+(?:\.\d)? ms", bench.inner_text())) >= 3
    tab.shot("ghostnet-race")
    tab.clean()


def test_a_bad_file_gets_a_sentence_and_the_next_photo_an_answer(tab, tmp_path):
    (tmp_path / "holiday.png").write_text("this is not a picture")
    upload(tab, tmp_path / "holiday.png")
    toast = tab.page.locator(".toast-body, .toast-wrap")
    toast.get_by_text("not a picture", exact=False).first.wait_for(timeout=60_000)
    assert "Traceback" not in tab.page.locator("body").inner_text()
    tab.page.locator("#ghostnet-photo input[type=file]").wait_for(state="attached", timeout=60_000)  # the box is empty again, no broken picture in it
    assert tab.page.locator("#ghostnet-photo img").count() == 0
    tab.page.locator(".thumbnail-item, .gallery-item").nth(1).click()
    assert len(wait_for_answer(tab)) == 5


def test_hub_weights_without_a_network_are_a_sentence(tab):
    page = tab.page
    page.locator("#ghostnet-chooser button").first.click()
    page.get_by_label("Hub: timm/ghostnet_100.in1k").check()
    page.locator("#ghostnet-weights .pt-error").wait_for(timeout=60_000)
    assert "embedded ones always work" in page.locator("#ghostnet-weights").inner_text()
    page.get_by_label("Embedded: ours").check()
    page.locator("#ghostnet-weights").get_by_text("Embedded weights").first.wait_for(timeout=60_000)
    page.locator(".thumbnail-item, .gallery-item").nth(0).click()
    assert len(wait_for_answer(tab)) == 5
    tab.clean()


def test_the_keyboard_is_enough(chromium, server):
    """From the top of the page, tabbing reaches the tab buttons and the first example; Enter answers it."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(f"{server}/#ghostnet")
    page.locator(".pt-header:visible").wait_for()
    page.wait_for_timeout(500)
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.className + ' ' + (document.activeElement.getAttribute('role') || '')"))
        if "thumbnail" in reached[-1] or "gallery" in reached[-1]:
            page.keyboard.press("Enter")
            page.locator("#ghostnet-answer .pt-bar").first.wait_for(timeout=60_000)
            break
    else:
        pytest.fail(f"no example within 40 presses of Tab: {reached}")
    assert any(r.endswith(" tab") for r in reached)
    context.close()
