"""Hide a message or a link in any picture, and read it back from pictures, crops and camera frames."""
from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from pttp import images, weights
from pttp.errors import BadImage, BadInput, NoStampFound, WeightsError
from pttp.stegastamp import links, message, reading, tune
from pttp.stegastamp.detect import CENTRE_STRIDE, find_quads
from pttp.stegastamp.model import SMALLEST, StegaStamp
from pttp.stegastamp.watch import Track, Watch

STRENGTHS = (0.3, 2.0)
QUADS = 4  # in one picture


@dataclass(frozen=True)
class Stamp:
    """A stamped picture.

    `image` RGB or RGBA, of the original's size; `residual` (H, W, 3) float32, what was added (`strength` times the network's, in units of [0, 1]); `message`
    what is in the picture, `link` the address that it stands for or None; `bits` (100,) uint8; `psnr` in dB; `verified`: our own decoder reads it back.
    """

    image: Image.Image
    residual: np.ndarray
    message: str
    link: str | None
    bits: np.ndarray
    strength: float
    psnr: float
    verified: bool

    def to_dict(self) -> dict:
        return {
            "message": self.message,
            "link": self.link,
            "bits": "".join(map(str, self.bits.tolist())),
            "strength": self.strength,
            "psnr": round(self.psnr, 2),
            "verified": self.verified,
            "width": self.image.width,
            "height": self.image.height,
        }


@dataclass(frozen=True)
class Reading:
    """What a stamp says. `bits` (100,) uint8 after repair, `probabilities` (100,) as the network gave them; `corrected` bits were repaired; `confidence` in
    [0, 1]; `rotation` 0, 90, 180 or 270 degrees clockwise; `quad` (4, 2) pixels, clockwise from the stamp's own top left; `link` is what the registry holds
    for the message, or None."""

    message: str
    link: str | None
    bits: np.ndarray
    probabilities: np.ndarray
    confidence: float
    corrected: int
    rotation: int
    quad: np.ndarray

    def to_dict(self) -> dict:
        return {
            "message": self.message,
            "link": self.link,
            "bits": "".join(map(str, self.bits.tolist())),
            "confidence": round(self.confidence, 4),
            "corrected": self.corrected,
            "rotation": self.rotation,
            "quad": self.quad.round(1).tolist(),
        }


class Predictor(weights.Pretrained):
    """`encode`, `decode`, `find`, `scan`; `watch()` for a video. `net` is the plain network, `form` its inference form, which answers. `links` is the registry behind links (`$PTTP_LINKS`)."""

    room = "stegastamp"
    gradients = True  # see tune.py

    @staticmethod
    def build(config: dict) -> StegaStamp:
        keys = ("size", "bits", "locator_grid", "detector")
        return StegaStamp(**{k: config[k] for k in keys if k in config})

    def ready(self) -> None:
        from pttp.stegastamp.fast import inference_form

        if self.net.n_bits != message.BITS:
            raise WeightsError(f"These weights hide {self.net.n_bits} bits, and a message is made of {message.BITS}: choose others.")
        self.form = inference_form(self.net)

    @cached_property
    def links(self) -> links.Links:
        return links.Links()

    def encode(self, image: images.Picture, text: str, strength: float = 1.0, steps: int = tune.STEPS) -> Stamp:
        """Hide `text`, up to seven bytes of UTF-8 or an http(s) link of any length, in a picture; alpha is kept.

        The residual is computed at the network's size and brought to the picture's own (section 3 of the paper works at one size only). `strength` 0.3 to 2
        scales it. `steps` of tune.py fit it to this picture; 0 is the paper's single pass. Raises BadImage, MessageTooLong and BadInput.
        """
        check(text, strength)
        picture = images.read(image, alpha=True)
        if min(picture.size) < SMALLEST:
            raise BadImage(f"This picture is {picture.width} x {picture.height}: a stamp needs at least {SMALLEST} pixels each way.")
        alpha = picture.getchannel("A")
        if alpha.getextrema()[1] == 0:
            raise BadImage("This picture is fully transparent: there is nothing to stamp.")
        code, link = self.code(text)
        bits = message.pack(code)
        plain = reading.tensor(picture.convert("RGB"), self.device)
        residual = self.residual(plain, bits, strength, steps)
        stamped, psnr = _added(plain, residual)
        del plain  # of a large photo 12 bytes a pixel, while it is read back
        out = Image.fromarray(stamped)
        if alpha.getextrema()[0] < 255:
            out.putalpha(alpha)
        return Stamp(out, residual.permute(1, 2, 0).cpu().numpy(), code, link, bits, float(strength), psnr, self.reads_back(out, code))

    def reads_back(self, image: images.Picture, text: str) -> bool:
        """Whether a stamped picture, as it is (transparent parts laid on white), says `text`. Raises BadImage."""
        seen = images.read(image)
        return any(r.message == text for r in self._read(seen, reading.whole(*seen.size)[None]))

    def code(self, text: str) -> tuple[str, str | None]:
        """What goes into the picture, and the link that it stands for: a text that begins like an address goes into the registry."""
        if link := check(text):
            return self.links.put(link), link
        return text.rstrip(" "), None

    def residual(self, plain: Tensor, bits: np.ndarray, strength: float = 1.0, steps: int = tune.STEPS) -> Tensor:
        """What is added to a picture (3, H, W) in [0, 1] to say `bits` (100,), at the picture's own size."""
        size, (h, w) = self.form.size, plain.shape[1:]
        with torch.inference_mode():
            small = F.interpolate(plain[None], size=(size, size), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
            residual = strength * self.form.encoder(small, torch.from_numpy(bits)[None].float().to(self.device))
        residual = tune.tuned(self.net.decoder, small, residual, bits, strength, steps)
        with torch.inference_mode():
            return F.interpolate(residual, size=(h, w), mode="bicubic", antialias=min(h, w) < size, align_corners=False)[0]

    def decode(self, image: images.Picture) -> Reading:
        """Read the stamp of a picture that is one, shows one or is part of one, in any of the four rotations.

        Tried in turn: the whole picture, what the detector finds, and windows inside and around it. Raises BadImage, and NoStampFound.
        """
        return self.decode_all(image)[0]

    def decode_all(self, image: images.Picture) -> list[Reading]:
        """Every stamp that `decode` comes upon, the surest first: more than one where the detector finds more. Raises BadImage, and NoStampFound."""
        if found := self._search(_large_enough(images.read(image))):
            return found
        raise NoStampFound("No stamp can be read here: show the whole stamped picture, sharp, evenly lit and as large as you can.")

    def _search(self, picture: Image.Image) -> list[Reading]:
        if found := self._read(picture, reading.whole(*picture.size)[None]):
            return found
        array = np.asarray(picture)
        if found := self._read(picture, self.find(array), refine=True):
            return found
        pixels = reading.tensor(picture, self.device)
        looks = reading.looks(self.form, pixels, np.concatenate([reading.whole(*picture.size)[None], reading.windows(*picture.size)]), lenient=False)
        looks.sort(key=lambda look: (look.payload is not None, reading.clarity(look.logits).max()), reverse=True)
        return self._readings(looks[:1] if looks[0].payload else [reading.refined(self.form, pixels, look) for look in looks[:2]])

    def find(self, frame: images.Picture) -> list[np.ndarray]:
        """Where stamps may be: quads (4, 2) in pixels, as seen, clockwise from the top left (only reading one tells which corner is the stamp's own first).

        Raises BadImage, and NoStampFound for a frame that is too small.
        """
        picture = _large_enough(images.read(frame))
        if self.form.detector is None:
            return []
        return [found.quad for found in find_quads(self.form.detector, np.array(picture), most=QUADS)]

    def scan(self, frame: images.Picture) -> list[Reading]:
        """Find, rectify and decode: every stamp that can be read in a frame, the surest first. Raises BadImage, and NoStampFound for a frame that is too small."""
        picture = _large_enough(images.read(frame))
        return self._read(picture, self.find(np.asarray(picture)), refine=True)

    def look(self, frame: np.ndarray, refine: int = 1) -> list[reading.Look]:
        """Every quad of a frame (H, W, 3) uint8, read or not; the `refine` clearest unread ones get a round of corner moves. For `Watch`."""
        quads = self.find(frame)
        if not quads:
            return []
        pixels = reading.tensor(frame, self.device)
        looks = reading.looks(self.form, pixels, np.stack(quads), lenient=False)
        looks.sort(key=lambda look: (look.payload is not None, reading.clarity(look.logits).max()), reverse=True)
        unread = [i for i, look in enumerate(looks) if not look.payload][:refine]
        for i in unread:
            looks[i] = reading.refined(self.form, pixels, looks[i], reading.STEPS[:1])
        return looks

    def watch(self) -> Watch:
        """A fresh memory for one video: `watch.add(predictor.look(frame), seconds)` -> tracks; `tracked` makes a Reading of one whose code has verified."""
        return Watch()

    def tracked(self, track: Track) -> Reading | None:
        """The reading of a track, or None while its code does not verify."""
        return self._reading(track.payload, track.votes[track.turns], track.rotation, track.own_quad) if track.payload else None

    def _read(self, picture: Image.Image, quads, refine: bool = False) -> list[Reading]:
        if not len(quads):
            return []
        pixels = reading.tensor(picture, self.device)
        looks = reading.looks(self.form, pixels, np.stack(list(quads)), lenient=not refine)
        return self._readings([reading.refined(self.form, pixels, look) if refine else look for look in looks])

    def _readings(self, looks: list[reading.Look]) -> list[Reading]:
        found = [self._reading(x.payload, x.logits[x.turns], x.rotation, x.own_quad) for x in looks if x.payload]
        return sorted(found, key=lambda r: r.confidence, reverse=True)

    def _reading(self, payload: message.Payload, logits: np.ndarray, rotation: int, quad: np.ndarray) -> Reading:
        link = self.links.get(payload.message) if links.is_code(payload.message) else None
        p = reading.probabilities(logits).astype(np.float32)
        return Reading(payload.message, link, payload.bits, p, payload.confidence, payload.corrected, rotation, quad.astype(np.float32))


def check(text: str, strength: float = 1.0) -> str | None:
    """The link that `text` is, or None where it is a message of its own. Raises MessageTooLong and BadInput for what cannot be hidden."""
    if not STRENGTHS[0] <= strength <= STRENGTHS[1]:
        raise BadInput(f"`strength` must lie between {STRENGTHS[0]} and {STRENGTHS[1]:g}, not {strength:g}.")
    if text.strip().lower().startswith(("http:", "https:")):
        return links.check_link(text)
    if len(text.encode("utf-8", "surrogatepass")) > message.BYTES and links.is_link("https://" + text.strip()) and "." in text:
        raise message.MessageTooLong(f"This message takes {len(text.encode())} bytes and a stamp holds {message.BYTES}: if it is a link, begin it with https://.")
    message.pack(text)
    return None


def _large_enough(picture: Image.Image) -> Image.Image:
    """`picture`, if it has at least one cell of the detector each way. Raises NoStampFound."""
    if min(picture.size) < CENTRE_STRIDE:
        raise NoStampFound(f"This picture is too small to hold a stamp: it is {picture.width} x {picture.height}, and {CENTRE_STRIDE} pixels each way are the least.")
    return picture


def _added(plain: Tensor, residual: Tensor, rows: int = 256) -> tuple[np.ndarray, float]:
    """Picture plus residual, both (3, H, W), as (H, W, 3) uint8, and its PSNR; a band of `rows` at a time, because phones take photos of 48 megapixels."""
    out, squares = np.empty((*plain.shape[1:], 3), np.uint8), 0.0
    for before, added, band in zip(plain.split(rows, 1), residual.split(rows, 1), np.split(out, range(rows, len(out), rows)), strict=True):
        after = ((before + added).clamp(0, 1) * 255).round()
        band[:] = after.byte().permute(1, 2, 0).cpu().numpy()
        squares += float((after / 255 - before).square().sum(dtype=torch.float32))
    return out, float(-10 * np.log10(max(squares / plain.numel(), 1e-10)))
