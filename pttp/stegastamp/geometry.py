"""Homographies, warps, and from a mask of stamps to the corners of each: the geometry around the networks.

Points are (x, y) in pixels, pixel centres at whole numbers; a quad is (4, 2), clockwise from the top left corner as it is seen.
"""
from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F


def homography(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The 3 x 3 matrix, last entry 1, that takes the corners `source` (..., 4, 2) to `target` (..., 4, 2): float64 (..., 3, 3).

    Raises numpy.linalg.LinAlgError when three of the source corners lie on one line.
    """
    source, target = np.broadcast_arrays(np.asarray(source, np.float64), np.asarray(target, np.float64))
    x, y, u, v = source[..., 0], source[..., 1], target[..., 0], target[..., 1]
    one, zero = np.ones_like(x), np.zeros_like(x)
    rows_u = np.stack([x, y, one, zero, zero, zero, -u * x, -u * y], -1)
    rows_v = np.stack([zero, zero, zero, x, y, one, -v * x, -v * y], -1)
    a, b = np.concatenate([rows_u, rows_v], -2), np.concatenate([u, v], -1)
    h = np.linalg.solve(a, b[..., None])[..., 0]
    return np.concatenate([h, np.ones_like(h[..., :1])], -1).reshape(*h.shape[:-1], 3, 3)


def transform_points(h: np.ndarray, points: np.ndarray) -> np.ndarray:
    """`points` (..., 2) through the homography `h` (3, 3)."""
    p = np.asarray(points, np.float64) @ h[:, :2].T + h[:, 2]
    return p[..., :2] / p[..., 2:]


def square(size: float) -> np.ndarray:
    """Corners (0, 0), (size, 0), (size, size), (0, size)."""
    return np.array([[0, 0], [size, 0], [size, size], [0, size]], np.float64)


def warp(image: Tensor, matrix: Tensor, size: tuple[int, int] | None = None, padding: str = "zeros") -> Tensor:
    """Bilinear: output pixel (x, y) shows the input at `matrix` (x, y, 1).

    `image` (B, C, H, W); `matrix` (B or 1, 8) or (B or 1, 3, 3), eight numbers meaning that the ninth is 1; `size` (height, width) of the output, default that
    of the input. Outside of the input there is 0 (`padding` "zeros") or its nearest edge pixel ("border").
    """
    b, _, h, w = image.shape
    oh, ow = size or (h, w)
    m = torch.cat([matrix, torch.ones_like(matrix[:, :1])], 1) if matrix.ndim == 2 else matrix
    m = m.to(image.dtype).to(image.device).reshape(-1, 3, 3)  # in this order: not every device has float64
    ys, xs = torch.meshgrid(torch.arange(oh, device=image.device, dtype=image.dtype), torch.arange(ow, device=image.device, dtype=image.dtype), indexing="ij")
    rows = m[:, :, None, None]  # term by term: a matrix product rounds differently from processor to processor
    x, y, z = (rows[:, i, :, :, 0] * xs + rows[:, i, :, :, 1] * ys + rows[:, i, :, :, 2] for i in range(3))  # (B, oh, ow)
    p = torch.stack([x / z, y / z], -1)
    grid = (2 * p + 1) / torch.tensor([w, h], device=image.device, dtype=image.dtype) - 1
    return F.grid_sample(image, grid.expand(b, oh, ow, 2), padding_mode=padding, align_corners=False)


def rectify(frame: Tensor, quads: np.ndarray, size: int) -> Tensor:
    """Each quad of `frame` (3, H, W) as a square: (N, 3, size, size), the corners of quad n at the centres of the corner pixels."""
    quads = np.asarray(quads, np.float64).reshape(-1, 4, 2)
    h = homography(square(size - 1), quads)
    return warp(frame[None].expand(len(quads), -1, -1, -1), torch.from_numpy(h), (size, size))


def polygon_area(points: np.ndarray) -> float:
    """Area inside the polygon (N, 2)."""
    x, y = np.asarray(points, np.float64).T
    return float(0.5 * abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)))


def intersection(p1: np.ndarray, p2: np.ndarray, p3: np.ndarray, p4: np.ndarray) -> np.ndarray:
    """Where the line through p1 and p2 meets the line through p3 and p4: (2,), or (0, 0) for parallels, as the authors have it."""
    corners = np.column_stack([np.array([p1, p2, p3, p4], np.float64), np.ones(4)])
    x, y, z = np.cross(np.cross(corners[0], corners[1]), np.cross(corners[2], corners[3]))
    return np.array([x / z, y / z]) if z else np.zeros(2)


def order_points(points: np.ndarray) -> np.ndarray:
    """Corners (4, 2) as least sum, least y - x, greatest sum, greatest y - x: float32, clockwise from the top left.

    Near 45 degrees one corner can win twice, and then another is lost: that is the authors' rule; `clockwise` has no such gap.
    """
    points = np.asarray(points)
    total, difference = points.sum(1), points[:, 1] - points[:, 0]
    return points[[total.argmin(), difference.argmin(), total.argmax(), difference.argmax()]].astype(np.float32)


def clockwise(points: np.ndarray) -> np.ndarray:
    """Any four corners of a convex quad, clockwise (y points down), starting with the one nearest to the top left."""
    points = np.asarray(points, np.float64)
    x, y = (points - points.mean(0)).T
    points = points[np.argsort(np.arctan2(y, x), kind="stable")]
    return np.roll(points, -int(points.sum(1).argmin()), 0)


def regions(mask: np.ndarray, smallest: float = 1000.0) -> list[tuple[np.ndarray, float]]:
    """The connected regions (8 neighbours) of a boolean `mask` (H, W): for each the pixels of its border (N, 2) as (x, y), and its area.

    The area is that of the polygon through the centres of the border pixels, holes filled, which for a region of n pixels with b on its border is n - b / 2 - 1
    (Pick's theorem). Regions below `smallest` are left out.
    """
    labels, _ = ndimage.label(np.pad(mask, 1), np.ones((3, 3)))
    found = []
    for label, box in enumerate(ndimage.find_objects(labels), 1):
        region = ndimage.binary_fill_holes(labels[box] == label)
        border = region & ~ndimage.binary_erosion(region)  # 4-neighbour erosion leaves the 8-connected border
        area = region.sum() - border.sum() / 2 - 1
        if area >= smallest:
            y, x = np.nonzero(border)
            found.append((np.column_stack([x + box[1].start - 1, y + box[0].start - 1]), float(area)))
    return found


def extreme_points(points: np.ndarray) -> np.ndarray:
    """The point farthest along each of eight directions, clockwise from +x in steps of 45 degrees: float64 (8, 2).

    Of several that are equally far (a straight side) the first is taken on a clockwise walk that ends at the leftmost pixel of the top row: the order in
    which OpenCV lists a hull.
    """
    x, y = points.T
    end = points[np.lexsort((x, y))[0]]
    out = []
    for i in range(8):
        dx, dy = round(np.cos(i * np.pi / 4)), round(np.sin(i * np.pi / 4))
        reach = dx * x + dy * y
        side = points[reach == reach.max()]
        along = side @ (-dy, dx)  # clockwise, y pointing down
        first, last = side[along.argmin()], side[along.argmax()]
        out.append(last if (first == end).all() else first)
    return np.array(out, np.float64)


def quad_of(points: np.ndarray, area: float, most: float = 1.5) -> np.ndarray | None:
    """Corners of the quad that a region fills, by the authors' rule: the four longest sides of the octagon through the eight extreme points, drawn out until they meet.

    `points` (N, 2) contain the region's convex hull, `area` is the region's. Returns float32 (4, 2) in the order of `order_points`, or None when the
    quad's area exceeds `most` times the region's.
    """
    extrema = extreme_points(points)
    before = np.roll(extrema, 1, 0)
    longest = np.sort(((extrema - before) ** 2).sum(1).argsort()[-4:])
    corners = np.array([intersection(extrema[longest[i - 1]], before[longest[i - 1]], extrema[longest[i]], before[longest[i]]) for i in range(4)])
    return None if polygon_area(corners) / area > most else order_points(corners)


def quads_in_mask(mask: np.ndarray, smallest: float = 1000.0) -> list[np.ndarray]:
    """Quads (4, 2) of the stamps in a boolean `mask` (H, W)."""
    quads = (quad_of(points, area) for points, area in regions(mask, smallest))
    return [q for q in quads if q is not None]
