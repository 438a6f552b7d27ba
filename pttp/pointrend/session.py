"""One picture, seen once, and clicks on it: which object is meant, and a mask that obeys every click.

Points are (x, y) in pixels of the picture as it was given; the network sees it smaller, at a bounded size. A session belongs to one person: predictors are
shared, sessions are not.
"""
from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pttp import ops
from pttp.errors import BadInput, NothingFound
from pttp.pointrend import points as grids
from pttp.pointrend import render, slim
from pttp.pointrend.detect import clip
from pttp.pointrend.masks import bounding_box
from pttp.pointrend.slim import Clicks, SlimPointRend

SURE = 0.3  # how sure detector and coarse head must be, together, that there is something at a point; weights that were measured say it themselves
SHOWN = 0.35  # the score from which an object is listed among the instances; likewise
LISTED = 30  # objects at most
CHOICES = 4  # that repeated presses on one spot go through
ALIKE = 0.8  # overlap from which two answers are the same choice
SPOT = 0.012  # of the longer side: presses so near to each other are on the same spot
MOST = 100  # clicks on one object
BAND = 512  # rows that are pasted at once: large photos need no more memory for it than small ones


@dataclass(frozen=True)
class SubdivisionStep:
    """One step of the rendering: `size`, the side of the grid after it; `points` (P, 2), where the point head was asked, in pixels of the picture, most
    uncertain first; `logits` (size, size) float32. The first step is the coarse head's, 7 x 7, of which no point was asked."""

    size: int
    points: NDArray[np.float32]
    logits: NDArray[np.float32]


@dataclass(frozen=True)
class Mask:
    """One object, as clicked so far.

    `mask` (H, W) bool; `logits` (side, side) float32, which fill `window` (x0, y0, x1, y1) of the picture; `score` in [0, 1], the overlap with the object that the
    network expects; `label`; `box` around the mask; `steps` of the rendering; `choice` of `choices`: which of the objects on the
    first spot this is (a repeated press goes through them); `said`: sentences about the clicks that a person should hear.
    """

    mask: NDArray[np.bool_]
    logits: NDArray[np.float32]
    window: tuple[float, float, float, float]
    score: float
    label: str
    box: tuple[int, int, int, int]
    steps: tuple[SubdivisionStep, ...]
    choice: int = 1
    choices: int = 1
    said: tuple[str, ...] = ()

    def to_dict(self) -> dict:
        height, width = self.mask.shape
        return {
            "label": self.label,
            "score": round(self.score, 4),
            "box": list(self.box),
            "area": int(np.count_nonzero(self.mask)),
            "choice": self.choice,
            "choices": self.choices,
            "points": [len(s.points) for s in self.steps],
            "said": list(self.said),
            "width": width,
            "height": height,
        }


@dataclass(frozen=True)
class Instance:
    """An object that was found without a click: `score` in [0, 1], `label`, `box` (x0, y0, x1, y1) around its mask; `logits` (side, side) float32, which fill
    `window` of the picture of `shape` (height, width)."""

    score: float
    label: str
    box: tuple[int, int, int, int]
    logits: NDArray[np.float32]
    window: tuple[float, float, float, float]
    shape: tuple[int, int]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """bool (H, W), drawn whenever it is asked for: of a large photo thirty masks at once would take gigabytes."""
        return pasted(self.logits, self.window, self.shape)

    def to_dict(self) -> dict:
        return {"label": self.label, "score": round(self.score, 4), "box": list(self.box), "area": int(np.count_nonzero(self.mask))}


@dataclass(frozen=True)
class Tidy:
    """Clicks in order: `places`, the middles of the pixels (x, y), `labels` 1 or 0, the first one positive; `presses` on the spot of the first; `said`."""

    places: tuple[tuple[float, float], ...]
    labels: tuple[int, ...]
    presses: int
    said: tuple[str, ...]

    @property
    def signs(self) -> list[int]:
        return [1 if label else -1 for label in self.labels]


def tidy(points: Sequence, labels: Sequence, size: tuple[int, int]) -> Tidy:
    """What a list of clicks on a picture of `size` (height, width) means. Of clicks on the same pixel the last counts. Raises BadInput."""
    try:
        at = np.asarray(points, float).reshape(-1, 2)
        kinds = np.asarray(labels, float).reshape(-1)
    except (TypeError, ValueError, OverflowError):
        raise BadInput("Give points as a list of (x, y), and labels as a list of 1 (the object) and 0 (not the object).") from None
    h, w = size
    if not len(at):
        raise BadInput("Click on the object first.")
    if len(at) != len(kinds):
        raise BadInput(f"There are {len(at)} points and {len(kinds)} labels: give one label, 1 or 0, for each point.")
    if len(at) > MOST:
        raise BadInput(f"{len(at)} clicks on one object are more than the {MOST} that are taken: reset, and begin again.")
    if not np.isin(kinds, (0, 1)).all():
        raise BadInput("A label is 1 (this belongs to the object) or 0 (it does not).")
    for x, y in at:
        if not (0 <= x < w and 0 <= y < h):  # false for NaN, too
            raise BadInput(f"The point ({x:g}, {y:g}) lies outside of this picture of {w} x {h} pixels: choose x from 0 to {w - 1} and y from 0 to {h - 1}.")
    kept: dict[tuple[int, int], int] = {}
    said = []
    for (x, y), kind in zip(np.floor(at).astype(int).tolist(), kinds.astype(int).tolist()):
        if kept.get((x, y), kind) != kind:
            del kept[x, y]
            said.append(f"At ({x}, {y}) you first said that it {'does not belong' if kind else 'belongs'} to the object, then that it {'does' if kind else 'does not'}: the last click counts.")
        kept.setdefault((x, y), kind)
    first = next((p for p, kind in kept.items() if kind), None)
    if first is None:
        raise BadInput("Every click says what the object is not: click once on the object itself.")
    order = [first, *(p for p in kept if p != first)]
    near = np.abs(np.floor(at) - first).max(1) <= max(2.0, SPOT * max(size))
    later = [p for p in order[1:] if not (kept[p] and np.abs(np.subtract(p, first)).max() <= max(2.0, SPOT * max(size)))]
    order = [first, *later]
    return Tidy(tuple((x + 0.5, y + 0.5) for x, y in order), tuple(kept[p] for p in order), int((near & (kinds == 1)).sum()), tuple(said))


def overlap(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Intersection over union of two masks."""
    return np.count_nonzero(a & b) / max(1, np.count_nonzero(a | b))


def pasted(logits: NDArray[np.float32], window: tuple[float, float, float, float], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Logits (side, side) that fill `window` (x0, y0, x1, y1) of a picture of `shape` (height, width) -> bool (height, width)."""
    h, w = shape
    mask, logits = np.zeros((h, w), bool), torch.from_numpy(logits)
    x0, y0, x1, y1 = window
    left, right, across = render.axis(x0, x1, logits.shape[1], w, logits)
    top, bottom, down = render.axis(y0, y1, logits.shape[0], h, logits)
    probabilities = logits.sigmoid() @ across.T
    for row in range(top, bottom, BAND):
        end = min(row + BAND, bottom)
        mask[row:end, left:right] = (down[row - top : end - top] @ probabilities >= 0.5).numpy()
    return mask


class Session:
    """A picture (H, W, 3) uint8 RGB that `net` has seen, its longer side brought to `longest`. `sure` and `shown`: see SURE and SHOWN. `click` may be called by
    several threads."""

    def __init__(self, net: SlimPointRend, image: NDArray[np.uint8], longest: int, classes: Sequence[str], sure: float = SURE, shown: float = SHOWN):
        self.net, self.image, self.classes, self.sure, self.shown = net, image, tuple(classes), sure, shown
        self.shape = image.shape[:2]
        x, self.size = slim.prepare(image, longest)
        self.scale = np.array([self.size[1] / self.shape[1], self.size[0] / self.shape[0]])  # (x, y): rounding makes them differ a little
        with torch.no_grad():  # not inference_mode: corrections go back through the point head, for which its tensors could not be used
            self.maps = net(x.to(next(net.parameters()).device))
        self._boxes: dict[tuple, Tensor] = {}
        self._choices: dict[tuple, tuple[Tensor, float]] = {}
        self._lock = threading.Lock()

    def click(self, points: Sequence, labels: Sequence, *, anyway: bool = False, count: int = render.POINTS, steps: int = 5) -> Mask:
        """The object at the first positive point, with every click obeyed: every positive pixel is inside, every negative one outside.

        `points` [(x, y), ...] and `labels` [1 or 0, ...]: all clicks on this object so far. A further positive click on the spot of the first means another
        object there: whole, part, neighbour. `count` points are decided anew in each of the `steps` subdivisions.
        Raises BadInput for clicks that cannot be meant, and NothingFound where there is nothing that looks like an object, unless `anyway`.
        """
        clicks = tidy(points, labels, self.shape)
        places = [tuple((np.array(p) * self.scale).tolist()) for p in clicks.places]
        with self._lock, torch.no_grad():
            box, choice, choices, sure = self._meant(clicks, places)
            if sure < self.sure and not anyway:
                raise NothingFound("Nothing was found here that looks like an object: click on a thing or an animal, or segment this point anyway.")
            look = self._heed(box, places, clicks.signs)
            seen: list[render.Step] = []
            logits = self.net.masks(self.maps.p2, look, count, steps, seen.append)[0]
            logits = refined(self.net, self.maps.p2, look, logits, places)
            mask, logits = self._obeyed(logits, look.boxes[0], clicks, places)
            label = self._label(box)
        window, score = self.original(look.boxes[0]), float(look.quality)
        return Mask(mask, logits.cpu().numpy(), window, score, label, bounding_box(mask), self._steps(look, seen), choice + 1, choices, clicks.said)

    def look(self, points: Sequence, labels: Sequence) -> slim.Box:
        """What the coarse head says of the clicked object, corrections included: what `SlimPointRend.masks` renders. Raises BadInput."""
        clicks = tidy(points, labels, self.shape)
        places = [tuple((np.array(p) * self.scale).tolist()) for p in clicks.places]
        with self._lock, torch.no_grad():
            return self._heed(self._meant(clicks, places)[0], places, clicks.signs)

    @cached_property
    def instances(self) -> list[Instance]:
        """What is found without a click, best first; of answers that cover the same pixels the better one."""
        with torch.no_grad():
            found = slim.detect(self.maps, self.size, limit=2 * LISTED)
            if not len(found.boxes):
                return []
            none = Clicks.none(len(found.boxes), found.boxes)
            box = self.net.look(self.maps.p2, slim.grow(found.boxes, self.size), none)
            box = self.net.look(self.maps.p2, slim.grow(clip(box.better, self.size), self.size), none)
            scores = (found.scores * box.quality).sqrt()
            order = [i for i in scores.argsort(descending=True).tolist() if scores[i] >= self.shown]
            dense = self._dense(box)
            stay: list[int] = []
            for i in order:
                if all(overlap(dense[i], dense[j]) < 0.6 for j in stay) and dense[i].any() and len(stay) < LISTED:
                    stay.append(i)
            listed = []
            for part in (stay[i : i + render.BATCH] for i in range(0, len(stay), render.BATCH)):
                for i, logits in zip(part, self.net.masks(self.maps.p2, box[part], steps=4)):
                    listed += self._instance(logits, box.boxes[i], float(scores[i]), self.classes[int(found.classes[i])])
        return listed

    def _instance(self, logits: Tensor, window: Tensor, score: float, label: str) -> list[Instance]:
        """One, or none if its mask is empty."""
        numbers, around = logits.cpu().numpy(), self.original(window)
        box = bounding_box(pasted(numbers, around, self.shape))
        return [Instance(score, label, box, numbers, around, self.shape)] if box[2] else []

    def original(self, box: Tensor) -> tuple[float, float, float, float]:
        """A box (4,) of the network's picture in pixels of the picture as it was given."""
        return tuple((np.array(box.tolist()) / np.tile(self.scale, 2)).tolist())

    def _heed(self, box: Tensor, places: list, signs: list[int]) -> slim.Box:
        return slim.heed(self.net, self.maps, self.size, box, places, signs)

    def _meant(self, clicks: Tidy, places: list) -> tuple[Tensor, int, int, float]:
        """The box (4,) of the object that the clicks mean; which of how many choices it is; how sure it is that there is one."""
        boxes, sure = self._choose(places[0], clicks.presses > 1)
        choice = (clicks.presses - 1) % len(boxes)
        return self._follow(boxes[choice], choice, places, clicks.signs), choice, len(boxes), sure

    def _choose(self, place: tuple[float, float], others: bool) -> tuple[Tensor, float]:
        """Boxes (N, 4) of the objects at `place`, best first, and how sure the best is. With `others`, up to CHOICES that differ from each other."""
        if (place, others) not in self._choices:
            best, sure = slim.choose(self.net, self.maps, self.size, place)
            self._choices[place, others] = (torch.cat([best[None], self._others(best, place)]) if others else best[None]), sure
        return self._choices[place, others]

    def _others(self, best: Tensor, place: tuple[float, float]) -> Tensor:
        """What else may be meant: what other cells say, and things half and twice as large around the point."""
        boxes, score = slim.candidates(self.maps, self.size, place, limit=12)
        at = best.new_tensor([*place, *place])
        scaled = torch.stack([at + (best - at) * factor for factor in (0.35, 0.6, 1.7, 3.0)])
        boxes = torch.cat([boxes, clip(scaled, self.size)])
        score = torch.cat([score, score.new_full((len(scaled),), 0.2)])
        clicks = Clicks.of([place], [1], len(boxes), boxes)
        better = self.net.look(self.maps.p2, slim.grow(boxes, self.size), clicks).better
        boxes = torch.stack([slim.reach(b, [place], [1]) for b in clip(better, self.size)])
        boxes = torch.cat([best[None], boxes])
        clicks = Clicks.of([place], [1], len(boxes), boxes)
        seen = self.net.look(self.maps.p2, slim.grow(boxes, self.size), clicks)
        dense = self._dense(seen)
        stay = [0]
        for i in (1 + (seen.quality[1:] * score).argsort(descending=True)).tolist():
            if dense[i].any() and all(overlap(dense[i], dense[j]) < ALIKE for j in stay) and len(stay) < CHOICES:
                stay.append(i)
        return boxes[stay[1:]]

    def _dense(self, box: slim.Box) -> NDArray[np.bool_]:
        """Masks of R boxes, 28 x 28 points each, on a small grid of the whole picture: (R, h, w), to be compared with each other."""
        logits = self.net.masks(self.maps.p2, box, steps=2)
        shape = (max(1, self.size[0] // 4), max(1, self.size[1] // 4))
        small = box.boxes * box.boxes.new_tensor([shape[1] / self.size[1], shape[0] / self.size[0]] * 2)
        return render.paste(logits.sigmoid().cpu(), small.cpu(), shape).numpy()

    def _follow(self, box: Tensor, choice: int, places: list, signs: list[int]) -> Tensor:
        """The box after all clicks. What the first clicks made of it is remembered, so that the answer depends on the list alone, and not on what came before."""
        for n in range(2, len(places) + 1):
            key = choice, tuple(places[:n]), tuple(signs[:n])
            if key not in self._boxes:
                self._boxes[key] = slim.follow(self.net, self.maps, self.size, box, places[:n], signs[:n])
            box = self._boxes[key]
        return box

    def _label(self, box: Tensor) -> str:
        """The class of the cell whose box is most like this one."""
        boxes, logits = clip(self.maps.boxes[0], self.size), self.maps.logits[0]
        best = int((ops.box_iou(box[None].to(boxes), boxes)[0].square() * logits[:, -1].sigmoid()).argmax())
        return self.classes[int(logits[best, :-1].argmax())]

    def _obeyed(self, logits: Tensor, window: Tensor, clicks: Tidy, places: list) -> tuple[NDArray[np.bool_], Tensor]:
        """The mask, every click on its side. Feature back-propagation has seen to nearly all; what is left is spread over what looks alike, and the pixel itself
        is set last of all."""
        pixels = [(int(y), int(x), bool(label)) for (x, y), label in zip(clicks.places, clicks.labels)]
        around = self.original(window)
        mask = pasted(logits.cpu().numpy(), around, self.shape)
        for _ in range(3):
            wrong = [i for i, (y, x, label) in enumerate(pixels) if mask[y, x] != label]
            if not wrong:
                return mask, logits
            logits = spread(logits, self.maps.p2, window, [places[i] for i in wrong], [clicks.signs[i] for i in wrong])
            mask = pasted(logits.cpu().numpy(), around, self.shape)
        for y, x, label in pixels:
            mask[y, x] = label
        return mask, logits

    def _steps(self, look: slim.Box, seen: list[render.Step]) -> tuple[SubdivisionStep, ...]:
        x0, y0, x1, y1 = self.original(look.boxes[0])
        coarse = look.drawn[0]
        steps = [SubdivisionStep(coarse.shape[-1], np.zeros((0, 2), np.float32), coarse.cpu().numpy())]
        for step in seen:
            at = step.points[0].cpu().numpy() * (x1 - x0, y1 - y0) + (x0, y0)
            steps.append(SubdivisionStep(step.side, at.astype(np.float32), step.logits[0, 0].cpu().numpy()))
        return tuple(steps)


def refined(net: SlimPointRend, p2: Tensor, box: slim.Box, logits: Tensor, places: list, reach: int = 4) -> Tensor:
    """`logits` (side, side) with the points around each click at `places` decided, too: there a person has looked closely."""
    side = logits.shape[-1]
    x0, y0, x1, y1 = box.boxes[0].tolist()
    cells = set()
    for x, y in places:
        column, row = int((x - x0) / (x1 - x0) * side), int((y - y0) / (y1 - y0) * side)
        if 0 <= column < side and 0 <= row < side:
            cells |= {r * side + c for r in range(max(0, row - reach), min(side, row + reach + 1)) for c in range(max(0, column - reach), min(side, column + reach + 1))}
    if not cells:
        return logits
    index = torch.tensor(sorted(cells), device=logits.device)
    at = grids.regular_grid(1, side, box.boxes)[:, index]
    return logits.flatten().scatter(0, index, net.decide(p2, box, at)[0]).view_as(logits)


def spread(logits: Tensor, p2: Tensor, window: Tensor, places: list, signs: list[int], near: float = 0.12, side: int = 56) -> Tensor:
    """Logits (S, S) of `window` (4,), raised or lowered around each click until it is on its side: by as much as a point looks like the clicked one (the fine
    features `p2` say so) and lies `near` it, in window sides."""
    grid = grids.regular_grid(1, side, window[None])
    fine = F.normalize(grids.sample_in_boxes(p2, 4, window[None], grid)[0], dim=1)  # (side * side, C)
    for place, sign in zip(places, signs):
        at = ((window.new_tensor(place) - window[:2]) / (window[2:] - window[:2]).clamp(min=1e-6))[None, None]
        here = F.normalize(grids.sample_in_boxes(p2, 4, window[None], at)[0], dim=1)
        unlike, apart = 1 - fine @ here[0], (grid[0] - at[0]).square().sum(1)
        weight = (-unlike / unlike.median().clamp(min=1e-3) - apart / (2 * near**2)).exp() + (-apart / (2 * 0.02**2)).exp()
        weight = F.interpolate(weight.view(1, 1, side, side), size=logits.shape, mode="bilinear", align_corners=False)[0, 0]
        value, strength = (grids.point_sample(x[None, None], at)[0, 0, 0] for x in (logits, weight))
        missing = 0.5 - sign * value
        logits = logits + sign * missing.clamp(min=0) * weight / strength.clamp(min=0.2)
    return logits
