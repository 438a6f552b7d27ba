"""What the embedded model reaches on photos that were kept aside: the contour of a click, what rays can reach at all, AP of what it finds by itself."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pttp.polarmask import polar, slim, study
from pttp.polarmask.slim import SlimPolarMask
from pttp.training import scores
from pttp.training.instances import CLASSES, Photo, decode, deepest

LONGEST = 320


class Seen:
    """One photo through the network: contours come back in the photo's own pixels."""

    def __init__(self, net: SlimPolarMask, photo: NDArray[np.uint8], longest: int = LONGEST, mirror: bool = True):
        x, self.size = slim.prepare(photo, longest)
        self.shape = photo.shape[:2]
        self.scale = longest / max(self.shape)
        self.maps = slim.see(net, x.to(next(net.parameters()).device), mirror)

    def fill(self, contour: torch.Tensor) -> NDArray[np.bool_]:
        """A contour (N, 2) in the network's pixels -> bool (H, W)."""
        ends = ((contour + 0.5) / self.scale - 0.5).round().cpu().numpy()
        return polar.fill(ends.clip(0, np.array(self.shape[::-1]) - 1), self.shape)

    def at(self, point: tuple[int, int]) -> slim.Found:
        """The answer to a click on `point` (x, y) of the photo."""
        return slim.answer(self.maps, self.size, tuple((v + 0.5) * self.scale - 0.5 for v in point))

    def everything(self, use_centerness: bool = True, limit: int = 20) -> list[tuple[NDArray[np.bool_], int, float]]:
        """Mask, class and score of what it finds."""
        found = slim.detect(self.maps, self.size, limit=limit, use_centerness=use_centerness)
        return [(self.fill(c), kind, score) for c, kind, score in zip(found.contours, found.classes.tolist(), found.scores.tolist())]


@torch.no_grad()
def by_click(net: SlimPolarMask, photos: Sequence[Photo], limit: int | None = None, longest: int = LONGEST, mirror: bool = True) -> list[dict]:
    """One row an object, clicked on its deepest pixel: its set, `iou`, and the `level` that answered."""
    rows = []
    for name, i, mine in scores.objects(photos, limit):
        seen, sure = Seen(net, photos[i].pixels, longest, mirror), photos[i].sure()
        for j in mine:
            truth = decode(photos[i].masks[j])
            found = seen.at(deepest(truth))
            rows.append({"set": name, "iou": scores.iou(seen.fill(found.contours[0]), truth, sure), "level": int(found.level)})
    return rows


def bounds(photos: Sequence[Photo], counts: Sequence[int] = (36,), limit: int | None = None) -> dict[str, dict[str, float]]:
    """What the true rays reach, by set and number of rays: mean IoU of the polygon through their ends with the mask."""
    found: dict[str, list[list[float]]] = {}
    for name, i, mine in scores.objects(photos, limit):
        sure = photos[i].sure()
        for j in mine:
            truth = decode(photos[i].masks[j])
            found.setdefault(name, []).append([scores.iou(study.describe(truth, count).filled, truth, sure) for count in counts])
    return {name: {"objects": len(rows)} | {str(c): round(float(v), 4) for c, v in zip(counts, np.mean(rows, 0))} for name, rows in found.items()}


def table(rows: Sequence[dict]) -> dict[str, dict[str, float]]:
    """By set: objects, mean IoU, and the share that is good (IoU of at least .5)."""
    made = {}
    for name in scores.SETS:
        iou = [row["iou"] for row in rows if row["set"] == name]
        if iou:
            made[name] = {"objects": len(iou), "iou": round(float(np.mean(iou)), 4), "good": round(float(np.mean(np.array(iou) >= 0.5)), 4)}
    return made


@torch.no_grad()
def precision(net: SlimPolarMask, photos: Sequence[Photo], longest: int = LONGEST, limit: int | None = None, use_centerness: bool = True) -> dict[str, dict[str, float]]:
    """Mask AP where a set marks all objects of its classes: cats, pets (cats and dogs), coco."""
    made = {}
    for name, classes in (("cats", ["cat"]), ("pets", ["cat", "dog"]), ("coco", list(CLASSES))):
        mine = [p for p in photos if p.folder == scores.SETS[name]]
        mine = mine[:: max(1, len(mine) // limit)] if limit else mine
        if mine:
            kinds = [CLASSES.index(c) for c in classes]
            truth = [[(decode(m), label) for m, label in zip(p.masks, p.labels)] for p in mine]
            found = [[f for f in Seen(net, p.pixels, longest).everything(use_centerness) if f[1] in kinds] for p in mine]
            made[name] = {"photos": len(mine)} | {k: round(v, 4) for k, v in scores.average_precision(truth, found, kinds).items()}
    return made
