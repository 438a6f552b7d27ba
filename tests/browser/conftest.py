"""A real server and a real headless Chromium, with every console error and every request to another host recorded."""
from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = Path(__file__).with_name("screenshots")
WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start_server(port: int, log: Path, **env: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "app.py", "--port", str(port)], cwd=ROOT, stdout=log.open("w"), stderr=subprocess.STDOUT, env={**os.environ, "HF_HUB_OFFLINE": "1", "GRADIO_TEMP_DIR": str(log.parent / "uploads"), **env}
    )


def wait_until_up(url: str, process: subprocess.Popen, log: Path, seconds: float = 120) -> float:
    """Seconds until /healthz answers."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        if process.poll() is not None:
            raise RuntimeError(f"the server stopped: {log.read_text()[-2000:]}")
        try:
            with urllib.request.urlopen(f"{url}/healthz", timeout=2):
                return time.monotonic() - began
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"no answer within {seconds} s: {log.read_text()[-2000:]}")


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> str:
    """Address of a running page that may not use the network."""
    port, log = free_port(), tmp_path_factory.mktemp("server") / "log.txt"
    process = start_server(port, log)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_up(url, process, log)
        yield url
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="session")
def chromium():
    path = os.environ.get("CHROMIUM") or next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)
    with sync_playwright() as p:
        browser = p.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
        )
        yield browser
        browser.close()


class Visitor:
    """One browser tab and what it did: `page`, console `errors`, requests that went to `elsewhere`."""

    def __init__(self, page: Page, url: str, width: str):
        self.page, self.url, self.width = page, url, width
        self.errors: list[str] = []
        self.elsewhere: list[str] = []
        page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: self.errors.append(str(e)))
        page.on("request", lambda r: self.elsewhere.append(r.url) if r.url.startswith(("http", "ws")) and urlsplit(r.url).netloc != urlsplit(url).netloc else None)

    def open(self, fragment: str = "home") -> "Visitor":
        self.page.goto(f"{self.url}/#{fragment}")
        self.page.wait_for_selector(".pt-masthead:visible, .pt-header:visible", timeout=60_000)
        return self

    def tab(self, name: str) -> None:
        """Choose a tab the way a person does: by its button, or in the menu where the buttons do not fit."""
        button = self.page.get_by_role("tab", name=name, exact=True)
        if not button.first.is_visible():
            self.page.locator("#tabs .overflow-menu > button").first.click()
            self.page.locator("#tabs .overflow-dropdown").get_by_text(name, exact=True).click()
            return
        button.first.click()

    def shot(self, name: str, full_page: bool = True) -> Path:
        SCREENSHOTS.mkdir(exist_ok=True)
        path = SCREENSHOTS / f"{re.sub(r'[^a-z0-9]+', '-', name.lower())}-{self.width}.png"
        self.page.screenshot(path=path, full_page=full_page, timeout=120_000)  # a slow machine draws a long page for a while
        return path

    def scrolls_sideways(self) -> bool:
        return self.page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth + 1")

    def clean(self) -> None:
        """Nothing went wrong in the console, nothing went to another host."""
        assert self.errors == []
        assert self.elsewhere == []


@pytest.fixture(params=list(WIDTHS))
def visitor(request, chromium, server):
    width, height = WIDTHS[request.param]
    context = chromium.new_context(viewport={"width": width, "height": height})
    yield Visitor(context.new_page(), server, request.param)
    context.close()
