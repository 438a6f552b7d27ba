"""CA-GAN's tab, used as a visitor would use it."""
from __future__ import annotations

import importlib.util
import re
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pttp

from .conftest import Visitor

SKIMAGE = Path(importlib.util.find_spec("skimage").origin).parent / "data"
ASTRONAUT, COFFEE = SKIMAGE / "astronaut.png", SKIMAGE / "coffee.png"


@pytest.fixture(scope="module")
def net():
    return pttp.load("cagan", "embedded")


@pytest.fixture
def tab(visitor):
    visitor.open("cagan")
    visitor.page.locator("#cagan-weights").get_by_text("Embedded weights").first.wait_for(timeout=90_000)
    return visitor


def example(visitor: Visitor, words: str = "#b01030 asked") -> str:
    visitor.page.locator(".thumbnail-item:visible, .gallery-item:visible").first.click()
    return answered(visitor, words)


def answered(visitor: Visitor, words: str) -> str:
    visitor.page.locator("#cagan-answer").get_by_text(words).first.wait_for(timeout=90_000)
    return visitor.page.locator("#cagan-answer").inner_text()


def test_the_example_is_painted_at_the_first_click_and_can_be_looked_into(tab, net):
    said = example(tab)
    expected = net.apply(ASTRONAUT, lips="#b01030").to_dict()["regions"]["lips"]
    assert expected["achieved"]["hex"] in said and f"Delta E {expected['delta_e']:.1f}" in said
    page = tab.page
    page.locator("#cagan-slider img").first.wait_for(timeout=60_000)
    page.locator("#cagan-step figure").first.wait_for(timeout=60_000)
    assert page.locator("#cagan-step figure").count() == 7
    page.locator("#cagan-sweeps img").first.wait_for(timeout=60_000)
    assert page.locator("#cagan-sweeps img").count() == 27
    assert float(re.search(r"off by (0\.\d+)", page.locator("#cagan-step").inner_text())[1]) < 0.1
    assert not tab.scrolls_sideways()
    tab.shot("cagan")
    tab.clean()


def test_a_shade_goes_to_the_lips_or_to_the_eyes(tab):
    example(tab)
    tab.page.locator("#cagan-shade-4").click()
    assert "eyes" not in answered(tab, "#6a2a4f asked")
    tab.page.get_by_role("checkbox", name="eyes").check()
    answered(tab, "#5b7fc4 asked")
    tab.page.get_by_role("checkbox", name="lips").uncheck()
    tab.page.locator("#cagan-shade-8").click()
    said = answered(tab, "#3f8f5a asked")
    assert "lips" not in said
    tab.page.get_by_role("checkbox", name="eyes").uncheck()
    answered(tab, "Choose what to paint")
    tab.clean()


@pytest.mark.alone
def test_the_last_colour_of_a_drag_wins_and_comes_soon(tab, net):
    example(tab)
    tab.page.locator("#cagan-sweeps img").first.wait_for(timeout=60_000)
    took = []
    for i in (0, 1, 2, 3, 5):
        began = time.perf_counter()
        tab.page.locator(f"#cagan-shade-{i if i else 6}").click()
        answered(tab, ("#6b3a2e", "#8f3b32", "#d45b90", "#b5766a", "", "#e8704a")[i] + " asked")
        took.append(time.perf_counter() - began)
    assert sorted(took)[2] < 1.5, took
    tab.clean()


def test_what_is_downloaded_is_what_python_makes(tab, net, tmp_path):
    example(tab)
    with tab.page.expect_download(timeout=90_000) as waiting:
        tab.page.locator("#cagan-png").click()
    waiting.value.save_as(tmp_path / "a.png")
    got = np.asarray(Image.open(tmp_path / "a.png"))
    expected = net.apply(ASTRONAUT, lips="#b01030")
    assert np.abs(got.astype(int) - np.asarray(expected.image)).max() <= 2
    outside = expected.regions["lips"] == 0
    assert np.array_equal(got[outside], np.asarray(Image.open(ASTRONAUT).convert("RGB"))[outside])
    tab.clean()


def test_rubbish_in_the_picker_is_a_sentence_and_loses_nothing(tab):
    said = example(tab)
    tab.page.locator("#cagan-lips button").first.click()
    box = tab.page.locator("#cagan-lips input[type=text], #cagan-lips input:not([type])").first
    box.wait_for(timeout=30_000)
    box.fill("notacolour")
    box.press("Enter")
    tab.page.get_by_text("is not a colour").first.wait_for(timeout=60_000)
    assert said in tab.page.locator("#cagan-answer").inner_text()


def test_no_face_is_said(tab):
    tab.page.locator("#cagan-photo input[type=file]").set_input_files(COFFEE)
    answered(tab, "No face was found")
    assert not tab.scrolls_sideways()
    tab.clean()


def test_the_colours_of_another_face(tab, net):
    example(tab)
    tab.page.locator("#cagan-copy button").first.click()
    tab.page.locator("#cagan-reference input[type=file]").set_input_files(ASTRONAUT)
    shade = net.estimate(ASTRONAUT).to_dict()["lips"]["hex"]
    tab.page.locator("#cagan-taken").get_by_text(shade).first.wait_for(timeout=60_000)
    answered(tab, f"{shade} asked")
    tab.page.locator("#cagan-reference input[type=file]").set_input_files(COFFEE)
    tab.page.locator(".toast-body, .toast-wrap").get_by_text("No face was found", exact=False).first.wait_for(timeout=60_000)
    tab.page.locator("#cagan-taken").get_by_text(shade).first.wait_for(state="detached", timeout=60_000)
    tab.clean()
