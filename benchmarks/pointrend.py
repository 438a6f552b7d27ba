"""How fast PointRend answers: `python benchmarks/pointrend.py`.

The embedded model end to end in Python, from picture to mask; and the authors' network (R50-FPN at 800 pixels, random weights, which change no time) in our
form beside the published way of computing all classes. With detectron2 installed, its own PointRend runs beside them. Writes pointrend.md and pointrend.json
beside this file.
"""
from __future__ import annotations

import argparse
import importlib.util
import resource
import sys
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

import numpy as np  # noqa: E402
import torch  # noqa: E402

import pttp  # noqa: E402
from pttp.pointrend import detect, preprocess, render  # noqa: E402
from pttp.pointrend.model import PointRend  # noqa: E402
from pttp.resnet import inference_form  # noqa: E402

import timing  # noqa: E402

ABOUT = (
    f"{timing.SIZE[1]} x {timing.SIZE[0]} photo, {{}} (where that is above the number of threads, the clock also counts what others did, and the processor's own time is the fairer number). "
    "Made by `python benchmarks/pointrend.py`."
)
ANCHORS = {10: 2.71, 100: 9.25}  # seconds: the authors' code on a 2-core machine, 2 threads, measured once in a quiet hour on a picture of this size


def embedded(rounds: int) -> dict[str, dict]:
    net, image = pttp.load("pointrend", "embedded"), timing.photo()
    session = net.open(image)
    x, y = 300, 300
    corrections = [(360, 120), (80, 60), (300, 440), (500, 300)]

    def later():
        """The third click; the boxes after the first two are known, as they are in a session."""
        session.click([(x, y), *corrections[:2]], [1, 1, 0], anyway=True)

    def first():
        session._choices.clear()
        session.click([(x, y)], [1], anyway=True)

    def both():
        net.open(image).click([(x, y)], [1], anyway=True)

    def everything():
        session.__dict__.pop("instances", None)
        return session.instances

    named = {"set_image": lambda: net.open(image), "first click": first, "set_image and first mask": both, "a later click": later, "everything in the photo": everything}
    return {name: timing.alone(work, rounds) for name, work in named.items()}


def whole(net: PointRend, image: np.ndarray, count: int, masks: Callable) -> None:
    """Picture -> `count` detections with their masks in the picture, as the authors' demo does."""
    with torch.inference_mode():
        small = preprocess.resize(image)
        maps = net.backbone(preprocess.normalise(small))
        found = detect.detect(net, maps, small.shape[:2], score=0.0, limit=count)
        if len(found.boxes) != count:
            raise SystemExit(f"{len(found.boxes)} detections in place of {count}: nothing to compare")
        probabilities = masks(net, maps["p2"], found.boxes, found.classes)
        boxes = found.boxes * (image.shape[0] / small.shape[0])
        render.paste(probabilities.view(len(boxes), *probabilities.shape[-2:]), boxes, image.shape[:2])


def all_classes(net: PointRend, p2: torch.Tensor, boxes: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """The published way: every class of every box is rendered, then one is kept."""
    coarse = net.coarse_head(net.coarse_head.pool(p2, boxes))
    kept = torch.arange(len(boxes))
    side, steps = render.schedule(7, 5, render.POINTS)
    at = render.points.regular_grid(len(boxes), side, boxes)
    logits = render.decide(net.point_head, p2, coarse, boxes, at).unflatten(2, (side, side))
    for _ in range(steps):
        step = render.subdivide(logits, lambda at: render.decide(net.point_head, p2, coarse, boxes, at), lambda x: render.points.uncertainty(x, classes), render.POINTS)
        logits = step.logits
    return logits[kept, classes].sigmoid()


def peak() -> float:
    """GB that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20 / (1024 if sys.platform == "darwin" else 1)


def network() -> PointRend:
    torch.manual_seed(0)
    net = PointRend().eval()
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if name.endswith("bn3.weight"):
                weight.fill_(0.2)  # else sixteen residual blocks of random weights blow up, and all proposals become one
    return net


def exact(rounds: int) -> dict[str, dict]:
    net, image, rows = inference_form(network()), timing.photo(), {}
    for count in (10, 100):
        rows[f"ours, {count} detections"] = timing.alone(lambda n=count: whole(net, image, n, render.masks), rounds) | {"count": count, "peak": peak()}
    net = network()
    rows["all classes, plain form, 10 detections"] = timing.alone(lambda: whole(net, image, 10, all_classes), rounds) | {"count": 10, "peak": peak()}
    return rows


def theirs(rounds: int) -> dict[str, dict]:
    """detectron2's own PointRend, where it is installed."""
    if importlib.util.find_spec("detectron2") is None:
        return {}
    from detectron2.config import get_cfg
    from detectron2.engine import DefaultPredictor
    from detectron2.projects import point_rend

    rows = {}
    for count in (10, 100):
        cfg = get_cfg()
        point_rend.add_pointrend_config(cfg)
        cfg.merge_from_file(str(Path(point_rend.__file__).parents[3] / "projects/PointRend/configs/InstanceSegmentation/pointrend_rcnn_R_50_FPN_3x_coco.yaml"))
        cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS, cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST, cfg.TEST.DETECTIONS_PER_IMAGE = "cpu", "", 0.0, count
        predictor, image = DefaultPredictor(cfg), timing.photo()[..., ::-1]
        rows[f"detectron2, {count} detections"] = timing.alone(lambda p=predictor, i=image: p(i), rounds) | {"count": count, "peak": peak()}
    return rows


def table(result: dict) -> str:
    lines = ["# PointRend's speed", "", ABOUT.format(timing.said(result)), "", "## The embedded model", "", "| what | ms, median (min..max) | ms of processor |", "|---|---|---|"]
    lines += [f"| {name} | {timing.spread(t)} | {t['processor']:.0f} |" for name, t in result["embedded"].items()]
    if result["exact"]:
        lines += ["", "## The authors' network, R50-FPN at 800 pixels, random weights", "", "| what | s, median (min..max) | s of processor | to the anchor | peak memory |", "|---|---|---|---|---|"]
        for name, t in result["exact"].items():
            lines.append(f"| {name} | {timing.spread(t, 2, 1e3)} | {t['processor'] / 1e3:.2f} | {t['median'] / 1e3 / ANCHORS[t['count']]:.2f} | {t['peak']:.1f} GB |")
        lines += ["", f"Anchor: the authors' code, measured on another 2-core machine with 2 threads in a quiet hour: {ANCHORS[10]} s for 10 detections, {ANCHORS[100]} s for 100. Peak memory is the process's so far, weights included."]
    return "\n".join([*lines, ""])


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=20, help="of the embedded model; the authors' network gets a quarter of them (default 20)")
    p.add_argument("--no-exact", action="store_true", help="leave the authors' network out")
    p.add_argument("--out", type=Path, default=timing.HERE, help="folder for pointrend.md and pointrend.json")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    few = max(1, a.rounds // 4)
    exactly = {} if a.no_exact else exact(few) | theirs(few)  # first: its peak of memory shall be its own
    parts = {"embedded": embedded(a.rounds), "exact": exactly}
    result = {**timing.machine(a.threads), "anchors": ANCHORS, **parts}
    timing.write(a.out, "pointrend", result, table(result))


if __name__ == "__main__":
    main()
