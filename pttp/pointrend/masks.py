"""What one does with a mask: COCO's run lengths, polygons, SVG, a cut-out. Masks are bool (H, W)."""
from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Mask = NDArray[np.bool_]
TOLERANCE = 0.6  # pixels that a polygon may cut off


def runs(mask: Mask) -> NDArray[np.int64]:
    """Lengths of the runs, column by column, beginning with zeros (so the first may be 0): COCO's uncompressed form."""
    flat = mask.flatten(order="F")
    edges = np.flatnonzero(np.diff(flat, prepend=False))  # the first run is one of zeros
    return np.diff(edges, prepend=0, append=flat.size)


def rle(mask: Mask) -> dict:
    """COCO's compressed run lengths, {"size": [height, width], "counts": text}, as pycocotools reads them.

    Each length (from the fourth on: its difference to the one two before) is written in groups of five bits, low ones first, with a sixth that says "more".
    """
    lengths = runs(mask)
    lengths[3:] -= lengths[1:-2].copy()
    text = []
    for value in lengths.tolist():
        more = True
        while more:
            low, value = value & 31, value >> 5
            more = value != (-1 if low & 16 else 0)
            text.append(chr(low + 32 * more + 48))
    return {"size": list(mask.shape), "counts": "".join(text)}


def bounding_box(mask: Mask) -> tuple[int, int, int, int]:
    """(x0, y0, x1, y1), x1 and y1 exclusive; all 0 for an empty mask."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1) if len(rows) else (0, 0, 0, 0)


def polygons(mask: Mask, tolerance: float = TOLERANCE) -> list[NDArray[np.float64]]:
    """Outlines as closed polygons (N, 2) of (x, y), holes included: pixel i covers i .. i + 1, outlines pass through the middles of the border's pixels' edges."""
    from skimage import measure

    x0, y0, x1, y1 = bounding_box(mask)
    inside = np.pad(mask[y0:y1, x0:x1], 1).astype(np.uint8)
    found = [measure.approximate_polygon(line, tolerance) for line in measure.find_contours(inside, 0.5)]
    return [line[:-1, ::-1] + (x0 - 0.5, y0 - 0.5) for line in found if len(line) > 3]


def path(mask: Mask) -> str:
    """The outlines as the "d" of one SVG path in the picture's own pixels; to be filled by the even-odd rule, because of holes."""
    return " ".join("M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in line) + " Z" for line in polygons(mask))


def svg(masks: Iterable[tuple[Mask, str, str]], shape: tuple[int, int]) -> str:
    """One drawing of (mask, label, colour) of a picture of `shape` (height, width)."""
    h, w = shape
    paths = "".join(f'<path fill="{colour}" fill-opacity="0.6" fill-rule="evenodd" d="{path(mask)}"><title>{html.escape(label)}</title></path>' for mask, label, colour in masks)
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {w} {h}">{paths}</svg>\n'


def coco(masks: Iterable[tuple[Mask, str, float]], shape: tuple[int, int], classes: Sequence[str], file_name: str = "photo") -> dict:
    """COCO's annotation file of one picture of `shape` (height, width) with (mask, label, score)."""
    annotations = []
    for i, (mask, label, score) in enumerate(masks):
        x0, y0, x1, y1 = bounding_box(mask)
        told = {"id": i + 1, "image_id": 1, "category_id": classes.index(label) + 1, "segmentation": rle(mask), "area": int(np.count_nonzero(mask)), "bbox": [x0, y0, x1 - x0, y1 - y0]}
        annotations.append({**told, "iscrowd": 0, "score": round(score, 4)})
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(classes)]
    return {"images": [{"id": 1, "width": shape[1], "height": shape[0], "file_name": file_name}], "categories": categories, "annotations": annotations}


def cutout(image: NDArray[np.uint8], mask: Mask) -> Image.Image:
    """RGBA of the mask's bounding box: what lies outside of the mask is transparent. The whole picture, all transparent, for an empty mask."""
    x0, y0, x1, y1 = bounding_box(mask)
    where = (slice(y0, y1), slice(x0, x1)) if x1 else (slice(None), slice(None))
    made = Image.fromarray(np.ascontiguousarray(image[where]))
    made.putalpha(Image.fromarray(mask[where].astype(np.uint8) * 255))
    return made
