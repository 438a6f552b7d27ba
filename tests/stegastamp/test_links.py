"""The registry of links: codes, what is a link, many writers at once, killed writers, damaged files."""
from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest

from pttp.errors import BadInput, PTTPError
from pttp.stegastamp import links
from pttp.stegastamp.links import ALPHABET, Links, check_link, default_path, is_link, shown
from pttp.stegastamp.message import pack, unpack

URL = "https://example.org/a?b=c#d"


@pytest.fixture
def registry(tmp_path):
    return Links(tmp_path / "folder" / "links.sqlite")


def test_there_and_back(registry):
    code = registry.put(URL)
    assert len(code) == 7 and set(code) <= set(ALPHABET)
    assert registry.get(code) == URL and registry.put(f"  {URL}\n") == code and len(registry) == 1
    assert Links(registry.path).get(code) == URL
    assert unpack(pack(code)).message == code
    assert registry.notice == ""


def test_unknown_codes(registry):
    registry.put(URL)
    for code in ("", "nothere", "' OR 1=1 --", "\u00e9", "x" * 1000):
        assert registry.get(code) is None


def test_codes_differ_and_cannot_be_counted_up(registry):
    codes = [registry.put(f"https://example.org/{i}") for i in range(200)]
    assert len(set(codes)) == 200 and codes != sorted(codes)
    assert len({c for code in codes for c in code}) > 50


def test_a_code_that_is_taken_is_drawn_again(registry, monkeypatch):
    letters = iter("aaaaaaa" + "aaaaaaa" + "bbbbbbb")
    monkeypatch.setattr(links.secrets, "choice", lambda alphabet: next(letters))
    assert registry.put(f"{URL}1") == "aaaaaaa" and registry.put(f"{URL}2") == "bbbbbbb"
    assert registry.get("aaaaaaa") == f"{URL}1"


@pytest.mark.parametrize(
    "url, host",
    [
        ("https://example.org/a", ("example.org", "example.org")),
        ("HTTP://Example.ORG:8080", ("example.org", "example.org")),
        ("https://m\u00fcnchen.de/x", ("xn--mnchen-3ya.de", "m\u00fcnchen.de")),
        ("https://xn--mnchen-3ya.de", ("xn--mnchen-3ya.de", "m\u00fcnchen.de")),
        ("https://fa\u00df.de", ("xn--fa-hia.de", "fa\u00df.de")),  # not fass.de
        ("https://\u0430\u0440\u0440\u04cf\u0435.com/", ("xn--80ak6aa92e.com", "\u0430\u0440\u0440\u04cf\u0435.com")),  # Cyrillic that looks like apple
        ("https://apple.com@evil.example/", ("evil.example", "evil.example")),
        ("http://i\u2764.ws", ("xn--i-7iq.ws", "i\u2764.ws")),
        ("http://my_host/a", ("my_host", "my_host")),
        ("http://[::1]:8000/", ("::1", "::1")),
        ("http://127.0.0.1:7860", ("127.0.0.1", "127.0.0.1")),
    ],
)
def test_hosts_spelled_out(url, host):
    assert is_link(url) and shown(url) == host


@pytest.mark.parametrize(
    "url",
    [
        *("", "example.org", "ftp://example.org", "javascript:alert(1)", "data:text/html,x", "file:///etc/passwd"),
        *("https://", "https:///path", "http://a:99999", "http://[zz]/", "https://example.org/" + "a" * 2048),
        *("https://a b.c", "https://a\tb.c", "https://exa%6dple.com", "http://x\\@y", "https://a\u202eb.com", "https://a<b.com", "https://a\x00.com"),
    ],
)
def test_what_is_no_link(registry, url):
    assert not is_link(url)
    with pytest.raises(BadInput) as caught:
        registry.put(url)
    assert str(caught.value).endswith((".", "line.", "%5C.")) and len(registry) == 0
    with pytest.raises(BadInput):
        shown(url)


def test_a_tampered_row_is_not_shown(registry):
    registry.put(URL)
    with sqlite3.connect(registry.path) as db:
        db.execute("INSERT INTO links VALUES ('badcode', 'javascript:alert(1)', 0.0)")
    assert registry.get("badcode") is None


def test_where_it_lies(monkeypatch, tmp_path):
    monkeypatch.setenv("PTTP_LINKS", str(tmp_path / "mine.sqlite"))
    assert default_path() == tmp_path / "mine.sqlite" == Links().path
    monkeypatch.delenv("PTTP_LINKS")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_path() == tmp_path / "pttp" / "links.sqlite"


def test_a_path_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    for path in (tmp_path / "file" / "links.sqlite", tmp_path):
        with pytest.raises(PTTPError, match="set PTTP_LINKS"):
            Links(path).put(URL)
    assert (tmp_path / "file").read_text() == "not a folder"


def _write_many(path: str, worker: int, count: int, out) -> None:
    registry = Links(path)
    out.put({u: registry.put(u) for u in [f"https://example.org/{worker}/{i}" for i in range(count)] + [f"https://example.org/shared/{i}" for i in range(count)]})


def test_many_processes_at_once(registry):
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    workers = [context.Process(target=_write_many, args=(str(registry.path), w, 25, out)) for w in range(4)]
    for w in workers:
        w.start()
    written = [out.get(timeout=120) for _ in workers]
    for w in workers:
        w.join(30)
        assert w.exitcode == 0
    merged: dict[str, str] = {}
    for part in written:
        for url, code in part.items():
            assert merged.setdefault(url, code) == code  # the same address, the same code, whoever asked
    assert len(merged) == len(set(merged.values())) == len(registry) == 5 * 25
    assert all(registry.get(code) == url for url, code in merged.items())


def test_threads_share_one_object(registry):
    codes: list[str] = []
    threads = [threading.Thread(target=lambda: codes.extend(registry.put(f"https://example.org/{i}") for i in range(20))) for _ in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(codes) == 120 and len(set(codes)) == len(registry) == 20


WRITER = """
import sys
from pttp.stegastamp.links import Links
registry = Links(sys.argv[1])
for i in range(100000):
    url = f"https://example.org/{sys.argv[2]}/{i}"
    print(url, registry.put(url), flush=True)
"""


def test_nothing_is_lost_when_a_writer_is_killed(registry):
    rng, promised = random.Random(0), {}
    for turn in range(4):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(registry.path), str(turn)], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
        lines = [process.stdout.readline() for _ in range(5)]
        time.sleep(rng.uniform(0.05, 0.3))
        os.kill(process.pid, signal.SIGKILL)
        lines += process.stdout.read().splitlines(keepends=True)
        process.wait()
        promised.update(line.split() for line in lines if line.endswith("\n") and len(line.split()) == 2)
    assert len(promised) >= 20
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a killed writer must leave no damage behind
        again = Links(registry.path)
        assert all(again.get(code) == url for url, code in promised.items())
        assert again.put("https://example.org/after")
    assert again.notice == ""


def damage(path: Path, kind: str) -> bytes:
    data = bytearray(path.read_bytes())
    if kind == "text":
        data = bytearray(b"these are not the bytes of a database, but somebody's notes\n" * 30)
    elif kind == "header":
        data[:16] = bytes(16)
    elif kind == "truncated":
        data = data[: len(data) // 2 - 100]
    elif kind == "page":
        data[-4096:] = os.urandom(4096)
    elif kind == "other program":
        path.unlink()
        with sqlite3.connect(path) as db:
            db.execute("CREATE TABLE links (title TEXT, page INTEGER)")
        return path.read_bytes()
    path.write_bytes(data)
    return bytes(data)


@pytest.mark.parametrize("kind", ["text", "header", "truncated", "page", "other program"])
@pytest.mark.parametrize("running", [False, True], ids=["at the start", "while running"])
def test_a_damaged_registry_is_kept_aside(registry, kind, running):
    written = {f"https://example.org/{i}/{'x' * 200}": "" for i in range(150)}
    for url in written:
        written[url] = registry.put(url)
    if kind == "other program" and running:
        pytest.skip("a table that changes its columns under a running server is not looked for")
    broken = damage(registry.path, kind)
    again = registry if running else Links(registry.path)
    with pytest.warns(UserWarning, match="was damaged") as told:
        for url in ["https://example.org/new", *written]:
            again.put(url)  # a running registry notices only when it meets the damaged page
            again.get(written.get(url, "nothere"))
        codes = {url: again.put(url) for url in ["https://example.org/new", *written]}
        assert all(again.get(code) == url for url, code in codes.items())
    assert len(told) == 1
    (aside,) = [p for p in registry.path.parent.glob("*.damaged-*") if not p.name.endswith(("-wal", "-shm"))]
    if not (running and kind == "page"):  # there it went on being written to until the damage was met
        assert aside.read_bytes() == broken  # byte for byte
    assert str(aside) in again.notice and again.notice.endswith("could still be read.")
    assert len(again) == 151


def test_readable_rows_of_a_damaged_registry_live_on(registry):
    written = {registry.put(f"https://example.org/{i}/{'x' * 200}"): i for i in range(300)}
    damage(registry.path, "page")
    again = Links(registry.path)
    with pytest.warns(UserWarning):
        again.put(URL)
    assert len(again) > 1
    with sqlite3.connect(registry.path) as db:
        kept = dict(db.execute("SELECT code, url FROM links WHERE url != ?", (URL,)).fetchall())
    assert all(f"/{written[code]}/" in url for code, url in kept.items())


def _open_damaged(path: str, out) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        registry = Links(path)
        out.put((registry.put("https://example.org/same"), registry.notice))


def test_two_processes_find_the_same_damage(registry):
    """Only one of them puts the file aside; the other must not put the new one aside too."""
    registry.put(URL)
    broken = damage(registry.path, "text")
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    workers = [context.Process(target=_open_damaged, args=(str(registry.path), out)) for _ in range(4)]
    for w in workers:
        w.start()
    results = [out.get(timeout=120) for _ in workers]
    for w in workers:
        w.join(30)
    assert len({code for code, _ in results}) == 1 and sum(bool(notice) for _, notice in results) == 1
    (aside,) = registry.path.parent.glob("*.damaged-*")
    assert aside.read_bytes() == broken


def test_an_empty_file_is_a_new_registry(tmp_path):
    path = tmp_path / "links.sqlite"
    path.touch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Links(path).put(URL)


def test_a_registry_that_was_deleted_is_begun_again(registry):
    code = registry.put(URL)
    for p in registry.path.parent.iterdir():
        p.unlink()
    assert registry.get(code) is None and registry.put(URL)


def test_check_link_trims():
    assert check_link(f" {URL} ") == URL
