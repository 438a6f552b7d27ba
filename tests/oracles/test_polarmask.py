"""Our PolarMask against what the authors' code computes: every fixture of the folder `polarmask`."""
from __future__ import annotations

import json
import re
from functools import cache

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from pttp.polarmask import detect, losses, official, polar, preprocess, targets
from pttp.polarmask.model import STRIDES, Level, PolarMask, cells
from pttp.resnet import inference_form, stages
from tests.oracles.common import GRADIENT, assert_near, assert_within, facts, file, tensors, values

ABSOLUTE = 1e-4
NETWORK = "polarmask_R50_FPN"
OBJECTS = ("ellipse", "star", "L_shape", "two_parts", "thin", "tiny", "touches_border", "big", "u_shape_center_outside")
SIZE = (256, 384)  # of the pictures with these objects


def fixture(name: str) -> dict[str, Tensor]:
    return tensors("polarmask", name)


def note(name: str) -> str:
    """The note in the metadata of a fixture file."""
    with safe_open(file("polarmask", f"{name}.safetensors"), "pt") as f:
        return f.metadata()["note"]


def unpacked(bits: Tensor, size: tuple[int, int]) -> np.ndarray:
    return np.unpackbits(bits.numpy())[: size[0] * size[1]].reshape(size).astype(bool)


@cache
def weights() -> dict[str, Tensor]:
    """The recipe's weights by the authors' names."""
    told = facts("polarmask", "keys")[NETWORK]
    return values("polarmask", {k: tuple(v["shape"]) for k, v in told.items() if v["dtype"].startswith("float")})


def network(add: dict[str, float] | None = None) -> PolarMask:
    state, config = official.tensors({k: v + (add or {}).get(k, 0) for k, v in weights().items()})
    net = official.build(config)
    net.load_state_dict(state, strict=True)
    return net.eval().requires_grad_(False)


def picture(name: str) -> Tensor:
    return preprocess.normalise(fixture(name)["image_bgr_uint8"].flip(0).permute(1, 2, 0).numpy())


def test_names_and_shapes():
    told = facts("polarmask", "keys")[NETWORK]
    empty = {k: torch.zeros(v["shape"], dtype=getattr(torch, v["dtype"]), device="meta") for k, v in told.items()}
    ours = {k: tuple(v.shape) for k, v in PolarMask().state_dict().items()}
    scales = {k for k in told if ".scales_" in k}
    theirs = {official.our_name(k): tuple(v.shape) for k, v in empty.items() if k not in scales}
    assert len(theirs) == len(told) - len(scales) and len(scales) == 2 * len(STRIDES)
    assert ours == theirs | {"head.scales_bbox": (5,), "head.scales_mask": (5,)}


def test_maps():
    """Before the head's normalisation values are tens of times larger than those that ABSOLUTE is meant for."""
    f, net = fixture("network"), network()
    with torch.inference_mode():
        maps = net.backbone(picture("network"))
        maps["c5"] = stages(net.backbone.body, picture("network"))[-1]
    for name, step in (("c5_every32th_channel", 32), ("p3_every16th_channel", 16), ("p4_every4th_channel", 4), ("p5", 1), ("p6", 1), ("p7", 1)):
        assert_within(maps[name[:2]][:, ::step], f[name], max(ABSOLUTE, 1e-5 * f[name].std().item()), name)


@pytest.mark.parametrize(("form", "times"), [(lambda net: net, 1), (inference_form, 2)], ids=["plain", "inference form"])
def test_head(form, times):
    """With maps channels last, sums are taken in another order, which is twice as far from float64 on average."""
    f = fixture("network")
    with torch.inference_mode():
        levels = form(network())(picture("network"))
    for i, level in enumerate(levels, 3):
        for name, ours in zip(("cls", "bbox", "centerness", "mask"), level, strict=True):
            assert_within(ours, f[f"{name}_p{i}"], times * ABSOLUTE, f"{name} of P{i}")


def test_polar_iou_loss():
    f = fixture("polar_iou_loss")
    rays = f["pred"].clone().requires_grad_()
    each = losses.polar_iou_loss(rays, f["target"])
    assert_within(each, f["loss_per_sample"], 1e-6)
    assert_within(polar.polar_iou(f["pred"], f["target"]), (-f["loss_per_sample"]).exp(), 1e-6)
    loss = (each * f["weight"]).sum() / f["weight"].sum()
    assert_within(loss, f["loss"], 1e-6)
    loss.backward()
    assert_near(rays.grad, f["grad_pred"], GRADIENT)


@pytest.mark.parametrize(("form", "name"), [(losses.mean_log_loss, "variant_v2"), (losses.squared_loss, "variant_v3")])
def test_unused_losses(form, name):
    f = fixture("polar_iou_loss")
    assert_within((form(f["pred"], f["target"]) * f["weight"]).sum() / f["weight"].sum(), f[name], 1e-6)


def test_centerness():
    f = fixture("polar_iou_loss")
    assert_within(polar.centerness(f["centerness_input"]), f["centerness_target"], 1e-6)
    assert_within(polar.centerness(f["target"]), f["centerness_target_of_target_with_1e-6"], 1e-6)


@pytest.mark.parametrize("name", OBJECTS)
def test_polygon_to_mask(name):
    f = fixture("ray_targets")
    polygons = json.loads(bytes(f[f"{name}/polygon_json_utf8"].numpy()))
    polygons = polygons if isinstance(polygons[0], list) else [polygons]
    assert (targets.rasterise(polygons, *SIZE) == unpacked(f[f"{name}/mask_packed"], SIZE)).all()


@pytest.mark.parametrize("name", OBJECTS)
def test_ray_targets(name):
    f = fixture("ray_targets")
    rim = targets.contour(unpacked(f[f"{name}/mask_packed"], SIZE))
    assert rim.tolist() == f[f"{name}/contour"].tolist()
    assert list(targets.center(rim)) == f[f"{name}/center_xy"].tolist()
    assert_within(targets.rays(f[f"{name}/query_points"], torch.from_numpy(rim)), f[f"{name}/distances"], ABSOLUTE)


def object_masks() -> list[np.ndarray]:
    order = re.search(r"Objects in order: ([\w,]+)", note("targets_and_losses"))[1].split(",")
    return [unpacked(fixture("ray_targets")[f"{name}/mask_packed"], SIZE) for name in order]


def test_cells_and_their_targets():
    f = fixture("targets_and_losses")
    assert [h * w for h, w in targets.sizes(*SIZE)] == f["points_per_level"].tolist()
    at = torch.cat([cells(h, w, s, torch.zeros(())) for (h, w), s in zip(targets.sizes(*SIZE), STRIDES)])
    assert torch.equal(at, f["points"])
    ours = targets.assign(object_masks(), f["gt_boxes"], f["gt_labels"], SIZE)
    assert torch.equal(ours.labels, f["labels"]) and torch.equal(ours.index, f["pos_inds"])
    assert_within(ours.boxes, f["pos_bbox_targets"], ABSOLUTE, "boxes")
    assert_within(ours.rays, f["pos_mask_targets"], ABSOLUTE, "rays")
    assert_within(polar.centerness(ours.rays), f["pos_centerness_targets"], ABSOLUTE, "centerness")


def levels_of(f: dict[str, Tensor], grad: bool = False) -> list[Level]:
    return [Level(*(f[f"{name}_{i}"].clone().requires_grad_(grad) for name in ("cls", "bbox", "centerness", "mask"))) for i in range(5)]


def test_losses():
    f = fixture("targets_and_losses")
    levels = levels_of(f, grad=True)
    ours = losses.losses(levels, [targets.assign(object_masks(), f["gt_boxes"], f["gt_labels"], SIZE)])
    for name, loss in zip(("loss_cls", "loss_bbox", "loss_mask", "loss_centerness"), ours, strict=True):
        assert_near(loss, f[name], 1e-6, name)
    sum(ours).backward()
    gradients = {"grad_bbox_0": levels[0].box, "grad_centerness_0": levels[0].centerness, "grad_cls_2": levels[2].cls, "grad_mask_0": levels[0].mask}
    for name, x in gradients.items():
        assert_near(x.grad, f[name], GRADIENT, name)


def test_decoding():
    f, size = fixture("decode"), (256, 320)
    assert_within(polar.angles(36, f["points"]), f["angles_rad"], 1e-6)
    for clamped, inside in (("unclamped", None), ("clamped_256x320", size)):
        assert_within(polar.contours(f["points"], f["distances"], inside).transpose(1, 2), f[f"mask_points_{clamped}"], ABSOLUTE, clamped)
        assert_within(polar.boxes(f["points"], f["box_distances"], inside), f[f"boxes_{clamped}"], ABSOLUTE, clamped)
    for (h, w), stride in zip(((4, 5), (3, 4), (2, 3), (2, 2), (1, 2)), STRIDES):
        assert torch.equal(cells(h, w, stride, torch.zeros(())), f[f"grid_points_stride{stride}"])
    for points, bits in zip(f["mask_points_clamped_256x320"], f["filled_masks_packed"], strict=True):
        assert (polar.fill(points.T.numpy(), size) == unpacked(bits, size)).all()


def compare(ours: detect.Detections, boxes_scores: Tensor, labels: Tensor, tolerance: float = ABSOLUTE) -> None:
    assert torch.equal(ours.classes, labels)
    assert_within(ours.boxes, boxes_scores[:, :4], tolerance, "boxes")
    assert_within(ours.scores, boxes_scores[:, 4], ABSOLUTE, "scores")


def filled_equal(ours: detect.Detections, packed: Tensor, size: tuple[int, int]) -> None:
    """Corners are truncated to whole pixels, so a corner that lies on one may go either way."""
    for contour, bits in zip(ours.contours, packed):
        assert (polar.fill(contour.numpy(), size) != unpacked(bits, size)).mean() <= 0.002


def test_post_processing():
    f, told = fixture("get_bboxes"), note("get_bboxes")
    limit = int(re.search(r"nms_pre=(\d+)", told)[1])
    size = tuple(int(n) for n in re.search(r"img_shape (\d+)x(\d+)", told).groups())
    stretched = torch.tensor([float(n) for n in re.search(r"scale_factor \(w,h,w,h\)=\(([\d.,]+)\)", told)[1].split(",")])
    ours = detect.detect(levels_of(f), size, stretched, level_limit=limit)
    compare(ours, f["boxes_scores"], f["labels"])
    assert_within(ours.contours.transpose(1, 2), f["mask_points"], ABSOLUTE, "contours")
    original = tuple(round(n / s) for n, s in zip(size, stretched[[1, 0]].tolist()))
    filled_equal(ours, f["filled_masks_packed_first10"], original)
    by_contour = detect.detect(levels_of(f), size, stretched, level_limit=limit, mask_nms=True)
    compare(by_contour, f["mask_nms/boxes_scores"], f["mask_nms/labels"])


@pytest.mark.parametrize(("name", "keep_ratio"), [("stretch_80x48", False), ("keep_80x48", True)])
def test_preprocessing(name, keep_ratio):
    f = fixture("preprocess")
    x, size, stretched = preprocess.prepare(f["image"].numpy()[..., ::-1], (80, 48), keep_ratio)
    assert_within(x[0], f[name], ABSOLUTE)
    assert list(size) == f[f"{name}/img_shape"].tolist()[:2]
    assert list(x.shape[2:]) == f[f"{name}/pad_shape"].tolist()[:2]
    assert_within(stretched, f[f"{name}/scale_factor"].expand(4), 1e-6)


@pytest.mark.parametrize(("form", "times"), [(lambda net: net, 2), (inference_form, 4)], ids=["plain", "inference form"])
def test_end_to_end(form, times):
    """From the picture to 100 detections. Distances are exp() of what the network says, so they are right to a part of their length, and the file itself says
    how far the authors' boxes in float32 are from float64: both of us may be as far, and twice that with maps channels last."""
    f, told = fixture("e2e"), note("e2e")
    add = json.loads(re.search(r"ADD to these biases: (\{.*?\})", told)[1])
    stability = json.loads(re.search(r"stability (\{.*\})", told)[1])
    net, x, size = form(network(add)), picture("e2e"), tuple(f["image_bgr_uint8"].shape[1:])
    with torch.inference_mode():
        ours = detect.detect(net(x), size)
    assert len(ours.boxes) == stability["n"][0]
    compare(ours, f["boxes_scores"], f["labels"], times * stability["max_box_diff"])
    off = (ours.contours.transpose(1, 2) - f["mask_points"]).abs().amax(1)
    assert (off <= times * 5e-6 * ours.rays).all()
    filled_equal(ours, f["filled_masks_packed_first10"], size)
