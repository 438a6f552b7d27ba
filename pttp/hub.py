"""Fetching from the Hugging Face Hub: patient for seconds, never for minutes, and every failure is one sentence.

Importing this module does not import huggingface_hub. HF_ENDPOINT and HF_HUB_OFFLINE are read at every call; where the cache lies (HF_HOME,
HF_HUB_CACHE) is read by the client when it is first imported.
"""
from __future__ import annotations

import hashlib
import logging
import os
import re
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path

from pttp.errors import WeightsError

WEIGHTS, CONFIG, METRICS, CARD = "model.safetensors", "config.json", "metrics.json", "MODEL_CARD.md"  # a folder in Hub format
CONNECT = 3.0  # seconds for a connection, and for the answer to a question about a file
PATIENCE = 7.0  # seconds without a new byte of the weights; above 2 * CONNECT, so that the client's own, more precise error comes first
CHUNK = 1 << 17  # bytes between two reports of a download
RETRY_AFTER = 300.0  # seconds for which a failure is remembered

Progress = Callable[[float, str], None]  # fraction in [0, 1], a sentence for the user


class Unreachable(WeightsError):
    """The Hub does not answer as it should: for a while, no repository on it will fare better."""


class _GivenUp(Exception):
    """Ends a download that nobody waits for any more."""


def parse(source: str) -> tuple[str, str | None]:
    """ "hub:owner/name[@revision]" -> (owner/name, revision or None). Raises WeightsError for anything else."""
    match = re.fullmatch(r"hub:(\w[\w.-]*/\w[\w.-]*)(?:@(\w[\w./-]*))?", source)
    if not match or ".." in source:
        raise WeightsError(f"Write weights on the Hub as hub:owner/name or hub:owner/name@revision, not {source!r}.")
    return match[1], match[2]


def offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids to ask the Hub."""
    return os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "on", "yes", "true")


def endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


@lru_cache(maxsize=32)
def _sha256(file: Path, size: int, mtime_ns: int) -> str:
    digest = hashlib.sha256()
    with open(file, "rb") as f:
        while chunk := f.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_of(file: Path) -> str:
    """Of the file's bytes, in hexadecimal; computed once as long as the file does not change."""
    stat = file.stat()
    return _sha256(file.resolve(), stat.st_size, stat.st_mtime_ns)


def _check(file: Path, sha256: str | None) -> None:
    """Compare a cached file with the SHA-256 that we know, or with the one that the Hub announced; remove it if they differ.

    The cache names a large file's blob after what the Hub announced, and the snapshot is a link to it (only one step is followed: the blob may
    itself be a link into a store that is named differently). Where the system has no links, there is nothing to compare with.
    """
    blob = Path(os.readlink(file)) if file.is_symlink() else None
    announced = blob.name if blob and re.fullmatch("[0-9a-f]{64}", blob.name) else None
    expected = {known for known in (sha256, announced) if known}
    if expected <= {sha256_of(file)}:
        return
    if blob:
        (file.parent / blob).unlink(missing_ok=True)
    file.unlink(missing_ok=True)
    raise WeightsError(f"The fetched {file.name} does not have the SHA-256 that was announced for it and was removed: try again later.")


def cached(repo: str, revision: str | None = None, *, filename: str = WEIGHTS, sha256: str | None = None) -> Path | None:
    """The weights file in the local cache, if it and its config.json are there and its SHA-256 is right; asks no network."""
    from huggingface_hub import try_to_load_from_cache

    with sentences(repo):
        files = [try_to_load_from_cache(repo, name, revision=revision) for name in (filename, CONFIG)]
    if not all(isinstance(f, str) for f in files):
        return None
    try:
        _check(Path(files[0]), sha256)
    except WeightsError:
        return None
    return Path(files[0])


def _text(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0].rstrip(". ")[:160] if lines else "") or type(error).__name__


def _explain(error: BaseException, repo: str) -> WeightsError:
    """The sentence for what the Hub's client raised about `repo`."""
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        return WeightsError(f"{repo} is gated: ask for access on its page on the Hub, then set HF_TOKEN to your token.")
    if isinstance(error, errors.DisabledRepoError):
        return WeightsError(f"The Hub has disabled {repo}: use other weights.")
    if isinstance(error, errors.RepositoryNotFoundError):
        return WeightsError(f"The Hub has no repository {repo}, or it is private and HF_TOKEN must be set to a token that may read it.")
    if isinstance(error, errors.RevisionNotFoundError):
        return WeightsError(f"{repo} on the Hub has no such revision: name a branch, a tag or a commit that exists.")
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return WeightsError(f"{repo} on the Hub holds no {str(error.response.url).rsplit('/', 1)[-1]}: it is not in the format that is needed here.")
    if isinstance(error, errors.HFValidationError):
        return WeightsError(f"{repo} is not the name of a repository: write owner/name.")
    if status in (401, 403):
        return WeightsError(f"The Hub refused access to {repo} ({status}): set HF_TOKEN to a token that is allowed to do this.")
    if status is not None:
        return Unreachable(f"The Hub answered with an error for {repo} ({status}): try again later.")
    if isinstance(error, errors.OfflineModeIsEnabled):
        return Unreachable(f"HF_HUB_OFFLINE is set, so {repo} cannot be fetched.")
    if isinstance(error, OSError) and "Consistency check" in str(error):
        return WeightsError(f"The download from {repo} came out with the wrong size: try again later.")
    if isinstance(error, OSError) and error.errno and not isinstance(error, (ConnectionError, TimeoutError)):
        return WeightsError(f"What was fetched from {repo} could not be stored ({_text(error)}).")
    if isinstance(error, OSError) or type(error).__module__.startswith("http"):
        looked_up = re.search(r"Errno -[235]\b|Errno (8|11001)\b|getaddrinfo|name resolution", str(error))  # what the systems call it
        return Unreachable(f"The Hub could not be reached ({'no network, or its name is unknown' if looked_up else _text(error)}).")
    return WeightsError(f"The Hub's client could not handle {repo} ({_text(error)}).")


@contextmanager
def sentences(repo: str):
    """Whatever the Hub's client raises about `repo` inside becomes a WeightsError."""
    try:
        yield
    except WeightsError:
        raise
    except Exception as error:
        raise _explain(error, repo) from error


class _Watch:
    """What the waiting side sees of a download. Only a new high-water mark counts as life: a client that starts over again and again does not."""

    def __init__(self):
        self.done = threading.Event()
        self.since = time.monotonic()
        self.received = self.total = 0
        self.given_up = False
        self.file: Path | None = None
        self.error: BaseException | None = None

    def saw(self, received: int, total: int | None) -> None:
        if self.given_up:
            raise _GivenUp
        self.total = total or self.total
        if received > self.received:
            self.received, self.since = received, time.monotonic()

    @property
    def amount(self) -> str:
        return f"{self.received / 1e6:.1f} of {self.total / 1e6:.1f} MB"


def _silent_bar(watch: _Watch) -> type:
    """The client reports bytes to a tqdm class; this one prints nothing."""
    from tqdm.auto import tqdm

    class Bar(tqdm):
        def __init__(self, *args, **options):
            super().__init__(*args, **{**options, "disable": True})

        def update(self, n=1):
            self.n += n
            watch.saw(self.n, self.total)

    return Bar


def _download(repo: str, revision: str | None, filename: str, sha256: str | None, watch: _Watch) -> Path:
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import RemoteEntryNotFoundError

    logging.getLogger("huggingface_hub.file_download").setLevel(logging.ERROR)  # its warnings about attempts are in our one sentence
    # the client reports, and keeps, only whole chunks: at its 10 MB a slow download of a small file would look like a dead one
    constants.DOWNLOAD_CHUNK_SIZE = min(constants.DOWNLOAD_CHUNK_SIZE, CHUNK)
    # unlike a download, this question is asked once: a refused connection is an answer now, not after five attempts
    known = get_hf_file_metadata(hf_hub_url(repo, filename, revision=revision, endpoint=endpoint()), timeout=CONNECT, endpoint=endpoint())
    commit = known.commit_hash or ""
    if not re.fullmatch("[0-9a-f]{40}", commit):
        raise Unreachable("What answers in the Hub's place is not a Hub: check HF_ENDPOINT, or whether this network asks you to log in first.")
    get = partial(hf_hub_download, repo, revision=commit, endpoint=endpoint(), etag_timeout=CONNECT)
    snapshot = Path(get(CONFIG)).parent
    try:
        get(METRICS)
    except RemoteEntryNotFoundError:
        pass
    file = Path(get(filename, tqdm_class=_silent_bar(watch)))
    _check(file, sha256)
    if revision != commit:
        # fetched by commit, so the client did not note which commit the branch or tag was; the next offline start needs it
        ref = snapshot.parents[1] / "refs" / (revision or "main")
        ref.parent.mkdir(parents=True, exist_ok=True)
        ref.write_text(commit)
    return file


def fetch(repo: str, revision: str | None = None, *, filename: str = WEIGHTS, sha256: str | None = None, progress: Progress | None = None) -> Path:
    """Fetch the weights file, config.json and, if there is one, metrics.json of `repo` into the local cache; returns the weights file.

    The revision is resolved to a commit first and all files are of that commit. `sha256` is checked besides the one that the Hub announces.
    Raises WeightsError in any case within seconds after the last byte came: CONNECT without an answer, PATIENCE without a byte.
    """
    import huggingface_hub  # noqa: F401  in this thread: an import half done in another one could block here

    watch = _Watch()

    def work() -> None:
        try:
            watch.file = _download(repo, revision, filename, sha256, watch)
        except BaseException as error:  # told to the waiting side, whatever it is
            watch.error = error
        finally:
            watch.done.set()

    if progress:
        progress(0.0, f"Asking the Hub for {repo}.")
    # a daemon: looking up a name can hang beyond any time-out of the client, and must not keep the program from ending
    threading.Thread(target=work, name=f"fetch {repo}", daemon=True).start()
    try:
        while not watch.done.wait(0.1):
            if time.monotonic() - watch.since > PATIENCE:
                what = f"The download from {repo} stopped at {watch.amount}" if watch.total else "The Hub could not be reached"
                raise Unreachable(f"{what} (no answer for {PATIENCE:.0f} seconds).")
            if progress and watch.total:
                progress(min(watch.received / watch.total, 1.0), f"Fetching {repo}: {watch.amount}.")
    finally:
        watch.given_up = True
    if watch.error is None:
        return watch.file
    with sentences(repo):
        if watch.received and not isinstance(watch.error, WeightsError):
            raise Unreachable(f"The download from {repo} broke off at {watch.amount} ({_text(watch.error)}).") from watch.error
        raise watch.error


_locks: dict[str, threading.Lock] = {}
_failures: dict[str | None, tuple[float, str]] = {}  # repository, or address of the Hub -> when, and the sentence


def fetch_once(repo: str, revision: str | None = None, **options) -> Path:
    """`fetch`, unless the file is cached or a failure is remembered: several tabs wait for one download, and none for a Hub that just failed."""
    with _locks.setdefault(repo, threading.Lock()):
        if file := cached(repo, revision, **{k: options[k] for k in ("filename", "sha256") if k in options}):
            return file
        for key in (repo, endpoint()):
            when, sentence = _failures.get(key, (0.0, ""))
            if sentence and time.monotonic() - when < RETRY_AFTER:
                raise WeightsError(sentence)
        try:
            return fetch(repo, revision, **options)
        except WeightsError as error:
            _failures[endpoint() if isinstance(error, Unreachable) else repo] = (time.monotonic(), str(error))
            raise


def push(repo: str, files: dict[str, Path | bytes], *, private: bool = False, message: str = "Weights of PTTP") -> str:
    """Create `repo` if need be and commit `files` (name there -> what) to it; returns the address of the commit. Raises WeightsError."""
    from huggingface_hub import CommitOperationAdd, HfApi

    with sentences(repo):
        api = HfApi(endpoint=endpoint(), library_name="pttp")
        api.create_repo(repo, private=private or None, exist_ok=True)
        added = [CommitOperationAdd(name, what if isinstance(what, bytes) else str(what)) for name, what in files.items()]
        return str(api.create_commit(repo, added, commit_message=message).commit_url)
