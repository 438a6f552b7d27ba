"""Picture files, good and bad, as people hand them in: made here, byte by byte where no writer would make them.

`make(folder)` writes them all (about a second, little memory) and gives the cases back; `NAMES` is known without writing anything, for parametrize.
The good ones show the four quadrants of `scene()` unless their `pixels` say otherwise.
"""
from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, features

RED, GREEN, BLUE, GREY, WHITE = (200, 40, 40), (40, 180, 60), (50, 70, 200), (128, 128, 128), (255, 255, 255)
WIDTH, HEIGHT = 64, 48
LEFT_TOP, RIGHT_TOP, LEFT_BOTTOM, RIGHT_BOTTOM = (12, 8), (52, 8), (12, 40), (52, 40)
QUADRANTS = {LEFT_TOP: RED, RIGHT_TOP: GREEN, LEFT_BOTTOM: BLUE, RIGHT_BOTTOM: GREY}
OTHER_KIND, DAMAGED, TOO_LARGE = "not a picture that can be read here", "cut short, damaged or of a rare kind", "shrink it first"


@dataclass(frozen=True)
class Case:
    """A file and what reading it must give.

    `ok`: it is a picture of `size` (w, h) whose RGB values at `pixels` {(x, y): (r, g, b)} are met within `tolerance`.
    Otherwise it is refused with a sentence that holds `words`.
    """

    name: str
    path: Path
    ok: bool
    words: str = ""
    size: tuple[int, int] = (0, 0)
    pixels: dict = field(default_factory=dict)
    tolerance: int = 0

    @property
    def is_file(self) -> bool:
        """False for the missing file, which cannot be uploaded."""
        return self.path.is_file()


@dataclass(frozen=True)
class _Entry:
    file: str
    content: Callable[[], bytes] | None  # None: there is no such file
    ok: bool
    words: str
    size: tuple[int, int]
    pixels: dict
    tolerance: int


_entries: dict[str, _Entry] = {}


def make(folder: Path) -> list[Case]:
    """Write every file of the corpus into `folder`."""
    cases = []
    for name, entry in _entries.items():
        path = Path(folder, entry.file)
        if entry.content is not None:
            path.write_bytes(entry.content())
        cases.append(Case(name, path, entry.ok, entry.words, entry.size, entry.pixels, entry.tolerance))
    return cases


def _good(file: str, content: Callable, size=(WIDTH, HEIGHT), pixels=None, tolerance: int = 0, name: str | None = None) -> None:
    _entries[name or file] = _Entry(file, content, True, "", size, QUADRANTS if pixels is None else pixels, tolerance)


def _bad(file: str, content: Callable, words: str, name: str | None = None) -> None:
    _entries[name or file] = _Entry(file, content, False, words, (0, 0), {}, 0)


def scene() -> Image.Image:
    """64 x 48: red, green / blue, grey."""
    array = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    for (x, y), colour in QUADRANTS.items():
        array[y // 24 * 24 : y // 24 * 24 + 24, x // 32 * 32 : x // 32 * 32 + 32] = colour
    return Image.fromarray(array)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def halves(left, right, dtype) -> np.ndarray:
    """(48, 64[, c]) array: one value on the left, another on the right."""
    left, right = np.asarray(left, dtype), np.asarray(right, dtype)
    array = np.empty((HEIGHT, WIDTH, *left.shape), dtype)
    array[:, :32], array[:, 32:] = left, right
    return array


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, pixels: bytes, extra: bytes = b"") -> bytes:
    """A PNG file of `pixels`, a zlib stream of scan lines with their filter bytes; the header says what it is told, true or not."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def squeezed_zeros(length: int) -> bytes:
    """A zlib stream of `length` zeros, made without ever holding them: one squeezed megabyte, repeated."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    megabyte = squeeze.compress(bytes(1 << 20)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    rest = squeeze.compress(bytes(length % (1 << 20))) + squeeze.flush()
    return b"\x78\x9c" + megabyte * (length >> 20) + rest + struct.pack(">HH", length % 65521, 1)


BLACK = squeezed_zeros((WIDTH * 3 + 1) * HEIGHT)  # the pixels of a small RGB picture


def _png16(array: np.ndarray, colour: int, extra: bytes = b"") -> bytes:
    return png(WIDTH, HEIGHT, 16, colour, zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)), extra)


def _palette(transparent: bool) -> bytes:
    indices = np.zeros((HEIGHT, WIDTH), np.uint8)
    for i, (x, y) in enumerate(QUADRANTS):
        indices[y // 24 * 24 : y // 24 * 24 + 24, x // 32 * 32 : x // 32 * 32 + 32] = i
    image = Image.fromarray(indices, "L")
    image.putpalette(sum(map(list, QUADRANTS.values()), []))
    # red opaque, green clear, blue half
    return encoded(image, "PNG", transparency=bytes([255, 0, 128, 255])) if transparent else encoded(image, "PNG")


def _rgba() -> Image.Image:
    image = scene().convert("RGBA")
    image.putalpha(Image.fromarray(halves(255, 0, np.uint8)))
    return image


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


_STORED = {  # what a camera stores so that the orientation tag makes it upright again
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def stored(orientation: int) -> Image.Image:
    how = _STORED[orientation]
    return scene() if how is None else scene().transpose(how)


def swapped_profile() -> bytes:
    """An sRGB profile whose red and green primaries have changed places: what is red in the file is green to look at."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile.replace(b"rXYZ", b"____").replace(b"gXYZ", b"rXYZ").replace(b"____", b"gXYZ")


def _adobe_cmyk() -> bytes:
    """CMYK as Photoshop writes it: stored inverted, with an Adobe marker that says so (Pillow itself writes exactly this)."""
    return encoded(_cmyk(), "JPEG", quality=95)


def _cmyk() -> Image.Image:
    # cyan ink 0.8 on the left; black ink 0.5 on the right
    return Image.fromarray(halves((204, 0, 0, 0), (0, 0, 0, 128), np.uint8), "CMYK")


def _animated(kind: str, **options) -> bytes:
    others = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ("black", "yellow")]
    return encoded(scene(), kind, save_all=True, append_images=others, duration=80, **options)


def _transparent_gif() -> bytes:
    image = Image.fromarray(halves(0, 1, np.uint8), "L")
    image.putpalette([*RED, *BLUE])
    return encoded(image, "GIF", transparency=1)


GREY16 = {LEFT_TOP: (64, 64, 64), RIGHT_TOP: (200, 200, 200)}  # 64 * 257 and 200 * 257 in 16 bits
_grey16 = lambda dtype="<u2": halves(64 * 257, 200 * 257, dtype)  # noqa: E731
DARK16 = {LEFT_TOP: (1, 1, 1), RIGHT_TOP: (4, 4, 4)}  # dim, far above 255: a reader that clips makes it white
TWO = {LEFT_TOP: (0, 0, 0), RIGHT_TOP: WHITE}
ON_WHITE = {LEFT_TOP: RED, RIGHT_TOP: WHITE, LEFT_BOTTOM: BLUE, RIGHT_BOTTOM: WHITE}

_good("plain.png", lambda: encoded(scene(), "PNG"))
_good("palette.png", lambda: _palette(False))
_good("palette_transparent.png", lambda: _palette(True), pixels={LEFT_TOP: RED, RIGHT_TOP: WHITE, LEFT_BOTTOM: (152, 162, 227), RIGHT_BOTTOM: GREY}, tolerance=1)
_good("rgba.png", lambda: encoded(_rgba(), "PNG"), pixels=ON_WHITE)
_good("grey.png", lambda: encoded(Image.fromarray(halves(64, 200, np.uint8)), "PNG"), pixels=GREY16)
_good("grey_alpha.png", lambda: encoded(Image.fromarray(halves((64, 255), (10, 0), np.uint8), "LA"), "PNG"), pixels={LEFT_TOP: (64, 64, 64), RIGHT_TOP: WHITE})
_good("one_bit.png", lambda: encoded(Image.fromarray(halves(0, 255, np.uint8)).convert("1"), "PNG"), pixels=TWO)
_good("colour_key.png", lambda: encoded(scene(), "PNG", transparency=GREEN), pixels={LEFT_TOP: RED, RIGHT_TOP: WHITE, LEFT_BOTTOM: BLUE})
_good("grey16.png", lambda: _png16(_grey16(), 0), pixels=GREY16)
_good("grey16_dark.png", lambda: _png16(halves(257, 4 * 257, np.uint16), 0), pixels=DARK16)
_good("grey16_colour_key.png", lambda: _png16(_grey16(), 0, chunk(b"tRNS", struct.pack(">H", 200 * 257))), pixels={LEFT_TOP: (64, 64, 64), RIGHT_TOP: WHITE})
_good("rgb16.png", lambda: _png16(halves(np.array(RED) * 257, np.array(BLUE) * 257, np.uint16), 2), pixels={LEFT_TOP: RED, RIGHT_TOP: BLUE})
_good("rgba16.png", lambda: _png16(halves((*(257 * c for c in RED), 65535), (0, 0, 0, 0), np.uint16), 6), pixels={LEFT_TOP: RED, RIGHT_TOP: WHITE})
_good("animated.png", lambda: _animated("PNG"))
_good("text_in_it.png", lambda: png(WIDTH, HEIGHT, 8, 2, BLACK, chunk(b"tEXt", b"Comment\0hello")), pixels={LEFT_TOP: (0, 0, 0)})
_good("profile.png", lambda: encoded(scene(), "PNG", icc_profile=swapped_profile()), pixels={LEFT_TOP: (40, 200, 40), RIGHT_TOP: (180, 40, 60), RIGHT_BOTTOM: GREY}, tolerance=2)
_good("profile_rgba.png", lambda: encoded(_rgba(), "PNG", icc_profile=swapped_profile()), pixels={LEFT_TOP: (40, 200, 40), RIGHT_TOP: WHITE}, tolerance=2)
_good("profile_broken.png", lambda: encoded(scene(), "PNG", icc_profile=b"not a profile at all" * 10))
_good("profile_of_other_mode.png", lambda: encoded(scene().convert("L"), "PNG", icc_profile=swapped_profile()), pixels={RIGHT_BOTTOM: GREY})
_good("plain.jpg", lambda: encoded(scene(), "JPEG", quality=95), tolerance=4)
_good("progressive.jpg", lambda: encoded(scene(), "JPEG", quality=95, progressive=True), tolerance=4)
_good("grey.jpg", lambda: encoded(Image.fromarray(halves(64, 200, np.uint8)), "JPEG", quality=95), pixels=GREY16, tolerance=2)
_good("cmyk_adobe.jpg", _adobe_cmyk, pixels={LEFT_TOP: (51, 255, 255), RIGHT_TOP: (127, 127, 127)}, tolerance=3)
for _n in range(1, 9):
    _good(f"exif{_n}.jpg", lambda n=_n: encoded(stored(n), "JPEG", quality=95, exif=_exif(n)), tolerance=4)
_good("exif6.png", lambda: encoded(stored(6), "PNG", exif=_exif(6)))
_good("exif8.webp", lambda: encoded(stored(8), "WEBP", lossless=True, exif=_exif(8)))
_good("exif5.tif", lambda: encoded(stored(5), "TIFF", exif=_exif(5)))
_good("exif_nonsense.jpg", lambda: encoded(scene(), "JPEG", quality=95, exif=b"Exif\0\0II*\0\xff\xff\xff\x7f" + b"\xff" * 40), tolerance=4)
_good("stereo.mpo", lambda: encoded(scene(), "MPO", quality=95, save_all=True, append_images=[Image.new("RGB", (WIDTH, HEIGHT))]), tolerance=4)
_good("stereo_called.jpg", lambda: encoded(scene(), "MPO", quality=95, save_all=True, append_images=[Image.new("RGB", (WIDTH, HEIGHT))]), tolerance=4)
_good("animated.gif", lambda: _animated("GIF"))
_good("transparent.gif", _transparent_gif, pixels={LEFT_TOP: RED, RIGHT_TOP: WHITE})
_good("animated.webp", lambda: _animated("WEBP", lossless=True))
_good("alpha.webp", lambda: encoded(_rgba(), "WEBP", lossless=True), pixels=ON_WHITE)
_good("plain.bmp", lambda: encoded(scene(), "BMP"))
_good("plain.tif", lambda: encoded(scene(), "TIFF", compression="tiff_lzw"))
_good("pages.tiff", lambda: encoded(scene(), "TIFF", save_all=True, append_images=[Image.new("RGB", (9, 9))]))
_good("cmyk.tif", lambda: encoded(_cmyk(), "TIFF"), pixels={LEFT_TOP: (51, 255, 255), RIGHT_TOP: (127, 127, 127)}, tolerance=1)
_good("lab.tif", lambda: encoded(Image.merge("LAB", [Image.new("L", (WIDTH, HEIGHT), v) for v in (137, 128, 128)]), "TIFF"), pixels={LEFT_TOP: GREY}, tolerance=3)
_good("grey16.tif", lambda: encoded(Image.fromarray(_grey16()), "TIFF"), pixels=GREY16)
_good("grey16_big_endian.tif", lambda: encoded(Image.fromarray(_grey16(">u2")), "TIFF"), pixels=GREY16)
_good("grey32.tif", lambda: encoded(Image.fromarray(_grey16("<i4")), "TIFF"), pixels=GREY16)
_good("float01.tif", lambda: encoded(Image.fromarray(halves(0.25, 1.0, np.float32)), "TIFF"), pixels={LEFT_TOP: (64, 64, 64), RIGHT_TOP: WHITE})
_good("float255.tif", lambda: encoded(Image.fromarray(halves(64.2, 199.6, np.float32)), "TIFF"), pixels=GREY16)
_good("float_heights.tif", lambda: encoded(Image.fromarray(halves(-400.0, 8848.0, np.float32)), "TIFF"), pixels=TWO)
if features.check("avif"):
    _good("plain.avif", lambda: encoded(scene(), "AVIF", quality=95), tolerance=6)
_good("one_pixel.png", lambda: encoded(Image.new("RGB", (1, 1), RED), "PNG"), size=(1, 1), pixels={(0, 0): RED})
_good("wide.png", lambda: encoded(Image.new("RGB", (10000, 1), RED), "PNG"), size=(10000, 1), pixels={(9999, 0): RED})
_good("tall.jpg", lambda: encoded(Image.new("RGB", (1, 10000), RED), "JPEG", quality=95), size=(1, 10000), pixels={(0, 9999): RED}, tolerance=4)
_good("żółw 日本 écran 🦁.png", lambda: encoded(scene(), "PNG"), name="not_ascii.png")
_good("really a jpeg.png", lambda: encoded(scene(), "JPEG", quality=95), tolerance=4)
_good("SHOUTING.JPG", lambda: encoded(scene(), "JPEG", quality=95), tolerance=4)
_good("photo_48_megapixels.jpg", lambda: encoded(Image.new("RGB", (8000, 6000), BLUE), "JPEG"), size=(8000, 6000), pixels={(7999, 5999): BLUE}, tolerance=4)


def _half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _noise(kind: str, **options) -> bytes:
    """Half a file of a picture that does not compress, so that the cut goes through the pixels."""
    array = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    return _half(encoded(Image.fromarray(array), kind, **options))


def _patched(content: bytes, at: int, form: str, *values: int) -> bytes:
    return content[:at] + struct.pack(form, *values) + content[at + struct.calcsize(form) :]


def _lying_jpeg() -> bytes:
    content = encoded(scene(), "JPEG")
    return _patched(content, content.index(b"\xff\xc0") + 5, ">HH", 65500, 65500)


def _lying_tiff() -> bytes:
    content = encoded(scene(), "TIFF")
    for tag in (256, 257):
        at = content.index(struct.pack("<HHI", tag, 4, 1))
        content = _patched(content, at + 8, "<I", 100_000)
    return content


def _lying_webp() -> bytes:
    content = encoded(scene(), "WEBP", lossless=True)
    return _patched(content, content.index(b"VP8L") + 9, "<I", 16382 | 16382 << 14)


SVG = b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><image href="file:///etc/passwd"/></svg>'
_bad("empty.png", lambda: b"", "empty (0 bytes)")
_bad("text.png", lambda: b"I am a photo, I promise.\n" * 9, f"text, {OTHER_KIND}")
_bad("drawing.svg", lambda: SVG, f"SVG drawing, {OTHER_KIND}")
_bad("drawing.png", lambda: SVG, f"SVG drawing, {OTHER_KIND}")
_bad("page.jpg", lambda: b"<!DOCTYPE html>\n<html><body><svg></svg>Not found</body></html>", f"web page (HTML), {OTHER_KIND}")
_bad("paper.pdf", lambda: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n", f"PDF document, {OTHER_KIND}")
_bad("phone.heic", lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40), f"HEIC photo, {OTHER_KIND}")
_bad("script.eps", lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n", OTHER_KIND)
_bad("archive.png", lambda: b"PK\x03\x04" + bytes(60), f"file of another kind, {OTHER_KIND}")
_bad("portable.ppm", lambda: encoded(scene(), "PPM"), OTHER_KIND)
_bad("icon.ico", lambda: encoded(scene(), "ICO"), OTHER_KIND)
_bad("missing.png", None, "There is no file")
for _kind, _suffix, _options in (
    ("PNG", "png", {}),
    ("JPEG", "jpg", {}),
    ("JPEG", "progressive.jpg", {"progressive": True}),
    ("GIF", "gif", {}),
    ("WEBP", "webp", {}),
    ("BMP", "bmp", {}),
    ("TIFF", "tif", {}),
    ("TIFF", "lzw.tif", {"compression": "tiff_lzw"}),
) + ((("AVIF", "avif", {}),) if features.check("avif") else ()):
    _bad(f"half.{_suffix}", lambda k=_kind, o=_options: _noise(k, **o), DAMAGED)
_bad("signature_only.png", lambda: b"\x89PNG\r\n\x1a\n", DAMAGED)
_bad("start_only.jpg", lambda: b"\xff\xd8\xff\xe0", DAMAGED)
_bad("header_checksum.png", lambda: _patched(encoded(scene(), "PNG"), 29, ">I", 0), DAMAGED)
_bad("pixels_overwritten.png", lambda: (c := encoded(scene(), "PNG"))[:50] + b"\x55" * 30 + c[80:], DAMAGED)
_bad("nan.tif", lambda: encoded(Image.fromarray(halves(0.5, np.nan, np.float32)), "TIFF"), "NaN")
_bad("bomb_100_megapixels.png", lambda: png(10_000, 10_000, 8, 2, squeezed_zeros(30_001 * 10_000)), TOO_LARGE)
_bad("bomb_200_megapixels.png", lambda: png(20_000, 10_000, 8, 0, squeezed_zeros(20_001 * 10_000)), TOO_LARGE)
_bad("bomb_header_huge.png", lambda: png(2**31 - 1, 2**31 - 1, 8, 6, BLACK), TOO_LARGE)
_bad("bomb_header_too_large_for_its_data.png", lambda: png(7900, 8000, 8, 2, BLACK), DAMAGED)
_bad("bomb_text.png", lambda: png(WIDTH, HEIGHT, 8, 2, BLACK, chunk(b"zTXt", b"Comment\0\0" + squeezed_zeros(200_000_000))), DAMAGED)
_bad("bomb_profile.png", lambda: png(WIDTH, HEIGHT, 8, 2, BLACK, chunk(b"iCCP", b"name\0\0" + squeezed_zeros(200_000_000))), DAMAGED)
_bad("bomb.jpg", _lying_jpeg, TOO_LARGE)
_bad("bomb.gif", lambda: _patched(encoded(scene(), "GIF"), 6, "<HH", 65535, 65535), TOO_LARGE)
_bad("bomb.bmp", lambda: _patched(encoded(scene(), "BMP"), 18, "<ii", 30_000, 30_000), TOO_LARGE)
_bad("bomb.tif", _lying_tiff, TOO_LARGE)
_bad("bomb.webp", _lying_webp, TOO_LARGE)
# a header that lies small over a mass of pixels: a picture, as long as nobody unfolds the rest
_good("bomb_header_too_small_for_its_data.png", lambda: png(WIDTH, HEIGHT, 8, 2, squeezed_zeros(100_000_000)), pixels={LEFT_TOP: (0, 0, 0)})

NAMES = tuple(_entries)
GOOD = tuple(name for name, entry in _entries.items() if entry.ok)
BAD = tuple(name for name, entry in _entries.items() if not entry.ok)
BOMBS = tuple(name for name in NAMES if name.startswith("bomb"))
