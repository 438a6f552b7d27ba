"""The page's HTTP side: endpoints, bad input, health, and what a client must not reach."""
from __future__ import annotations

import base64
import importlib.util
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
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
        assert (endpoint["parameters"][-1]["parameter_name"], endpoint["parameters"][-1]["parameter_default"]) == ("weights", "auto")


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


@pytest.mark.parametrize(("arguments", "words"), [({"top": 0}, "between 1 and 1000"), ({"top": 1001}, "between 1 and 1000"), ({"weights": "/etc/passwd"}, "weights that this page offers"), ({"weights": "hub:someone/else"}, "weights that this page offers")])
def test_bad_arguments_are_sentences(client, tmp_path, arguments, words):
    from PIL import Image

    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    with pytest.raises((AppError, ValueError), match=words):
        client.predict(**{"image": handle_file(tmp_path / "a.png"), "top": 5, "weights": "embedded", **arguments}, api_name="/classify")


RAW = {
    "classify": ('5, "auto"', [('"abc", "auto"', "whole number"), ('NaN, "auto"', "whole number"), ('null, "auto"', "whole number"), ('1e400, "auto"', "whole number"), ("5, null", "weights that this page offers")]),
    "polar": (
        'null, null, 0.4, "auto"',
        [('"abc", 3, 0.4, "auto"', "two numbers"), ('NaN, 3, 0.4, "auto"', "outside of this picture"), ("1" + "0" * 400 + ', 3, 0.4, "auto"', "two numbers"), ('null, null, "abc", "auto"', "a number"), ('null, null, NaN, "auto"', "between 0 and 1.5")],
    ),
    "segment": (
        '[[20, 20]], [1], true, false, "auto"',
        [
            ('5, null, true, false, "auto"', "list of"),
            ('"abc", null, true, false, "auto"', "list of"),
            ('[[20, 20]], "abc", true, false, "auto"', "list of"),
            ('[[NaN, 20]], [1], true, false, "auto"', "outside of this picture"),
            ("[[1" + "0" * 400 + ', 20]], [1], true, false, "auto"', "list of"),
            ("null, null, true, false, null", "weights that this page offers"),
        ],
    ),
    "matte": ('"", false, 0, "auto"', [('"", false, "abc", "auto"', "a number"), ('"", false, NaN, "auto"', "between 0 and 0.1"), ('"", false, null, "auto"', "a number"), ('"", false, 0, "/etc/passwd"', "weights that this page offers")]),
    "makeup": (
        None,
        [
            ('"#b01030", "", "abc", 0, 0, "both", "auto"', "are numbers"),
            ('"#b01030", "", 1, NaN, 0, "both", "auto"', "are numbers"),
            ('"#b01030", "", 1, 0, NaN, "both", "auto"', "between -1"),
            ('"#b01030", "", 1, 0, null, "both", "auto"', "are numbers"),
            ('"#b01030", "", 1, 0, 0, "middle", "auto"', "left or right"),
            ('"#b01030", "", 1, 0, 0, "both", "x"', "weights that this page offers"),
        ],
    ),
    "stamp_encode": ('"hi", 1, true, "auto"', [('"hi", "abc", false, "auto"', "a number"), ('"hi", NaN, false, "auto"', "between 0.3 and 2"), ('"hi", 1, false, "x"', "weights that this page offers")]),
    "stamp_decode": (None, [("null", "weights that this page offers"), ('"x"', "weights that this page offers")]),
}


@pytest.mark.parametrize("name", RAW)
def test_what_is_of_the_wrong_kind_gets_a_sentence(url, coffee, name):
    """Sent without gradio's own client, which would refuse some of it."""
    uploaded = httpx.post(f"{url}/gradio_api/upload", files={"files": ("a.png", coffee.read_bytes())}).json()[0]
    image = json.dumps({"path": uploaded, "meta": {"_type": "gradio.FileData"}})

    def call(values: str) -> str:
        event = httpx.post(f"{url}/gradio_api/call/{name}", content=f'{{"data": [{image}, {values}]}}', headers={"Content-Type": "application/json"}).json()["event_id"]
        return httpx.get(f"{url}/gradio_api/call/{name}/{event}", timeout=60).text

    fine, mistakes = RAW[name]
    assert fine is None or "event: complete" in call(fine)
    for values, words in mistakes:
        stream = call(values)
        assert "event: error" in stream and words in stream and "Something broke" not in stream, (values[:80], stream)


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


@pytest.mark.alone
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
    python, shell, http = code([], "auto", everything=True)
    for line in (http.replace("http://127.0.0.1:7860", url), shell.replace("python", sys.executable, 1), f"{sys.executable} -c {shlex.quote(python)}"):
        result = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=120, env=environment)
        assert result.returncode == 0 and pttp.load("pointrend", "embedded").open(photo).instances[0].label in result.stdout, result


def test_the_options_of_the_tabs_equal_python(client, coffee):
    from PIL import Image

    data = coffee.parent

    def pixels(image) -> np.ndarray:
        return np.asarray(image if isinstance(image, Image.Image) else Image.open(image)).astype(int)

    file, told = client.predict(image=handle_file(coffee), message="Hello!", one_pass=True, weights="embedded", api_name="/stamp_encode")
    stamp = pttp.load("stegastamp", "embedded").encode(coffee, "Hello!", steps=0)
    assert np.array_equal(pixels(file), pixels(stamp.image)) and told["weights"] == "embedded"
    assert client.predict(image=handle_file(file), weights="embedded", api_name="/stamp_decode")["message"] == "Hello!"
    portrait = data / "astronaut.png"
    file, told = client.predict(image=handle_file(portrait), lips="#2d4fa3", face=0, finish=0.8, side="left", weights="embedded", api_name="/makeup")
    made = pttp.load("cagan", "embedded").apply(portrait, "#2d4fa3", face=0, finish=0.8, side="left")
    assert np.abs(pixels(file) - pixels(made.image)).max() <= 2 and told["regions"].keys() == {"lips"}
    with pytest.raises(AppError, match="There is no face 7"):
        client.predict(image=handle_file(portrait), face=7, api_name="/makeup")


def test_the_snippets_say_all_that_was_done():
    from demos import cagan, gfm, pointrend, stegastamp

    python, shell, http = pointrend.code([(121.5, 80.5, 1), (639.5, 479.99, 0)], "embedded", anyway=True)  # in halves, as they come from an enlarged photo
    assert "m.click([(121, 80), (639, 479)], [1, 0], anyway=True)" in python and 'pttp.load("pointrend", "embedded")' in python
    assert "--point 121,80 --negative 639,479" in shell and shell.splitlines()[0].endswith("--anyway --weights embedded")
    assert '[[121, 80], [639, 479]], [1, 0], true, false, \\"embedded\\"' in http
    python, shell, http = pointrend.code([(3, 4, 1)], "auto")
    assert "anyway" not in python + shell and 'false, false, \\"auto\\"' in http
    python, shell, http = pointrend.code([], "embedded", everything=True)
    assert "m.click" not in python and "m.instances" in python and "--all --json" in shell and "--point" not in shell
    assert 'null, null, false, true, \\"embedded\\"' in http

    python, shell, http = gfm.code("colour", "#b01030", "embedded", 2.5)
    assert 'net.predict("photo.jpg", widen=0.025)' in python and shell.count(" --widen 0.025") == 3 and '\\"#b01030\\", false, 0.025, \\"embedded\\"' in http
    python, shell, http = gfm.code("picture", "#b01030", "auto")
    assert "widen" not in python + shell and http.startswith("# Transparent") and '\\"\\", false, 0, \\"auto\\"' in http

    python, shell, http = cagan.code(["lips"], "#b01030", "#000000", 0.5, -0.4, "left", "embedded", 1)
    assert "face=1" in python and "finish=-0.4" in python and "side='left'" in python
    assert "--face 1 --finish -0.4 --side left --weights embedded" in shell and all(line.count("--weights embedded") == 1 for line in shell.splitlines())
    assert '\\"#b01030\\", \\"\\", 0.5, 1, -0.4, \\"left\\", \\"embedded\\"' in http
    assert cagan.code([], "#b01030", "#000000", 1, 0, "both", "auto") == cagan.code(["lips"], "#b01030", "#000000", 1, 0, "both", "auto")
    assert "face" not in cagan.code(["lips"], "#b01030", "", 1, 0, "both", "auto")[0].replace("another face", "")

    _, _, http = stegastamp.code("Hello!", 1.2, False, "embedded")
    assert '1.2, true, \\"embedded\\"' in http and 'stamped.png), \\"embedded\\"' in http
    assert '1, false, \\"auto\\"' in stegastamp.code("Hello!", 1, True, "auto")[2]


@pytest.fixture(scope="module")
def built():
    from demos import build

    return build()


def handler(built: gr.Blocks, tab: str, name: str):
    """What a tab does on an event, as the page calls it."""
    return next(f.fn for f in built.fns.values() if f.fn and (f.fn.__module__, f.fn.__name__) == (f"demos.{tab}", name))


def test_states_that_hold_photos_are_forgotten(built):
    """As home says, and as the files are."""
    from gradio.components.state import State

    states = [block for block in built.blocks.values() if isinstance(block, State)]
    assert len(states) >= 12 and all(0 < state.time_to_live <= 3600 for state in states)


NOT_A_PLACE = [[1e6, 5], [float("nan"), 5], [10**400, 5], [-1, 5], ["a", 5], [1], [1, 2, 3], None, {"x": 1}]


@pytest.mark.parametrize("index", NOT_A_PLACE, ids=lambda i: str(i)[:12])
def test_a_click_that_is_no_place_changes_nothing(built, index):
    from PIL import Image

    event, shown = SimpleNamespace(index=index), Image.new("RGB", (300, 200))
    session = SimpleNamespace(shape=(200, 300), image=np.zeros((200, 300, 3), np.uint8))
    seen = SimpleNamespace(session=session, shown=shown, scale=1.0, small=lambda one: one)
    found = SimpleNamespace(size=(200, 300), center=np.zeros(2), rays=np.ones(36))
    mask = SimpleNamespace(window=(0, 0, 100, 100))
    visit = SimpleNamespace(session=session, shown=session.image, mask=mask, clicks=())
    for tab, name, given in (
        ("polarmask", "clicked_photo", (seen, "auto", 0.4)),
        ("polarmask", "clicked_answer", (seen, "auto", 0.4)),
        ("polarmask_look", "pull", (seen, found, {})),
        ("polarmask_look", "corner", (seen, found, [], 36)),
        ("pointrend", "on_photo", (visit, 1, "auto")),
        ("pointrend", "on_canvas", (visit, 1, "auto")),
        ("pointrend", "look_at", (visit, 2, 784, 5)),
    ):
        with pytest.raises(gr.Error) as told:
            handler(built, tab, name)(*given, event)
        assert "outside of this picture" in told.value.message or "is a place" in told.value.message, (name, told.value.message)


def test_corners_objects_and_rays_have_an_end(built):
    from PIL import Image

    from demos.pointrend import OBJECTS, Visit

    seen = SimpleNamespace(session=None, shown=Image.new("RGB", (300, 200)), small=lambda one: one)
    with pytest.raises(gr.Error, match="at most 200 corners"):
        handler(built, "polarmask_look", "corner")(seen, None, [(1.0, 1.0)] * 200, 36, SimpleNamespace(index=[5, 5]))
    for name, given in (("choose", ({}, float("nan"))), ("stretch", ({}, float("nan"), 5)), ("stretch", ({}, 0, float("nan")))):
        found = SimpleNamespace(size=(200, 300), center=np.zeros(2), rays=np.ones(36, np.float32))
        with pytest.raises(gr.Error) as told:
            handler(built, "polarmask_look", name)(seen, found, *given)
        assert "Something broke" not in told.value.message
    with pytest.raises(gr.Error, match="50 objects are finished"):
        handler(built, "pointrend", "following")(Visit(None, None, 0.0, done=(object(),) * OBJECTS, mask=object()), "auto")


def test_ghostnets_answer_and_blocks_can_be_taken_home(built):
    import csv

    from pttp.ghostnet.study import BlockRow

    told = {"names": ["cat"], "indices": [281], "probabilities": [0.9], "weights": "embedded"}
    assert json.loads(Path(handler(built, "ghostnet", "answer_json")(told)).read_text()) == told
    rows = [BlockRow("stem", "3 x 3, then all", (16, 112, 112), 5, 7, 1.5)]
    (line,) = csv.DictReader(Path(handler(built, "ghostnet", "blocks_csv")(rows)).open())
    assert line == {"part": "stem", "what": "3 x 3, then all", "channels": "16", "height": "112", "width": "112", "parameters": "7", "macs": "5", "milliseconds": "1.5"}
    for name in ("answer_json", "blocks_csv"):
        with pytest.raises(gr.Error, match="nothing to download yet"):
            handler(built, "ghostnet", name)(None)
