"""What the embedded model is taught, and the recipe end to end on a handful of made-up photos."""
from __future__ import annotations

import json
import os
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pttp import trunk
from pttp.pointrend import evaluate, slim, train
from pttp.pointrend.detect import apply_deltas
from pttp.pointrend.session import Mask, Session, SubdivisionStep, pasted
from pttp.pointrend.slim import Maps, SlimPointRend
from pttp.training import scores
from pttp.training.export import MARKED, tensors
from pttp.training.instances import CLASSES, Views, read, sampler
from pttp.training.loop import fit, trunk_groups
from tests import made_photos


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return made_photos.with_trunk(tmp_path_factory.mktemp("data"))


def grid_maps(size=64, batch=1, logits=None, boxes=None):
    at, strides = [], []
    for s in slim.STRIDES:
        y, x = torch.meshgrid(*[(torch.arange(size // s) + 0.5) * s] * 2, indexing="ij")
        at.append(torch.stack([x, y], -1).view(-1, 2))
        strides.append(torch.full((len(at[-1]),), s))
    at, strides = torch.cat(at), torch.cat(strides)
    logits = torch.zeros(batch, len(at), 8) if logits is None else logits
    boxes = torch.cat([at - 10, at + 10], 1).expand(batch, -1, -1) if boxes is None else boxes
    return Maps(torch.zeros(batch, slim.CHANNELS, size // 4, size // 4), logits, boxes, at, strides)


def views(*objects, size=64, complete=True, sure=None):
    """One picture with objects (x0, y0, x1, y1, label), filled rectangles."""
    masks = torch.zeros(len(objects), size, size, dtype=torch.bool)
    for mask, (x0, y0, x1, y1, _) in zip(masks, objects):
        mask[y0:y1, x0:x1] = True
    boxes = torch.tensor([o[:4] for o in objects], dtype=torch.float32).view(-1, 4)
    told = torch.full((1, len(CLASSES)), complete) if isinstance(complete, bool) else torch.tensor([complete])
    sure = torch.ones(1, size, size, dtype=torch.bool) if sure is None else sure
    return Views(torch.zeros(1, 3, size, size), masks, boxes, torch.tensor([o[4] for o in objects], dtype=torch.long), torch.zeros(len(objects), dtype=torch.long), sure, told)


def test_cells_on_a_mask_speak_for_it():
    maps = grid_maps()
    owner, counts = train.assign(views((8, 8, 40, 40, 1), (16, 16, 32, 32, 2)), maps)
    assert counts.all()
    where = maps.at[(owner[0] == 1)]
    assert len(where) == 4 and ((where >= 16) & (where <= 32)).all()  # the smaller object is in front: all its cells of stride 8
    outer = maps.at[owner[0] == 0]
    assert len(outer) == 16 - 4 and ((outer >= 8) & (outer <= 40)).all()


def test_large_objects_belong_to_the_wide_strides():
    maps = grid_maps(256)
    owner, _ = train.assign(views((10, 10, 240, 240, 1), size=256), maps)
    assert set(maps.strides[owner[0] == 0].tolist()) == {32}
    owner, _ = train.assign(views((10, 10, 70, 70, 1), size=256), maps)
    assert set(maps.strides[owner[0] == 0].tolist()) == {8, 16}


def test_an_object_too_thin_for_any_cell_gets_the_nearest():
    maps = grid_maps()
    owner, _ = train.assign(views((16, 10, 18, 30, 1)), maps)
    (cell,) = (owner[0] == 0).nonzero()[:, 0].tolist()
    assert maps.strides[cell] == 8 and (maps.at[cell] - torch.tensor([17.0, 20.0])).abs().max() <= 4


def test_no_objects():
    owner, _ = train.assign(views(), grid_maps())
    assert (owner == -1).all()
    losses = train.detector_losses(views(), grid_maps(), *train.assign(views(), grid_maps()))
    assert losses["kind"] > 0 and losses["box"] == 0


def test_overlap():
    a, b = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 1, 1]]), torch.tensor([[0.0, 0, 2, 2], [1, 0, 3, 2], [2, 0, 3, 1]])
    iou, giou = train.overlap(a, b)
    assert iou.tolist() == pytest.approx([1, 1 / 3, 0])
    assert giou.tolist() == pytest.approx([1, 1 / 3, -1 / 3])


def taught(v, logits=None):
    """Where the classification loss pulls the logits: its gradient (P, K + 1)."""
    maps = grid_maps(logits=torch.zeros(1, len(grid_maps().at), 8, requires_grad=True))
    train.detector_losses(v, maps, *train.assign(v, maps))["kind"].backward()
    return maps.logits.grad[0], maps


def test_what_is_not_marked_is_not_empty():
    """Only for classes of which all objects are marked is the ground taught to be empty; `anything` only if that holds for all classes."""
    cat = CLASSES.index("cat")
    only_cats = [c == "cat" for c in CLASSES]
    pull, maps = taught(views((8, 8, 40, 40, cat), complete=only_cats))
    ground = (train.assign(views((8, 8, 40, 40, cat)), maps)[0][0] == -1) & ~((maps.at > 8) & (maps.at < 40)).all(1)
    assert (pull[ground][:, cat] > 0).all()
    assert not pull[ground][:, [i for i in range(8) if i != cat]].any()
    pull, _ = taught(views((8, 8, 40, 40, cat), complete=True))
    assert (pull[ground] > 0).all()


def test_an_object_of_unknown_class_is_something():
    pull, maps = taught(views((8, 8, 40, 40, -1), complete=True))
    on = train.assign(views((8, 8, 40, 40, -1)), maps)[0][0] == 0
    assert not pull[on][:, :-1].any() and pull[on][:, -1].any()
    pull, _ = taught(views((8, 8, 40, 40, 3), complete=False))
    assert (pull[on][:, [0, 1, 2, 4, 5, 6]] > 0).all() and pull[on][:, 3].any()


def test_cells_that_nobody_is_sure_of_do_not_count():
    unsure = torch.ones(1, 64, 64, dtype=torch.bool)
    unsure[:, :, 44:] = False
    pull, maps = taught(views((8, 8, 40, 40, 1), complete=True, sure=unsure))
    assert not pull[maps.at[:, 0] > 44].any() and pull[maps.at[:, 0] < 44].any()


def test_a_good_box_is_what_the_quality_is():
    """The logits are pulled towards the overlap of the box that the cell gives: up where it is good and the logit low, down where it is bad."""
    v = views((8, 8, 40, 40, 1))
    maps = grid_maps()
    on = train.assign(v, maps)[0][0] == 0
    for boxes, sign in ((v.boxes.expand(1, len(maps.at), 4), -1), (torch.cat([maps.at - 0.5, maps.at + 0.5], 1)[None], 1)):
        maps = grid_maps(logits=torch.zeros(1, len(maps.at), 8, requires_grad=True), boxes=boxes)
        train.detector_losses(v, maps, *train.assign(v, maps))["kind"].backward()
        assert (maps.logits.grad[0, on][:, [1, 7]] * sign > 0).all()


def test_code_is_undone_by_apply_deltas():
    g = torch.Generator().manual_seed(0)
    corner, side = torch.rand(20, 2, generator=g) * 50, torch.rand(20, 2, generator=g) * 40 + 5
    boxes = torch.cat([corner, corner + side], 1)
    wanted = boxes[torch.randperm(20, generator=g)]
    torch.testing.assert_close(apply_deltas(boxes, train.code(boxes, wanted), slim.DELTA_WEIGHTS), wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("said", "expected"),
    [((0, 0, 10, 10), None), ((0, 0, 10, 5), (0, 5, 10, 10)), ((0, 0, 10, 20), (0, 10, 10, 20)), ((0, 0, 20, 13), (10, 0, 20, 13)), ((1, 1, 10, 10), None)],
)
def test_largest_error(said, expected):
    def square(x0, y0, x1, y1):
        mask = np.zeros((28, 28), bool)
        mask[y0:y1, x0:x1] = True
        return mask

    found = train.largest_error(square(*said), square(0, 0, 10, 10), np.ones((28, 28), bool), least=30)
    if expected is None:
        assert found is None
    elif said == (0, 0, 20, 13):  # everything that is too much hangs together
        assert found.sum() == 20 * 13 - 100
    else:
        assert np.array_equal(found, square(*expected))


@pytest.mark.parametrize("deep", [0.0, 1.0])
def test_clicks_lie_inside(deep):
    region = np.zeros((28, 28), bool)
    region[5:20, 3:9] = True
    rng = np.random.default_rng(0)
    at = np.array([train.inside(region, rng, deep) for _ in range(50)]) * 28
    assert region[at[:, 1].astype(int), at[:, 0].astype(int)].all()
    assert (at[:, 1].std() < 0.5) if deep else (at[:, 1].std() > 2)


def test_simulated_clicks(monkeypatch):
    """The first is on the object; the second corrects what the network says: an untrained one that says "everything" is told where there is nothing."""
    torch.manual_seed(0)
    net = SlimPointRend(width=32, point_width=16)
    net.point_head.predictor.bias.data.fill_(100)
    monkeypatch.setattr(train, "CLICKS", (0.0, 0.0, 1.0))
    boxes = torch.tensor([[8.0, 8, 40, 40], [20, 20, 60, 50]])
    truth = torch.zeros(2, 28, 28)
    truth[:, :, :10] = 1
    clicks = train.simulate(net, torch.zeros(1, slim.CHANNELS, 16, 16), boxes, torch.zeros(2, dtype=torch.long), truth, torch.ones(2, 28, 28, dtype=torch.bool), np.random.default_rng(0))
    assert clicks.sign.tolist() == [[1, -1], [1, -1]]
    x = (clicks.at[..., 0] - boxes[:, None, 0]) / (boxes[:, 2] - boxes[:, 0])[:, None]
    assert (x[:, 0] < 10 / 28).all() and (x[:, 1] > 10 / 28).all()


def test_displaced_boxes_are_near_and_a_little_larger():
    boxes = torch.tensor([[100.0, 100, 140, 160]]).expand(500, -1)
    moved = train.displaced(boxes, 256, torch.Generator().manual_seed(0))
    ratio = (moved[:, 2:] - moved[:, :2]) / torch.tensor([40.0, 60])
    iou = train.overlap(moved, boxes)[0]
    assert 1.1 < ratio.median() < 1.25 and 0.05 < ratio.std() < 0.4
    assert iou.median() > 0.6 and 0.05 < (iou < 0.45).float().mean() < 0.3
    assert (moved >= 0).all() and (moved <= 256).all()


def test_boxes_for_the_masks_are_those_of_the_objects_own_cells():
    """Where a cell's box is near, it is taken (enlarged); where it is far off, and for objects without a cell, a displaced true one."""
    v = views((8, 8, 40, 40, 1), (42, 42, 60, 60, 1), (10, 46, 30, 60, 1))
    maps = grid_maps()
    owner, _ = train.assign(v, maps)
    told = torch.zeros(1, len(maps.at), 4)
    told[0, owner[0] == 0] = torch.tensor([9.0, 9, 41, 41])
    told[0, owner[0] == 1] = torch.tensor([0.0, 0, 64, 64])  # far too large
    owner[owner == 2] = -1
    maps = grid_maps(boxes=told)
    g = torch.Generator().manual_seed(0)
    many = torch.tensor([0, 1, 2] * 40)
    boxes = train.as_found(v, maps, owner, many, g, share=1.0).view(40, 3, 4)
    torch.testing.assert_close(boxes[:, 0], slim.grow(torch.tensor([[9.0, 9, 41, 41]]), (64, 64)).expand(40, -1))
    for i in (1, 2):
        assert boxes[:, i].std(0).min() > 0.3 and train.overlap(boxes[:, i], v.boxes[i].expand(40, -1))[0].mean() > 0.5
    half = train.as_found(v, maps, owner, torch.zeros(200, dtype=torch.long), g, share=0.5)
    assert 60 < (half == boxes[0, 0]).all(1).sum() < 140


def test_frozen_parts_stay(root):
    net = train.freeze_trunk(SlimPointRend(width=32))
    learn = train.Learn(net).train()
    draw = sampler(read(root, "train"), 64, 2)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    losses = learn(draw(torch.Generator().manual_seed(0)), 0)
    assert all(torch.isfinite(v) for v in losses.values())
    losses["loss"].backward()
    moved = {name for name, p in net.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert not any(name.startswith(("trunk.conv_stem", "trunk.blocks.0.", "trunk.blocks.1.")) or ".bn" in name for name in moved)
    assert {name.split(".")[0] for name in moved} == {"trunk", "pyramid", "detector", "coarse_head", "point_head"}
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items() if "running" in k)


def test_a_step_repeats_with_its_seed(root):
    torch.manual_seed(0)
    learn = train.Learn(SlimPointRend(width=32))
    batch = sampler(read(root, "train"), 64, 2)(torch.Generator().manual_seed(0))
    a, b, c = (learn(batch, seed)["loss"].item() for seed in (1, 1, 2))
    assert a == b != c


def fitted(net: SlimPointRend, images: torch.Tensor) -> SlimPointRend:
    """An untrained trunk lets next to nothing of a picture through; with batch norms that fit the photos its features differ from place to place, as a trained
    one's do."""
    norms = [m for m in net.trunk.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    net.trunk.train()
    with torch.no_grad():
        net.trunk((images - trunk.MEAN) / trunk.STD)
    return net


def test_it_learns(root):
    """Sixty steps on discs: the same batches, the same boxes and clicks, before and after."""
    torch.manual_seed(0)
    net = train.freeze_trunk(SlimPointRend(width=64, point_width=32))
    learn = train.Learn(net)
    draw = sampler(read(root, "train"), 96, 4, jitter=0)
    batches = [draw(torch.Generator().manual_seed(i)) for i in range(4)]
    fitted(net, batches[0].images)
    optimizer = torch.optim.AdamW(trunk_groups(net, 2e-3, 0.05))

    @torch.no_grad()
    def measured():
        losses = [learn(batch, 100 + i) for i, batch in enumerate(batches)]
        return {k: float(np.mean([x[k] for x in losses])) for k in losses[0]}

    before = measured()
    for step in range(60):
        loss = learn(batches[step % 4], step)["loss"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5)
        optimizer.step()
    after = measured()
    for name in ("coarse", "point", "box"):
        assert after[name] < 0.7 * before[name], (name, before, after)
    assert after["mask_iou"] > before["mask_iou"] + 0.1


def test_a_stopped_training_goes_on_as_if_nothing_had_been(root, tmp_path):
    draw = sampler(read(root, "train"), 64, 2)

    def run(folder, stop_at=None):
        torch.manual_seed(0)
        net = train.freeze_trunk(SlimPointRend(width=32, point_width=16))

        def batch(step, g):
            if step == stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
            return draw(g), step

        return fit(train.Learn(net), net, batch, folder=tmp_path / folder, steps=4, groups=trunk_groups(net, 1e-3, 0.05), ema=0.5, warmup=1)

    whole = run("whole").state_dict()
    with pytest.raises(SystemExit, match="stopped after step 2 of 4"):
        run("parts", stop_at=1)
    for name, value in run("parts").state_dict().items():
        torch.testing.assert_close(value, whole[name], rtol=0, atol=0, msg=name)


def test_the_recipe(root, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "SIZES", (320, 352))  # two are enough to choose among
    monkeypatch.setattr(scores, "SETS", {name: scores.SETS[name] for name in ("pets", "coco", "cats")})
    monkeypatch.setattr(scores, "LARGE", 100)  # the made-up photos are 80 pixels wide, their objects smaller than what is measured on real ones
    options = ["--data", str(root), "--trunk", str(root / "trunk.safetensors"), "--run", str(tmp_path / "run"), "--cache", str(tmp_path / "cache"), "--batch", "2", "--objects", "2", "--threads", "1"]
    train.main([*options, "--out", str(tmp_path / "out"), "--learn", "2", "--finish", "1"])
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"learn", "finish"}
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"model.safetensors", "config.json", "metrics.json", "MODEL_CARD.md"}
    metrics, config = (json.loads((tmp_path / "out" / f"{name}.json").read_text()) for name in ("metrics", "config"))
    m = metrics["metrics"]
    assert set(m["clicks"]) == {"pets", "coco", "cats"}
    assert all(0 <= v["iou1"] <= 1 and 1 <= v["noc85"] <= v["noc90"] <= 10 for v in m["clicks"].values())
    assert set(m["detection"]) == {"cats", "pets", "coco"} and m["size"] in train.SIZES
    assert config["sure"] == m["nothing"]["sure"] and config["shown"] == m["listing"]["shown"] and m["nothing"]["objects_answered"] >= 0.9
    assert metrics["training"]["views"] == 6 and "--learn 2 --finish 1 --batch 2" in metrics["training"]["command"]
    card = (tmp_path / "out" / "MODEL_CARD.md").read_text()
    assert train.table(metrics) in card and not MARKED.search(card)
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert {v.dtype for v in weights.values()} == {torch.float16, torch.int64}
    assert config["kind"] == "slim" and config["preprocess"]["longest"] == m["size"]
    net = SlimPointRend(**config["net"])
    net.load_state_dict(tensors(tmp_path / "out" / "model.safetensors"))

    train.main([*options, "--out", str(tmp_path / "out"), "--learn", "2", "--finish", "1"])  # finished: nothing is trained again
    for a, b in zip(weights.values(), load_file(tmp_path / "out" / "model.safetensors").values(), strict=True):
        assert torch.equal(a, b)

    train.main([*options, "--out", str(tmp_path / "more"), "--run", str(tmp_path / "again"), "--start", str(tmp_path / "out"), "--learn", "0", "--finish", "1"])
    more = json.loads((tmp_path / "more" / "metrics.json").read_text())["training"]
    assert more["views"] == 8 and more["started_from"]["views"] == 6 and "--start" in more["command"]

    train.main([*options, "--out", str(tmp_path / "same"), "--run", str(tmp_path / "none"), "--start", str(tmp_path / "more"), "--learn", "0", "--finish", "0"])  # measured only
    assert json.loads((tmp_path / "same" / "metrics.json").read_text())["training"] == more
    for a, b in zip(load_file(tmp_path / "more" / "model.safetensors").values(), load_file(tmp_path / "same" / "model.safetensors").values(), strict=True):
        assert torch.equal(a, b)


def test_a_perfect_network_scores_perfectly(root, monkeypatch):
    """The measuring itself: answers that are the true discs reach 100 % with one click, and both tables say so."""
    aside = [p for p in read(root, "val") if p.folder in ("coco_mini", "weizmann_horses")]
    monkeypatch.setattr(scores, "LARGE", 100)
    net = SlimPointRend(width=32, point_width=16).eval()

    def true_disc(session, places, labels, anyway):
        x, y = places[0]
        cx, cy, r = (25, 30, 16) if np.hypot(x - 25, y - 30) < 16 else (60, 25, 12)
        at = (np.arange(224) + 0.5) / 224 * 2 * (r + 2) - (r + 2)
        logits = (r - np.hypot(at[None], at[:, None])).astype(np.float32) * 20
        window = (cx - r - 2, cy - r - 2, cx + r + 2, cy + r + 2)
        mask = pasted(logits, window, session.shape)
        return Mask(mask, logits, window, 1.0, "cat", (0, 0, 1, 1), (SubdivisionStep(28, np.zeros((0, 2)), logits),))

    monkeypatch.setattr(Session, "click", true_disc)
    rows = evaluate.by_clicks(net, aside)
    assert [r["set"] for r in rows] == ["horses", "coco", "coco"]
    table = evaluate.clicks_table(rows)
    assert table["horses"]["iou1"] > 0.97 and table["coco"]["noc90"] == 1
    borders = evaluate.borders_table(rows)
    assert borders["coco"]["boundary_dense"] == borders["coco"]["boundary_rendered"] > 0.9
    assert borders["0 to 96 px"]["objects"] == 3


def test_the_threshold_of_nothing():
    on, off = np.linspace(0.2, 1, 101), np.linspace(0, 0.6, 61)
    told = evaluate.nothing(on, off)
    assert told["objects_answered"] == pytest.approx(0.97, abs=0.011) and told["sure"] == pytest.approx(0.224, abs=0.005)
    assert told["ground_refused"] == pytest.approx((off < told["sure"]).mean(), abs=1e-3)
    assert evaluate.nothing(np.array([]), np.array([]))["sure"] == 0


def test_clicks_on_objects_and_on_the_ground_are_told_apart(root, monkeypatch):
    """The measuring itself: a `choose` that knows the discs."""
    monkeypatch.setattr(scores, "LARGE", 100)
    asked = []

    def knows(net, maps, size, place):
        x, y = place[0] / size[1] * made_photos.W, place[1] / size[0] * made_photos.H
        asked.append((x, y))
        return None, float(np.hypot(x - 25, y - 30) < 16 or np.hypot(x - 60, y - 25) < 12)

    monkeypatch.setattr(slim, "choose", knows)
    aside = [p for p in read(root, "val") if p.folder in ("coco_mini", "weizmann_horses")]
    on, off = evaluate.sureness(SlimPointRend(width=32, point_width=16).eval(), aside)
    assert on.tolist() == [1, 1, 1] and off.tolist() == [0]


def test_what_is_best_listed(root, monkeypatch):
    """Two right answers and a wrong one: the threshold lies between them."""
    monkeypatch.setattr(scores, "LARGE", 100)
    discs = [made_photos.disc(25, 30, 16), made_photos.disc(60, 25, 12)]
    found = [SimpleNamespace(mask=mask, score=score) for mask, score in ((discs[0], 0.9), (discs[1], 0.7), (made_photos.disc(20, 10, 9), 0.3), (discs[0], 0.2))]
    monkeypatch.setattr(Session, "instances", property(lambda self: found))
    assert evaluate.listing(SlimPointRend(width=32, point_width=16).eval(), read(root, "val")) == {"shown": 0.7, "f1": 1.0}


def test_more_points_are_counted(root):
    """On two real renderings of an untrained network: so many points as the schedule says, and the dense grid at the end."""
    torch.manual_seed(0)
    aside = [p for p in read(root, "val") if p.folder in ("weizmann_horses", "oxford_pets_subset", "feral_cats")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scores, "LARGE", 100)
        table = evaluate.by_points(SlimPointRend(width=32, point_width=16).eval(), aside, 96)
    assert [(r["per_step"], r["asked"], r["objects"]) for r in table] == [(49, 49 * 6, 1), (196, 196 * 5, 1), (784, 784 * 4, 1), (3136, 3136 * 3, 1), (50176, 50176, 1)]
    assert all(0 <= r["boundary"] <= 1 and 0 <= r["iou"] <= 1 for r in table)
