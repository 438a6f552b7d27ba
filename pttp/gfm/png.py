"""PNG files of 16 bits a channel with colours and alpha, which Pillow cannot write."""
from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from pttp.errors import BadInput

ROWS = 256  # compressed at a time: a phone's photo has 96 MB of them
UP = 2  # PNG's name of the filter that writes each byte as the difference to the one above


def deep(pixels: NDArray[np.uint16]) -> bytes:
    """The file of `pixels` (H, W) grey or (H, W, 4) RGBA, uint16. Raises BadInput for any other array."""
    if pixels.dtype != np.uint16 or not (pixels.ndim == 2 or pixels.ndim == 3 and pixels.shape[2] == 4) or not pixels.size:
        raise BadInput(f"A 16-bit PNG is made of an (H, W) or (H, W, 4) array of uint16, not of {pixels.shape} {pixels.dtype}.")
    h, w = pixels.shape[:2]
    packer, data = zlib.compressobj(4), bytearray()
    above = np.zeros((1, w * (pixels.size // (h * w)) * 2), np.uint8)
    for first in range(0, h, ROWS):
        rows = np.ascontiguousarray(pixels[first : first + ROWS], ">u2").view(np.uint8).reshape(-1, above.shape[1])
        lines = np.full((len(rows), above.shape[1] + 1), UP, np.uint8)
        lines[:, 1:] = rows - np.concatenate([above, rows[:-1]])
        data += packer.compress(lines)
        above = rows[-1:]
    data += packer.flush()
    header = struct.pack(">IIBBBBB", w, h, 16, 0 if pixels.ndim == 2 else 6, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"sRGB", b"\0"), (b"IDAT", bytes(data)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(x)) + name + x + struct.pack(">I", zlib.crc32(name + x)) for name, x in chunks)
