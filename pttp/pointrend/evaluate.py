"""What the embedded model reaches on photos that were kept aside: after 1 and 3 clicks, clicks to 85 and 90 %, the border before and after rendering, AP."""
from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pttp.pointrend import render, slim
from pttp.pointrend.session import Session, pasted
from pttp.pointrend.slim import SlimPointRend
from pttp.training import scores
from pttp.training.instances import CLASSES, Photo, decode, deepest

SIZES = ((0, 96), (96, 200), (200, 10_000))  # longer side of an object's box, for the table of borders
LONGEST = 320
COUNTS = (49, 196, 784, 3136, 224 * 224)  # points a step, for the table of what more of them bring


def everything(session: Session, limit: int = 20, steps: int = 4) -> Iterator[tuple[NDArray[np.bool_], int, float]]:
    """Mask, class and score of what the detector finds, down to low scores, as AP wants it."""
    net, maps, size = session.net, session.maps, session.size
    found = slim.detect(maps, size, limit=limit)
    if not len(found.boxes):
        return
    none = slim.Clicks.none(len(found.boxes), found.boxes)
    box = net.look(maps.p2, slim.grow(found.boxes, size), none)
    box = net.look(maps.p2, slim.grow(slim.clip(box.better, size), size), none)
    better = [net.masks(maps.p2, box[i : i + render.BATCH], steps=steps) for i in range(0, len(found.boxes), render.BATCH)]
    for logits, where, kind, score, quality in zip(torch.cat(better), box.boxes, found.classes.tolist(), found.scores.tolist(), box.quality.tolist()):
        yield pasted(logits.cpu().numpy(), session.original(where), session.shape), kind, score * quality


@torch.no_grad()
def by_clicks(net: SlimPointRend, photos: Sequence[Photo], limit: int | None = None, clicks: int = 10, longest: int = LONGEST) -> list[dict]:
    """One row an object: its set, the longer side of its box, IoU after each click, and of the first mask both IoUs, as the dense 28 x 28 grid and rendered."""
    rows = []
    for name, i, mine in scores.objects(photos, limit):
        photo = photos[i]
        session, sure = Session(net, photo.pixels, longest, CLASSES), photo.sure()
        for j in mine:
            truth = decode(photo.masks[j])
            row = {"set": name, "photo": photo.name, "object": j, "side": int(max(np.ptp(np.flatnonzero(truth.any(axis))) + 1 for axis in (0, 1)))}
            kept: list = []

            def segment(places, labels):
                made = session.click(places, labels, anyway=True)
                if not kept:
                    dense = next(s for s in made.steps if s.size == slim.SIDE)
                    kept.extend([made.mask, pasted(dense.logits, made.window, session.shape)])
                return made.mask

            row["reached"] = scores.click_through(segment, truth, sure, clicks)
            for kind, mask in zip(("rendered", "dense"), kept):
                row[kind] = scores.iou(mask, truth, sure), scores.boundary_iou(mask, truth, sure)
            rows.append(row)
    return rows


def clicks_table(rows: Sequence[dict], clicks: int = 10) -> dict[str, dict[str, float]]:
    """By set: objects, mean IoU after 1 and 3 clicks, mean number of clicks to 85 and 90 %."""
    table = {}
    for name in scores.SETS:
        reached = [row["reached"] for row in rows if row["set"] == name]
        if reached:
            mean = {f"iou{k}": np.mean([scores.after(r, k) for r in reached]) for k in (1, 3)}
            mean |= {f"noc{t}": np.mean([scores.clicks_to(r, t / 100, clicks) for r in reached]) for t in (85, 90)}
            table[name] = {"objects": len(reached)} | {k: round(float(v), 4) for k, v in mean.items()}
    return table


def borders_table(rows: Sequence[dict]) -> dict[str, dict[str, float]]:
    """By set and by size of the object: mean IoU and boundary IoU of the first mask, dense and rendered."""
    groups = {name: [r for r in rows if r["set"] == name] for name in scores.SETS if name != "pets"}  # their open band lies on the border
    groups |= {f"{low} to {high} px" if high < 1000 else f"over {low} px": [r for r in rows if low < r["side"] <= high and r["set"] != "pets"] for low, high in SIZES}
    table = {}
    for name, some in groups.items():
        if some:
            table[name] = {"objects": len(some)}
            for i, what in enumerate(("iou", "boundary")):
                table[name] |= {f"{what}_{kind}": round(float(np.mean([r[kind][i] for r in some])), 4) for kind in ("dense", "rendered")}
    return table


@torch.no_grad()
def by_points(net: SlimPointRend, photos: Sequence[Photo], longest: int = LONGEST, limit: int | None = None, side: int = 200) -> list[dict[str, float]]:
    """The border against the number of points asked: of the first click's masks of horses and of objects of at least `side` pixels, rendered to 224 x 224 with more
    and more points a step; the last is the dense grid, every point asked."""
    rows: dict[int, list[tuple[int, float, float]]] = {count: [] for count in COUNTS}
    clear = [p for p in photos if p.folder != scores.SETS["pets"]]  # their open band lies on the border
    for name, i, mine in scores.objects(clear, limit):
        photo = clear[i]
        session, sure = Session(net, photo.pixels, longest, CLASSES), photo.sure()
        for truth in (decode(photo.masks[j]) for j in mine):
            if name == "horses" or max(np.ptp(np.flatnonzero(truth.any(axis))) + 1 for axis in (0, 1)) >= side:
                for count in COUNTS:
                    made = session.click([deepest(truth)], [1], anyway=True, count=count)
                    rows[count].append((sum(len(s.points) for s in made.steps), scores.iou(made.mask, truth, sure), scores.boundary_iou(made.mask, truth, sure)))
    table = []
    for count, some in rows.items():
        if some:
            asked, iou, boundary = np.mean(some, 0)
            table.append({"per_step": count, "asked": round(float(asked)), "objects": len(some), "iou": round(float(iou), 4), "boundary": round(float(boundary), 4)})
    return table


@torch.no_grad()
def precision(net: SlimPointRend, photos: Sequence[Photo], longest: int = LONGEST, limit: int | None = None) -> dict[str, dict[str, float]]:
    """Mask AP of the detector where a set marks all objects of its classes: cats, pets (cats and dogs), coco."""
    table = {}
    for name, classes in (("cats", ["cat"]), ("pets", ["cat", "dog"]), ("coco", list(CLASSES))):
        mine = [p for p in photos if p.folder == scores.SETS[name]]
        mine = mine[:: max(1, len(mine) // limit)] if limit else mine
        if mine:
            truth = [[(decode(m), label) for m, label in zip(p.masks, p.labels)] for p in mine]
            found = [list(everything(Session(net, p.pixels, longest, CLASSES))) for p in mine]
            kinds = [CLASSES.index(c) for c in classes]
            table[name] = {"photos": len(mine)} | {k: round(v, 4) for k, v in scores.average_precision(truth, [[f for f in some if f[1] in kinds] for some in found], kinds).items()}
    return table


@torch.no_grad()
def sureness(net: SlimPointRend, photos: Sequence[Photo], longest: int = LONGEST, limit: int | None = None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How sure a first click is that there is something (see `slim.choose`): on the deepest pixel of each object that is measured, and on the deepest pixel of the
    ground of the photos in which every object is marked."""

    def sure(session: Session, at: tuple[int, int]) -> float:
        place = tuple(((np.array(at) + 0.5) * session.scale).tolist())
        return slim.choose(net, session.maps, session.size, place)[1]

    on, off = [], []
    for name, i, mine in scores.objects(photos, limit):
        session = Session(net, photos[i].pixels, longest, CLASSES)
        on += [sure(session, deepest(decode(photos[i].masks[j]))) for j in mine]
        if name == "coco":
            ground = ~np.logical_or.reduce([decode(m) for m in photos[i].masks])
            if np.count_nonzero(ground) > 0.1 * ground.size:
                off.append(sure(session, deepest(ground)))
    return np.array(on), np.array(off)


def nothing(on: NDArray[np.float64], off: NDArray[np.float64], answered: float = 0.97) -> dict[str, float]:
    """The threshold of "nothing found here" at which this share of clicks on objects is still answered; and the share of clicks on the ground that it refuses."""
    threshold = np.floor(1e3 * float(np.quantile(on, 1 - answered, method="lower"))) / 1e3 if len(on) else 0.0
    shares = {"objects_answered": on >= threshold, "ground_refused": off < threshold}
    return {"sure": float(threshold)} | {name: round(float(hits.mean()), 4) if len(hits) else 0.0 for name, hits in shares.items()}


@torch.no_grad()
def listing(net: SlimPointRend, photos: Sequence[Photo], longest: int = LONGEST, limit: int | None = None) -> dict[str, float]:
    """The score from which what is found is best listed: where F1 (a found mask is right if it overlaps an object, not yet taken, by half) is highest on coco."""
    mine = [p for p in photos if p.folder == scores.SETS["coco"]]
    mine = mine[:: max(1, len(mine) // limit)] if limit else mine
    found, wanted = [], 0
    for photo in mine:
        truth = [decode(m) for m in photo.masks]
        truth = [t for t in truth if np.count_nonzero(t) >= scores.LARGE]
        wanted, taken = wanted + len(truth), set()
        for one in Session(net, photo.pixels, longest, CLASSES, shown=0.0).instances:
            overlaps = [scores.iou(one.mask, t) if i not in taken else 0.0 for i, t in enumerate(truth)]
            right = bool(overlaps) and max(overlaps) >= 0.5
            if right:
                taken.add(int(np.argmax(overlaps)))
            if right or np.count_nonzero(one.mask) >= scores.LARGE:  # that a small thing is found, which is not measured, is no mistake
                found.append((one.score, right))
    best = {"shown": 0.0, "f1": 0.0}
    for threshold in sorted({round(score, 2) for score, _ in found}):
        listed = [right for score, right in found if score >= threshold]
        f1 = 2 * sum(listed) / max(1, len(listed) + wanted)
        best = max(best, {"shown": threshold, "f1": round(f1, 4)}, key=lambda b: b["f1"])
    return best
