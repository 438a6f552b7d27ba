"""How good masks are: overlap, overlap along the border, clicks until an object is right, average precision.

Masks are bool (H, W). `sure` (H, W) says which pixels count (default: all).
"""
from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pttp.training.instances import Photo, decode, deepest, encode

Mask = NDArray[np.bool_]
SETS = {"pets": "oxford_pets_subset", "horses": "weizmann_horses", "cats": "feral_cats", "coco": "coco_mini", "ecssd": "ecssd_salient", "animals_misc": "animals_misc"}
LARGE = 32 * 32  # pixels of an object that is measured
BAND = 0.02  # of the picture's diagonal: how wide a border boundary IoU looks at


def iou(a: Mask, b: Mask, sure: Mask | None = None) -> float:
    """Intersection over union; 0 for two empty masks."""
    if sure is not None:
        a, b = a & sure, b & sure
    return float(np.count_nonzero(a & b) / max(1, np.count_nonzero(a | b)))


def rim(mask: Mask, width: float) -> Mask:
    """The pixels of `mask` within `width` of its border; the picture's border is one, too."""
    return mask & (ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1] <= width)


def boundary_iou(a: Mask, b: Mask, sure: Mask | None = None) -> float:
    """Boundary IoU (Cheng et al., CVPR 2021): IoU of the two rims, BAND of the diagonal wide."""
    width = max(1, round(BAND * float(np.hypot(*a.shape))))
    return iou(rim(a, width), rim(b, width), sure)


def next_click(mask: Mask, truth: Mask, sure: Mask | None = None) -> tuple[tuple[int, int], bool] | None:
    """Where a person would click to correct `mask`, (x, y), and whether that belongs to the object: the middle of the largest error. None if there is none."""
    wrong = (mask != truth) if sure is None else (mask != truth) & sure
    best = None
    for kind in (wrong & truth, wrong & ~truth):
        parts, count = ndimage.label(kind)
        if count:
            areas = ndimage.sum_labels(kind, parts, np.arange(1, count + 1))
            if best is None or areas.max() > best[0]:
                best = areas.max(), parts == areas.argmax() + 1
    if best is None:
        return None
    x, y = deepest(best[1])
    return (x, y), bool(truth[y, x])


def click_through(segment: Callable[[list[tuple[int, int]], list[int]], Mask], truth: Mask, sure: Mask | None = None, limit: int = 10, enough: float = 0.9) -> list[float]:
    """IoU after 1, 2, ... clicks, until `enough` or `limit` clicks: the first on the object's deepest pixel, each further one in the middle of the largest error.

    `segment(points, labels)` gets all clicks so far, labels 1 (belongs to the object) or 0.
    """
    points, labels, reached = [deepest(truth)], [1], []
    while True:
        mask = segment(points, labels)
        reached.append(iou(mask, truth, sure))
        click = next_click(mask, truth, sure) if reached[-1] < enough and len(points) < limit else None
        if click is None:
            return reached
        points, labels = [*points, click[0]], [*labels, int(click[1])]


def clicks_to(reached: Sequence[float], target: float, limit: int = 10) -> int:
    """Number of clicks (NoC) to the first IoU of `target`; `limit` if it is never reached."""
    return next((i + 1 for i, value in enumerate(reached) if value >= target), limit)


def after(reached: Sequence[float], clicks: int) -> float:
    """IoU after so many clicks; where fewer were enough, the last."""
    return reached[min(clicks, len(reached)) - 1]


def average_precision(truth: Sequence[list[tuple[Mask, int]]], found: Sequence[list[tuple[Mask, int, float]]], classes: Sequence[int]) -> dict[str, float]:
    """COCO's mask AP over `classes`: of every picture its objects (mask, class) and the answers (mask, class, score). "ap" is the mean over IoU .5 to .95,
    "ap50" at .5, "ar" the recall with 100 answers. A class of -1 in `truth` is ignored: to find it is neither right nor wrong."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def entry(picture: int, mask: Mask, kind: int, **more) -> dict:
        runs = encode(mask)
        return {"image_id": picture, "category_id": kind, "segmentation": runs, "area": float(np.count_nonzero(mask)), "iscrowd": 0, **more}

    objects = []
    for i, things in enumerate(truth):
        for mask, kind in things:
            objects += [entry(i, mask, c, iscrowd=int(kind < 0), ignore=int(kind < 0)) for c in (classes if kind < 0 else [kind])]
    sizes = [next((mask.shape for mask, *_ in (*things, *answers)), (1, 1)) for things, answers in zip(truth, found, strict=True)]
    with contextlib.redirect_stdout(io.StringIO()):
        data = COCO()
        data.dataset = {
            "images": [{"id": i, "height": h, "width": w} for i, (h, w) in enumerate(sizes)],
            "categories": [{"id": c} for c in classes],
            "annotations": [{**o, "id": i + 1} for i, o in enumerate(objects)],
        }
        data.createIndex()
        answers = COCO()
        answers.dataset = data.dataset | {"annotations": [{**entry(i, m, c, score=s), "id": n + 1} for n, (i, (m, c, s)) in enumerate((i, a) for i, some in enumerate(found) for a in some)]}
        answers.createIndex()
        test = COCOeval(data, answers, "segm")
        test.params.catIds = list(classes)
        test.evaluate()
        test.accumulate()
        test.summarize()
    return {"ap": float(test.stats[0]), "ap50": float(test.stats[1]), "ar": float(test.stats[8])}


def objects(photos: Sequence[Photo], limit: int | None = None) -> list[tuple[str, int, list[int]]]:
    """(set, photo, its objects of at least LARGE pixels); with `limit`, about so many objects of each set, spread over its photos."""
    chosen = []
    for name, folder in SETS.items():
        some = [(i, [j for j, runs in enumerate(p.masks) if np.count_nonzero(decode(runs)) >= LARGE]) for i, p in enumerate(photos) if p.folder == folder]
        some = [(i, mine) for i, mine in some if mine]
        total = sum(len(mine) for _, mine in some)
        if limit and total > limit:
            some = [(i, mine[:3]) for i, mine in some]
            some = some[:: max(1, sum(len(mine) for _, mine in some) // limit)]
        chosen += [(name, i, mine) for i, mine in some]
    return chosen
