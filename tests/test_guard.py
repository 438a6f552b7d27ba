"""What a client must not be able to make the server do: fetch, swallow, remember without end."""
from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from gradio_client import Client

from demos import guard
from tests.test_http import registry, url  # noqa: F401 (fixtures)


def run(coroutine) -> None:
    """In a thread of its own: the one that drives a browser has a loop already."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, coroutine).result()


async def echo(scope, receive, send) -> None:
    """Says how long the body was, and swallows every error in it, as a web framework does."""
    size, more = 0, True
    try:
        while more:
            message = await receive()
            size, more = size + len(message.get("body", b"")), message.get("more_body", False)
        said = str(size)
    except Exception:
        said = "something was wrong"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": said.encode()})


def ask(path: str = "/", chunks=(b"",), headers=(), sessions=None) -> tuple[int, str]:
    """Status and body of one request of these `chunks`."""
    left, said = list(chunks), []

    async def receive():
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    async def send(message):
        said.append(message)

    run(guard.Guard(echo, sessions or guard.Sessions())({"type": "http", "path": path, "headers": list(headers)}, receive, send))
    return said[0]["status"], said[1]["body"].decode()


def test_a_request_has_a_budget(monkeypatch):
    monkeypatch.setattr(guard, "LARGEST", 100)
    assert ask(chunks=(b"a" * 60, b"a" * 40)) == (200, "100")
    for chunks, headers in (((b"a" * 60, b"a" * 41), ()), ((b"",), [(b"content-length", b"101")])):
        status, words = ask(chunks=chunks, headers=headers)
        assert status == 413 and "send a smaller picture" in words
    assert ask(chunks=(b"a" * 60, b"a" * 41), headers=[(b"content-length", b"5")])[0] == 413, "what is said need not be true"
    assert ask(headers=[(b"content-length", b"much")]) == (200, "0")


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/a", "HTTPS://example.org/a", "ftp://example.org/a"])
def test_no_address_is_streamed(address):
    assert ask(f"/gradio_api/file={address}") == (403, '{"detail": "Addresses are not opened here: download the picture and send the file."}')
    assert ask("/gradio_api/file=/tmp/a.png")[0] == 200


class Visits(guard.Sessions):
    """Without a page behind it."""

    def visit(self, name: str) -> None:
        self.session_data[name] = object()
        self.update(name)


def test_calls_are_forgotten_before_pages():
    visits = Visits()
    visits.open.update(["page", "other page"])
    for name in ("page", "other page", *map(str, range(500))):
        visits.visit(name)
    assert len(visits.session_data) == 2 + guard.CALLS and {"page", "other page", "499"} <= set(visits.session_data)
    visits.open.clear()  # both pages are closed, and the oldest
    visits.visit("one more")
    assert len(visits.session_data) == guard.CALLS and "page" not in visits.session_data
    visits.open.update(map(str, range(1000)))
    for number in range(1000):
        visits.visit(str(number))
    assert sum(visits.open[s] > 0 for s in visits.session_data) == guard.PAGES


def test_a_page_is_open_for_as_long_as_its_heart_beats():
    sessions, seen = guard.Sessions(), []

    async def app(scope, receive, send):
        seen.append(dict(sessions.open))

    run(guard.Guard(app, sessions)({"type": "http", "path": "/gradio_api/heartbeat/abc", "headers": []}, None, None))
    assert seen == [{"abc": 1}] and not sessions.open


def call(url: str, name: str, data: list) -> str:
    event = httpx.post(f"{url}/gradio_api/call/{name}", json={"data": data}).json()["event_id"]
    return httpx.get(f"{url}/gradio_api/call/{name}/{event}", timeout=60).text


def test_no_argument_of_any_call_is_an_address(url):  # noqa: F811
    """Gradio would fetch it wherever it stands, also where a number is expected."""
    assert httpx.get(f"{url}/gradio_api/file=https://example.org/a.png").status_code == 403
    api = Client(url, verbose=False).view_api(return_format="dict")["named_endpoints"]
    address = {"path": "http://127.0.0.1:9/a.png", "meta": {"_type": "gradio.FileData"}}
    for name, door in api.items():
        for at in range(len(door["parameters"])):
            data = [p.get("parameter_default") for p in door["parameters"]]
            data[at] = address
            stream = call(url, name.strip("/"), data)
            assert "event: error" in stream and "Addresses are not opened" in stream, (name, at, stream)


def test_a_call_without_the_last_parameters_gets_their_defaults(url):  # noqa: F811
    uploaded = {"path": httpx.post(f"{url}/gradio_api/upload", files={"files": ("a.png", picture())}).json()[0], "meta": {"_type": "gradio.FileData"}}
    for name, data in (("classify", [uploaded]), ("segment", [uploaded, [[10, 10]], [1], True, False]), ("matte", [uploaded])):
        assert "event: complete" in call(url, name, data), name
    assert "event: error" in call(url, "classify", []), "a picture has no default"


@pytest.mark.parametrize("value", ["five", None, [], {"a": 1}])
def test_a_value_of_another_kind_is_one_sentence(url, value):  # noqa: F811
    uploaded = httpx.post(f"{url}/gradio_api/upload", files={"files": ("a.png", picture())}).json()[0]
    stream = call(url, "classify", [{"path": uploaded, "meta": {"_type": "gradio.FileData"}}, value, "embedded"])
    assert "event: error" in stream and "event handler" not in stream and "our side" not in stream and "Traceback" not in stream, stream


def picture() -> bytes:
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (32, 32)).save(file, "PNG")
    return file.getvalue()
