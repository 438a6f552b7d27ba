"""What the embedded model is taught, and the recipe end to end on a handful of made-up photos."""
from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pttp import trunk
from pttp.polarmask import evaluate, slim, targets, train
from pttp.polarmask.slim import Maps, SlimPolarMask
from pttp.training.export import MARKED, start_trunk, tensors
from pttp.training.instances import CLASSES, Views, read
from tests import made_photos

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return made_photos.with_trunk(tmp_path_factory.mktemp("data"))


def blob(seed: int, size: int = 60) -> np.ndarray:
    """A random mask with bays, holes and crumbs."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(size, size + 10))
    f = np.fft.rfft2(noise)
    f *= np.exp(-40 * (np.fft.fftfreq(size)[:, None] ** 2 + np.fft.rfftfreq(size + 10)[None] ** 2) * 4)
    return np.fft.irfft2(f, noise.shape) > 0.01


@pytest.mark.parametrize("seed", range(12))
def test_the_fast_rim_is_the_contour(seed):
    """Of the part with the most pixels; where that is also the part with the largest area, the pixels are those of the authors' rule."""
    part, fast = train.rim(blob(seed))
    slow = targets.contour(part)
    assert {tuple(p) for p in fast.tolist()} == {tuple(p) for p in slow.tolist()} and len(set(map(tuple, fast.tolist()))) == len(fast)
    assert (part & ~blob(seed)).sum() == 0 and part[fast[:, 1], fast[:, 0]].all()


def test_the_rim_of_a_full_frame_and_of_a_pixel():
    part, fast = train.rim(np.ones((4, 5), bool))
    assert part.all() and len(fast) == 2 * (4 + 5) - 4
    assert train.rim(np.ones((1, 1), bool))[1].tolist() == [[0, 0]]


def test_true_rays_are_those_of_the_rule():
    mask = np.zeros((140, 150), bool)
    mask[10:130, 5:140] = made(60, 70, 55, (120, 135))
    points = np.array([[70, 60], [60, 80]])
    torch.testing.assert_close(train.true_rays(mask, points), targets.rays(torch.tensor(points).float(), torch.from_numpy(targets.contour(mask))))


def made(y, x, r, shape):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.hypot(columns - x, rows - y) < r


def test_small_objects_miss_no_ray():
    mask = made(6, 6, 6, (13, 13))
    points = np.array([[6, 6]])
    plain = targets.rays(torch.tensor(points).float(), torch.from_numpy(targets.contour(mask)))
    assert (plain < 1).any()  # the rule in whole degrees at this size
    rays = train.true_rays(mask, points)
    assert rays.min() > 5 and rays.max() < 6.7


def views(*objects, size=64, complete=True, sure=None):
    """One picture with objects (x0, y0, x1, y1, label), filled rectangles; the later ones are in front."""
    masks = torch.zeros(len(objects), size, size, dtype=torch.bool)
    for i, (x0, y0, x1, y1, _) in enumerate(objects):
        masks[:, y0:y1, x0:x1] = False
        masks[i, y0:y1, x0:x1] = True
    boxes = torch.tensor([o[:4] for o in objects], dtype=torch.float32).view(-1, 4)
    told = torch.full((1, len(CLASSES)), complete) if isinstance(complete, bool) else torch.tensor([complete])
    sure = torch.ones(1, size, size, dtype=torch.bool) if sure is None else sure
    return Views(torch.zeros(1, 3, size, size), masks, boxes, torch.tensor([o[4] for o in objects], dtype=torch.long), torch.zeros(len(objects), dtype=torch.long), sure, told)


def quiet(size=64, grad=False) -> Maps:
    sizes = tuple((size // s, size // s) for s in slim.STRIDES)
    at = torch.cat([slim.cells(*n, s, torch.zeros(1)) for n, s in zip(sizes, slim.STRIDES)])
    return Maps(*(torch.zeros(1, len(at), *more, requires_grad=grad) for more in ((len(CLASSES),), (), ())), torch.full((1, len(at), 36), 10.0, requires_grad=grad), at, sizes)


def test_cells_on_a_mask_speak_for_it():
    t = train.truth(views((8, 8, 40, 40, 1), (16, 16, 32, 32, 2)), 36, RNG)
    at = quiet().at[t.cell]
    small = at[t.labels == 2]
    assert len(small) == 4 and ((small >= 16) & (small < 32)).all()  # it is in front: all its cells of stride 8
    large = at[t.labels == 1]
    assert len(large) == 16 - 4 and ((large >= 8) & (large < 40)).all()
    middle = (at == 20).all(1)
    assert t.rays[middle][0, [0, 9, 18, 27]].tolist() == pytest.approx([11, 11, 4, 4], abs=0.6)  # down, right, up, left


@pytest.mark.parametrize(("box", "strides"), [((100, 100, 130, 150), {8}), ((60, 60, 160, 160), {8, 16}), ((10, 10, 150, 150), {16}), ((10, 10, 250, 240), {16, 32})])
def test_sizes_belong_to_levels(box, strides):
    t = train.truth(views((*box, 1), size=256), 36, RNG)
    assert {slim.STRIDES[int(i)] for i in slim.levels(quiet(256))[t.cell]} == strides


def test_an_object_too_thin_for_any_cell_gets_the_nearest():
    t = train.truth(views((16, 10, 18, 30, 1)), 36, RNG)
    (cell,) = t.cell.tolist()
    assert (quiet().at[cell] - torch.tensor([17.0, 20.0])).abs().max() <= 4
    assert torch.isfinite(t.rays).all() and t.rays.max() > 5


def test_no_objects():
    t = train.truth(views(), 36, RNG)
    assert not len(t.cell) and t.known.all() and t.known_any.all()
    lost = train.losses(quiet(), t)
    assert lost["kind"] > 0 and lost["rays"] == 0


def test_at_most_so_many_cells_learn():
    t = train.truth(views((0, 0, 128, 128, 1), size=128), 36, np.random.default_rng(1))
    level = slim.levels(quiet(128))[t.cell]
    assert (level == 0).sum() == train.MOST and (level == 1).sum() == train.MOST and len(set(t.cell.tolist())) == len(t.cell)
    assert not t.known_any[0, slim.levels(quiet(128)) < 2].any()  # the others say nothing
    assert t.known_any[0, slim.levels(quiet(128)) == 2].all()  # but the object is not this level's


def test_objects_beside_the_sure_pixels():
    sure = torch.ones(1, 64, 64, dtype=torch.bool)
    sure[:, :, 32:] = False
    t = train.truth(views((0, 0, 20, 20, 1), sure=sure), 36, RNG)
    right = quiet().at[:, 0] >= 32
    assert not t.known[0, right].any() and t.known[0, ~right].any()


def taught(v):
    """Where the losses pull classes (P, K) and quality (P,): their gradients; and the targets."""
    maps, t = quiet(grad=True), train.truth(v, 36, RNG)
    lost = train.losses(maps, t)
    (lost["kind"] + lost["quality"]).backward()
    return maps.classes.grad[0], maps.quality.grad[0], t


def test_what_is_not_marked_is_not_empty():
    """Only of classes of which all objects are marked the ground learns that it is none; that it is nothing at all, only if that holds for all classes."""
    cat = CLASSES.index("cat")
    ground = torch.ones(len(quiet().at), dtype=torch.bool)
    ground[((quiet().at >= 8) & (quiet().at < 40)).all(1)] = False
    kind, anything, t = taught(views((8, 8, 40, 40, cat), complete=[c == "cat" for c in CLASSES]))
    assert (kind[ground][:, cat] > 0).all() and not anything[ground].any()
    assert not kind[ground][:, [i for i in range(len(CLASSES)) if i != cat]].any()
    assert (kind[t.cell, cat] < 0).all() and (kind[t.cell][:, [i for i in range(len(CLASSES)) if i != cat]] > 0).all()
    kind, anything, _ = taught(views((8, 8, 40, 40, cat)))
    assert (kind[ground] > 0).all() and (anything[ground] > 0).all()


def test_an_object_of_unknown_class_is_something():
    kind, anything, t = taught(views((8, 8, 40, 40, -1), complete=False))
    assert not kind[t.cell].any() and anything[t.cell].any()


def perfect(t, size=64) -> Maps:
    maps = quiet(size)
    maps.rays[t.picture, t.cell] = t.rays
    return maps


@pytest.mark.parametrize("loss", ["polar", "smooth_l1"])
def test_true_rays_cost_nothing(loss):
    t = train.truth(views((8, 8, 40, 40, 1)), 36, RNG)
    lost = train.losses(perfect(t), t, loss)
    assert lost["rays"] == pytest.approx(0, abs=1e-6) and lost["polar_iou"] == pytest.approx(1)
    wrong = perfect(t)
    wrong.rays[:] *= 2
    lost = train.losses(wrong, t, loss)
    assert lost["polar_iou"] == pytest.approx(0.5)
    assert lost["rays"] == pytest.approx(np.log(2)) if loss == "polar" else lost["rays"] > 0.2


def test_centerness_is_a_weight():
    """The error of a cell near the rim counts less, unless the ablation is asked for."""
    t = train.truth(views((8, 8, 40, 40, 1)), 36, RNG)
    at = quiet().at[t.cell]
    rim, middle = ((at - 24).abs().amax(1) == edge for edge in (12, 4))
    assert rim.any() and middle.any()
    for centerness in (True, False):
        cost = []
        for where in (rim, middle):
            maps = perfect(t)
            maps.rays[0, t.cell[where]] *= 2
            cost.append(train.losses(maps, t, centerness=centerness)["rays"].item() / int(where.sum()))
        assert cost[0] < 0.8 * cost[1] if centerness else cost[0] == pytest.approx(cost[1])
    assert train.losses(quiet(), t, centerness=False)["centerness"] == 0 < train.losses(quiet(), t)["centerness"]


def test_frozen_parts_stay(root):
    torch.manual_seed(0)
    net = train.freeze_trunk(SlimPolarMask())
    learn = train.Learn(net).train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    lost = learn(*train.batches(read(root, "train"), 2 * 256**2, 36)(0, torch.Generator().manual_seed(0)))
    assert all(torch.isfinite(v) for v in lost.values())
    lost["loss"].backward()
    moved = {name for name, p in net.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert not any(name.startswith(("trunk.conv_stem", "trunk.blocks.0.", "trunk.blocks.1.")) or ".bn" in name for name in moved)
    assert {name.split(".")[0] for name in moved} == {"trunk", "pyramid", "cls_convs", "mask_convs", "polar_cls", "polar_centerness", "polar_quality", "polar_mask", "scales"}
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items() if "running" in k)
    learnt = [p for group in train.groups(net, 1e-3) for p in group["params"]]
    assert len(learnt) == len({id(p) for p in learnt}) == sum(p.requires_grad for p in net.parameters())


def test_the_trunk_of_another_room(root, tmp_path):
    net = SlimPolarMask()
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, tmp_path / "model.safetensors")
    for file, expected in ((tmp_path / "model.safetensors", net.trunk.state_dict()), (root / "trunk.safetensors", load_file(root / "trunk.safetensors"))):
        for stride in (16, 32):  # cut, and whole
            started = trunk.Trunk(stride)
            start_trunk(started, file)
            assert all(torch.equal(v, expected[k]) for k, v in started.state_dict().items() if "num_batches" not in k)


def test_it_learns(root, monkeypatch):
    """Forty steps on discs: the rays get better than any fixed circle, and the classes are told apart."""
    monkeypatch.setattr(train, "SIDES", (64,))
    torch.manual_seed(0)
    net = train.freeze_trunk(SlimPolarMask())
    learn = train.Learn(net)
    draw = train.batches(read(root, "train"), 6 * 64**2, 36)
    optimizer = torch.optim.AdamW(train.groups(net, 2e-3))
    kept = []
    for step in range(40):
        lost = learn(*draw(step, torch.Generator().manual_seed(step % 4)))
        optimizer.zero_grad()
        lost["loss"].backward()
        optimizer.step()
        kept.append({k: float(v.detach()) for k, v in lost.items()})
    for name in ("rays", "kind"):
        first, last = (np.mean([k[name] for k in some]) for some in (kept[:4], kept[-4:]))
        assert last < 0.6 * first, name
    before, after = (np.mean([k["polar_iou"] for k in some]) for some in (kept[:4], kept[-4:]))
    assert after > 0.7 > before + 0.1


def test_the_recipe(root, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "SIDES", (64, 96))
    monkeypatch.setattr("pttp.training.scores.LARGE", 100)
    options = ["--data", str(root), "--trunk", str(root / "trunk.safetensors"), "--cache", str(tmp_path / "cache"), "--pixels", str(2 * 64**2), "--objects", "2", "--threads", "1"]
    train.main([*options, "--run", str(tmp_path / "run"), "--out", str(tmp_path / "out"), "--steps", "3"])
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"model.safetensors", "config.json", "metrics.json", "MODEL_CARD.md"}
    metrics, config = (json.loads((tmp_path / "out" / f"{name}.json").read_text()) for name in ("metrics", "config"))
    m = metrics["metrics"]
    assert {"horses", "coco", "ecssd", "animals_misc", "cats"} <= set(m["clicks"]) and all(0 <= v["iou"] <= 1 and v["bound"] > 0.9 for v in m["clicks"].values())
    assert set(m["detection"]) == {"cats", "pets", "coco"} and m["size"] in train.SIZES
    assert "--steps 3" in metrics["training"]["command"] and metrics["training"]["views"] == 3 * (2 + 1) // 2
    card = (tmp_path / "out" / "MODEL_CARD.md").read_text()
    assert train.table(metrics) in card and not MARKED.search(card)
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert {v.dtype for v in weights.values()} == {torch.float16, torch.int64}
    assert config["kind"] == "slim" and config["preprocess"]["longest"] == m["size"] and config["centerness"] is True
    SlimPolarMask(**config["net"]).load_state_dict(tensors(tmp_path / "out" / "model.safetensors"))

    train.main([*options, "--run", str(tmp_path / "run"), "--out", str(tmp_path / "out"), "--steps", "3"])  # finished: nothing is trained again
    for a, b in zip(weights.values(), load_file(tmp_path / "out" / "model.safetensors").values(), strict=True):
        assert torch.equal(a, b)

    ablation = ["--run", str(tmp_path / "again"), "--out", str(tmp_path / "more"), "--steps", "2", "--start", str(tmp_path / "out"), "--loss", "smooth_l1", "--no-centerness"]
    train.main([*options, *ablation])
    more = json.loads((tmp_path / "more" / "metrics.json").read_text())["training"]
    assert more["started_from"]["views"] == metrics["training"]["views"] < more["views"]
    assert all(word in more["command"] for word in ("--start", "--loss smooth_l1", "--no-centerness"))
    assert json.loads((tmp_path / "more" / "config.json").read_text())["centerness"] is False


def test_a_perfect_network_scores_perfectly(root, monkeypatch):
    """The measuring itself: answers that are the true discs reach what rays can reach, nearly everything for a disc."""
    aside = [p for p in read(root, "val") if p.folder in ("coco_mini", "weizmann_horses")]
    discs = [(25, 30, 16, CLASSES.index("person")), (60, 25, 12, CLASSES.index("vehicle"))]
    scale = 320 / made_photos.W

    def found(x, y, r, kind):
        at, rays = torch.tensor([[x, y]]) * scale - 0.5, torch.full((1, 36), (r - 0.5) * scale)  # to the middle of the last pixel
        one = torch.ones(1)
        return slim.Found(at, rays, slim.polar.contours(at, rays), one, torch.tensor([kind]), one, one, torch.tensor([0]))

    def answer(maps, size, point):
        return found(*min(discs, key=lambda d: np.hypot((d[0] - 0.5) * scale - point[0], (d[1] - 0.5) * scale - point[1])))

    def detect(maps, size, limit=20, use_centerness=True):
        both = [found(*d) for d in discs]
        return slim.Found(**{k: torch.cat([getattr(f, k) for f in both]) for k in vars(both[0])})

    monkeypatch.setattr(slim, "answer", answer)
    monkeypatch.setattr(slim, "detect", detect)
    monkeypatch.setattr("pttp.training.scores.LARGE", 100)
    net = SlimPolarMask().eval()
    clicks = evaluate.table(evaluate.by_click(net, aside))
    assert clicks["coco"]["objects"] == 2 and clicks["coco"]["iou"] > 0.95 and clicks["horses"]["iou"] > 0.95
    assert evaluate.precision(net, aside)["coco"]["ap50"] == 1


def test_what_rays_can_reach(root, monkeypatch):
    """A disc: nearly everything, more with more rays."""
    monkeypatch.setattr("pttp.training.scores.LARGE", 100)
    aside = [p for p in read(root, "val") if p.folder == "weizmann_horses"]
    bound = evaluate.bounds(aside, (8, 18, 36))["horses"]
    assert bound["objects"] == 1 and 0.8 < bound["8"] < bound["18"] < bound["36"] and bound["36"] > 0.95
