"""Pictures in and out, safely: every picture that a person, a page or a script hands in comes through `read`.

A file is judged by its first bytes, never by its name, and only the decoder of that one format runs. The size in the header is checked before
anything is decoded. What comes out is always 8 bit, upright, sRGB, and free of metadata.
"""
from __future__ import annotations

import io
import os
import re
import secrets
import stat
from collections.abc import Iterable
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageCms

from pttp.errors import BadImage, BadInput

Picture = str | os.PathLike | Image.Image | np.ndarray  # an array is (H, W, 3) uint8 RGB

MAX_PIXELS = 64_000_000  # a 48-megapixel phone photo passes
SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".gif", ".apng", ".bmp", ".tif", ".tiff", ".avif")  # what a folder is searched for
_WRITERS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_SIGNATURES = (  # Pillow's name of the format, offset, first bytes
    ("PNG", 0, (b"\x89PNG\r\n\x1a\n",)),
    ("JPEG", 0, (b"\xff\xd8\xff",)),
    ("WEBP", 8, (b"WEBP",)),
    ("GIF", 0, (b"GIF87a", b"GIF89a")),
    ("TIFF", 0, (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    ("AVIF", 4, (b"ftypavif", b"ftypavis")),
    ("BMP", 0, (b"BM",)),
)
_TURNS = {  # EXIF orientation -> what makes it upright; ImageOps.exif_transpose would also rewrite the EXIF block, and fail on odd ones
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TEXT_BYTES = bytes({7, 8, 9, 10, 12, 13, 27} | set(range(0x20, 0x100)) - {0x7F})


def read(picture: Picture | bytes | BinaryIO, *, alpha: bool = False, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The picture as a new RGB image, 8 bit, upright (EXIF orientation applied), in sRGB; with `alpha=True` as RGBA.

    `picture` is a path, a PIL image, an (H, W, 3) uint8 RGB array, the bytes of a file, or a binary file object. Formats: PNG, JPEG (and MPO), WebP,
    GIF, BMP, TIFF, AVIF; of several frames or pages the first. Without `alpha`, a transparent picture is laid on white. Samples of more than 8 bits
    are scaled, not clipped; floating-point ones are taken as [0, 1], else [0, 255], else [0, 65535], whichever holds them, else stretched to their range.

    Raises BadImage when it is not a picture, is cut short or damaged, or has more than `max_pixels` pixels (judged before decoding).
    """
    if isinstance(picture, np.ndarray):
        return _result(Image.fromarray(_checked(picture, max_pixels)), alpha)
    if isinstance(picture, Image.Image):
        with _decoding("This image"):
            return _result(_upright(picture, max_pixels), alpha)
    with _stream(picture) as stream:
        with _decoding("This file"):
            name = _format(stream)
        with _decoding(f"This {name} file"), Image.open(stream, formats=(name,)) as image:
            return _result(_upright(image, max_pixels), alpha)


def to_array(picture: Picture | bytes | BinaryIO) -> np.ndarray:
    """The picture as a new (H, W, 3) uint8 RGB array; see `read`."""
    return np.array(read(picture))


def fit(picture: Picture | bytes | BinaryIO, longest: int) -> Image.Image:
    """The picture as RGB, shrunk so that its longer side is at most `longest` pixels; never enlarged. Raises BadImage, and BadInput for `longest` < 1."""
    if longest < 1:
        raise BadInput(f"`longest` must be at least 1 pixel, not {longest}.")
    image = read(picture)
    scale = longest / max(image.size)
    return image if scale >= 1 else image.resize(tuple(max(1, round(side * scale)) for side in image.size), Image.Resampling.LANCZOS)


def files(paths: Iterable[str | os.PathLike]) -> list[Path]:
    """Files as given, and in place of each folder the picture files in it and below, sorted; names that begin with a dot are passed over.

    A file that is given is not judged here (`read` does that). Raises BadInput when nothing is found, and for an empty name, which a shell makes of a variable that is not set.
    """
    found = []
    for given in paths:
        if not os.fspath(given):
            raise BadInput("One of the pictures has an empty name: give a picture file or a folder.")
        if not os.path.isdir(given):
            found.append(Path(given))
            continue
        inside = []
        for folder, folders, names in os.walk(given):
            folders[:] = [name for name in folders if not name.startswith(".")]
            inside += [Path(folder, name) for name in names if name.lower().endswith(SUFFIXES) and not name.startswith(".")]
        found += sorted(inside)
    if not found:
        raise BadInput("There is no picture to work on: give a picture file, or a folder that holds PNG, JPEG, WebP, GIF, BMP, TIFF or AVIF files.")
    return found


def save(image: Image.Image, path: str | os.PathLike, quality: int = 92) -> Path:
    """Write `image` as the suffix of `path` says, .png, .jpg, .jpeg or .webp, and give the path back.

    The file appears whole or not at all: it is written beside its place and then renamed. JPEG has no transparency, so that an RGBA image is laid on
    white. `quality` 1 to 100 is for JPEG and WebP. Raises BadInput for another suffix or quality, a folder that is not there, or a disk that refuses.
    """
    path = place(path)
    kind = _WRITERS[path.suffix.lower()]
    if not 1 <= quality <= 100:
        raise BadInput(f"`quality` must lie between 1 and 100, not {quality}.")
    if kind == "JPEG" and image.mode not in ("L", "RGB"):
        image = _result(image, alpha=False)
    with _whole(path) as stream:
        image.save(stream, kind, **({} if kind == "PNG" else {"quality": quality}))
    return path


def write_text(text: str, path: str | os.PathLike) -> Path:
    """Write `text` as UTF-8, whole or not at all as `save` does, and give the path back. Raises BadInput for a disk that refuses."""
    path = place(path, ())
    with _whole(path) as stream:
        stream.write(text.encode())
    return path


def make_folder(path: str | os.PathLike) -> Path:
    """Make the folder `path`, and those that it lies in, where they are not there yet, and give it back. Raises BadInput for a disk that refuses."""
    try:
        os.makedirs(path, exist_ok=True)
    except (OSError, ValueError) as error:
        raise BadInput(f"The folder {_short(path)} could not be made ({_reason(error)}): choose another place.") from error
    return Path(path)


def place(path: str | os.PathLike, suffixes: tuple[str, ...] = (".png", ".jpg", ".webp")) -> Path:
    """`path`, if a file can be written there as far as one can tell beforehand: its name ends in one of `suffixes` (.jpeg is .jpg; () takes any), and its folder
    is there and open to us. Raises BadInput otherwise. What takes long asks before it starts."""
    path = Path(path)
    if suffixes and path.suffix.lower().replace(".jpeg", ".jpg") not in suffixes:
        endings = " or ".join(suffixes).replace(" or ", ", ", len(suffixes) - 2)
        raise BadInput(f"{_short(path.name)} cannot be written: end the name in {endings}.")
    if not os.path.isdir(path.parent):
        raise BadInput(f"There is no folder {_short(path.parent)}: make it first, or choose another place.")
    if os.path.isdir(path):
        raise BadInput(f"{_short(path)} is a folder: give the name of a file.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise BadInput(f"{_short(path)} could not be written (its folder is read-only): choose another place.")
    return path


@contextmanager
def _whole(path: Path):
    """A binary stream into a file beside `path`, which is renamed to it in the end."""
    partial = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with open(partial, "xb") as stream:
            yield stream
        os.replace(partial, path)
    except (OSError, ValueError) as error:
        raise BadInput(f"{_short(path)} could not be written ({_reason(error)}): choose another place or format.") from error
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _stream(picture):
    """The seekable binary stream of a path, of bytes or of a file object; only what is opened here is closed here."""
    if picture is None:
        raise BadImage("There is no picture yet: choose one.")
    if isinstance(picture, (bytes, bytearray, memoryview)):
        yield io.BytesIO(picture)
    elif isinstance(picture, (str, os.PathLike)):
        with _file(os.fsdecode(picture)) as stream:
            yield stream
    elif hasattr(picture, "read"):
        try:
            picture.seek(0)
        except (AttributeError, OSError):  # a pipe; io.UnsupportedOperation is an OSError
            picture = io.BytesIO(_binary(picture.read()))
        yield picture
    else:
        raise BadImage(f"A {type(picture).__name__} is not a picture: give a path, a PIL image or an (H, W, 3) uint8 array.")


def _file(path: str) -> BinaryIO:
    if re.match(r"\s*(https?|ftps?|file|s3|gs|blob):/|\s*data:", path, re.IGNORECASE):
        raise BadImage(f"Links are not followed: download the picture first and give the file, not {_short(path)}.")
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise BadImage(f"{_short(path)} is a folder: give a picture file in it.")
        if not stat.S_ISREG(mode):  # opening a named pipe would wait for ever
            raise BadImage(f"{_short(path)} is not an ordinary file: copy the picture into a file first.")
        return open(path, "rb")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadImage(f"There is no file {_short(path)}: check its name and folder.") from error
    except (OSError, ValueError) as error:
        raise BadImage(f"{_short(path)} cannot be opened ({_reason(error)}): check its name and rights.") from error


def _binary(content) -> bytes:
    if not isinstance(content, bytes):
        raise BadImage('This file was opened as text: open it with mode "rb".')
    return content


def _format(stream: BinaryIO) -> str:
    """Pillow's name of the format that the first bytes announce."""
    head = _binary(stream.read(1024))
    stream.seek(0)
    if not head:
        raise BadImage("This file is empty (0 bytes): save or download it again.")
    for name, offset, signatures in _SIGNATURES:
        if head[offset:].startswith(signatures):
            return name
    raise BadImage(f"This is {_stranger(head)}, not a picture that can be read here: save it as PNG or JPEG first.")


def _stranger(head: bytes) -> str:
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith(b"%pdf"):
        return "a PDF document"
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page (HTML)"
    if b"<svg" in start:
        return "an SVG drawing"
    if start[4:8] == b"ftyp" and start[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1"):
        return "a HEIC photo"
    return "a file of another kind" if head.translate(None, _TEXT_BYTES) else "text"


@contextmanager
def _decoding(what: str):
    try:
        yield
    except BadImage:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:  # Pillow's own limit speaks before ours can
        raise BadImage(f"{what} has far too many pixels: shrink it first.") from error
    except MemoryError as error:
        raise BadImage(f"{what} needs more memory than there is: shrink it first.") from error
    except Exception as error:  # bytes from anywhere: decoders answer damage with struct.error, KeyError, SyntaxError and whatever else
        raise BadImage(f"{what} is cut short, damaged or of a rare kind: save or download it again, as PNG or JPEG.") from error


def _allow(size: tuple[int, int], max_pixels: int) -> None:
    pixels = size[0] * size[1]
    if not pixels:
        raise BadImage("This picture has no pixels: choose another one.")
    if pixels > max_pixels:
        raise BadImage(f"This picture has {pixels / 1e6:.1f} megapixels, and at most {max_pixels / 1e6:g} are read: shrink it first.")


def _checked(array: np.ndarray, max_pixels: int) -> np.ndarray:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise BadImage("This array holds NaN or infinite values: give (H, W, 3) RGB values of 0 to 255 as uint8.")
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise BadImage(f"This array is {array.shape} {array.dtype}: give (H, W, 3) RGB values of 0 to 255 as uint8.")
    _allow(array.shape[:2], max_pixels)
    return np.ascontiguousarray(array)


def _upright(image: Image.Image, max_pixels: int) -> Image.Image:
    _allow(image.size, max_pixels)
    image.load()
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # damaged metadata must not cost the picture
        turn = None
    return image if turn is None else image.transpose(turn)


def _result(image: Image.Image, alpha: bool) -> Image.Image:
    """Any mode to RGB, or RGBA, without metadata: a second `read` then finds nothing to apply again."""
    colours, opacity = _deep(image) if image.mode.startswith(("I", "F")) else _parts(image)
    result = _srgb(colours, image.info.get("icc_profile"))
    if alpha:
        result.putalpha(255 if opacity is None else opacity)
    elif opacity is not None:
        on_white = Image.new("RGB", result.size, "white")
        on_white.paste(result, mask=opacity)
        result = on_white
    result.info = {}
    return result


def _parts(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Colours in a mode that a profile can speak of, and opacity (L) where there is any."""
    if image.has_transparency_data:
        rgba = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
        return rgba.convert("RGB"), rgba.getchannel("A")
    if image.mode in ("L", "RGB", "CMYK", "LAB"):
        return image, None
    return image.convert("L" if image.mode == "1" else "RGB"), None


def _deep(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Samples of 16 or 32 bits, or floating point, scaled to 8 bit (L); opacity (L) where one of the greys is declared transparent."""
    values = np.asarray(image)
    if not np.isfinite(values).all():
        raise BadImage("This picture holds NaN or infinite values: replace them, or save it with 8 or 16 bits a channel.")
    key = image.info.get("transparency")
    opacity = Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)) if isinstance(key, int) else None
    if image.mode.startswith("I;16"):
        grey = ((np.arange(65536) * 255 + 32767) // 65535).astype(np.uint8)[values]
    else:
        low, high = float(values.min()), float(values.max())
        ranges = [top for top in (1.0, 255.0, 65535.0) if high <= top and not (top == 1 and image.mode == "I")] if low >= 0 else []
        start, span = (0.0, ranges[0]) if ranges else (low, high - low or 1.0)
        grey = np.rint((values.astype(np.float32) - start) * (255 / span)).clip(0, 255).astype(np.uint8)
    return Image.fromarray(grey), opacity


@cache
def _profile(name: str):
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(name))


@cache
def _probe() -> Image.Image:
    """729 colours, all over the RGB cube."""
    levels = np.linspace(0, 255, 9).astype(np.uint8)
    return Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), -1).reshape(27, 27, 3))


def _changes(transform) -> bool:
    return int(np.ptp([np.asarray(_probe(), np.int16), np.asarray(ImageCms.applyTransform(_probe(), transform), np.int16)], axis=0).max()) > 2


def _srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """L, RGB, CMYK or LAB to a new RGB image in sRGB; a profile that is damaged or made for another mode is ignored."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile)) if profile else _profile("LAB") if image.mode == "LAB" else None
        if source is not None:
            transform = ImageCms.buildTransform(source, _profile("sRGB"), image.mode, "RGB")
            # most profiles are sRGB under one of its many names: 729 colours tell, and spare a second for 12 megapixels
            if image.mode != "RGB" or _changes(transform):
                return ImageCms.applyTransform(image, transform)
    except (ImageCms.PyCMSError, ImportError, OSError, TypeError, ValueError):
        pass
    return image.convert("RGB")


def _reason(error: Exception) -> object:
    return getattr(error, "strerror", None) or error


def _short(path: str | os.PathLike) -> str:
    text = repr(os.fspath(path))
    return text if len(text) <= 120 else f"{text[:116]}...'"
