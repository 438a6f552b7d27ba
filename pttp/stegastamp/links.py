"""Links in stamps: a stamp holds seven characters, so a link goes into a registry and its code into the picture.

The registry is one SQLite file, `$PTTP_LINKS` or `links.sqlite` in the user's data folder. Any number of processes may use it at once; what `put` has
returned is on disk.
"""
from __future__ import annotations

import ipaddress
import os
import re
import secrets
import shutil
import sqlite3
import sys
import tempfile
import time
import unicodedata
import warnings
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import idna

from pttp.errors import BadInput, PTTPError

ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"  # without 0, O, I and l: codes are also read by people
LENGTH = 7  # 58^7 = 2.2e12 codes
LONGEST = 2048
WAIT = 30.0  # seconds for other writers
_TABLE = "CREATE TABLE IF NOT EXISTS links (code TEXT PRIMARY KEY, url TEXT NOT NULL UNIQUE, made REAL NOT NULL) WITHOUT ROWID"


def default_path() -> Path:
    """$PTTP_LINKS, else links.sqlite in the user's data folder of this system."""
    if given := os.environ.get("PTTP_LINKS"):
        return Path(given)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "pttp" / "links.sqlite"


def is_code(text: str) -> bool:
    """Whether `put` could have given it out."""
    return len(text) == LENGTH and all(c in ALPHABET for c in text)


def check_link(text: str) -> str:
    """The link in `text`, without spaces around it.

    Raises BadInput unless it is an http or https address with a host, of at most 2048 characters, without spaces or control characters inside.
    """
    url = text.strip()
    if len(url) > LONGEST:
        raise BadInput(f"This link has {len(url)} characters: links of up to {LONGEST} are kept.")
    if any(c.isspace() or unicodedata.category(c) in ("Cc", "Cf", "Cs") for c in url):
        raise BadInput("This link has a space or an invisible character in it: remove it.")
    if "\\" in url:
        raise BadInput("This link has a backslash in it, which programs read in different ways: write / or %5C.")
    try:
        parts = urlsplit(url)
        scheme, host, _ = parts.scheme.lower(), parts.hostname, parts.port
    except ValueError as error:
        raise BadInput("This is not a web address: copy it again from the browser's address line.") from error
    if scheme not in ("http", "https"):
        raise BadInput("Only links that start with http:// or https:// are taken.")
    if not host or not (re.fullmatch(r"[a-z0-9._-]+", shown_host(host)[0]) or _is_address(host)):
        raise BadInput("This link names no host: write it as https://host/path.")
    return url


def _is_address(host: str) -> bool:
    try:
        return bool(ipaddress.ip_address(host))
    except ValueError:
        return False


def is_link(text: str) -> bool:
    """Whether `check_link` takes it."""
    try:
        check_link(text)
    except BadInput:
        return False
    return True


def shown(url: str) -> tuple[str, str]:
    """The host of a link as it goes over the wire (punycode) and as people read it (Unicode): two names that differ deserve a second look.

    Raises BadInput for what is not a link.
    """
    return shown_host(urlsplit(check_link(url)).hostname)


def shown_host(host: str) -> tuple[str, str]:
    """`shown` for a bare host name."""
    try:
        wire = idna.encode(host, uts46=True).decode("ascii")
    except idna.IDNAError:  # underscores, emoji, addresses in brackets: browsers take them
        labels = unicodedata.normalize("NFKC", host).lower().split(".")
        wire = ".".join(label if label.isascii() else "xn--" + label.encode("punycode").decode("ascii") for label in labels)
    try:
        return wire, idna.decode(wire)
    except idna.IDNAError:
        return wire, ".".join(_decoded(label) for label in wire.split("."))


def _decoded(label: str) -> str:
    if not label.startswith("xn--"):
        return label
    try:
        return label[4:].encode("ascii").decode("punycode")
    except UnicodeError:
        return label


class Links:
    """The registry at `path`. Every call opens and closes the file, so that one object may be shared by threads and survives a fork.

    A damaged file is put aside under another name, never overwritten: `notice` is then the sentence that says so (it is also issued as a warning), else it
    is empty.
    """

    def __init__(self, path: str | Path | None = None):
        self.path = Path(path) if path else default_path()
        self.notice = ""
        self._checked = False

    def put(self, url: str) -> str:
        """The seven-character code of `url`, always the same one for the same address.

        Raises BadInput for what is not an http or https link, PTTPError when the registry cannot be written.
        """
        url = check_link(url)

        def work(db: sqlite3.Connection) -> str:
            db.execute("BEGIN IMMEDIATE")
            row = db.execute("SELECT code FROM links WHERE url = ?", (url,)).fetchone()
            while row is None:
                code = "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))
                if db.execute("INSERT INTO links VALUES (?, ?, ?) ON CONFLICT (code) DO NOTHING", (code, url, time.time())).rowcount:
                    row = (code,)
            db.execute("COMMIT")
            return row[0]

        return self._run(work)

    def get(self, code: str) -> str | None:
        """The link behind `code`, or None for a code that was never given out here. Raises PTTPError when the registry cannot be read."""
        row = self._run(lambda db: db.execute("SELECT url FROM links WHERE code = ?", (code,)).fetchone())
        return row[0] if row and is_link(row[0]) else None

    def __len__(self) -> int:
        return self._run(lambda db: db.execute("SELECT count(*) FROM links").fetchone()[0])

    def _run(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        """`work` on an open registry; a registry that turns out to be damaged is put aside, and the work done on the new one."""
        try:
            if self._checked:
                try:
                    return self._once(work)
                except sqlite3.DatabaseError as error:
                    if isinstance(error, sqlite3.OperationalError):
                        raise
            self._check()
            return self._once(work)
        except (sqlite3.Error, OSError) as error:
            raise PTTPError(f"The link registry {self.path} cannot be used ({error}): set PTTP_LINKS to a file in a folder that you may write to.") from error

    def _once(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        with closing(self._connect()) as db:
            db.execute(_TABLE)
            return work(db)

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=WAIT, isolation_level=None)
        db.execute("PRAGMA synchronous = FULL")  # what put() returned survives a power cut too
        return db

    def _check(self) -> None:
        """Make the file if there is none; put a damaged one aside and begin a new one with whatever can still be read.

        One process at a time: a lock is held meanwhile that the system takes back when its holder dies, and the file is looked at under it.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self.path.with_name(self.path.name + ".lock"), timeout=WAIT, isolation_level=None)) as lock:
            lock.execute("BEGIN EXCLUSIVE")
            if damage := self._damage():
                self._put_aside(damage)
            with closing(self._connect()) as db:
                db.execute("PRAGMA journal_mode = WAL")
                db.execute(_TABLE)
        self._checked = True

    def _damage(self) -> str:
        """What is wrong with the file; empty when nothing is, or when there is none."""
        if not self.path.exists() or self.path.stat().st_size == 0:
            return ""
        try:
            with closing(self._connect()) as db:
                verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
                columns = [row[1] for row in db.execute("PRAGMA table_info(links)")]
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            return str(error)
        if verdict != "ok":
            return verdict
        return "" if columns in ([], ["code", "url", "made"]) else "its table is another program's"

    def _put_aside(self, damage: str) -> None:
        stamp, number = time.strftime("%Y%m%d-%H%M%S"), 0
        while (aside := self.path.with_name(f"{self.path.name}.damaged-{stamp}{f'-{number}' if number else ''}")).exists():
            number += 1
        for suffix in ("-wal", "-shm", ""):  # the journal belongs to the file, which goes last: until then nobody begins a new one
            part = self.path.with_name(self.path.name + suffix)
            if part.exists():
                part.rename(aside.with_name(aside.name + suffix))
        rows = _rows_of(aside)
        with closing(self._connect()) as db:
            db.execute(_TABLE)
            db.execute("BEGIN")
            db.executemany("INSERT OR IGNORE INTO links VALUES (?, ?, ?)", rows)
            db.execute("COMMIT")
        self.notice = f"The link registry was damaged ({damage}). It is kept as {aside}; a new one was begun with the {len(rows)} links that could still be read."
        warnings.warn(self.notice, stacklevel=2)


def _rows_of(damaged: Path) -> list[tuple[str, str, float]]:
    """What can still be read, from a copy: opening a database with a journal writes to it."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        for suffix in ("", "-wal"):
            part = damaged.with_name(damaged.name + suffix)
            if part.exists():
                shutil.copyfile(part, copy.with_name(copy.name + suffix))
        try:
            with closing(sqlite3.connect(copy)) as old:
                for code, url, made in old.execute("SELECT code, url, made FROM links"):
                    if isinstance(code, str) and isinstance(url, str) and isinstance(made, float) and is_link(url):
                        rows.append((code, url, made))
        except sqlite3.Error:  # the rest cannot be read
            pass
    return rows
