"""Our PointRend against what the authors' code computes: every fixture of the folder `pointrend`."""
from __future__ import annotations

import copy
import json
import re
from functools import cache

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from pttp import ops
from pttp.pointrend import detect, losses, official, points, preprocess, render
from pttp.pointrend.fast import Decider
from pttp.pointrend.model import PointRend, SemanticPointRend
from pttp.resnet import inference_form
from tests.oracles.common import GRADIENT, assert_near, assert_within, facts, file, keys, tensors, values

ABSOLUTE = 1e-4
SWAPPED = 0.002  # of the cells may be decided the other way where two uncertainties are nearly tied
NETWORKS = {"instance_R50_FPN": PointRend, "semantic_R101_FPN_cityscapes": SemanticPointRend}


def fixture(name: str) -> dict[str, Tensor]:
    return tensors("pointrend", name)


def told(name: str) -> dict[str, str]:
    """The metadata of a fixture file."""
    with safe_open(file("pointrend", f"{name}.safetensors"), "pt") as f:
        return f.metadata()


def close(ours: Tensor, theirs: Tensor, what: str = "") -> None:
    """Within ABSOLUTE, or a hundred-thousandth of the values' spread where these are large (pixels)."""
    assert_within(ours, theirs, max(ABSOLUTE, 1e-5 * theirs.double().std().item()), what)


def nearly_everywhere(ours: Tensor, theirs: Tensor, what: str = "") -> None:
    """Within ABSOLUTE but for SWAPPED of the cells."""
    assert ours.shape == theirs.shape, what
    off = ((ours.double() - theirs.double()).abs() > ABSOLUTE).double().mean().item()
    assert off <= SWAPPED, f"{what}: {off:.2%} of the cells differ"


def same_sets(ours: Tensor, theirs: Tensor, what: str = "") -> None:
    """Rows hold the same indices in any order, but for SWAPPED of them (one at least, as an even number of ties is never promised)."""
    assert ours.shape == theirs.shape, what
    for a, b in zip(ours.tolist(), theirs.tolist()):
        assert len(set(a) - set(b)) <= max(1, SWAPPED * len(a)), what


@cache
def shapes(network: str) -> dict[str, tuple[int, ...]]:
    return {name: tuple(told["shape"]) for name, told in facts("pointrend", "keys")[network].items()}


@cache
def arrays(part: str = "", network: str = "instance_R50_FPN") -> dict[str, np.ndarray]:
    """The recipe's weights by the authors' names, those that begin with `part`."""
    wanted = {k: v for k, v in shapes(network).items() if k.startswith(part)}
    return {k: v.numpy() for k, v in values("pointrend", wanted).items()}


@cache
def network() -> PointRend:
    state, config = official.tensors(arrays())
    net = official.build(config).eval()
    net.load_state_dict(state, strict=True)
    return net


def head(name: str) -> nn.Module:
    return getattr(network(), name).requires_grad_(False)


@cache
def semantic_heads() -> SemanticPointRend:
    with torch.device("meta"):
        net = SemanticPointRend()
    named = {official.our_name(k): torch.from_numpy(v) for k, v in arrays("sem_seg_head.", "semantic_R101_FPN_cityscapes").items()}
    net.load_state_dict(named, strict=False, assign=True)
    return net.eval().requires_grad_(False)


@pytest.mark.parametrize("name", keys("pointrend", "keys"))
def test_names_and_shapes(name):
    with torch.device("meta"):
        ours = {k: tuple(v.shape) for k, v in NETWORKS[name]().state_dict().items() if not k.endswith("num_batches_tracked")}
    theirs = {official.our_name(k): shape for k, shape in shapes(name).items()}
    assert len(theirs) == len(shapes(name))
    assert ours == theirs


def test_names_of_older_checkpoints():
    for old, new in facts("pointrend", "legacy_keys").items():
        assert official.our_name(old) == official.our_name(new)
        assert official.our_name(old) in network().state_dict()


@pytest.mark.parametrize(
    ("theirs", "options"),
    [("y", {}), ("y_align_corners_true", {"align_corners": True}), ("y_nearest", {"mode": "nearest"})],
)
def test_point_sample(theirs, options):
    f = fixture("point_sample")
    assert_within(points.point_sample(f["x"], f["coords"], **options), f[theirs], 1e-6)


def test_point_sample_of_a_grid():
    f = fixture("point_sample")
    assert_within(points.point_sample(f["x"], f["coords4d"]), f["y4d"], 1e-6)


def gathered(x: Tensor, at: Tensor) -> Tensor:
    """The same by the gathering form that reads maps in boxes."""
    h, w = x.shape[-2:]
    return ops.sample(x, at[..., 0] * w - 0.5, at[..., 1] * h - 0.5, torch.arange(len(x))).transpose(1, 2)


@pytest.mark.parametrize("form", [points.point_sample, gathered])
def test_point_sample_gradients(form):
    f = fixture("point_sample")
    x, at = f["x"].clone().requires_grad_(), f["coords"].clone().requires_grad_()
    y = form(x, at)
    assert_within(y, f["y"], 1e-6)
    (y * f["cotangent"]).sum().backward()
    assert_near(x.grad, f["grad_x"], GRADIENT, "map")
    position = at.detach() * torch.tensor([x.shape[3], x.shape[2]]) - 0.5
    smooth = ((position - position.round()).abs() > 1e-5).all(-1)
    if form is points.point_sample:
        smooth[:] = True
    else:  # at the centre of a cell the slope jumps, and rounding decides on which side a form sees it
        assert smooth.float().mean() > 0.5
    assert_near(at.grad[smooth], f["grad_coords"][smooth], GRADIENT, "points")


@pytest.mark.parametrize("side", [4, 7, 14])
def test_regular_grid(side):
    theirs = fixture("point_sample")[f"regular_grid_{side}"]
    assert_within(points.regular_grid(len(theirs), side, theirs), theirs, 1e-6)


def test_fine_features_of_boxes():
    f = fixture("point_sample")
    assert_within(points.in_picture(f["box_points"], f["boxes"]), f["box_points_image"], 1e-5)
    image = torch.tensor([0, 0, 1])
    levels = [points.sample_in_boxes(f[f"feat_stride{s}"], s, f["boxes"], f["box_points"], image) for s in (4, 8)]
    assert_within(torch.cat(levels, 2).transpose(1, 2), f["fine_grained_2levels"], 1e-5)


@pytest.mark.parametrize("case", ["a", "b", "c"])
def test_most_uncertain_cells(case):
    f = fixture("uncertain_on_grid")
    index, at = points.most_uncertain(f[f"{case}/map"], int(f[f"{case}/num_points"]))
    assert torch.equal(index, f[f"{case}/indices"])
    assert_within(at, f[f"{case}/coords"], 1e-6)


def test_uncertainties():
    f = fixture("uncertain_on_grid")
    assert_within(points.uncertainty(f["ins_logits"], f["ins_classes"]), f["ins_uncertainty"], 1e-6)
    assert_within(points.semantic_uncertainty(f["sem_logits"]), f["sem_uncertainty"], 1e-6)


SAMPLERS = ["default", "p14_k4_b05", "p10_k3_b1", "p10_k1_b0", "agnostic", "sem_p64"]


def given(*numbers: Tensor):
    """A `draw` that gives these uniform numbers, in this order."""
    left = list(numbers)

    def draw(*shape: int) -> Tensor:
        assert left[0].shape == shape
        return left.pop(0)

    return draw


@pytest.mark.parametrize("case", SAMPLERS)
def test_points_of_training(case):
    f = fixture("uncertain_with_randomness")
    asked = json.loads(re.search(r"params (\{.*\})", told("uncertain_with_randomness")["note"])[1])[case]
    logits = {"agnostic": f["logits_agnostic"], "sem_p64": f["logits_sem"]}.get(case, f["logits"])
    uncertainty = points.semantic_uncertainty if case == "sem_p64" else lambda x: points.uncertainty(x, f["classes"])
    draws = [f[k] for k in (f"{case}/rand0", f"{case}/rand1") if k in f]
    at = points.biased_points(logits, uncertainty, asked["num_points"], asked["oversample_ratio"], asked["importance_sample_ratio"], given(*draws))
    assert torch.equal(at, f[f"{case}/coords"])


def test_points_of_training_draw_as_theirs_do():
    f = fixture("uncertain_with_randomness")
    torch.manual_seed(8 if told("uncertain_with_randomness")["salt"] else 7)
    at = points.biased_points(f["logits"], lambda x: points.uncertainty(x, f["classes"]), 20, 3, 0.75)
    assert torch.equal(at, f["torch_seed/coords"])


def test_coarse_head():
    f = fixture("coarse_head")
    pooled = head("coarse_head").pool(f["p2"], f["boxes"])
    assert_within(pooled, f["pooled"], ABSOLUTE)
    assert_within(head("coarse_head")(pooled), f["coarse_logits"], ABSOLUTE)


def test_point_head():
    f = fixture("point_head")
    net, fine, coarse = network().point_head, f["fine"].clone().requires_grad_(), f["coarse"].clone().requires_grad_()
    weight = net.fc2.weight.detach().requires_grad_()
    logits = torch.func.functional_call(net, {"fc2.weight": weight}, (fine, coarse))
    assert_within(logits, f["logits"], ABSOLUTE)
    (logits * f["cotangent"]).sum().backward()
    for ours, theirs in ((fine.grad, "grad_fine"), (coarse.grad, "grad_coarse"), (weight.grad[..., 0], "grad_fc2_weight")):
        assert_near(ours, f[theirs], GRADIENT, theirs)


@pytest.mark.parametrize("classes", [[[0], [79]], [[3, 79, 0], [5, 5, 41]]])
def test_point_head_for_some_classes(classes):
    f = fixture("point_head")
    channels = torch.tensor(classes)
    wanted = f["logits"].gather(1, channels[..., None].expand(-1, -1, f["logits"].shape[2]))
    assert_within(head("point_head")(f["fine"], f["coarse"], channels), wanted, ABSOLUTE)


def plainly(net: PointRend, p2: Tensor, coarse: Tensor, boxes: Tensor, channels: Tensor) -> render.Decide:
    return lambda at: render.decide(net.point_head, p2, coarse, boxes, at, channels)


def fast(project: bool):
    return lambda net, p2, coarse, boxes, channels: Decider(net.point_head, p2, project).of(coarse, boxes, channels)


@pytest.mark.parametrize("ask", [plainly, fast(False), fast(True)], ids=["plain", "fast", "fast, projected"])
@pytest.mark.parametrize("classes_beside", [[], [3]])
def test_subdivision(classes_beside, ask):
    """The class of each box is rendered alone, and with another beside it: that one must be theirs, too."""
    f, net, steps = fixture("subdivision"), network(), []
    channels = torch.cat([f["classes"][:, None], torch.tensor([classes_beside] * len(f["classes"]), dtype=torch.long).view(len(f["classes"]), -1)], 1)
    with torch.inference_mode():
        coarse = net.coarse_head(net.coarse_head.pool(f["p2"], f["boxes"]))
        assert_within(coarse, f["coarse_logits"], ABSOLUTE)
        final = render.render(ask(net, f["p2"], coarse, f["boxes"], channels), f["boxes"], watch=steps.append)
        all_classes = render.decide(net.point_head, f["p2"], coarse, f["boxes"], steps[0].points)
    assert_within(all_classes[0].view(-1, 28, 28), f["step0/mask_logits_all_classes_box0"], ABSOLUTE)
    assert [step.side for step in steps] == [28, 56, 112, 224]
    for i, step in enumerate(steps):
        nearly_everywhere(step.logits[:, 0], f[f"step{i}/mask_logits"], f"step {i}")
        if i == 0:
            assert_within(step.point_logits[:, 0], f["step0/point_logits"], ABSOLUTE)
            continue
        same_sets(step.index, f[f"step{i}/point_indices"], f"step {i}")
        same = step.index == f[f"step{i}/point_indices"]
        assert same.float().mean() > 0.5
        assert_within(step.points[same], f[f"step{i}/point_coords"][same], 1e-6, f"points of step {i}")
        assert_within(step.point_logits[:, 0][same], f[f"step{i}/point_logits"][same], ABSOLUTE, f"step {i}")
    nearly_everywhere(final[:, :1].sigmoid(), f["pred_masks"], "masks")
    if classes_beside:
        nearly_everywhere(final[0, 1], f["final/other_class_logits_box0_class3"], "another class")


@pytest.mark.parametrize("project", [False, True])
def test_corrections_flow_back_the_same_way(project):
    """What a click will need: the gradient of point logits with regard to the coarse logits of the object."""
    f, net = fixture("subdivision"), copy.deepcopy(network()).double().requires_grad_(False)
    p2, boxes, channels = f["p2"].double(), f["boxes"].double(), f["classes"][:, None]
    at, gradients = points.regular_grid(len(boxes), 9, boxes), []
    for form in (plainly, fast(project)):
        coarse = f["coarse_logits"].double().requires_grad_()
        form(net, p2, coarse, boxes, channels)(at).square().sum().backward()
        gradients.append(coarse.grad)
    assert gradients[0].abs().max() > 0
    assert_near(gradients[1], gradients[0], 1e-9)


@pytest.mark.parametrize("times", [0, 1, render.PROJECT])
def test_masks_in_batches_are_the_same(times):
    f, net = fixture("subdivision"), network()
    with torch.inference_mode():
        masks = render.masks(net, f["p2"], f["boxes"].repeat(times, 1), f["classes"].repeat(times))
    assert masks.shape == (times * len(f["boxes"]), 224, 224)
    if times:
        nearly_everywhere(masks, f["pred_masks"][:, 0].repeat(times, 1, 1))


def test_paste():
    f = fixture("paste")
    size = tuple(f["pasted"].shape[1:])
    ours = render.paste(f["masks"], f["boxes"], size)
    assert (ours != f["pasted"].bool()).double().mean() <= SWAPPED
    for mask, box, theirs in zip(f["masks"], f["boxes"], f["pasted_soft"]):
        soft, where = render.paste_soft(mask, box, size)
        picture = torch.zeros(size)
        picture[where] = soft
        levels = (picture * 255).to(torch.uint8)
        assert (levels.int() - theirs.int()).abs().max() <= 1  # where 255 p is a whole number, rounding errors decide
        assert (levels != theirs).double().mean() <= SWAPPED


def nearly_the_gradient(ours: Tensor, theirs: Tensor, what: str) -> None:
    """As a whole within 1e-3, and 95 % of the entries within GRADIENT: one of the thousands of ReLUs whose input is nearly 0 opens or closes by rounding,
    here or there."""
    off, spread = (ours - theirs).abs(), theirs.std()
    assert off.norm() <= 1e-3 * theirs.norm(), f"{what}: off by {off.norm() / theirs.norm():.2g} as a whole"
    assert (off <= GRADIENT * spread).double().mean() >= 0.95, f"{what}: {(off > GRADIENT * spread).double().mean():.2%} of the entries are off"


def test_mask_losses():
    """In float64, so that rounding is theirs alone."""
    f = {k: v.double() if v.is_floating_point() else v for k, v in fixture("mask_losses").items()}
    p2 = f["p2"].clone().requires_grad_()
    coarse_head, point_head = (copy.deepcopy(head(name)).double().requires_grad_() for name in ("coarse_head", "point_head"))
    draw = given(f["rand0"], f["rand1"])
    got = losses.mask_losses(coarse_head, point_head, p2, f["proposal_boxes"], f["gt_classes"], f["gt_masks"], draw=draw)
    assert torch.equal(got.targets, f["gt_masks_7x7"].double())
    for ours, theirs in zip(got.points.tolist(), f["point_coords"].tolist()):
        assert {tuple(p) for p in ours} == {tuple(p) for p in theirs}
    same = (got.points == f["point_coords"]).all(-1)  # two points may change places where their uncertainties are nearly tied
    assert same.double().mean() > 0.9
    assert_within(got.labels[same], f["point_labels"][same], 1e-5)
    assert_within(got.logits[same], f["point_logits_gt_class"][same], ABSOLUTE)
    assert_within(got.coarse, f["loss_mask"], 1e-5)
    assert_within(got.point, f["loss_mask_point"], 1e-5)
    wanted = {
        "coarse": (got.coarse, {"p2": p2, "prediction_bias": coarse_head.prediction.bias}),
        "point": (got.point, {"p2": p2, "coarse_prediction_bias": coarse_head.prediction.bias, "predictor_weight": point_head.predictor.weight}),
    }
    for which, (loss, inputs) in wanted.items():
        for (name, _), gradient in zip(inputs.items(), torch.autograd.grad(loss, inputs.values(), retain_graph=True)):
            theirs = f[f"grad_{which}_{name}"]
            nearly_the_gradient(gradient.view_as(theirs), theirs, f"{which}: {name}")
    f = fixture("mask_losses")
    heads, draw = (head("coarse_head"), head("point_head")), given(f["rand0"], f["rand1"])
    single = losses.mask_losses(*heads, f["p2"], f["proposal_boxes"], f["gt_classes"], f["gt_masks"], draw=draw)
    assert single.accuracy == pytest.approx(f["point_accuracy"].item(), abs=1e-6)  # labels that rounding brings to 1 differ in float64


def semantic_coarse() -> tuple[SemanticPointRend, dict[str, Tensor], Tensor]:
    f, net = fixture("semantic"), semantic_heads()
    return net, f, net.coarse_head({k: f[k] for k in ("p2", "p3", "p4", "p5")})


def test_semantic_coarse_head():
    _, f, coarse = semantic_coarse()
    assert_within(coarse, f["coarse_logits"], ABSOLUTE)


def test_semantic_subdivision():
    net, f, coarse = semantic_coarse()
    steps = []
    few = render.semantic(net.point_head, f["p2"], coarse, count=150, watch=steps.append)
    for i, step in enumerate(steps, 1):
        same_sets(step.index, f[f"step{i}/indices"], f"step {i}")
    nearly_everywhere(few, f["logits_150points"])
    assert_within(render.semantic(net.point_head, f["p2"], coarse)[:, ::4], f["logits_8192points"], ABSOLUTE)


def test_semantic_losses():
    net, f, coarse = semantic_coarse()
    count = f["rand0"].shape[1] // 3
    whole, point = losses.semantic_losses(net.point_head, f["p2"], coarse, f["target"], count, draw=given(f["rand0"], f["rand1"]))
    assert_within(whole, f["loss_sem_seg"], 1e-5)
    assert_within(point, f["loss_sem_seg_point"], 1e-5)


def test_resized_shapes():
    for case in facts("pointrend", "resize_shapes"):
        assert list(preprocess.resized_shape(case["h"], case["w"], case["short"], case["max"])) == case["out"]


@pytest.mark.parametrize(("short", "longest"), [(20, 40), (64, 120)])
def test_resize(short, longest):
    f = fixture("resize")
    assert torch.equal(torch.from_numpy(preprocess.resize(f["image"].numpy(), short, longest).copy()), f[f"resized_{short}_{longest}"])


@cache
def picture() -> tuple[Tensor, tuple[int, int]]:
    image = fixture("e2e")["image_bgr_uint8"].flip(0).permute(1, 2, 0)
    return preprocess.normalise(image.numpy()), tuple(image.shape[:2])


FORMS = pytest.mark.parametrize("form", [lambda net: net, inference_form], ids=["plain", "inference form"])


@FORMS
def test_whole_network_stage_by_stage(form):
    """Every stage is given what the authors' stage before it gave, so that each is held to ABSOLUTE."""
    f, net, (x, size) = fixture("e2e"), form(network()), picture()
    assert_within(x[:, :, ::16, ::16], f["preprocessed_sample"], 1e-5)
    with torch.inference_mode():
        maps = net.backbone(x)
        for name, step in (("p2_every16th_channel", 16), ("p3_every8th_channel", 8), ("p4_every4th_channel", 4), ("p5", 1), ("p6", 1)):
            assert_within(maps[name[:2]][:, ::step], f[name], ABSOLUTE, name)
        logits, deltas = net.rpn(maps)
        for name, ours in [*((f"rpn_logits_{k}", v) for k, v in logits.items()), *((f"rpn_deltas_{k}", v) for k, v in deltas.items())]:
            if name in f:
                assert_within(ours, f[name], ABSOLUTE, name)
        pooled = net.pool(maps, f["proposal_boxes"])
        close(pooled[:2], f["roi_pooled_first2"], "pooled")
        scores, moves = net.box_head(pooled)
        assert_within(scores[:20], f["cls_scores_first20"], ABSOLUTE, "class logits")
        assert_within(moves[:20], f["box_deltas_first20"], ABSOLUTE, "box deltas")
        found = detect.detections(f["proposal_boxes"], scores, moves, size)
        assert torch.equal(found.classes, f["classes"]) and torch.equal(found.proposals, f["det_proposal_index"])
        close(found.boxes, f["boxes"], "boxes")
        assert_within(found.scores, f["scores"], ABSOLUTE, "scores")
        steps, picked = [], f["mask_det_index"]
        boxes, classes = f["boxes"][picked], f["classes"][picked]
        coarse = net.coarse_head(net.coarse_head.pool(maps["p2"], boxes))
        assert_within(points.of_channel(coarse, classes)[:, 0], f["coarse_logits_picked3"], ABSOLUTE, "coarse logits")
        masks = render.render(Decider(net.point_head, maps["p2"]).of(coarse, boxes, classes[:, None]), boxes, watch=steps.append).sigmoid()
    assert_within(steps[0].logits[:, 0], f["mask_logits_28_picked3"], ABSOLUTE, "28 x 28")
    for i, step in enumerate(steps[1:], 1):
        same_sets(step.index, f[f"step{i}_point_indices_picked3"], f"step {i}")
    nearly_everywhere(masks, f["masks_picked3"], "masks")
    pasted = render.paste(masks[:, 0], boxes, size)
    assert (pasted != f["pasted_picked3"].bool()).double().mean() <= SWAPPED


def test_anchors():
    f = fixture("e2e")
    for level, stride in (("p2", 4), ("p3", 8), ("p4", 16), ("p5", 32), ("p6", 64)):
        h, w = -(-picture()[1][0] // stride), -(-picture()[1][1] // stride)
        ours = detect.anchors(h, w, stride, detect.SIZES[level], torch.zeros(()))
        assert len(ours) == 3 * h * w
        assert_within(ours[:12], f[f"anchors_{level}_first12"], 1e-5, level)


def partners(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> Tensor:
    """For each of their (boxes, logits) the most similar of ours; a one-to-one relation. Boxes with nearly tied logits may have changed places."""
    a, b = (torch.cat([boxes.double(), 1000 * logits.double()[:, None]], 1) for boxes, logits in (ours, theirs))
    nearest = torch.cdist(b, a).argmin(1)
    assert len(nearest.unique()) == len(a) == len(b)
    return nearest


@pytest.mark.parametrize(("form", "times"), [(lambda net: net, 2), (inference_form, 8)], ids=["plain", "inference form"])
def test_end_to_end(form, times):
    """From the picture to 100 detections. Boxes pass through exp() twice here, so rounding grows: the file itself says how far the authors' float32 is from
    float64, and both of us may be as far. With maps channels last, sums are taken in another order, and the worst values are up to six times as far from
    float64 as in the plain form."""
    f, net, (x, size) = fixture("e2e"), form(network()), picture()
    stability = json.loads(re.search(r"discrete choices: (\{.*\})", told("e2e")["note"])[1])
    with torch.inference_mode():
        maps = net.backbone(x)
        proposed, logits = detect.proposals(*net.rpn(maps), size)
        found = detect.detect(net, maps, size)
        masks = render.masks(net, maps["p2"], found.boxes, found.classes)
    assert_within(logits, f["proposal_logits"], ABSOLUTE, "proposals' logits")
    same = partners((proposed, logits), (f["proposal_boxes"], f["proposal_logits"]))
    assert_within(proposed[same], f["proposal_boxes"], times * stability["proposal_max_diff"], "proposals")
    assert_within(logits[same], f["proposal_logits"], ABSOLUTE, "proposals' logits, box by box")
    assert len(found.boxes) == stability["n_det"]
    ours = {pair: i for i, pair in enumerate(zip(found.proposals.tolist(), found.classes.tolist()))}
    same = torch.tensor([ours[pair] for pair in zip(same[f["det_proposal_index"]].tolist(), f["classes"].tolist())])
    assert_within(found.boxes[same], f["boxes"], times * stability["det_max_box_diff"], "boxes")
    assert_within(found.scores[same], f["scores"], times * stability["det_max_score_diff"], "scores")
    assert_within(found.scores, f["scores"], times * stability["det_max_score_diff"], "scores in order")
    picked = same[f["mask_det_index"]]
    pasted = render.paste(masks[picked], found.boxes[picked], size)
    assert (pasted != f["pasted_picked3"].bool()).double().mean() <= SWAPPED
