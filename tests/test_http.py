"""The page's HTTP side: endpoints, bad input, health, and what a client must not reach."""
from __future__ import annotations

import base64
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

import pttp
from pttp.papers import papers

from .browser.conftest import free_port, wait_until_up

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    port, log = free_port(), tmp_path_factory.mktemp("http") / "log.txt"
    process = subprocess.Popen(
        [sys.executable, "app.py", "--port", str(port)], cwd=ROOT, stdout=log.open("w"), stderr=subprocess.STDOUT, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    try:
        wait_until_up(f"http://127.0.0.1:{port}", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def client(url):
    return Client(url, verbose=False, httpx_kwargs={"timeout": 60})


def test_every_running_paper_has_its_endpoint_and_documents_it(client):
    api = client.view_api(return_format="dict")["named_endpoints"]
    wanted = {"ghostnet": "/classify"}
    assert set(api) == {wanted[p.name] for p in papers() if p.runs}
    for endpoint in api.values():
        assert endpoint["description"]
        assert all(p["parameter_name"] and p["python_type"]["type"] for p in endpoint["parameters"])


def test_classify_equals_python(client, tmp_path):
    from PIL import Image

    picture = tmp_path / "noise.png"
    Image.effect_noise((120, 90), 80).convert("RGB").save(picture)
    expected = pttp.load("ghostnet", "embedded").predict(picture, top=3)
    got = client.predict(image=handle_file(picture), top=3, weights="embedded", api_name="/classify")
    assert got["names"] == list(expected.names) and got["weights"] == "embedded"
    assert got["probabilities"] == pytest.approx(expected.probabilities, abs=1e-5)


def test_the_whole_corpus(client, cases):
    """Good files get an answer, bad ones a sentence, and the server lives on."""
    for case in (c for c in cases.values() if c.is_file):
        try:
            answer = client.predict(image=handle_file(case.path), top=2, weights="embedded", api_name="/classify")
            assert case.ok, f"{case.name} should have been refused"
            assert len(answer["names"]) == 2
        except (AppError, ValueError) as error:
            assert not case.ok, f"{case.name}: {error}"
            assert case.words.lower() in str(error).lower(), f"{case.name}: {error}"
            assert "Traceback" not in str(error)


@pytest.mark.parametrize(("arguments", "words"), [({"top": 0}, "less than minimum value 1"), ({"weights": "/etc/passwd"}, "weights that this page offers"), ({"weights": "hub:someone/else"}, "weights that this page offers")])
def test_bad_arguments_are_sentences(client, tmp_path, arguments, words):
    from PIL import Image

    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    with pytest.raises((AppError, ValueError), match=words):
        client.predict(**{"image": handle_file(tmp_path / "a.png"), "top": 5, "weights": "embedded", **arguments}, api_name="/classify")


def raw_classify(url: str, image: dict) -> str:
    """The event stream of a call made without gradio's own client, which would upload or download files by itself."""
    event = httpx.post(f"{url}/gradio_api/call/classify", json={"data": [{**image, "meta": {"_type": "gradio.FileData"}}, 5, "embedded"]}).json()["event_id"]
    return httpx.get(f"{url}/gradio_api/call/classify/{event}", timeout=60).text


def test_a_client_cannot_read_the_servers_files(url, tmp_path_factory):
    """A path that was not uploaded is refused, even when it names a picture."""
    from PIL import Image

    secret = tmp_path_factory.mktemp("private") / "secret.png"
    Image.new("RGB", (32, 32)).save(secret)
    uploaded = httpx.post(f"{url}/gradio_api/upload", files={"files": ("a.png", secret.read_bytes())}).json()[0]
    assert "event: complete" in raw_classify(url, {"path": uploaded})
    for path in (secret, ROOT / "demos" / "assets" / "screenshot.png"):
        stream = raw_classify(url, {"path": str(path)})
        assert "event: error" in stream and "names" not in stream


@pytest.mark.parametrize("address", ["https://example.org/cat.png", "http://127.0.0.1:9/cat.png"])
def test_addresses_are_not_opened(url, address):
    for image in ({"path": address}, {"path": address, "url": address}, {"url": address}):
        stream = raw_classify(url, image)
        assert "event: error" in stream and "Addresses are not opened" in stream, stream


def test_inline_pictures_are_read_as_carefully_as_files(url, cases):
    """A webcam frame comes as a data address; so could a bomb."""

    def send(path: Path) -> str:
        return raw_classify(url, {"url": "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()})

    assert "event: complete" in send(next(c.path for c in cases.values() if c.ok and c.path.suffix == ".png"))
    for case in (c for c in cases.values() if not c.ok and c.is_file and c.path.stat().st_size < 1e6):
        stream = send(case.path)
        assert "event: error" in stream and case.words.lower() in stream.lower(), case.name


def test_health_and_speed_under_a_small_crowd(url, client, tmp_path):
    """Sixteen visitors at once are all answered."""
    from PIL import Image

    Image.effect_noise((200, 200), 60).convert("RGB").save(tmp_path / "a.png")
    began = time.monotonic()
    jobs = [client.submit(image=handle_file(tmp_path / "a.png"), top=1, weights="embedded", api_name="/classify") for _ in range(16)]
    assert len({tuple(job.result(timeout=60)["names"]) for job in jobs}) == 1
    assert time.monotonic() - began < 60
