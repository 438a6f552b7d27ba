"""The page's HTTP side: endpoints, bad input, health, and what a client must not reach."""
from __future__ import annotations

import base64
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

import pttp
from pttp.papers import papers

from .browser.conftest import free_port, start_server, wait_until_up

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def registry(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("registry") / "links.sqlite"


@pytest.fixture(scope="module")
def url(tmp_path_factory, registry):
    port, log = free_port(), tmp_path_factory.mktemp("http") / "log.txt"
    process = start_server(port, log, PTTP_LINKS=str(registry))
    try:
        wait_until_up(f"http://127.0.0.1:{port}", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def client(url):
    return Client(url, verbose=False, httpx_kwargs={"timeout": 60})


def test_every_paper_has_its_endpoint_and_documents_it(client):
    api = client.view_api(return_format="dict")["named_endpoints"]
    wanted = {"cagan": {"/makeup"}, "gfm": {"/matte"}, "pointrend": {"/segment"}, "polarmask": {"/polar"}, "ghostnet": {"/classify"}, "stegastamp": {"/stamp_encode", "/stamp_decode"}}
    assert set(api) == set().union(*(wanted[p.name] for p in papers()))
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


@pytest.fixture(scope="module")
def coffee() -> Path:
    return Path(importlib.util.find_spec("skimage").origin).parent / "data" / "coffee.png"


def test_stamping_and_reading_equal_python(client, coffee, registry):
    from PIL import Image

    from pttp.stegastamp import links

    net, link = pttp.load("stegastamp", "embedded"), "https://example.org/over/http"
    net.links = links.Links(registry)
    file, told = client.predict(image=handle_file(coffee), message=link, strength=1.2, api_name="/stamp_encode")
    stamp = net.encode(coffee, link, 1.2)
    assert told == {**stamp.to_dict(), "weights": "embedded"} and told["link"] == link
    assert Path(file).suffix == ".png" and np.array_equal(np.asarray(Image.open(file)), np.asarray(stamp.image))
    read, expected = client.predict(image=handle_file(file), api_name="/stamp_decode"), net.decode(file).to_dict()
    assert read.pop("confidence") == pytest.approx(expected.pop("confidence"), abs=2e-3)
    assert read == {**expected, "weights": "embedded"} and read["link"] == link


def test_transparency_goes_through(client, coffee, tmp_path):
    from PIL import Image

    image = Image.open(coffee).convert("RGBA").resize((300, 200))
    image.putalpha(Image.linear_gradient("L").resize((300, 200)))
    image.save(tmp_path / "a.png")
    file, _ = client.predict(image=handle_file(tmp_path / "a.png"), message="glass", strength=1, api_name="/stamp_encode")
    assert np.array_equal(np.asarray(Image.open(file))[..., 3], np.asarray(image)[..., 3])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"message": "12345678"}, "takes 8 bytes"), ({"message": ""}, "message is empty"), ({"message": "javascript:alert(1)"}, "takes 19 bytes"), ({"strength": 9}, "between 0.3 and 2"), ({"message": None}, "message is empty")],
)
def test_bad_stamps_are_sentences(client, coffee, arguments, words):
    with pytest.raises((AppError, ValueError), match=words):
        client.predict(**{"image": handle_file(coffee), "message": "fine", "strength": 1, **arguments}, api_name="/stamp_encode")


def test_a_picture_without_a_stamp_is_a_sentence(client, coffee):
    with pytest.raises(AppError, match="No stamp can be read here"):
        client.predict(image=handle_file(coffee), api_name="/stamp_decode")


def test_a_stamped_file_is_not_served_under_a_guessed_name(url, client, coffee):
    """The file's address holds a hash of its content; the folder above it cannot be listed."""
    file, _ = client.predict(image=handle_file(coffee), message="mine", strength=1, api_name="/stamp_encode")
    for path in ("", "stamped.png", "../links.sqlite"):
        assert httpx.get(f"{url}/gradio_api/file={Path(file).parents[1]}/{path}").status_code in (403, 404)


def test_the_code_panel_works_as_it_stands(url, coffee, tmp_path):
    """What the page shows under HTTP, run by a shell against this server."""
    from demos.stegastamp import code

    (tmp_path / "photo.jpg").write_bytes(coffee.read_bytes())
    _, _, http = code("it's \"x", 1.5, True, "auto")
    script = http.replace("http://127.0.0.1:7860", url).replace('call stamp_decode', 'exit 0\ncall stamp_decode')
    result = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0 and "event: complete" in result.stdout and json.dumps("it's \"x")[1:-1] in result.stdout, result


def test_segmenting_equals_python(client, tmp_path):
    from PIL import Image

    from pttp.pointrend import masks

    photo = Path(importlib.util.find_spec("skimage").origin).parent / "data" / "chelsea.png"
    session = pttp.load("pointrend", "embedded").open(photo)
    made = session.click([(200, 150), (30, 30)], [1, 0], anyway=True)
    file, told = client.predict(image=handle_file(photo), points=[[200, 150], [30, 30]], labels=[1, 0], anyway=True, everything=False, api_name="/segment")
    assert np.array_equal(np.asarray(Image.open(file)), 255 * made.mask.astype(np.uint8))
    assert told == {**made.to_dict(), "rle": masks.rle(made.mask), "weights": "embedded"}
    file, told = client.predict(image=handle_file(photo), points=None, labels=None, anyway=False, everything=True, api_name="/segment")
    assert [i["box"] for i in told["instances"]] == [list(i.box) for i in session.instances] and np.asarray(Image.open(file)).max() == len(session.instances)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"points": None}, "Click on the object first"), ({"points": [[900, 2]]}, "outside of this picture"), ({"points": [[1, 2]], "labels": [3]}, "A label is 1"), ({"points": "rm -rf"}, "list of"), ({"points": {"a": [1]}}, "list of")],
)
def test_bad_points_are_sentences(client, coffee, arguments, words):
    with pytest.raises((AppError, ValueError), match=words):
        client.predict(**{"image": handle_file(coffee), "labels": None, "anyway": False, "everything": False, **arguments}, api_name="/segment")


def test_the_segmenting_code_panel_works_as_it_stands(url, tmp_path):
    """What the page shows under HTTP and under Python, run."""
    from demos.pointrend import code

    photo = Path(importlib.util.find_spec("skimage").origin).parent / "data" / "chelsea.png"
    (tmp_path / "photo.jpg").write_bytes(photo.read_bytes())
    python, shell, http = code([(200.4, 150.2, 1), (30, 30, 0)], "auto")
    result = subprocess.run(["bash", "-c", http.replace("http://127.0.0.1:7860", url)], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0 and "event: complete" in result.stdout and "counts" in result.stdout, result
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    result = subprocess.run([sys.executable, "-c", python], cwd=tmp_path, capture_output=True, text=True, timeout=120, env=environment)
    assert result.returncode == 0 and result.stdout.split()[0] in pttp.load("pointrend", "embedded").config["classes"], result
    shell = shell.splitlines()[0].replace("python", sys.executable, 1)
    result = subprocess.run(["bash", "-c", shell], cwd=tmp_path, capture_output=True, text=True, timeout=120, env=environment)
    assert result.returncode == 0 and (tmp_path / "mask.png").is_file() and (tmp_path / "mask.json").is_file(), result
