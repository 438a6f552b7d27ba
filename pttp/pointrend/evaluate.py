"""What the embedded model reaches on photos that were kept aside: after 1 and 3 clicks, clicks to 85 and 90 %, the border before and after rendering, AP."""
from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pttp.pointrend import render, slim
from pttp.pointrend.slim import Maps, SlimPointRend
from pttp.training import scores
from pttp.training.instances import CLASSES, Photo, decode

SETS = {"pets": "oxford_pets_subset", "horses": "weizmann_horses", "cats": "feral_cats", "coco": "coco_mini", "ecssd": "ecssd_salient", "animals_misc": "animals_misc"}
LARGE = 32 * 32  # pixels of an object that is clicked
SIZES = ((0, 96), (96, 200), (200, 10_000))  # longer side of an object's box, for the table of borders
LONGEST = 320


def objects(photos: Sequence[Photo], limit: int | None = None) -> list[tuple[str, int, list[int]]]:
    """(set, photo, its objects of at least LARGE pixels); with `limit`, about so many objects of each set, spread over its photos."""
    chosen = []
    for name, folder in SETS.items():
        some = [(i, [j for j, runs in enumerate(p.masks) if np.count_nonzero(decode(runs)) >= LARGE]) for i, p in enumerate(photos) if p.folder == folder]
        some = [(i, mine) for i, mine in some if mine]
        total = sum(len(mine) for _, mine in some)
        if limit and total > limit:
            some = [(i, mine[:3]) for i, mine in some]
            step = max(1, sum(len(mine) for _, mine in some) // limit)
            some = some[::step]
        chosen += [(name, i, mine) for i, mine in some]
    return chosen


class Seen:
    """One photo through the network: masks come back in the photo's own pixels."""

    def __init__(self, net: SlimPointRend, photo: NDArray[np.uint8], longest: int = LONGEST):
        device = next(net.parameters()).device
        x, self.size = slim.prepare(photo, longest)
        self.net, self.shape = net, photo.shape[:2]
        self.scale = longest / max(photo.shape[:2])
        self.maps: Maps = net(x.to(device))

    def paste(self, logits: torch.Tensor, box: torch.Tensor) -> NDArray[np.bool_]:
        """Logits (side, side) of a `box` (4,) in the network's pixels -> bool (H, W)."""
        return render.paste(logits.sigmoid()[None].cpu(), (box / self.scale)[None].cpu(), self.shape)[0].numpy()

    def clicker(self):
        """A function of the clicks so far, points in the photo's pixels: the mask. It remembers the object; `.answer` and `.first` are the last click's."""

        def segment(places, labels) -> NDArray[np.bool_]:
            before = segment.answer.box if segment.answer else None
            grids: list[torch.Tensor] = []
            at = [((x + 0.5) * self.scale, (y + 0.5) * self.scale) for x, y in places]
            signs = [1 if label else -1 for label in labels]
            segment.answer = slim.answer(self.net, self.maps, self.size, at, signs, before, watch=lambda step: grids.append(step.logits[0, 0]))
            segment.grids = grids
            return self.paste(segment.answer.logits, segment.answer.look.boxes[0])

        segment.answer, segment.grids = None, []
        return segment

    def everything(self, limit: int = 20, steps: int = 4) -> Iterator[tuple[NDArray[np.bool_], int, float]]:
        """Mask, class and score of what the detector finds."""
        found = slim.detect(self.maps, self.size, limit=limit)
        if not len(found.boxes):
            return
        box = self.net.look(self.maps.p2, slim.grow(found.boxes, self.size), slim.Clicks.none(len(found.boxes), found.boxes))
        box = self.net.look(self.maps.p2, slim.grow(slim.clip(box.better, self.size), self.size), slim.Clicks.none(len(found.boxes), found.boxes))
        better = [self.net.masks(self.maps.p2, box[i : i + render.BATCH], steps=steps) for i in range(0, len(found.boxes), render.BATCH)]
        for logits, where, kind, score, quality in zip(torch.cat(better), box.boxes, found.classes.tolist(), found.scores.tolist(), box.quality.tolist()):
            yield self.paste(logits, where), kind, score * quality


@torch.no_grad()
def by_clicks(net: SlimPointRend, photos: Sequence[Photo], limit: int | None = None, clicks: int = 10, longest: int = LONGEST) -> list[dict]:
    """One row an object: its set, the longer side of its box, IoU after each click, and of the first mask both IoUs, as the dense 28 x 28 grid and rendered."""
    rows = []
    for name, i, mine in objects(photos, limit):
        photo = photos[i]
        seen, sure = Seen(net, photo.pixels, longest), photo.sure()
        for j in mine:
            truth = decode(photo.masks[j])
            segment = seen.clicker()
            row = {"set": name, "photo": photo.name, "object": j, "side": int(max(np.ptp(np.flatnonzero(truth.any(axis))) + 1 for axis in (0, 1)))}
            kept: list = []

            def first(places, labels):
                mask = segment(places, labels)
                if not kept:
                    kept.extend([mask, seen.paste(segment.grids[0], segment.answer.look.boxes[0])])
                return mask

            row["reached"] = scores.click_through(first, truth, sure, clicks)
            for kind, mask in zip(("rendered", "dense"), kept):
                row[kind] = scores.iou(mask, truth, sure), scores.boundary_iou(mask, truth, sure)
            rows.append(row)
    return rows


def clicks_table(rows: Sequence[dict], clicks: int = 10) -> dict[str, dict[str, float]]:
    """By set: objects, mean IoU after 1 and 3 clicks, mean number of clicks to 85 and 90 %."""
    table = {}
    for name in SETS:
        reached = [row["reached"] for row in rows if row["set"] == name]
        if reached:
            mean = {f"iou{k}": np.mean([scores.after(r, k) for r in reached]) for k in (1, 3)}
            mean |= {f"noc{t}": np.mean([scores.clicks_to(r, t / 100, clicks) for r in reached]) for t in (85, 90)}
            table[name] = {"objects": len(reached)} | {k: round(float(v), 4) for k, v in mean.items()}
    return table


def borders_table(rows: Sequence[dict]) -> dict[str, dict[str, float]]:
    """By set and by size of the object: mean IoU and boundary IoU of the first mask, dense and rendered."""
    groups = {name: [r for r in rows if r["set"] == name] for name in SETS if name != "pets"}  # their open band lies on the border
    groups |= {f"{low} to {high} px" if high < 1000 else f"over {low} px": [r for r in rows if low < r["side"] <= high and r["set"] != "pets"] for low, high in SIZES}
    table = {}
    for name, some in groups.items():
        if some:
            table[name] = {"objects": len(some)}
            for i, what in enumerate(("iou", "boundary")):
                table[name] |= {f"{what}_{kind}": round(float(np.mean([r[kind][i] for r in some])), 4) for kind in ("dense", "rendered")}
    return table


@torch.no_grad()
def precision(net: SlimPointRend, photos: Sequence[Photo], longest: int = LONGEST, limit: int | None = None) -> dict[str, dict[str, float]]:
    """Mask AP of the detector where a set marks all objects of its classes: cats, pets (cats and dogs), coco."""
    table = {}
    for name, classes in (("cats", ["cat"]), ("pets", ["cat", "dog"]), ("coco", list(CLASSES))):
        mine = [p for p in photos if p.folder == SETS[name]]
        mine = mine[:: max(1, len(mine) // limit)] if limit else mine
        if mine:
            truth = [[(decode(m), label) for m, label in zip(p.masks, p.labels)] for p in mine]
            found = [list(Seen(net, p.pixels, longest).everything()) for p in mine]
            kinds = [CLASSES.index(c) for c in classes]
            table[name] = {"photos": len(mine)} | {k: round(v, 4) for k, v in scores.average_precision(truth, [[f for f in some if f[1] in kinds] for some in found], kinds).items()}
    return table
