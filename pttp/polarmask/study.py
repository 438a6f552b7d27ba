"""What the "look inside" view shows: rays of any mask, what they can reach, one ray moved by hand, where the network sees good centres, what a shape loses.

Everything is in pixels (x, y) of one picture, the middle of a pixel has whole numbers; masks are bool (H, W).
"""
from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from pttp.errors import BadInput
from pttp.polarmask import polar, targets
from pttp.polarmask.session import PolarInstance, Session

FEWEST, MOST = 4, 72
COUNTS = (4, 6, 8, 12, 18, 24, 36, 48, 60, 72)
SHAPES = ("ring", "crescent", "letter U", "flower", "cat that sits")
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Rays:
    """A mask as the paper describes it: `center` (2,), `rays` (N,), `contour` (N, 2) inside of the picture, `filled` (H, W), the polygon through them; `iou` of
    that with the mask; `centerness` of these rays."""

    center: NDArray[np.float32]
    rays: NDArray[np.float32]
    contour: NDArray[np.float32]
    filled: Mask
    iou: float
    centerness: float


def mask_of(corners: Sequence[Sequence[float]], size: tuple[int, int]) -> Mask:
    """The outline that a person clicked, corner by corner, as a mask of `size` (height, width). Raises BadInput if it covers (nearly) nothing."""
    if len(corners) < 3:
        raise BadInput(f"An outline needs at least three corners, this one has {len(corners)}: click the next one.")
    mask = targets.rasterise([[v + 0.5 for corner in corners for v in corner]], *size)
    if np.count_nonzero(mask) < 16:
        raise BadInput("This outline encloses nearly nothing: set its corners farther apart.")
    return mask


def covered(instances: Sequence[PolarInstance]) -> Mask:
    """The pixels of at least one of these objects, of which there must be one. One mask after the other: of a large photo a hundred would take gigabytes."""
    mask = np.zeros(instances[0].size, bool)
    for one in instances:
        mask |= one.mask
    return mask


def mass(mask: Mask, rim: NDArray[np.int64]) -> tuple[int, int]:
    """The centre of mass (x, y) of what the contour `rim` encloses, or the deepest pixel of `mask` where that is not on the object."""
    x, y = targets.center(rim)
    if not mask[y, x]:
        at = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1].argmax()
        x, y = int(at % mask.shape[1]), int(at // mask.shape[1])
    return x, y


def describe(mask: Mask, count: int = 36, center: Sequence[float] | None = None) -> Rays:
    """A mask by `count` rays, as in training: from `center` (default: see `mass`), the farthest contour pixel in each ray's degree. Raises BadInput for an
    empty mask and a `count` that is not FEWEST to MOST."""
    return _described(mask, _rim(mask), count, center)


def _rim(mask: Mask) -> NDArray[np.int64]:
    rim = targets.contour(mask)
    if rim is None:
        raise BadInput("This mask is empty: click an object, or draw an outline.")
    return rim


def _described(mask: Mask, rim: NDArray[np.int64], count: int, center: Sequence[float] | None = None) -> Rays:
    if not FEWEST <= count <= MOST:
        raise BadInput(f"The number of rays goes from {FEWEST} to {MOST}, not {count}.")
    at = np.asarray(center if center is not None else mass(mask, rim), np.float32)
    lengths = targets.rays(torch.from_numpy(at)[None], torch.from_numpy(rim), count)[0]
    return of_rays(at, lengths.numpy(), mask)


def of_rays(center: NDArray[np.float32], rays: NDArray[np.float32], mask: Mask) -> Rays:
    """Rays (N,) from `center` compared with a `mask`."""
    lengths = torch.from_numpy(np.asarray(rays, np.float32))[None]
    contour = polar.contours(torch.from_numpy(np.asarray(center, np.float32))[None], lengths, mask.shape)[0].numpy()
    filled = polar.fill(contour.round(), mask.shape)
    shared, either = np.count_nonzero(filled & mask), np.count_nonzero(filled | mask)
    return Rays(np.asarray(center, np.float32), lengths[0].numpy(), contour, filled, shared / max(1, either), float(polar.centerness(lengths.clamp(min=1e-6))[0]))


def bound(mask: Mask, counts: Sequence[int] = COUNTS) -> list[tuple[int, float]]:
    """What the true rays reach, for each number of rays: IoU of the polygon with the mask. The upper bound of any network that answers so."""
    rim = _rim(mask)
    center = mass(mask, rim)
    return [(count, _described(mask, rim, count, center).iou) for count in counts]


@dataclass(frozen=True)
class Edit:
    """The network's rays after a person moved some: `rays` (N,), `contour` (N, 2); `polar_iou` and `mask_iou` with the network's own."""

    rays: NDArray[np.float32]
    contour: NDArray[np.float32]
    polar_iou: float
    mask_iou: float


def edit(instance: PolarInstance, moved: dict[int, float]) -> Edit:
    """Give the rays `moved` {number: length in pixels} of an answer other lengths. Raises BadInput for a ray that is not there or a length below 0."""
    rays = instance.rays.copy()
    for number, length in moved.items():
        if not 0 <= number < len(rays):
            raise BadInput(f"There is no ray {number}: choose 0 to {len(rays) - 1}.")
        if not 0 <= length < 1e6:
            raise BadInput(f"A ray is 0 or more pixels long, not {length:g}.")
        rays[number] = length
    at = torch.from_numpy(np.asarray(instance.center, np.float32))[None]
    ends = polar.contours(at, torch.from_numpy(rays)[None], instance.size)[0].numpy()
    still = ~np.isin(np.arange(len(rays)), list(moved))
    ends[still] = instance.contour[still]  # to the last digit: computed anew they may fall on another pixel
    mask, edited = instance.mask, polar.fill(ends.round(), instance.size)
    overlap = np.count_nonzero(mask & edited) / max(1, np.count_nonzero(mask | edited))
    iou = float(polar.polar_iou(torch.from_numpy(rays)[None], torch.from_numpy(instance.rays)[None])[0])
    return Edit(rays, ends, iou, overlap)


def nearest_ray(instance: PolarInstance, point: Sequence[float]) -> tuple[int, float]:
    """The ray that points at `point`, and how long it must be to end there."""
    dx, dy = np.asarray(point, float) - instance.center
    turn = len(instance.rays) / (2 * np.pi)
    return int(round(np.arctan2(dx, dy) * turn)) % len(instance.rays), float(np.hypot(dx, dy))


@dataclass(frozen=True)
class Heat:
    """What the cells of one level say: `values` (h, w) in [0, 1], which cover `shape` (height, width) of the picture; its `stride` in the network's picture."""

    values: NDArray[np.float32]
    stride: int
    shape: tuple[int, int]

    def over(self, size: tuple[int, int]) -> NDArray[np.float32]:
        """Bilinear, at `size` (height, width): a value stands where its cell looks."""
        at = [(np.arange(n) + 0.5) * (whole / n) for n, whole in zip(size, self.shape)]
        rows, columns = ((a - self.stride // 2) / self.stride for a in at)
        grid = np.meshgrid(rows, columns, indexing="ij")
        return ndimage.map_coordinates(self.values, grid, order=1, mode="nearest").astype(np.float32)


def heats(session: Session, what: str = "centerness") -> list[Heat]:
    """`what` the cells say, level by level: "centerness" (polar centerness), "object" (how sure they are of an object; with our weights the polar IoU that they
    expect) or "score" (both, and the class: what suppression ranks by)."""
    maps = session.maps
    quality, center = maps.quality[0].sigmoid(), maps.centerness[0].sigmoid()
    best = maps.classes[0].sigmoid().amax(1)
    kinds = {"centerness": center, "object": quality, "score": (best * quality * center).pow(1 / 3)}
    if what not in kinds:
        raise BadInput(f"Choose one of {', '.join(kinds)}, not {what!r}.")
    parts = kinds[what].split([h * w for h, w in maps.sizes])
    return [Heat(part.view(size).float().cpu().numpy(), stride, session.size) for part, size, stride in zip(parts, maps.sizes, maps.strides)]


@dataclass(frozen=True)
class Loss:
    """What rays make of a shape: `told`; `right`, `added` (inside of the polygon, not of the object: bays and holes) and `lost` (other parts), pixels;
    `crossings` (N,): how often each ray crosses the border. More than one, and it has to choose: the farthest wins."""

    told: Rays
    right: int
    added: int
    lost: int
    crossings: NDArray[np.int64]


def loss(mask: Mask, count: int = 36) -> Loss:
    """What is lost when `mask` is described by `count` rays. Raises BadInput as `describe`."""
    told = describe(mask, count)
    steps = np.arange(0, float(np.hypot(*mask.shape)), 0.5)
    angle = np.arange(count) * 2 * np.pi / count
    x = np.rint(told.center[0] + steps * np.sin(angle)[:, None]).astype(int)
    y = np.rint(told.center[1] + steps * np.cos(angle)[:, None]).astype(int)
    inside = (x >= 0) & (x < mask.shape[1]) & (y >= 0) & (y < mask.shape[0])
    on = np.zeros(x.shape, bool)
    on[inside] = mask[y[inside], x[inside]]
    on |= ndimage.binary_closing(on, np.ones((1, 5)))  # a ray that grazes a staircase of pixels does not leave
    crossings = np.count_nonzero(np.diff(np.pad(on, ((0, 0), (0, 1))).astype(np.int8), axis=1), axis=1)
    count_of = np.count_nonzero
    return Loss(told, count_of(mask & told.filled), count_of(told.filled & ~mask), count_of(mask & ~told.filled), crossings)


def shape(name: str, side: int = 240) -> Mask:
    """One of SHAPES as a mask (side, side). Raises BadInput for another name."""
    y, x = (np.mgrid[:side, :side] + 0.5) / side * 2 - 1
    r, turn = np.hypot(x, y), np.arctan2(x, y)
    if name == "ring":
        return (r < 0.8) & (r > 0.42)
    if name == "crescent":
        return (r < 0.82) & (np.hypot(x - 0.38, y) > 0.62)
    if name == "letter U":
        return (np.abs(x) < 0.6) & (np.abs(y) < 0.8) & ~((np.abs(x) < 0.25) & (y < 0.45))
    if name == "flower":
        return r < 0.48 + 0.32 * np.cos(5 * turn)
    if name == "cat that sits":
        body = (x / 0.5) ** 2 + ((y - 0.35) / 0.52) ** 2 < 1
        head = (x / 0.36) ** 2 + ((y + 0.4) / 0.3) ** 2 < 1
        ears = (y > -0.92) & (y < -0.45) & (np.abs(np.abs(x) - 0.24) < (y + 0.92) * 0.32)
        tail = (np.hypot(x - 0.42, y - 0.4) < 0.46) & (np.hypot(x - 0.42, y - 0.4) > 0.34) & (x > 0.42)
        return (body | head | ears | tail) & (y < 0.86)
    raise BadInput(f"Choose one of {', '.join(SHAPES)}, not {name!r}.")


def svg(instances: Sequence[PolarInstance], rays: bool = True) -> str:
    """Contours (and rays) as a drawing of the picture's size, one group an object, to be laid over the photo."""
    h, w = instances[0].size if instances else (1, 1)
    groups = []
    for one in instances:
        points = " ".join(f"{x + 0.5:.1f},{y + 0.5:.1f}" for x, y in one.contour)
        cx, cy = one.center + 0.5
        spokes = "".join(f'<line x1="{cx:.1f}" y1="{cy:.1f}" x2="{x + 0.5:.1f}" y2="{y + 0.5:.1f}"/>' for x, y in one.contour) if rays else ""
        groups.append(
            f'<g><title>{html.escape(one.label)}, score {one.score:.2f}</title><g stroke="#f0a35e" stroke-width="1">{spokes}</g>'
            f'<polygon points="{points}" fill="#7c3aed" fill-opacity="0.3" stroke="#7c3aed" stroke-width="2"/><circle cx="{cx:.1f}" cy="{cy:.1f}" r="3" fill="#7c3aed"/></g>'
        )
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {w} {h}">\n' + "\n".join(groups) + "\n</svg>\n"


def coco(instances: Sequence[PolarInstance]) -> str:
    """COCO annotations as JSON: each object's polygon, box (x, y, width, height), area, category name and score."""
    rows = []
    for i, one in enumerate(instances):
        x0, y0, x1, y1 = one.box
        polygon = [round(float(v) + 0.5, 1) for v in one.contour.flatten()]
        rows.append({"id": i + 1, "category": one.label, "segmentation": [polygon], "bbox": [x0, y0, x1 - x0, y1 - y0], "area": round(one.area, 1), "iscrowd": 0, "score": round(one.score, 4)})
    h, w = instances[0].size if instances else (0, 0)
    return json.dumps({"image": {"width": w, "height": h}, "annotations": rows}, indent=1)
