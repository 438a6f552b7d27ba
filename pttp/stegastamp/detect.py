"""Finding stamped pictures in a camera's frame: a small network on the shared trunk, and from its maps to the corners of each picture.

The authors segment the frame and cut a quad out of every region. Here the centre of a picture speaks first: it names the four corners roughly, even where a
finger breaks the picture's outline or two pictures touch. Then each side is fitted, as a straight line, to the border of the mask.

Points are (x, y) in pixels, pixel centres at whole numbers, as in geometry.py.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F

from pttp import trunk
from pttp.errors import BadInput
from pttp.stegastamp import geometry
from pttp.trunk import Wide, conv

MASK_STRIDE, CENTRE_STRIDE = 4, 16
UNIT = 64.0  # pixels a corner's output of 1 stands for
SOFT = 4.0  # pixels on either side of a border over which the mask's target falls from 1 to 0
SPREAD = 0.12  # of the centre's bell, as a share of the picture's side
CORE = 0.25  # how far from the centre (same unit) cells must name the corners
LONG_SIDE = 512  # a frame is brought to this before the network sees it


class Maps(NamedTuple):
    """What the network says of pictures (B, 3, H, W). `mask` (B, 1, H/4, W/4) and `centre` (B, 1, H/16, W/16) are logits; `corners` (B, 8, H/16, W/16) are
    the offsets x, y of the four corners, clockwise, from the middle of the cell, in units of 64 pixels. With which corner they start is open."""

    mask: Tensor
    centre: Tensor
    corners: Tensor


class Detector(nn.Module):
    """The trunk to stride 16, two steps of context at stride 32, heads for the centres at stride 16, a ladder up to the mask at stride 4."""

    def __init__(self, chs: int = 128):
        super().__init__()
        self.trunk = trunk.Trunk(max_stride=16)
        self.enter = conv(trunk.CHANNELS[16], chs)
        self.down = nn.Sequential(conv(chs, chs, 5, 2, groups=chs), conv(chs, chs))
        self.context = nn.Sequential(Wide(chs), Wide(chs, 2), Wide(chs))
        self.middle = Wide(chs)
        self.head = nn.Sequential(Wide(chs), conv(chs, chs))
        self.centre = nn.Conv2d(chs, 1, 1)
        self.corners = nn.Conv2d(chs, 8, 1)
        self.up8, self.side8, self.wide8 = conv(chs, 64), conv(trunk.CHANNELS[8], 64), Wide(64)
        self.up4, self.side4, self.last4 = conv(64, 32), conv(trunk.CHANNELS[4], 32), conv(32, 32, 3)
        self.mask = nn.Conv2d(32, 1, 1)
        nn.init.constant_(self.centre.bias, -4.0)  # almost every cell is no centre
        nn.init.normal_(self.corners.weight, std=0.01)
        self.to(memory_format=torch.channels_last)

    def train(self, mode: bool = True) -> "Detector":
        """The trunk's batch-norm statistics are ImageNet's and stay so: small batches would only blur them."""
        super().train(mode)
        self.trunk.eval()
        return self

    def forward(self, frame: Tensor) -> Maps:
        """`frame` (B, 3, H, W) RGB in [0, 1], H and W multiples of 16."""
        if frame.shape[-2] % CENTRE_STRIDE or frame.shape[-1] % CENTRE_STRIDE:
            raise BadInput(f"The detector needs sides that are multiples of {CENTRE_STRIDE}, not {tuple(frame.shape[-2:])}: pad the frame.")
        maps = self.trunk((frame - trunk.MEAN) / trunk.STD)
        near = self.enter(maps[16])
        far = self.context(self.down(near))
        x = self.middle(near + F.interpolate(far, size=near.shape[-2:], mode="bilinear", align_corners=False))  # (B, 128, H/16, W/16)
        head = self.head(x)
        m = self.wide8(_double(self.up8(x)) + self.side8(maps[8]))  # (B, 64, H/8, W/8)
        m = self.last4(_double(self.up4(m)) + self.side4(maps[4]))  # (B, 32, H/4, W/4)
        return Maps(self.mask(m), self.centre(head), self.corners(head))


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def cells(height: int, width: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """x (1, w) and y (h, 1) of the middles of the cells of a map over a picture of `height` x `width` pixels."""
    middle = (stride - 1) / 2
    return np.arange(width // stride)[None] * float(stride) + middle, np.arange(height // stride)[:, None] * float(stride) + middle


def distance(quad: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How far (x, y) lie outside the nearest of the lines through the sides of a clockwise convex `quad` (4, 2); negative inside."""
    side = np.roll(quad, -1, 0) - quad
    nx, ny = side[:, 1], -side[:, 0]
    length = np.hypot(nx, ny)
    nx, ny = nx / length, ny / length
    level = quad[:, 0] * nx + quad[:, 1] * ny
    lines = [x * nx[i] + (y * ny[i] - level[i]) for i in range(4)]
    return np.maximum(np.maximum(lines[0], lines[1]), np.maximum(lines[2], lines[3]))


class Targets(NamedTuple):
    """What `Maps` should be for a picture: `mask` (H/4, W/4) and `centre` (H/16, W/16) in [0, 1]; `corners` (8, H/16, W/16), `scale` (H/16, W/16) = the mean
    side of the picture in the same unit where corners must be named, 0 elsewhere."""

    mask: np.ndarray
    centre: np.ndarray
    corners: np.ndarray
    scale: np.ndarray


def targets(quads: np.ndarray, height: int, width: int) -> Targets:
    """The maps of the pictures `quads` (n, 4, 2), clockwise, in a frame of `height` x `width` pixels.

    A picture counts whole, whatever covers it: its mask is the inside of its quad, soft at the border, so that .5 lies exactly on it.
    """
    mask = np.zeros((height // MASK_STRIDE, width // MASK_STRIDE), np.float32)
    centre, scale = (np.zeros((height // CENTRE_STRIDE, width // CENTRE_STRIDE), np.float32) for _ in range(2))
    corners = np.zeros((8, *centre.shape), np.float32)
    x, y = cells(height, width, CENTRE_STRIDE)
    where = np.stack(np.broadcast_arrays(x, y))  # (2, h, w)
    for quad in np.asarray(quads, np.float64).reshape(-1, 4, 2):
        out = distance(quad, *cells(height, width, MASK_STRIDE))
        mask = np.maximum(mask, np.clip(0.5 - out / (2 * SOFT), 0, 1).astype(np.float32))
        h = geometry.homography(quad, geometry.square(1))
        with np.errstate(divide="ignore", invalid="ignore"):
            from_centre = np.abs(geometry.transform_points(h, where.transpose(1, 2, 0)) - 0.5)  # in sides of the picture
        from_centre[distance(quad, x, y) > 0] = 9  # beyond the horizon of the homography the numbers mean nothing
        bell = np.exp(-(from_centre**2).sum(-1) / (2 * SPREAD**2))
        nearest = np.unravel_index(bell.argmax(), bell.shape) if bell.max() > 0 else None
        core = from_centre.max(-1) < CORE
        if nearest is not None:
            core[nearest], bell = True, bell / bell.max()
        core &= bell >= centre  # of two pictures the one whose centre is nearer
        centre = np.maximum(centre, bell.astype(np.float32))
        corners[:, core] = ((quad.reshape(4, 2, 1) - where[:, core]) / UNIT).reshape(8, -1)
        scale[core] = mean_side(quad) / UNIT
    return Targets(mask, centre, corners, scale)


def mean_side(quad: np.ndarray) -> float:
    return float(np.linalg.norm(np.roll(quad, -1, 0) - quad, axis=1).mean())


def quad_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two clockwise convex quads (4, 2)."""
    points = [tuple(p) for p in np.asarray(a, np.float64)]
    for (px, py), (qx, qy) in zip(b, np.roll(b, -1, 0), strict=True):  # Sutherland and Hodgman: cut by one side after the other
        out = [(x - px) * (qy - py) - (y - py) * (qx - px) for x, y in points]
        cut = []
        for i, (p, d) in enumerate(zip(points, out, strict=True)):
            before, d0 = points[i - 1], out[i - 1]
            if (d > 0) != (d0 > 0):
                s = d0 / (d0 - d)
                cut.append((before[0] + s * (p[0] - before[0]), before[1] + s * (p[1] - before[1])))
            if d <= 0:
                cut.append(p)
        points = cut
        if len(points) < 3:
            return 0.0
    both = geometry.polygon_area(np.array(points))
    union = geometry.polygon_area(a) + geometry.polygon_area(b) - both
    return both / union if union > 0 else 0.0


@dataclass(frozen=True)
class Found:
    """A picture in a frame: `quad` (4, 2) float32, clockwise from the top left as it is seen, in pixels of the frame; `score` in [0, 1]."""

    quad: np.ndarray
    score: float


def sample(field: np.ndarray, points: np.ndarray, stride: int) -> np.ndarray:
    """Values of a map (h, w) at `points` (..., 2) in pixels of the picture, bilinear; beyond the map its nearest cell."""
    h, w = field.shape
    x, y = (np.clip((points[..., i] - (stride - 1) / 2) / stride, 0, n - 1.001) for i, n in ((0, w), (1, h)))
    x0, y0 = x.astype(int), y.astype(int)
    fx, fy = x - x0, y - y0
    return (field[y0, x0] * (1 - fx) + field[y0, x0 + 1] * fx) * (1 - fy) + (field[y0 + 1, x0] * (1 - fx) + field[y0 + 1, x0 + 1] * fx) * fy


def fit_sides(quad: np.ndarray, mask: np.ndarray, reach: float, points: int = 32, steps: int = 25) -> np.ndarray:
    """`quad` (4, 2) with every side moved, as a straight line, to the border of `mask` (h, w), probabilities, at most about `reach` pixels away.

    Across the side the mask falls from 1 to 0: the sum along the way says where, to a fraction of a cell. A side that shows no border (out of the frame, or
    the mask does not know) stays.
    """
    height, width = (n * MASK_STRIDE for n in mask.shape)
    following = np.roll(quad, -1, 0)
    length = np.linalg.norm(following - quad, axis=1)
    if not (length > 1).all():
        return quad
    along = (following - quad) / length[:, None]
    normal = np.stack([along[:, 1], -along[:, 0]], 1)  # outward
    t, offset = np.linspace(0.06, 0.94, points), np.linspace(-reach, reach, steps)
    on_side = quad[:, None] + t[:, None] * (following - quad)[:, None]  # (4, points, 2)
    across = on_side[:, :, None] + offset[:, None] * normal[:, None, None]  # (4, points, steps, 2)
    p = sample(mask, across, MASK_STRIDE)
    # beyond the frame: nothing where the picture has ended before, and where it goes on, no border
    beyond = ((across < 0) | (across > np.array([width, height]) - 1)).any(-1)
    p = np.where(beyond, (p > 0.5).astype(p.dtype), p)
    border = (p[..., 1:] + p[..., :-1]).sum(-1) / 2 * (offset[1] - offset[0]) - reach  # (4, points)
    weight = np.clip(p[..., 0] - p[..., -1], 0, 1) ** 2
    ends = np.zeros((4, 2))  # how far each side moves at its beginning and at its end
    for i in range(4):
        w = weight[i]
        if (w > 0.25).sum() < 5:
            continue
        for _ in range(4):
            slope, level = _line(t - 0.5, border[i], w)
            off = np.abs(border[i] - level - slope * (t - 0.5))
            scale = max(1.5 * np.median(off[weight[i] > 0.25]), 0.5)
            w = weight[i] * np.clip(1 - (off / (4 * scale)) ** 2, 0, 1) ** 2  # Tukey: what a finger bends has no say
        ends[i] = np.clip([level - slope / 2, level + slope / 2], -1.5 * reach, 1.5 * reach)
    start, end = quad + ends[:, :1] * normal, following + ends[:, 1:] * normal
    corners = np.array([geometry.intersection(start[i - 1], end[i - 1], start[i], end[i]) for i in range(4)])
    moved = np.linalg.norm(corners - quad, axis=1)
    return corners if np.isfinite(corners).all() and (moved < 4 * reach).all() else quad


def _line(t: np.ndarray, y: np.ndarray, w: np.ndarray) -> tuple[float, float]:
    """Weighted least squares y = slope t + level; a little ridge keeps a half-hidden side from tilting wildly."""
    total = w.sum() + 1e-9
    mt, my = (w * t).sum() / total, (w * y).sum() / total
    slope = (w * (t - mt) * (y - my)).sum() / ((w * (t - mt) ** 2).sum() + 0.01)
    return float(slope), float(my - slope * mt)


def decode(mask: np.ndarray, centre: np.ndarray, corners: np.ndarray, most: int = 4, threshold: float = 0.3) -> list[Found]:
    """From maps, `mask` (h, w) and `centre` (h/4, w/4) as probabilities, `corners` (8, h/4, w/4) as in `Maps`, to quads in pixels of the network's picture."""
    h, w = centre.shape
    x, y = cells(h * CENTRE_STRIDE, w * CENTRE_STRIDE, CENTRE_STRIDE)
    quads = corners.reshape(4, 2, h, w) * UNIT + np.stack(np.broadcast_arrays(x, y))
    around = np.pad(centre, 1)
    peak = centre == np.max([around[i : i + h, j : j + w] for i in range(3) for j in range(3)], 0)
    rows, cols = np.nonzero(peak & (centre > threshold * 0.5))
    order = centre[rows, cols].argsort()[::-1][: 3 * most]
    labels, _ = ndimage.label(mask > 0.5)
    found: list[Found] = []
    for r, c in zip(rows[order], cols[order], strict=True):
        starts = [geometry.clockwise(quads[:, :, r, c]), region_quad(labels, r, c)]
        best, agreed = None, 0.0
        for quad in (q for q in starts if q is not None):
            for share in (0.2, 0.1, 0.05):
                quad = fit_sides(quad, mask, max(share * mean_side(quad), 3.0))
            if _sound(quad) and (agrees := agreement(quad, mask)) > agreed:
                best, agreed = quad, agrees
        score = float(np.sqrt(centre[r, c] * agreed))
        if best is not None and score >= threshold:
            found.append(Found(geometry.clockwise(best).astype(np.float32), score))
    found.sort(key=lambda f: -f.score)
    kept: list[Found] = []
    for f in found:
        if len(kept) < most and all(quad_iou(f.quad, k.quad) < 0.3 for k in kept):
            kept.append(f)
    return kept


def region_quad(labels: np.ndarray, row: int, col: int) -> np.ndarray | None:
    """The quad, by the authors' rule, of the region of the mask that holds the middle of cell (row, col) of the centre's map; None where there is none.

    `labels` (h, w) are the mask's connected regions. The corners that the centre names are better where a region is broken or two have grown together; this
    one is where they are far off.
    """
    ratio = CENTRE_STRIDE // MASK_STRIDE
    label = labels[row * ratio + ratio // 2, col * ratio + ratio // 2]
    y, x = np.nonzero(labels == label)
    if not label or len(x) < 16 or min(np.ptp(x), np.ptp(y)) < 3:
        return None
    quad = geometry.quad_of(np.column_stack([x, y]), len(x))
    return None if quad is None else geometry.clockwise(quad * MASK_STRIDE + (MASK_STRIDE - 1) / 2)


def agreement(quad: np.ndarray, mask: np.ndarray) -> float:
    """How much of the mask in and just around `quad` (a fifth of its side) lies inside, and how full the inside is: 1 where the two are the same."""
    height, width = (n * MASK_STRIDE for n in mask.shape)
    out = distance(quad, *cells(height, width, MASK_STRIDE))
    inside, around = mask[out < 0], mask[(out > MASK_STRIDE) & (out < 0.2 * mean_side(quad))]
    return float(inside.sum() / (inside.size + around.sum())) if inside.size else 0.0


def _sound(quad: np.ndarray) -> bool:
    """Convex, clockwise, and no side shorter than 8 pixels."""
    side = np.roll(quad, -1, 0) - quad
    after = np.roll(side, -1, 0)
    turn = side[:, 0] * after[:, 1] - side[:, 1] * after[:, 0]
    return bool((turn > 0).all() and (np.linalg.norm(side, axis=1) >= 8).all())


def prepare(frame: np.ndarray, device: torch.device, long_side: int = LONG_SIDE) -> tuple[Tensor, np.ndarray]:
    """`frame` (H, W, 3) uint8 -> (1, 3, h, w) in [0, 1], its long side `long_side` and grey added below and to the right up to multiples of 16; and pixels of
    the frame a pixel of that, (x, y)."""
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or min(frame.shape[:2]) < 16:
        raise BadInput(f"A frame must be an (H, W, 3) uint8 array with sides of at least 16 pixels, not {frame.shape} {frame.dtype}.")
    height, width = frame.shape[:2]
    scale = long_side / max(height, width)
    h, w = max(CENTRE_STRIDE, round(height * scale)), max(CENTRE_STRIDE, round(width * scale))
    x = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None]
    if (h, w) != (height, width):  # on the CPU, the only device that resizes bytes with antialiasing
        x = F.interpolate(x, size=(h, w), mode="bilinear", antialias=True, align_corners=False)
    x = F.pad(x.to(device).float() / 255, (0, -w % CENTRE_STRIDE, 0, -h % CENTRE_STRIDE), value=0.5)
    return x, np.array([width / w, height / h])


@torch.inference_mode()
def find_quads(net: Detector, frame: np.ndarray, most: int = 4, threshold: float = 0.3, long_side: int = LONG_SIDE) -> list[Found]:
    """The pictures in `frame` (H, W, 3) uint8 RGB of any size, best first, at most `most`; an empty list when there is none."""
    x, scale = prepare(frame, next(net.parameters()).device, long_side)
    maps = net.eval()(x)
    mask, centre, corners = maps.mask[0, 0].sigmoid(), maps.centre[0, 0].sigmoid(), maps.corners[0]
    found = decode(*(m.float().cpu().numpy() for m in (mask, centre, corners)), most, threshold)
    # pixel centres at whole numbers: the corner of the top left pixel is (-.5, -.5) at every size
    return [Found(((f.quad + 0.5) * scale - 0.5).astype(np.float32), f.score) for f in found]
