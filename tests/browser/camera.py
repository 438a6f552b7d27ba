"""What a fake camera sees: a picture that moves, tilts and turns in a room, as the raw video that Chromium takes in place of a camera."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from pttp.stegastamp.study import onto

RATE = 20  # frames a second
FLAGS = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")


def frames(picture: Image.Image | None, room: Image.Image, size: tuple[int, int], seconds: float, share: float = 0.6) -> Iterator[Image.Image]:
    """`picture` with about `share` of the frame's height, in front of `room`; it comes back to where it began, because the video loops. None: only the room."""
    width, height = size
    room = room.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    count = round(seconds * RATE)
    for i in range(count):
        phase = 2 * np.pi * i / count
        light = 1 + 0.08 * np.sin(phase) + 0.15 * (np.linspace(-1, 1, width) * np.cos(phase))[None, :, None]
        seen = room if picture is None else onto(picture.convert("RGB"), quad(picture.size, size, phase, share), size, room)
        pixels = np.asarray(seen, np.float32) * light
        yield Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def quad(picture: tuple[int, int], size: tuple[int, int], phase: float, share: float) -> np.ndarray:
    """Where the corners of a picture of `picture` pixels are at `phase`: a pinhole camera in front of a card that tilts up to 25 degrees about both axes."""
    half = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * np.array(picture) / max(picture) / 2
    tilt_x, tilt_y, roll = 0.44 * np.sin(phase), 0.44 * np.cos(phase), 0.12 * np.sin(phase + 1)
    x, y = (half @ np.array([[np.cos(roll), np.sin(roll)], [-np.sin(roll), np.cos(roll)]])).T
    z = x * np.sin(tilt_y) + y * np.cos(tilt_y) * np.sin(tilt_x)
    x, y = x * np.cos(tilt_y), y * np.cos(tilt_x)
    seen = np.stack([x, y], 1) * (2.5 / (2.5 + z))[:, None]
    shift = np.array([0.08 * size[0] * np.sin(phase), 0.03 * size[1] * np.cos(phase)])
    return seen * share * size[1] * max(picture) / picture[1] + np.array(size) / 2 + shift


def write(path: Path, pictures: Iterator[Image.Image]) -> Path:
    """The frames as .y4m, 4:2:0, BT.601, 16 to 235."""
    with path.open("wb") as file:
        for i, picture in enumerate(pictures):
            if i == 0:
                file.write(f"YUV4MPEG2 W{picture.width} H{picture.height} F{RATE}:1 Ip A1:1 C420jpeg\n".encode())
            r, g, b = np.moveaxis(np.asarray(picture, np.float32) / 255, -1, 0)
            luma = 16 + 65.481 * r + 128.553 * g + 24.966 * b
            chroma = (128 - 37.797 * r - 74.203 * g + 112 * b, 128 + 112 * r - 93.786 * g - 18.214 * b)
            planes = [luma, *(c.reshape(c.shape[0] // 2, 2, c.shape[1] // 2, 2).mean((1, 3)) for c in chroma)]
            file.write(b"FRAME\n" + b"".join(np.rint(p).astype(np.uint8).tobytes() for p in planes))
    return path
