"""GFM's tab, used as a visitor would use it."""
from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from PIL import Image

import pttp

from .conftest import Visitor

SKIMAGE = Path(importlib.util.find_spec("skimage").origin).parent / "data"
CHELSEA = SKIMAGE / "chelsea.png"
LION = Path(gr.__file__).parent / "media_assets" / "images" / "lion.jpg"


@pytest.fixture(scope="module")
def net():
    return pttp.load("gfm", "embedded")


@pytest.fixture
def tab(visitor):
    visitor.open("gfm")
    visitor.page.locator("#gfm-weights").get_by_text("Embedded weights").first.wait_for(timeout=90_000)
    return visitor


def example(visitor: Visitor, number: int) -> str:
    visitor.page.locator(".thumbnail-item:visible, .gallery-item:visible").nth(number).click()
    return answered(visitor)


def answered(visitor: Visitor, words: str = "answered in") -> str:
    visitor.page.locator("#gfm-answer").get_by_text(words).first.wait_for(timeout=90_000)
    return visitor.page.locator("#gfm-answer").inner_text()


def download(visitor: Visitor, what: str, folder: Path) -> Path:
    with visitor.page.expect_download(timeout=90_000) as waiting:
        visitor.page.locator(f"#gfm-{what}").click()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def test_an_example_is_cut_out_at_the_first_click_and_can_be_looked_into(tab, net):
    said = example(tab, 0)
    expected = net.predict(LION).to_dict()
    assert f"{expected['coverage']:.0%} of the picture" in said and "256 x 256" in said
    page = tab.page
    page.locator("#gfm-slider img").first.wait_for(timeout=60_000)
    panels = page.locator("#gfm-panels figure")
    panels.first.wait_for(timeout=60_000)
    assert [b.inner_text() for b in page.locator("#gfm-panels figcaption b").all()] == ["Glance", "Focus", "Fusion"]
    assert re.search(r"decided by glance, \d+% by focus", page.locator("#gfm-panels").inner_text())
    page.locator("#gfm-asked figure").first.wait_for(timeout=60_000)
    page.get_by_label("BT: maybe animal").check()
    page.locator("#gfm-asked").get_by_text("max(glance - focus, 0)").wait_for(timeout=60_000)
    assert not tab.scrolls_sideways()
    tab.shot("gfm")
    tab.clean()


def test_widening_runs_again_and_says_what_it_changed(tab, net):
    example(tab, 2)
    tab.page.locator("#gfm-panels figure").first.wait_for(timeout=60_000)
    box = tab.page.locator("#gfm-widen input[type=number]")
    box.fill("6")
    box.press("Enter")
    said = tab.page.locator("#gfm-panels").get_by_text("Widening changed the matte by")
    said.wait_for(timeout=60_000)
    look = net.predict(CHELSEA).look
    expected = np.abs(net.matte(look, 0.06).alpha - net.matte(look).alpha).mean()
    tab.page.get_by_text('net.predict("photo.jpg", widen=0.06)').first.wait_for(timeout=30_000)
    assert float(re.search(r"by (0\.\d+)", said.inner_text())[1]) == pytest.approx(expected, abs=1e-3) and expected > 0.001
    example(tab, 0)
    tab.page.wait_for_function("document.querySelector('#gfm-widen input[type=number]').value === '0'", timeout=60_000)
    tab.clean()


def test_what_is_downloaded_is_what_python_makes(tab, net, tmp_path):
    example(tab, 2)
    tab.page.locator("#gfm-slider img").first.wait_for(timeout=60_000)
    matte = net.predict(CHELSEA)
    picture = Image.open(download(tab, "picture", tmp_path))
    assert np.array_equal(np.asarray(picture), np.asarray(matte.cutout()))
    assert (download(tab, "matte16", tmp_path)).read_bytes() == matte.png16(alone=True)
    assert (download(tab, "cutout16", tmp_path)).read_bytes() == matte.png16()
    assert np.array_equal(np.asarray(Image.open(download(tab, "matte", tmp_path))), np.asarray(matte.mask()))
    tab.clean()


def test_backgrounds(tab, net, tmp_path):
    example(tab, 2)
    page, matte = tab.page, net.predict(CHELSEA)
    page.locator("#gfm-slider img").first.wait_for(timeout=60_000)
    page.get_by_label("blurred photo").check()
    page.wait_for_timeout(1500)
    assert np.array_equal(np.asarray(Image.open(download(tab, "picture", tmp_path))), np.asarray(matte.over("blur")))
    page.get_by_label("colour", exact=True).check()
    page.locator("#gfm-colour").wait_for(timeout=60_000)
    assert np.array_equal(np.asarray(Image.open(download(tab, "picture", tmp_path))), np.asarray(matte.over("#0f766e")))
    page.get_by_label("own picture").check()
    page.locator("#gfm-own").wait_for(timeout=60_000)
    page.locator("#gfm-picture").click()
    page.locator(".toast-body, .toast-wrap").get_by_text("background picture first", exact=False).first.wait_for(timeout=60_000)
    page.locator("#gfm-own input[type=file]").set_input_files(SKIMAGE / "coffee.png")
    page.locator("#gfm-own img").first.wait_for(timeout=60_000)
    page.wait_for_timeout(1500)
    assert np.array_equal(np.asarray(Image.open(download(tab, "picture", tmp_path))), np.asarray(matte.over(SKIMAGE / "coffee.png")))
    assert not tab.scrolls_sideways()
    tab.shot("gfm-background")
    tab.clean()


def test_a_true_matte_gives_an_error_map(tab, net, tmp_path):
    example(tab, 0)
    truth = net.predict(LION).mask().point(lambda v: max(0, v - 50))
    truth.save(tmp_path / "truth.png")
    tab.page.locator("#gfm-truth input[type=file]").set_input_files(tmp_path / "truth.png")
    tab.page.locator("#gfm-errors figure").wait_for(timeout=60_000)
    said = tab.page.locator("#gfm-errors").inner_text()
    assert 0.05 < float(re.search(r"MAD\s+([\d.]+)", said)[1]) < 0.2
    tab.page.locator(".thumbnail-item:visible, .gallery-item:visible").nth(2).click()  # another photo, which it does not fit
    tab.page.locator("#gfm-errors figure").wait_for(state="detached", timeout=90_000)
    Image.new("L", (100, 300)).save(tmp_path / "other.png")
    tab.page.locator("#gfm-truth button[aria-label='Remove Image']").first.click()
    tab.page.locator("#gfm-truth input[type=file]").set_input_files(tmp_path / "other.png")
    tab.page.locator(".toast-body, .toast-wrap").get_by_text("same aspect", exact=False).first.wait_for(timeout=60_000)


def test_no_animal_is_said_and_the_next_photo_is_answered(tab, tmp_path):
    tab.page.locator(".thumbnail-item:visible, .gallery-item:visible").nth(4).click()
    assert "No animal was found" in answered(tab, "No animal was found")
    assert example(tab, 0)
    (tmp_path / "holiday.png").write_text("this is not a picture")
    tab.page.locator("#gfm-photo button[aria-label='Remove Image']").first.click()
    answered(tab, "Drop a photo of an animal")
    tab.page.locator("#gfm-photo input[type=file]").set_input_files(tmp_path / "holiday.png")
    tab.page.locator(".toast-body, .toast-wrap").get_by_text("not a picture", exact=False).first.wait_for(timeout=60_000)
    assert example(tab, 1)


def test_own_transparency_is_said(tab, tmp_path):
    image = Image.open(CHELSEA).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    image.save(tmp_path / "faded.png")
    tab.page.locator("#gfm-photo input[type=file]").set_input_files(tmp_path / "faded.png")
    assert "transparency of its own" in answered(tab)
    tab.clean()


def test_study_shows_equations_and_code(tab):
    page = tab.page
    page.locator(".pt-study:visible .katex-display").first.wait_for(timeout=60_000)
    assert page.locator(".pt-study:visible .katex-error").count() == 0
    assert page.locator(".pt-study:visible details.pt-lines").count() > 3
    tab.clean()
