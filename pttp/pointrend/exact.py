"""The authors' instance networks behind the same door as ours: what they find, and clicks that choose among it and correct it.

They were not made to be clicked. A click chooses the detection whose mask contains it; a further click is obeyed by feature back-propagation alone, because
these heads have no input for clicks.
"""
from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pttp import ops
from pttp.pointrend import detect, points, preprocess, render, slim
from pttp.pointrend.fast import Decider
from pttp.pointrend.model import PointRend
from pttp.pointrend.session import ALIKE, CHOICES, SURE, Instance, Session, Tidy, overlap
from pttp.resnet import inference_form

SHOWN = 0.5  # the score from which a detection is listed, as in the authors' demo
COCO = tuple(
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,bench,bird,cat,dog,horse,sheep,cow,"
    "elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,"
    "surfboard,tennis racket,bottle,wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,"
    "potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,refrigerator,book,clock,vase,scissors,"
    "teddy bear,hair drier,toothbrush".split(",")
)
CITYSCAPES = ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")


def class_names(count: int) -> tuple[str, ...]:
    return {len(COCO): COCO, len(CITYSCAPES): CITYSCAPES}.get(count, tuple(f"class {i}" for i in range(count)))


@dataclass(frozen=True)
class ClassBox(slim.Box):
    """`guide` is the corrected coarse prediction of all classes, (R, K, 7, 7); `kind` (R, 1) the class whose mask is drawn."""

    kind: Tensor

    @property
    def drawn(self) -> Tensor:
        return points.of_channel(self.coarse, self.kind[:, 0])[:, 0]


@dataclass(frozen=True)
class Seen:
    """One picture: `p2` (1, 256, h, w) and the `found` detections, in pixels of the network's picture."""

    p2: Tensor
    found: detect.Detections


class Exact:
    """An instance network in its inference form, with the doors that a session knocks at."""

    def __init__(self, net: PointRend, config: dict):
        self.net, self.options = inference_form(net), {"channels": net.point_head.fc1.in_channels - net.num_classes, "codes": net.num_classes - 3}
        self.mean, self.std = config["preprocess"]["mean"], config["preprocess"]["std"]
        self.classes = class_names(net.num_classes)
        self.point_head, self.coarse_head = self.net.point_head, self.net.coarse_head

    @torch.no_grad()
    def see(self, image: NDArray[np.uint8]) -> tuple[Seen, tuple[int, int]]:
        """uint8 RGB (H, W, 3), any size -> what the network sees in it, and the (height, width) at which it does."""
        small = preprocess.resize(image)
        x = preprocess.normalise(small, self.mean, self.std).to(next(self.net.parameters()).device)
        maps = self.net.backbone(x)
        return Seen(maps["p2"], detect.detect(self.net, maps, small.shape[:2])), small.shape[:2]

    def look(self, p2: Tensor, boxes: Tensor, kind: Tensor, quality: Tensor) -> ClassBox:
        """The coarse head on `boxes` (R, 4), for the classes `kind` (R, 1)."""
        coarse = self.coarse_head(self.coarse_head.pool(p2, boxes))
        return ClassBox(boxes, coarse, coarse, quality, boxes, torch.zeros_like(boxes), kind)

    def decide(self, p2: Tensor, box: ClassBox, at: Tensor) -> Tensor:
        return render.decide(self.point_head, p2, box.guide, box.boxes, at, channels=box.kind)[:, 0]

    def point(self, fine: Tensor, guide: Tensor, box: ClassBox) -> Tensor:
        return self.point_head(fine, guide, box.kind)[:, 0]

    def masks(self, p2: Tensor, box: ClassBox, count: int = render.POINTS, steps: int = 5, watch=None) -> Tensor:
        decide = Decider(self.point_head, p2).of(box.guide, box.boxes, box.kind)
        return render.render(decide, box.boxes, box.coarse.shape[-1], count, steps, watch)[:, 0]


class ExactSession(Session):
    """A picture that one of the authors' networks has seen."""

    def __init__(self, net: Exact, image: NDArray[np.uint8]):
        self.net, self.image, self.classes, self.shape = net, image, net.classes, image.shape[:2]
        self.sure = SURE
        self.maps, self.size = net.see(image)
        self.scale = np.array([self.size[1] / self.shape[1], self.size[0] / self.shape[0]])
        self._meanings: dict[tuple, list[tuple[Tensor, int, float]]] = {}
        self._lock = threading.Lock()

    @cached_property
    def instances(self) -> list[Instance]:
        listed, found = [], self.maps.found
        for i in (found.scores > SHOWN).nonzero()[:, 0].tolist():
            with torch.no_grad():
                logits = self.net.masks(self.maps.p2, self._box(i))[0]
            listed += self._instance(logits, found.boxes[i], float(found.scores[i]), self.classes[int(found.classes[i])])
        return listed

    def _box(self, i: int) -> ClassBox:
        found = self.maps.found
        return self.net.look(self.maps.p2, found.boxes[i : i + 1], found.classes[i : i + 1, None], found.scores[i : i + 1])

    def _meant(self, clicks: Tidy, places: list) -> tuple[tuple, int, int, float]:
        """Among the detections whose mask contains the first click the best; else a box around it, of the class that the nearest detection has."""
        if places[0] not in self._meanings:
            self._meanings[places[0]] = self._choose_among(places[0])
        meanings = self._meanings[places[0]]
        choice = (clicks.presses - 1) % len(meanings)
        box, kind, score = meanings[choice]
        return (slim.clip(slim.reach(box, places, clicks.signs)[None], self.size)[0], kind, score), choice, len(meanings), meanings[0][2]

    def _choose_among(self, place: tuple[float, float]) -> list[tuple[Tensor, int, float]]:
        found = self.maps.found
        at = found.boxes.new_tensor(place)
        around = ((found.boxes[:, :2] <= at) & (found.boxes[:, 2:] > at)).all(1).nonzero()[:, 0].tolist()[: 4 * CHOICES]
        meanings, seen = [], []
        for i in around:  # best score first
            logits = self.net.masks(self.maps.p2, self._box(i), steps=2)[0]
            inside = ((at - found.boxes[i, :2]) / (found.boxes[i, 2:] - found.boxes[i, :2]) * logits.shape[-1]).long().clamp(max=logits.shape[-1] - 1)
            mask = render.paste(logits.sigmoid()[None].cpu(), (found.boxes[i : i + 1] / 8).cpu(), (self.size[0] // 8 + 1, self.size[1] // 8 + 1))[0].numpy()
            if logits[inside[1], inside[0]] > 0 and all(overlap(mask, other) < ALIKE for other in seen):
                meanings.append((found.boxes[i], int(found.classes[i]), float(found.scores[i])))
                seen.append(mask)
        if meanings:
            return meanings[:CHOICES]
        half = max(self.size) / 10
        box = slim.clip(torch.cat([at - half, at + half])[None], self.size)
        nearest = int(ops.box_iou(box, found.boxes)[0].argmax()) if len(found.boxes) else -1
        return [(box[0], int(found.classes[nearest]) if nearest >= 0 else 0, 0.0)]

    def _heed(self, meant: tuple, places: list, signs: list[int]) -> ClassBox:
        box, kind, score = meant
        look = self.net.look(self.maps.p2, slim.grow(box[None], self.size, 1.0), torch.tensor([[kind]], device=box.device), box.new_tensor([score]))
        return slim.obey(self.net, self.maps.p2, look, slim.Clicks.of(places, signs, 1, box))

    def _label(self, meant: tuple) -> str:
        return self.classes[meant[1]]
