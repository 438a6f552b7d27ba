"""Where a room's weights come from, whether they are right, and how they get into its network.

Every source ends as a folder in Hub format (model.safetensors, config.json, and ours: metrics.json): the embedded one is pttp/<room>/weights/.
Importing this module imports neither torch nor huggingface_hub.
"""
from __future__ import annotations

import json
import math
import os
import re
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

from pttp import hub
from pttp.errors import BadInput, WeightsError
from pttp.hub import CARD, CONFIG, METRICS, WEIGHTS, Progress
from pttp.papers import HubWeights, Paper, paper, papers

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # batch norm's buffers: stored, but not parameters


@dataclass(frozen=True)
class WeightsInfo:
    """What is known about the weights of a room.

    `source` is "embedded", "hub:owner/name@commit" or "path"; `metrics` what metrics.json beside the file says (its "headline" in one line);
    `why` is one sentence: which weights these are, and why these.
    """

    room: str
    source: str
    file: Path
    bytes: int
    sha256: str
    licence: str
    trained_on: str
    metrics: dict
    parameters: int
    why: str

    def to_dict(self) -> dict:
        return {**asdict(self), "file": str(self.file)}


@dataclass(frozen=True)
class Found:
    """Weights that can be loaded: `info`, and `config`, what config.json beside the file says ({} without one)."""

    info: WeightsInfo
    config: dict


def embedded_folder(room: str) -> Path:
    """The folder of the weights that come with the program."""
    return Path(__file__).parent / room / "weights"


def _paper(room: str) -> Paper:
    try:
        return paper(room)
    except KeyError:
        raise BadInput(f"There is no paper called {room!r}: choose one of {', '.join(p.name for p in papers())}.") from None


def home(room: str) -> HubWeights | None:
    """The room's home on the Hub: OWNER/pttp-<room> when PTTP_HUB=OWNER is set, else what its record names."""
    owner = os.environ.get("PTTP_HUB")
    stated = "as its model card states"
    return HubWeights(f"{owner}/pttp-{room}", stated, stated, stated) if owner else _paper(room).hub


def _place(room: str, source: str, file: Path) -> str:
    """Where a file lies, in words for the user; the cache's own path would help nobody."""
    return f"pttp/{room}/weights" if source == "embedded" else source if source.startswith("hub:") else str(file.parent)


def _json(file: Path, place: str) -> dict:
    try:
        value = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except (OSError, ValueError):
        value = None
    if not isinstance(value, dict):
        raise WeightsError(f"{file.name} in {place} is not a JSON object: choose other weights, or write it again.")
    return value


def _shapes(file: Path, place: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in a safetensors file, from its header."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np") as f:
            return {key: tuple(f.get_slice(key).get_shape()) for key in f.keys()}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{file.name} in {place} is not a whole safetensors file ({str(error).splitlines()[0]}): choose other weights.") from error


def _describe(room: str, file: Path, source: str, why: str, card: HubWeights | None = None) -> Found:
    place = _place(room, source, file)
    shapes = _shapes(file, place)
    measured = _json(file.with_name(METRICS), place)
    metrics = measured.get("metrics") or ({"headline": card.reported} if card else {})
    info = WeightsInfo(
        room=room,
        source=source,
        file=file,
        bytes=file.stat().st_size,
        sha256=hub.sha256_of(file),
        licence=str(measured.get("licence") or (card.licence if card else "not stated")),
        trained_on=str(measured.get("trained_on") or (card.trained_on if card else "not stated")),
        metrics=metrics if isinstance(metrics, dict) else {},
        parameters=sum(math.prod(shape) for key, shape in shapes.items() if not key.endswith(_STATISTICS)),
        why=why,
    )
    return Found(info, _json(file.with_name(CONFIG), place))


def _embedded(room: str, why: str) -> Found:
    file = embedded_folder(room) / WEIGHTS
    if not file.is_file():
        raise WeightsError(f"{_paper(room).short} has no embedded weights yet: name others with hub:owner/name or a path.")
    return _describe(room, file, "embedded", why)


def _on_hub(room: str, repo: str, file: Path, card: HubWeights | None, how: str) -> Found:
    commit = file.parent.name
    return _describe(room, file, f"hub:{repo}@{commit}", f"Hub weights {repo}, {how}.", card)


def _because(error: WeightsError) -> str:
    text = str(error)
    return "Embedded weights: " + (text[0].lower() + text[1:] if text.startswith(("The ", "What ")) else text)


def _auto(room: str, progress: Progress | None) -> Found:
    card = home(room)
    if card is None:
        return _embedded(room, "Embedded weights: they come with the program and need no network.")
    pin = {"filename": card.filename, "sha256": card.sha256}
    try:
        if file := hub.cached(card.repo, card.revision, **pin):
            return _on_hub(room, card.repo, file, card, "from the local cache")
        if hub.offline():
            raise WeightsError(f"HF_HUB_OFFLINE is set and {card.repo} is not in the local cache.")
        file = hub.fetch_once(card.repo, card.revision, progress=progress, **pin)
        return _on_hub(room, card.repo, file, card, "fetched from the Hub")
    except WeightsError as error:
        return _instead(room, error)


def _instead(room: str, error: WeightsError) -> Found:
    """The embedded weights, because of `error`."""
    try:
        return _embedded(room, _because(error))
    except WeightsError as none:
        raise WeightsError(f"{str(error).rstrip('.')}; and {none}") from error


def _asked_hub(room: str, source: str, progress: Progress | None) -> Found:
    repo, revision = hub.parse(source)
    card = _paper(room).hub
    card = card if card and card.repo == repo else None
    known = card and revision in (None, card.revision)
    pin = {"filename": card.filename if card else WEIGHTS, "sha256": card.sha256 if known else None}
    revision = card.revision if known else revision
    file = hub.cached(repo, revision, **pin)
    if hub.offline() and not file:
        raise WeightsError(f"HF_HUB_OFFLINE is set and {repo} is not in the local cache: unset it, or choose other weights.")
    if file and (hub.offline() or file.parent.name == revision):
        return _on_hub(room, repo, file, card, "as asked, from the local cache")
    try:
        return _on_hub(room, repo, hub.fetch(repo, revision, progress=progress, **pin), card, "as asked")
    except hub.Unreachable as error:
        if not file:
            raise
        return _on_hub(room, repo, file, card, f"from the local cache, and perhaps not the newest: {error}".rstrip("."))


def _at(room: str, path: Path) -> Found:
    try:
        file = path / WEIGHTS if path.is_dir() else path
        there = file.is_file()
    except OSError:  # a name that no file can have
        file, there = path, False
    if not there:
        hint = f": write hub:{path} if you mean a repository on the Hub" if re.fullmatch(r"[\w.-]+/[\w.-]+", str(path)) else ""
        raise WeightsError(f"There is no file {file}{hint}.")
    if file.suffix != ".safetensors":
        raise WeightsError(f"{file} is not a .safetensors file, and no other kind is opened here.")
    return _describe(room, file, "path", f"Weights from {file}, as asked.")


def find(room: str, source: str | Path = "auto", *, progress: Progress | None = None) -> Found:
    """The weights of `room` (the name of a paper) that `source` means, fetched if need be and checked.

    "auto": those of the room's home on the Hub (see `home`) if they are in the local cache; else fetched once, unless HF_HUB_OFFLINE is set; in
    every other case the embedded ones, and `info.why` tells the reason. "embedded"; "hub:owner/name[@revision]"; or a path: a .safetensors file, or
    a folder in Hub format. `progress(fraction in [0, 1], sentence)` is called, in the caller's thread, while something is fetched.

    A path opens any safetensors file that this process may read: never pass on what a visitor wrote.
    Raises BadInput for an unknown room, WeightsError when there are no such weights; a failure of the Hub takes less than ten seconds.
    """
    _paper(room)
    if source == "auto":
        return _auto(room, progress)
    if source == "embedded":
        return _embedded(room, "Embedded weights, as asked.")
    if str(source).startswith("hub:"):
        return _asked_hub(room, str(source), progress)
    return _at(room, Path(source).expanduser())


def misfits(missing: list[str], unexpected: list[str], reshaped: list[str]) -> str:
    """What keeps a table of tensors from being loaded strictly, by how many and the first three names, as part of a sentence; empty when it fits."""
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": reshaped}
    return "; ".join(f"{what}: {len(names)} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" for what, names in problems.items() if names)


def load_into(module, found: Found) -> None:
    """Load the file into `module` (an nn.Module), strictly: every name and shape must agree; values are cast to the module's own types.

    Raises WeightsError that names missing and unexpected keys and shapes that differ, or says that the file is not whole.
    """
    from safetensors.torch import load_file

    info, wanted = found.info, module.state_dict()
    place = _place(info.room, info.source, info.file)
    shapes = _shapes(info.file, place)
    # files from before torch counted batches lack the counters; torch itself fills them in
    missing = [k for k in wanted if k not in shapes and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in shapes if k not in wanted]
    differing = [f"{k} is {shapes[k]}, not {tuple(v.shape)}" for k, v in wanted.items() if k in shapes and shapes[k] != tuple(v.shape)]
    if told := misfits(missing, unexpected, differing):
        raise WeightsError(f"{info.file.name} in {place} does not fit this {info.room} network: {told}.")
    try:
        module.load_state_dict(load_file(info.file), strict=True)
    except (OSError, RuntimeError) as error:
        raise WeightsError(f"{info.file.name} in {place} could not be loaded ({str(error).splitlines()[0]}).") from error


def device(gradients: bool = False):
    """The torch.device that predictors run on: cuda, else mps where it has what they need (see `serves`), else cpu."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() and serves("mps", gradients) else "cpu")


@cache
def serves(kind: str, gradients: bool = False) -> bool:
    """Whether this PyTorch has on the device `kind` what the rooms compute with, and with `gradients` the way back, too: for Apple's GPU it grew from
    release to release. Tried, because no list of releases says it."""
    import torch
    from torch.nn import functional as F

    with torch.enable_grad():
        try:
            x = torch.ones(1, 1, 4, 4, device=kind, requires_grad=gradients)
            made = [F.interpolate(x, size=(3, 3), mode=mode, antialias=True) for mode in ("bilinear", "bicubic")]
            made += [F.grid_sample(x, torch.zeros(1, 2, 2, 2, device=kind), padding_mode="border", align_corners=False), F.adaptive_avg_pool2d(x, 3)]
            rows = torch.zeros(1, 2, dtype=torch.long, device=kind)
            made.append(F.embedding_bag(rows, x.flatten(0, 2), per_sample_weights=torch.ones(1, 2, device=kind), mode="sum"))
            if gradients:
                sum(y.sum() for y in made).backward()
        except RuntimeError:  # NotImplementedError is one
            return False
    return True


def model_card(info: WeightsInfo) -> str:
    """README.md for the Hub: the model card beside the weights, or a short one, with the front matter that the Hub reads."""
    from huggingface_hub import ModelCardData

    beside = [f for f in (info.file.with_name(CARD), info.file.with_name("README.md")) if f.is_file()]
    card = _paper(info.room)
    text = f"# {card.short}\n\n{card.title} ({card.venue}).\n\nTrained on: {info.trained_on}.\nLicence: {info.licence}.\nTaken from: {info.source}.\n"
    if beside:
        text = beside[0].read_text(encoding="utf-8")
    if text.startswith("---"):
        return text
    named = bool(re.fullmatch(r"[\w.-]+", info.licence))
    slug = re.sub(r"[^a-z0-9]+", "-", info.licence.lower()).strip("-")
    terms = {"license": info.licence.lower()} if named else {"license": "other", "license_name": slug}
    data = ModelCardData(library_name="pttp", tags=["pttp", info.room, "model_hub_mixin", "pytorch_model_hub_mixin"], **terms)
    return f"---\n{data.to_yaml()}\n---\n\n{text}"


@cache
def hub_class(network: type) -> type:
    """`network` (a class of nn.Module) with the ecosystem's from_pretrained, save_pretrained and push_to_hub: PyTorchModelHubMixin.

    `hub_class(GhostNet).from_pretrained("owner/name")` loads with strict=True unless told otherwise.
    """
    from huggingface_hub import PyTorchModelHubMixin

    class OnHub(network, PyTorchModelHubMixin, library_name="pttp", tags=["pttp"]):
        _weights_info: WeightsInfo | None = None

        @classmethod
        def _from_pretrained(cls, *, strict: bool = True, **options):
            return super()._from_pretrained(strict=strict, **options)

        def _save_pretrained(self, save_directory: Path) -> None:
            super()._save_pretrained(save_directory)
            if self._weights_info:
                info = self._weights_info
                told = _json(info.file.with_name(METRICS), str(info.file.parent)) or {k: getattr(info, k) for k in ("licence", "trained_on", "metrics")}
                (save_directory / METRICS).write_text(json.dumps(told, indent=2), encoding="utf-8")
                (save_directory / "README.md").write_text(model_card(info), encoding="utf-8")

    OnHub.__name__ = OnHub.__qualname__ = network.__name__
    OnHub.__module__ = network.__module__
    return OnHub


@contextmanager
def _config_fits(found: Found):
    try:
        yield
    except WeightsError:
        raise
    except Exception as error:
        what, info = f"{type(error).__name__}: {error}".splitlines()[0], found.info
        place = _place(info.room, info.source, info.file)
        raise WeightsError(f"{CONFIG} in {place} does not describe a {info.room} network that can be built ({what}).") from error


class Pretrained:
    """Base of every room's Predictor: a network with its weights.

    After construction: `net` (in eval mode, on `device`), `config` (what config.json said), `weights` (WeightsInfo), `device`.
    """

    room: str
    gradients = False  # whether answering goes back through the network

    @staticmethod
    def build(config: dict):
        """The network that `config` describes, with any weights."""
        raise NotImplementedError

    def ready(self) -> None:
        """Called when the weights are loaded."""

    def __init__(self, found: Found):
        with _config_fits(found):
            net = self.build(found.config)
        load_into(net, found)
        self.device = device(self.gradients)
        self.config = found.config
        self.weights = replace(found.info, parameters=sum(p.numel() for p in net.parameters()))
        # the network stays the class that its paper's model.py defines, and gains push_to_hub and its sisters
        net.__class__ = hub_class(type(net))
        net._hub_mixin_config, net._weights_info = self.config, self.weights
        self.net = net.to(self.device).eval()
        with _config_fits(found):
            self.ready()

    @classmethod
    def from_pretrained(cls, source: str | Path = "auto", *, progress: Progress | None = None):
        """The predictor with the weights that `source` means (see `find`); "auto" ends with the embedded ones whatever is wrong on the Hub.

        Raises WeightsError.
        """
        found = find(cls.room, source, progress=progress)
        try:
            return cls(found)
        except WeightsError as error:
            if source != "auto" or found.info.source == "embedded":
                raise
            return cls(_instead(cls.room, error))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write model.safetensors (float32), config.json, metrics.json and README.md (the model card) to `folder`."""
        self.net.save_pretrained(folder)

    def push_to_hub(self, repo_id: str, **options) -> str:
        """Save to the repository `repo_id` ("owner/name") on the Hub, created if need be; returns the address of the commit.

        `options` are those of PyTorchModelHubMixin.push_to_hub (private, token, branch, ...). Raises WeightsError.
        """
        with hub.sentences(repo_id):
            return str(self.net.push_to_hub(repo_id, **options))


def push(room: str, repo: str, *, private: bool = False) -> str:
    """Publish the embedded weights of `room`, as they are, in the repository `repo` ("owner/name"); returns the address of the commit. Raises WeightsError."""
    info = _embedded(room, "").info
    files: dict[str, Path | bytes] = {"README.md": model_card(info).encode()}
    files |= {name: file for name in (WEIGHTS, CONFIG, METRICS) if (file := info.file.with_name(name)).is_file()}
    return hub.push(repo, files, private=private, message=f"{_paper(room).short}: embedded weights of PTTP")
