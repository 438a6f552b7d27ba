"""The page as a visitor sees it: the reading list, the tabs, addresses, themes, widths."""
from __future__ import annotations

import time
import urllib.request

import pytest

from pttp.papers import papers

from .conftest import free_port, start_server, wait_until_up


def test_reading_list(visitor):
    page = visitor.open().page
    entries = page.locator(".pt-entry")
    assert entries.count() == 6
    for entry, paper in zip(entries.all(), papers(), strict=True):
        assert entry.locator(".pt-number").inner_text() == str(paper.number)
        assert entry.locator("h2").inner_text() == paper.title
        assert f"{paper.authors[0]}*" in entry.inner_text()
        assert paper.venue in entry.inner_text()
        hrefs = entry.locator("a.pt-chip[target=_blank]").evaluate_all("links => links.map(a => a.href)")
        assert hrefs == [link.url for link in paper.links]
        assert entry.locator("a.pt-open").get_attribute("href") == f"#{paper.name}"
        assert not entry.get_by_text(paper.abstract).is_visible()
        entry.locator("summary").click()
        assert entry.get_by_text(paper.abstract).is_visible()
    assert not visitor.scrolls_sideways()
    visitor.shot("home")
    visitor.clean()


@pytest.mark.parametrize("paper", papers(), ids=lambda p: p.name)
def test_every_tab_opens(visitor, paper):
    visitor.open()
    visitor.tab(paper.short)
    header = visitor.page.locator(".pt-header:visible")
    header.get_by_text(paper.title).wait_for()
    assert header.locator(".pt-number").inner_text() == str(paper.number)
    visitor.page.wait_for_function("name => location.hash === '#' + name", arg=paper.name)
    visitor.page.wait_for_timeout(300)
    assert not visitor.scrolls_sideways()
    study = visitor.page.locator(".pt-study:visible")
    assert all(h.startswith(("https://", "http://")) for h in study.locator("a").evaluate_all("links => links.map(a => a.getAttribute('href'))"))  # a file of the room has no address here
    assert set(study.locator("table, tr").evaluate_all("parts => parts.map(p => getComputedStyle(p).borderTopWidth)")) <= {"0px"}  # one thin line under a row, no frames
    assert all(alt.startswith("Example: ") for alt in visitor.page.locator(".gallery-item:visible img").evaluate_all("images => images.map(i => i.alt)"))
    visitor.shot(f"tab-{paper.name}")
    visitor.clean()


def test_an_address_opens_its_tab_and_links_do_too(visitor):
    visitor.open("ghostnet")
    visitor.page.locator(".pt-header:visible").get_by_text("GhostNet:").wait_for()
    visitor.tab("Reading list")
    visitor.page.locator(".pt-open").first.click()
    visitor.page.locator(".pt-header:visible").wait_for()
    visitor.clean()


def test_dark_theme_follows_the_system(chromium, server):
    grounds = {}
    for scheme in ("light", "dark"):
        context = chromium.new_context(color_scheme=scheme)
        page = context.new_page()
        page.goto(server)
        page.wait_for_selector(".pt-masthead")
        page.wait_for_timeout(300)
        grounds[scheme] = [page.evaluate(f"getComputedStyle(document.querySelector('{s}')).{p}") for s, p in (("body", "backgroundColor"), (".pt-masthead h1", "color"))]
        context.close()
    assert grounds["light"] == ["rgb(250, 249, 247)", "rgb(28, 25, 23)"]
    assert grounds["dark"] == ["rgb(23, 22, 20)", "rgb(240, 238, 235)"]


def test_fonts_are_ours(visitor):
    visitor.open()
    assert visitor.page.evaluate("document.fonts.ready.then(() => [...document.fonts].filter(f => f.status === 'loaded').map(f => f.family.replaceAll('\"', '')).sort().join())").count("Source Serif 4")


@pytest.mark.alone
def test_first_answer_comes_quickly(tmp_path):
    """Within 6 s of python starting; of three starts the quickest counts, because other work on the machine only ever adds time."""
    times = []
    for i in range(3):
        port, log = free_port(), tmp_path / f"{i}.txt"
        began = time.monotonic()
        process = start_server(port, log)
        try:
            wait_until_up(f"http://127.0.0.1:{port}", process, log)
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10).read()
            times.append(time.monotonic() - began)
        finally:
            process.terminate()
            process.wait(20)
    assert min(times) < 6, times
