"""The last visitors' mattes, so that a slider or a download need not begin anew; never more of them than fit, and none for longer than an hour."""
from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

from pttp.errors import BadInput

ROOM = 1_000_000_000  # bytes: a few photos of a phone, or some hundred of the web
MOST = 100  # mattes
KEPT = 3600  # seconds, as the page promises
EVERY = 60  # seconds between looks for what is too old, while there is anything


class Shelf:
    """Mattes by keys that nobody guesses; when there is no more room the one goes that nobody has asked for the longest. `clock` gives seconds."""

    def __init__(self, room: int = ROOM, most: int = MOST, clock: Callable[[], float] = time.monotonic):
        self._room, self._most, self._clock, self._lock = room, most, clock, threading.Lock()
        self._mattes: OrderedDict[str, tuple[float, object]] = OrderedDict()  # key -> (when it came, matte)
        self._watched = False

    def __len__(self) -> int:
        return len(self._mattes)

    def put(self, matte) -> str:
        """The key of `matte`."""
        key = secrets.token_hex(16)
        with self._lock:
            self._mattes[key] = self._clock(), matte
            self._tidy()
            if not self._watched:
                self._watch()
        return key

    def get(self, key: str):
        """The matte of `key`. Raises BadInput when it had to go."""
        with self._lock:
            if key in self._mattes:
                self._mattes.move_to_end(key)
            self._tidy()
            if key not in self._mattes:
                raise BadInput("This matte is no longer kept, for an hour is over or many people are here: give the photo again.")
            return self._mattes[key][1]

    def forget(self) -> None:
        """Let go what is too old, and look again later while there is something left: nobody need come for it."""
        with self._lock:
            self._tidy()
            self._watched = False
            if self._mattes:
                self._watch()

    def _watch(self) -> None:
        self._watched = True
        timer = threading.Timer(EVERY, self.forget)
        timer.daemon = True
        timer.start()

    def _tidy(self) -> None:
        """The newest always stays: it is what its visitor looks at."""
        now = self._clock()
        for key in [key for key, (came, _) in self._mattes.items() if now - came > KEPT]:
            del self._mattes[key]
        while len(self._mattes) > 1 and (len(self._mattes) > self._most or held(matte for _, matte in self._mattes.values()) > self._room):
            self._mattes.popitem(last=False)


def held(mattes: Iterable) -> int:
    """Bytes of the arrays that these hold, maps that were asked for included; what several share, as a look, counts once."""
    parts = [part for matte in mattes for part in (matte, getattr(matte, "look", None)) if part is not None]
    return sum({id(x): x.nbytes for part in parts for x in list(vars(part).values()) if hasattr(x, "nbytes")}.values())
