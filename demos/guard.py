"""What stands between the network and the page: no address is fetched for a visitor, no request is larger than its budget, and what is kept of each visit is bounded."""
from __future__ import annotations

import json
import re
from collections import Counter

import gradio as gr
from gradio import processing_utils
from gradio.state_holder import StateHolder

LARGEST = 90 * 2**20  # bytes of one request: a picture of 64 MB, also when it comes as base64 inside of JSON
PAGES, CALLS = 100, 32  # visits that are remembered: of open pages, and of programs and closed pages
REFUSED = "Addresses are not opened here: download the picture and send the file."


class TooLarge(Exception):
    """The body of a request is over the budget."""


class Sessions(StateHolder):
    """Gradio's own, which keeps 10,000 visits for ever, a megabyte and a picture each. `open` counts the heartbeats of each page that is open; a call by a program has
    none, and nothing is lost when it is forgotten."""

    def __init__(self):
        super().__init__()
        self.open: Counter[str] = Counter()

    def update(self, session_id: str) -> None:
        with self.lock:
            if session_id in self.session_data:
                self.session_data.move_to_end(session_id)
            calls = [s for s in self.session_data if not self.open[s]]
            pages = [s for s in self.session_data if self.open[s]]
            for session in calls[: max(0, len(calls) - CALLS)] + pages[: max(0, len(pages) - PAGES)]:
                if session != session_id:
                    self.session_data.pop(session)
                    self.time_last_used.pop(session, None)


class Guard:
    """ASGI around the whole application."""

    def __init__(self, app, sessions: Sessions):
        self.app, self.sessions = app, sessions

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        if "://" in scope["path"].partition("file=")[2]:  # gradio would stream the address through this server
            return await answer(send, 403, REFUSED)
        taken, begun = 0, False

        async def counted():
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > LARGEST:
                raise TooLarge
            return message

        async def noted(message) -> None:
            nonlocal begun
            if taken <= LARGEST:  # else whoever read the body has caught the error and says something vague of it
                begun = True
                await send(message)

        page = re.search(r"/heartbeat/([^/]+)$", scope["path"])
        page = page and page[1]
        self.sessions.open.update([page] if page else [])
        try:
            if (said := length(scope)) > LARGEST:
                taken = said
            else:
                await self.app(scope, counted, noted)
        except TooLarge:
            pass
        finally:
            if page:
                self.sessions.open[page] -= 1
                self.sessions.open += Counter()  # forgets the zeros
        if taken > LARGEST and not begun:
            await answer(send, 413, f"This is more than the {LARGEST >> 20} MB that one request may have: send a smaller picture.")


def length(scope) -> int:
    """What the request says that it is long; 0 where it says nothing that is a number."""
    said = dict(scope["headers"]).get(b"content-length", b"")
    return int(said) if said.isdigit() else 0


async def answer(send, status: int, sentence: str) -> None:
    body = json.dumps({"detail": sentence}).encode()
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})


def no_addresses() -> None:
    """Gradio fetches whatever address stands where a file could, in any argument of a call; this server calls no host for a visitor."""

    def refuse(url: str, *args, **options):
        raise gr.Error(REFUSED, title="Please send a file", print_exception=False)

    async def refuse_later(url: str, *args, **options):
        refuse(url)

    processing_utils.async_ssrf_protected_download = refuse_later
    processing_utils.ssrf_protected_download = processing_utils.save_url_to_cache = refuse


def completed(validate):
    """A call that was written before an endpoint got another parameter goes on working: what is missing at the end is the parameter's default."""

    def validated(block_fn, inputs: list) -> None:
        inputs += [block.value for block in block_fn.inputs[len(inputs) :]]
        validate(block_fn, inputs)

    return validated


def misfit(fn, index: int, block, value, is_input: bool, original_error: Exception) -> str:
    """The sentence about a value that a component cannot take: it comes from a program, because the page's own fields do not let it through."""
    name = getattr(block, "label", None) or block.get_block_name()
    return f"The value of {name!r} (number {index + 1} of this call) cannot be used: {str(original_error).splitlines()[0] if str(original_error) else 'it is of another kind'}."
