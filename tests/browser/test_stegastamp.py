"""StegaStamp's tab, used as a visitor would use it, in front of a camera too."""
from __future__ import annotations

import csv
import importlib.util
import io
import os
import re
import shutil
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pttp
from pttp.stegastamp import links

from . import camera
from .conftest import WIDTHS, Visitor, free_port, start_server, wait_until_up

SKIMAGE = Path(importlib.util.find_spec("skimage").origin).parent / "data"
CHELSEA, COFFEE = SKIMAGE / "chelsea.png", SKIMAGE / "coffee.png"
LINK = "https://example.org/a/page?with=a&query"


@pytest.fixture(scope="module")
def registry(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("registry") / "links.sqlite"


@pytest.fixture(scope="module")
def stamp_server(tmp_path_factory, registry) -> str:
    """A page with a registry of its own."""
    port, log = free_port(), tmp_path_factory.mktemp("server") / "log.txt"
    process = start_server(port, log, PTTP_LINKS=str(registry))
    try:
        wait_until_up(f"http://127.0.0.1:{port}", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def net(registry):
    predictor = pttp.load("stegastamp", "embedded")
    predictor.links = links.Links(registry)
    return predictor


@pytest.fixture(params=list(WIDTHS))
def tab(request, chromium, stamp_server):
    width, height = WIDTHS[request.param]
    context = chromium.new_context(viewport={"width": width, "height": height})
    visitor = Visitor(context.new_page(), stamp_server, request.param).open("stegastamp")
    visitor.page.locator("#stegastamp-weights").get_by_text("Embedded weights").first.wait_for(timeout=180_000)
    yield visitor
    context.close()


def part(visitor: Visitor, name: str) -> None:
    visitor.page.get_by_role("tab", name=name, exact=True).click()


def example(visitor: Visitor, number: int) -> None:
    visitor.page.locator(".thumbnail-item:visible, .gallery-item:visible").nth(number).click()
    wait_for_stamp(visitor)


def wait_for_stamp(visitor: Visitor, words: str = "PSNR") -> str:
    made = visitor.page.locator("#stegastamp-made")
    made.get_by_text(words).first.wait_for(timeout=180_000)
    return made.inner_text()


def stamp_text(visitor: Visitor, text: str, words: str) -> str:
    visitor.page.locator("#stegastamp-text textarea, #stegastamp-text input").first.fill(text)
    visitor.page.locator("#stegastamp-press").click()
    return wait_for_stamp(visitor, words)


def download(visitor: Visitor, button: str, folder: Path) -> Path:
    with visitor.page.expect_download(timeout=90_000) as waiting:
        visitor.page.locator(button).click()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def test_an_example_is_answered_at_the_first_click(tab, net, tmp_path):
    example(tab, 1)
    assert "Our decoder reads it back." in wait_for_stamp(tab)
    expected = net.encode(CHELSEA, "Hello!")
    shown = float(re.search(r"([\d.]+) dB", wait_for_stamp(tab))[1])
    assert shown == pytest.approx(expected.psnr, abs=0.051)
    slider = tab.page.locator("#stegastamp-slider img")
    slider.first.wait_for()
    assert slider.count() >= 2 and tab.page.locator("#stegastamp-residual img").is_visible()
    got = Image.open(download(tab, "#stegastamp-png", tmp_path))
    assert np.array_equal(np.asarray(got), np.asarray(expected.image))
    assert not tab.scrolls_sideways()
    tab.shot("stegastamp")
    tab.clean()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("abc", "3 of 7 bytes"),
        ("é🙂", "6 of 7 bytes"),
        ("far too long", "takes 12 bytes and a stamp holds 7"),
        (LINK, "A link to example.org."),
        ("https://bücher.example/", "A link to xn--bcher-kva.example, which reads as bücher.example."),
        ("http://a b", "space or an invisible character"),
        ("", "Up to seven bytes of text, or a link of any length."),
    ],
)
def test_the_box_counts_while_one_types(tab, text, words):
    tab.page.locator("#stegastamp-text textarea, #stegastamp-text input").first.fill(text)
    tab.page.locator("#stegastamp-count").get_by_text(words).first.wait_for(timeout=30_000)
    tab.clean()


def test_a_link_comes_back_as_text_that_nobody_opens_but_the_visitor(tab, net, tmp_path):
    example(tab, 0)
    said = stamp_text(tab, LINK, "Link to example.org")
    code = re.search(r"code in the picture\s+(\w{7})", said)[1]
    assert net.links.get(code) == LINK
    stamped = download(tab, "#stegastamp-png", tmp_path)
    assert net.decode(stamped).link == LINK
    part(tab, "Read")
    tab.page.locator("#stegastamp-picture input[type=file]").set_input_files(stamped)
    reading = tab.page.locator("#stegastamp-reading")
    reading.locator(".pt-url").wait_for(timeout=180_000)
    assert reading.locator(".pt-url").inner_text() == LINK and "Host: example.org." in reading.inner_text()
    assert re.search(r"bits repaired\s+\d of 5", reading.inner_text()) and re.search(r"confidence\s+\d+%", reading.inner_text())
    link = reading.locator("a")
    assert {name: link.get_attribute(name) for name in ("href", "target", "rel")} == {"href": LINK, "target": "_blank", "rel": "noopener noreferrer nofollow"}
    assert tab.page.locator("#stegastamp-drawn img").is_visible() and len(tab.page.context.pages) == 1
    assert not tab.scrolls_sideways()
    tab.shot("stegastamp-read")
    tab.clean()


def test_what_is_stamped_is_text_and_never_markup(tab):
    example(tab, 0)
    stamp_text(tab, "<b>&\"'", "<b>&\"'")
    part(tab, "Read")
    tab.page.locator("#stegastamp-reread").click()
    message = tab.page.locator("#stegastamp-reading .pt-message")
    message.wait_for(timeout=180_000)
    assert message.inner_text() == "<b>&\"'" and message.locator("b").count() == 0
    tab.clean()


def test_jpeg_and_print_sheet(tab, net, tmp_path):
    example(tab, 0)
    box = tab.page.locator("#stegastamp-quality input[type=number]")
    box.fill("80")
    box.press("Enter")
    jpeg = download(tab, "#stegastamp-jpeg", tmp_path)
    assert jpeg.suffix == ".jpg" and Image.open(jpeg).format == "JPEG" and Image.open(jpeg).size == Image.open(COFFEE).size
    expected = io.BytesIO()
    net.encode(COFFEE, "Hello!").image.save(expected, "JPEG", quality=80)
    assert jpeg.read_bytes() == expected.getvalue()
    assert re.search(r"JPEG at quality 80, \d+ kB: reads back", tab.page.locator("#stegastamp-file").inner_text())
    sheet = download(tab, "#stegastamp-pdf", tmp_path)
    assert sheet.name == "stegastamp-print-sheet.pdf" and sheet.read_bytes().startswith(b"%PDF-")
    tab.clean()


def test_reading_a_picture_without_a_stamp_is_a_sentence(tab):
    part(tab, "Read")
    tab.page.locator("#stegastamp-picture input[type=file]").set_input_files(CHELSEA)
    tab.page.locator("#stegastamp-reading").get_by_text("No stamp can be read here").wait_for(timeout=180_000)
    tab.clean()


def toast(visitor: Visitor, words: str) -> None:
    visitor.page.locator(".toast-body, .toast-wrap").get_by_text(words, exact=False).first.wait_for(timeout=60_000)
    assert "Traceback" not in visitor.page.locator("body").inner_text()


@pytest.mark.parametrize(
    ("picture", "text", "words"),
    [
        (Image.new("RGB", (50, 80)), "a", "at least 64 pixels"),
        (Image.new("RGBA", (100, 100), (0, 0, 0, 0)), "a", "fully transparent"),
        (None, "12345678", "takes 8 bytes"),
        (None, "", "message is empty"),
        (None, "https://", "names no host"),
    ],
)
def test_bad_input_is_a_sentence_and_the_next_stamp_works(tab, tmp_path, picture, text, words):
    tab.page.locator("#stegastamp-text textarea, #stegastamp-text input").first.fill(text)
    if picture:
        picture.save(tmp_path / "bad.png")
        tab.page.locator("#stegastamp-photo input[type=file]").set_input_files(tmp_path / "bad.png")
    else:
        tab.page.locator(".thumbnail-item:visible, .gallery-item:visible").nth(0).click()
    toast(tab, words)
    tab.page.locator("#stegastamp-text textarea, #stegastamp-text input").first.fill("fine")
    tab.page.locator(".thumbnail-item:visible, .gallery-item:visible").nth(1).click()
    wait_for_stamp(tab, "fine")


def test_attack_bench(tab, tmp_path):
    page = tab.page
    example(tab, 1)
    bits = page.locator("#stegastamp-bits")
    bits.locator(".pt-strip i").first.wait_for(timeout=60_000)
    assert bits.locator(".pt-strip i").count() == 100 and "Still readable: Hello!" in bits.inner_text()
    for name, worst in {"occlusion": "60", "noise": "0.3", "resize": "24", "jpeg": "1"}.items():
        box = page.locator(f"#stegastamp-attack-{name} input[type=number]")
        box.fill(worst)
        box.press("Enter")
    bits.get_by_text("Lost").first.wait_for(timeout=60_000)
    # the last of the four sliders may still be answered: the strip and the number beside it are read at one moment, until they agree
    page.wait_for_function(r"""() => {
        const bits = document.querySelector('#stegastamp-bits'), wrong = bits.querySelectorAll('.pt-strip i.wrong').length;
        return wrong > 5 && new RegExp(`wrong of 100\\s+${wrong}\\b`).test(bits.innerText) && /repairs left of 5\s+0\b/.test(bits.innerText);
    }""", timeout=60_000)
    page.locator("#stegastamp-calm").click()
    bits.get_by_text("Still readable: Hello!").first.wait_for(timeout=60_000)
    assert page.locator("#stegastamp-harmed img").is_visible() and not tab.scrolls_sideways()
    tab.shot("stegastamp-bench")
    tab.clean()


def test_break_points_and_their_table(tab, tmp_path):
    page = tab.page
    example(tab, 1)
    page.locator("#stegastamp-break").click()
    figures = page.locator("#stegastamp-curves figure")
    page.wait_for_function("document.querySelectorAll('#stegastamp-curves figure').length === 10", timeout=240_000)
    assert all(re.search(r"never lost here|lost at -?[\d.]+", words) for words in figures.all_inner_texts())
    page.wait_for_function("!document.querySelector('#stegastamp-csv button, button#stegastamp-csv').disabled", timeout=30_000)
    rows = list(csv.DictReader(download(tab, "#stegastamp-csv", tmp_path).open()))
    assert len({row["attack"] for row in rows}) == 10 and len(rows) == page.locator("#stegastamp-curves circle").count()
    assert all(0 <= float(row["bit_accuracy"]) <= 1 and row["readable"] in "01" for row in rows)
    assert not tab.scrolls_sideways()
    tab.shot("stegastamp-break-points")
    page.locator("#stegastamp-photo button[aria-label='Remove Image']").click()  # they are of that stamp
    figures.first.wait_for(state="detached", timeout=60_000)
    page.wait_for_function("document.querySelector('#stegastamp-csv button, button#stegastamp-csv').disabled", timeout=30_000)
    tab.clean()


def test_no_stamp_of_another_photo_stays(tab, tmp_path):
    example(tab, 1)
    download(tab, "#stegastamp-jpeg", tmp_path)
    tab.page.locator("#stegastamp-file").get_by_text("reads back").wait_for(timeout=60_000)
    tab.page.locator("#stegastamp-text textarea, #stegastamp-text input").first.fill("12345678")
    tab.page.locator("#stegastamp-press").click()
    toast(tab, "takes 8 bytes")
    assert wait_for_stamp(tab, "Hello!") and tab.page.locator("#stegastamp-png").is_visible()  # a message that is refused takes nothing away
    Image.new("RGB", (20, 20)).save(tmp_path / "tiny.png")
    tab.page.locator("#stegastamp-text textarea, #stegastamp-text input").first.fill("fine")
    tab.page.locator("#stegastamp-photo input[type=file]").set_input_files(tmp_path / "tiny.png")
    toast(tab, "at least 64 pixels")
    wait_for_stamp(tab, "no stamp yet")
    for gone in ("slider", "residual", "png", "harmed"):
        tab.page.locator(f"#stegastamp-{gone}").wait_for(state="hidden", timeout=60_000)
    assert not tab.page.locator("#stegastamp-file").get_by_text("reads back").count()
    tab.clean()


def test_break_points_can_be_stopped(tab):
    page = tab.page
    example(tab, 1)
    page.locator("#stegastamp-break").click()
    page.locator("#stegastamp-curves figure").first.wait_for(timeout=120_000)
    page.locator("#stegastamp-stop").click()
    page.wait_for_timeout(2500)
    count = page.locator("#stegastamp-curves figure").count()
    page.wait_for_timeout(4000)
    assert page.locator("#stegastamp-curves figure").count() == count < 10
    tab.clean()


def test_code_panel_says_what_was_done(tab):
    example(tab, 0)
    stamp_text(tab, "it's", "it's")
    tab.page.get_by_text('net.encode("photo.jpg", "it\'s", strength=1)').first.wait_for(timeout=30_000)
    tab.clean()


# --- the camera


@contextmanager
def browser(chromium, *flags: str):
    """A Chromium of its own, because the camera is chosen when it starts."""
    path = os.environ.get("CHROMIUM") or next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)
    own = chromium.browser_type.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", *flags])
    try:
        yield own
    finally:
        own.close()


def sees(video: Path) -> tuple[str, ...]:
    return (*camera.FLAGS, f"--use-file-for-fake-video-capture={video}")


def webcam(browser, server: str, width: str = "desktop") -> Visitor:
    """A visitor in the part Webcam."""
    size = WIDTHS[width]
    visitor = Visitor(browser.new_context(viewport={"width": size[0], "height": size[1]}).new_page(), server, width)
    visitor.refused = []
    visitor.page.on("response", lambda answer: visitor.refused.append(answer.url) if answer.status >= 400 else None)
    visitor.open("stegastamp").page.locator("#stegastamp-weights").get_by_text("Embedded weights").first.wait_for(timeout=180_000)
    part(visitor, "Webcam")
    return visitor


def streamed_cleanly(visitor: Visitor) -> None:
    """`Visitor.clean`, but for frames that were under way while the page joined the stream anew, which gradio answers with 404."""
    missing = "Failed to load resource: the server responded with a status of 404 (Not Found)"
    late = [address for address in visitor.refused if "/gradio_api/stream/" in address]
    assert visitor.refused == late and visitor.errors == [missing] * len(late) and visitor.elsewhere == []


def record(visitor: Visitor) -> None:
    visitor.page.locator('#stegastamp-cam [title="grant webcam access"] button').click()
    visitor.page.wait_for_function("document.querySelector('#stegastamp-cam video')?.videoWidth > 0", timeout=30_000)
    visitor.page.locator('#stegastamp-cam button[aria-label="capture photo"]').click()
    visitor.page.locator("#stegastamp-live").get_by_text(re.compile(r"frames a second")).wait_for(timeout=60_000)


@pytest.fixture(scope="module")
def video(tmp_path_factory, chromium, stamp_server) -> Path:
    """A photo, stamped with a link through the page, that moves and tilts on a table."""
    folder = tmp_path_factory.mktemp("video")
    visitor = Visitor(chromium.new_context().new_page(), stamp_server, "desktop").open("stegastamp")
    example(visitor, 1)
    stamp_text(visitor, LINK, "Link to example.org")
    stamped = Image.open(download(visitor, "#stegastamp-png", folder))
    visitor.page.context.close()
    return camera.write(folder / "stamped.y4m", camera.frames(stamped, Image.open(COFFEE), (1280, 720), 2.5))


@pytest.fixture(scope="module")
def plain_video(tmp_path_factory) -> Path:
    """The same photo without a stamp."""
    return camera.write(tmp_path_factory.mktemp("plain") / "plain.y4m", camera.frames(Image.open(CHELSEA), Image.open(COFFEE), (640, 480), 2))


@pytest.mark.alone
def test_the_camera_reads_the_link(chromium, stamp_server, video):
    """From the photo to the link that is read off the moving picture, through the page alone."""
    with browser(chromium, *sees(video)) as own:
        visitor = webcam(own, stamp_server)
        record(visitor)
        url = visitor.page.locator("#stegastamp-result .pt-url")
        url.wait_for(timeout=60_000)
        assert url.inner_text() == LINK and "Host: example.org." in visitor.page.locator("#stegastamp-result").inner_text()
        visitor.page.locator("#stegastamp-overlay polygon.read").first.wait_for(state="attached", timeout=20_000)
        video_box, svg_box = (visitor.page.locator(s).bounding_box() for s in ("#stegastamp-cam video", "#stegastamp-overlay svg"))
        assert svg_box == pytest.approx(video_box, abs=2)
        assert visitor.page.locator("#stegastamp-live .pt-card").get_attribute("data-confidence") == "1.00" and len(own.contexts[0].pages) == 1
        visitor.shot("stegastamp-webcam")
        url.evaluate("node => node.dataset.mark = 'kept'")
        visitor.page.wait_for_timeout(3000)
        assert url.get_attribute("data-mark") == "kept", "the link is drawn anew under the visitor's pointer"
        button = visitor.page.locator('#stegastamp-cam button[aria-label="capture photo"]')
        button.click()
        button.get_by_text("Record").wait_for(timeout=20_000)
        visitor.page.wait_for_timeout(5000)  # the last frame may still be under way
        assert url.inner_text() == LINK
        visitor.page.locator("#stegastamp-again").click()
        visitor.page.wait_for_function("!document.querySelector('#stegastamp-result .pt-url')", timeout=20_000)
        button.click()
        url.wait_for(timeout=60_000)
        visitor.page.wait_for_timeout(21_000)  # past the time after which the page joins the stream anew
        assert url.count() == 1 and url.inner_text() == LINK
        streamed_cleanly(visitor)


@pytest.mark.alone
def test_two_visitors_at_once(chromium, stamp_server, video, plain_video):
    """Two tabs read the link, and a third visitor, who shows something else, sees nothing of it."""
    with browser(chromium, *sees(video)) as own, browser(chromium, *sees(plain_video)) as other:
        visitors = [webcam(own, stamp_server), webcam(own, stamp_server, "phone")]
        stranger = webcam(other, stamp_server)
        for visitor in (stranger, *visitors):
            record(visitor)
        for visitor in visitors:
            visitor.page.locator("#stegastamp-result .pt-url").wait_for(timeout=180_000)
            assert visitor.page.locator("#stegastamp-result .pt-url").inner_text() == LINK and not visitor.scrolls_sideways()
            visitor.shot("stegastamp-webcam", full_page=False)
            streamed_cleanly(visitor)
        assert stranger.page.locator("#stegastamp-result .pt-card").count() == 0


@pytest.mark.alone
def test_a_video_without_a_stamp_reads_nothing_for_half_a_minute(chromium, stamp_server, plain_video):
    with browser(chromium, *sees(plain_video)) as own:
        visitor = webcam(own, stamp_server)
        record(visitor)
        in_view = 0
        for _ in range(60):
            visitor.page.wait_for_timeout(500)
            assert visitor.page.locator("#stegastamp-result .pt-card").count() == 0
            in_view += "A picture is in view" in visitor.page.locator("#stegastamp-live").inner_text()
        assert in_view > 0, "the photo was never found, so that nothing was tried"
        streamed_cleanly(visitor)


@pytest.mark.parametrize("leave", ["Read", "GhostNet"])
def test_leaving_stops_the_stream_and_the_camera(chromium, stamp_server, plain_video, leave):
    """The other part, or another paper: no more frames are sent, the camera goes off; coming back, it is there again."""
    with browser(chromium, *sees(plain_video)) as own:
        visitor = webcam(own, stamp_server)
        record(visitor)
        sent = []
        visitor.page.on("request", lambda r: sent.append(r.url) if "/stream/" in r.url else None)
        visitor.page.wait_for_timeout(2000)
        assert sent
        visitor.tab(leave) if leave == "GhostNet" else part(visitor, leave)
        visitor.page.wait_for_timeout(1500)
        sent.clear()
        visitor.page.wait_for_timeout(2000)
        assert sent == []
        assert visitor.page.evaluate("document.querySelector('#stegastamp-cam video').srcObject.getTracks().every(t => t.readyState === 'ended')")
        visitor.tab("StegaStamp") if leave == "GhostNet" else part(visitor, "Webcam")
        visitor.page.wait_for_function("document.querySelector('#stegastamp-cam video').srcObject.active", timeout=10_000)
        visitor.page.locator('#stegastamp-cam button[aria-label="capture photo"]').click()
        visitor.page.wait_for_timeout(3000)
        assert sent
        streamed_cleanly(visitor)


@pytest.mark.parametrize(
    ("flags", "words"),
    [(("--use-fake-device-for-media-stream", "--deny-permission-prompts"), "does not let this page use the camera"), ((), "No camera was found here")],
    ids=["denied", "no camera"],
)
@pytest.mark.parametrize("width", list(WIDTHS))
def test_without_a_camera_there_is_a_hint(chromium, stamp_server, flags, words, width):
    with browser(chromium, *flags) as own:
        visitor = webcam(own, stamp_server, width)
        visitor.page.locator('#stegastamp-cam [title="grant webcam access"] button').click()
        hint = visitor.page.locator("#stegastamp-overlay .pt-hint")
        hint.get_by_text(words).wait_for(timeout=15_000)
        assert hint.is_visible() and not visitor.scrolls_sideways()
        visitor.shot("stegastamp-hint")
        streamed_cleanly(visitor)


def test_sliders_are_those_of_the_bench():
    """The page knows the attacks without importing a network: what it knows is what `study` does."""
    from demos.stegastamp_attack import SLIDERS
    from pttp.stegastamp import study

    assert [tuple(s) for s in SLIDERS] == [(name, a.label, a.unit, a.low, a.high, a.neutral, a.step) for name, a in study.ATTACKS.items()]
