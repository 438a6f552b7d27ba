"""The last visitors' mattes, so that a slider or a download need not begin anew; never more of them than fit."""
from __future__ import annotations

import secrets
import threading
from collections import OrderedDict

from pttp.errors import BadInput

ROOM = 100_000_000  # pixels, at ten bytes each: eight photos of a phone, or some hundred of the web


class Shelf:
    """Mattes by keys that nobody guesses; when there is no more room the one goes that nobody has asked for the longest."""

    def __init__(self, room: int = ROOM):
        self._room, self._lock = room, threading.Lock()
        self._mattes: OrderedDict[str, object] = OrderedDict()

    def put(self, matte) -> str:
        """The key of `matte`."""
        key = secrets.token_hex(16)
        with self._lock:
            self._mattes[key] = matte
            while len(self._mattes) > 1 and sum(m.alpha.size for m in self._mattes.values()) > self._room:
                self._mattes.popitem(last=False)
        return key

    def get(self, key: str):
        """The matte of `key`. Raises BadInput when it had to go."""
        with self._lock:
            if key not in self._mattes:
                raise BadInput("Many people are here, and this matte had to make room: give the photo again.")
            self._mattes.move_to_end(key)
            return self._mattes[key]
