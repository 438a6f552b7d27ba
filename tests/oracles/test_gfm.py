"""Our GFM against what the authors' code computes: every fixture of the folder `gfm`."""
from __future__ import annotations

import random
from functools import cache, lru_cache

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor

from pttp.gfm import data, losses, metrics, official, testtime
from pttp.gfm.model import GFM, Integrated, Prediction, fuse
from tests.oracles.common import FORWARD, GRADIENT, ORACLES, assert_near, assert_within, facts, file, fill, keys, tensors

FULL255 = 1e-3  # of the logits where the sigmoids are saturated
FLIPPED = 0.002  # share of the pixels whose class may differ: there two classes are as good as equal


@lru_cache(maxsize=2)
def network(backbone: str, rosta: str) -> GFM:
    return fill("gfm", GFM(backbone, rosta))


def arrays(name: str) -> dict[str, np.ndarray]:
    return {k: v.numpy() for k, v in tensors("gfm", name).items()}


def runs() -> list[tuple[str, str]]:
    """(network, run) of every forward pass in the fixtures, networks together."""
    path = ORACLES / "gfm" / "forward.safetensors"
    if not path.is_file():
        return [pytest.param("none_TT", "none", marks=pytest.mark.skip(reason=f"no fixture {path}: set PTTP_ORACLES to a folder that has it"))]
    with safe_open(path, "pt") as f:
        return sorted({(k.split(".")[0], k.split(".")[1]) for k in f.keys() if k.count(".") > 1 and not k.startswith("train.")})


def passed(name: str, run: str) -> tuple[dict[str, Tensor], Prediction | Integrated, dict[str, Tensor]]:
    """What each stage of our network gave in that run, what the network says, and the fixtures of the run."""
    fixtures, seen = tensors("gfm", "forward"), {}
    net = network(*name.rsplit("_", 1))
    picture = fixtures["image_rect_u8" if run.startswith("rect") else "image_u8"].permute(2, 0, 1)[None].float()
    hooks = [child.register_forward_hook(lambda m, i, y, stage=stage: seen.update({stage: y.clone()})) for stage, child in net.named_children()]
    try:
        with torch.inference_mode():
            said = net(picture if run == "full255" else picture * 0.125)
    finally:
        for hook in hooks:
            hook.remove()
    return seen, said, {k.removeprefix(f"{name}.{run}."): v for k, v in fixtures.items() if k.startswith(f"{name}.{run}.")}


def as_stored(x: Tensor, name: str, crop: tuple[int, int]) -> Tensor:
    """The part of a whole map that a fixture of this name holds."""
    if name.endswith("_crop"):
        (top, left), side = crop, 32 if name.startswith("rim") else 24
        return x[..., top : top + side, left : left + side]
    step = int(name.rpartition("_sub")[2])
    return x[..., ::step, ::step]


def variants() -> list[tuple[str, str]]:
    found = keys("gfm", "keys")
    if not isinstance(found[0], str):
        return [pytest.param(*found[0].values, "TT", marks=found[0].marks)]
    return [(backbone, rosta) for backbone in found if backbone != "note" for rosta in facts("gfm", "keys")[backbone]]


def theirs(backbone: str, rosta: str) -> tuple[dict[str, list[int]], dict[str, str]]:
    """Shape of every tensor in the authors' checkpoint, and second name -> first name of the doubled ones."""
    told = facts("gfm", "keys")[backbone]
    shapes = dict(told["TT"]["keys"])
    if rosta != "TT":
        shapes = {k: v for k, v in shapes.items() if k not in told[rosta]["absent_vs_TT"]} | told[rosta]["differs_from_TT"]
    return shapes, told["TT"]["alias_of"]


@pytest.mark.parametrize("backbone, rosta", variants())
def test_names_shapes_and_parameters(backbone, rosta):
    shapes, doubled = theirs(backbone, rosta)
    told = facts("gfm", "keys")[backbone][rosta]
    assert len(shapes) == told["n_keys"]
    with torch.device("meta"):
        net = GFM(backbone, rosta)
    ours = {k: list(v.shape) for k, v in net.state_dict().items()}
    assert ours == {k: shape for k, shape in shapes.items() if k in ours}
    twins = {official.twin(backbone, name): name for name in ours if official.twin(backbone, name)}
    assert {k: v for k, v in twins.items() if not k.endswith("num_batches_tracked")} == doubled
    left = {k: shape for k, shape in shapes.items() if k not in ours and k not in twins}
    assert all(k.startswith(official.UNUSED[backbone]) for k in left)
    unused = sum(int(np.prod(shape)) for k, shape in left.items() if not k.endswith(("running_mean", "running_var", "num_batches_tracked")))
    assert sum(p.numel() for p in net.parameters()) + unused == told["n_params_unique"]


@pytest.mark.parametrize("backbone, rosta", [case for case in variants() if case != ("r101", "TT")])
def test_loads_the_authors_state_dict(backbone, rosta):
    shapes, _ = theirs(backbone, rosta)
    state = {k: torch.zeros(()).expand(shape) for k, shape in shapes.items()}
    config, converted = official.from_state(state, rosta)
    assert config == {"backbone": backbone, "rosta": rosta}
    with torch.device("meta"):
        GFM(**config).load_state_dict(converted, strict=True, assign=True)


@pytest.mark.parametrize("name, run", runs())
def test_forward(name, run):
    seen, said, fixtures = passed(name, run)
    check_stages(name, run, seen, fixtures)
    check_maps(name, run, seen, said, fixtures)


def check_stages(name: str, run: str, seen: dict[str, Tensor], fixtures: dict[str, Tensor]) -> None:
    """Shape and channel means of every stage, and the logits of both decoders."""
    shapes = facts("gfm", "forward").get(f"{name}.shapes", {}) if run == "eighth" else {}
    for stage, shape in shapes.items():
        assert list(seen[stage].shape) == shape, stage
    for stage, mean in ((k.removeprefix("mean."), v) for k, v in fixtures.items() if k.startswith("mean.")):
        assert_within(seen[stage].mean((0, 2, 3)), mean, FORWARD * seen[stage].std().item(), f"mean of {stage}")
    for stage, logits in ((k.removeprefix("logits."), v) for k, v in fixtures.items() if k.startswith("logits.")):
        x = seen[stage.rpartition("_sub")[0]]
        assert_within(as_stored(x, stage, (0, 0)), logits, FULL255 if run == "full255" else FORWARD * x.std().item(), f"logits of {stage}")


def check_maps(name: str, run: str, seen: dict[str, Tensor], said: Prediction | Integrated, fixtures: dict[str, Tensor]) -> None:
    """Glance, focus, fusion, and which class wins where."""
    if hasattr(said, "tt"):
        outputs = {f"fusion_{one}": getattr(said, one).fusion for one in ("tt", "ft", "bt")} | {"rim_out": said.fusion}
    else:
        outputs = said._asdict()
    compared = 0
    for k, fixture in fixtures.items():
        which = k.rpartition("_")[0]
        if which not in outputs:
            continue
        ours = as_stored(outputs[which], k, (100, 100) if which == "rim_out" else (100, 60))
        if which == "rim_out":
            assert_within(ours, fixture, FORWARD * outputs[which].std().item(), k)
        else:
            # a sigmoid is nowhere steeper than 1/4: what the logits may differ by, it passes on at most by a quarter
            spread = max(x.std().item() for stage, x in seen.items() if stage.startswith("decoder0"))
            off = (ours - fixture).abs() > (FULL255 if run == "full255" else FORWARD * spread) / 4
            assert ours.shape == fixture.shape
            assert off.float().mean().item() <= (FLIPPED if which.startswith("fusion") else 0), k
        compared += 1
    assert compared >= 4
    if "glance_index_sub2" in fixtures:
        index = said.glance.argmax(1)
        assert (index[:, ::2, ::2] != fixtures["glance_index_sub2"]).float().mean().item() <= FLIPPED
        told = facts("gfm", "forward")[f"{name}.{run}.index_hist"]
        counts = torch.bincount(index.flatten(), minlength=len(told))
        assert (counts - torch.tensor(told)).abs().max().item() <= FLIPPED * index.numel()


def truth(dtype: torch.dtype = torch.float32) -> losses.Truth:
    """The pictures and maps of the training step."""
    f = tensors("gfm", "forward")

    def get(name: str) -> Tensor:
        x = f[f"train.{name}"].to(dtype)
        return x.permute(0, 3, 1, 2) if x.ndim == 4 else x[:, None]

    return losses.Truth(get("ori_u8"), get("mask"), get("fg_u8"), get("bg_u8"), get("trimap"), get("dilation"), get("erosion"))


@cache
def step(rosta: str, dtype: torch.dtype = torch.float64, disturbed: int = 0) -> tuple[Prediction, dict[str, float], Tensor]:
    """One training step: the prediction, the losses, and the norm of every gradient in the order of the fixture.

    The fusion takes its classes from the fixture's glance, so that a pixel between two classes does not decide about the rest. `disturbed` > 0 seeds a
    relative noise of 6e-8, one rounding to float32, on the output of every layer.
    """
    told, glance = facts("gfm", "forward")[f"train_step_r34_{rosta}"], tensors("gfm", "forward")[f"train.{rosta}.glance"]
    net = fill("gfm", GFM("r34", rosta)).train().to(dtype)
    if disturbed:
        generator = torch.Generator().manual_seed(disturbed)
        for layer in (m for m in net.modules() if not list(m.children())):
            layer.register_forward_hook(lambda m, i, y: y * (1 + 6e-8 * (2 * torch.rand(y.shape, generator=generator, dtype=y.dtype) - 1)))
    answer = truth(dtype)
    said = net(answer.image * 0.125)
    said = said._replace(fusion=fuse(rosta, glance, said.focus))
    lost = losses.gfm_loss(rosta, said, answer)
    lost["loss"].backward()
    gradients = {k: p.grad.norm().item() for k, p in net.named_parameters()}
    _, doubled = theirs("r34", rosta)
    norms = torch.tensor([gradients[doubled.get(k, k)] for k in told["grad_l2"]], dtype=torch.float64)
    return Prediction(*(x.detach() for x in said)), {k: v.item() for k, v in lost.items()}, norms


def off(ours: Tensor, reference: Tensor) -> float:
    """Largest difference over the standard deviation."""
    return ((ours.double() - reference.double()).abs().max() / reference.double().std()).item()


def live(norms: Tensor) -> Tensor:
    """Gradients that are not zero but for rounding: a bias before a batch norm has none."""
    return norms > 1e-6 * norms.max()


def worst(norms: Tensor, reference: Tensor) -> float:
    """Largest relative difference among the live gradients."""
    alive = live(reference)
    return ((norms - reference).abs() / reference)[alive].max().item()


@cache
def rounding() -> tuple[float, float, float]:
    """What rounding to float32 does to glance, focus and gradients of this step (batch norms over as few as 2 x 2 x 2 values make much of it), measured on
    ourselves: float32 against float64, and float64 against float64 with one rounding a layer."""
    reference, *others = step("TT"), step("TT", torch.float32), *(step("TT", disturbed=seed) for seed in (1, 2))
    return (
        max(off(other[0].glance, reference[0].glance) for other in others),
        max(off(other[0].focus, reference[0].focus) for other in others),
        max(worst(other[2], reference[2]) for other in others),
    )


@pytest.mark.parametrize("rosta", ["TT", "FT", "BT"])
def test_training_step(rosta):
    fixtures, told = tensors("gfm", "forward"), facts("gfm", "forward")[f"train_step_r34_{rosta}"]
    assert all(k.startswith(official.UNUSED["r34"]) for k in told["no_grad"])
    glance, focus, gradient = (3 * x for x in rounding())
    assert glance < 1e-2 and focus < 1e-3 and gradient < 3e-2  # else this test would show nothing
    said, lost, norms = step(rosta)
    assert off(fixtures[f"train.{rosta}.glance"], said.glance) <= glance
    assert off(fixtures[f"train.{rosta}.focus"], said.focus) <= focus
    assert off(fixtures[f"train.{rosta}.fusion"], said.fusion) <= focus
    names = {
        "global_ce": "glance_ce",
        "local_alpha": "focus_alpha",
        "local_lap": "focus_laplacian",
        "fusion_alpha": "fusion_alpha",
        "fusion_lap": "fusion_laplacian",
        "fusion_comp": "fusion_composition",
        "total": "loss",
    }
    assert {k: lost[ours] for k, ours in names.items()} == pytest.approx({k: told[k] for k in names}, rel=FORWARD)
    reference = torch.tensor(list(told["grad_l2"].values()), dtype=torch.float64)
    assert torch.equal(live(norms), live(reference))
    assert worst(reference, norms) <= gradient


@pytest.mark.parametrize("rosta", ["TT", "FT", "BT"])
def test_fusion(rosta):
    f = tensors("gfm", "fusion")
    assert torch.equal(fuse(rosta, f["glance3" if rosta == "TT" else "glance2"], f["focus"]), f[f"fusion_{rosta}"])


def test_fusion_of_maps():
    f = arrays("fusion")
    assert np.array_equal(testtime.fuse("TT", f["mlg.global"], f["mlg.local"], "literal"), f["mlg.out"])
    assert np.array_equal(testtime.classes(f["glance3"][0]), f["trimap_from_segmap"])
    assert np.array_equal(testtime.classes(f["glance2"][0]), f["bw_from_segmap"])


LOSSES = {
    "crossentropy_3_trimap": ("pred_glance3", lambda x, f: losses.glance_loss(x, f["trimap"])),
    "crossentropy_3_trimap_noisy": ("pred_glance3", lambda x, f: losses.glance_loss(x, f["trimap_noisy"])),
    "crossentropy_2_alpha": ("pred_glance2", lambda x, f: losses.glance_loss(x, f["alpha"])),
    "alpha_loss_trimap": ("pred", lambda x, f: losses.alpha_loss(x, f["alpha"], f["trimap"])),
    "alpha_loss_whole": ("pred", lambda x, f: losses.alpha_loss(x, f["alpha"])),
    "laplacian_loss_trimap": ("pred", lambda x, f: losses.laplacian_loss(x, f["alpha"], f["trimap"])),
    "laplacian_loss_whole": ("pred", lambda x, f: losses.laplacian_loss(x, f["alpha"])),
    "composition_loss_whole": ("pred", lambda x, f: losses.composition_loss(x, f["img"], f["fg"], f["bg"])),
}


@pytest.mark.parametrize("case", LOSSES)
def test_loss(case):
    told, (prediction, loss) = facts("gfm", "losses")["losses"], LOSSES[case]
    assert set(told) == set(LOSSES)
    f = {k: v.float() for k, v in tensors("gfm", "losses").items()}
    x = f[prediction].clone().requires_grad_()
    value = loss(x, f)
    value.backward()
    assert value.item() == pytest.approx(told[case]["value"], rel=FORWARD)
    assert x.grad.norm().item() == pytest.approx(told[case]["grad_l2"], rel=GRADIENT)
    # the sum may cancel to nothing: the scale is what it would be without signs
    assert x.grad.double().sum().item() == pytest.approx(told[case]["grad_sum"], abs=GRADIENT * x.grad.abs().sum().item())


def test_blur_and_pyramid():
    f = tensors("gfm", "losses")
    assert_within(losses.blur_kernel(), f["gauss_kernel"], 1e-7)
    levels = losses.laplacian_pyramid(f["alpha"][:1].float() / 255)
    assert len(levels) == sum(k.startswith("pyramid_alpha.") for k in f)
    for i, level in enumerate(levels):
        assert_near(level, f[f"pyramid_alpha.{i}"], what=f"level {i}")


def test_metrics():
    told, f = facts("gfm", "losses")["metrics"], arrays("metrics")
    matte, alpha, trimap = f["pd"], f["gt"], f["trimap"]
    odd = np.zeros_like(trimap)
    odd[:60] = 200
    ours = {
        "sad_mse_mad_whole": metrics.sad_mse_mad(matte, alpha),
        "sad_mse_mad_trimap": metrics.sad_mse_mad(matte, alpha, trimap),
        "sad_mse_mad_trimap_200_rows_0_59_else_0": metrics.sad_mse_mad(matte, alpha, odd),
        "sad_fg_bg": metrics.sad_foreground_background(matte, alpha, trimap),
        "grad": (metrics.gradient_error(matte, alpha),),
        "conn": (metrics.connectivity_error(matte, alpha),),
    }
    assert set(ours) == set(told)
    for name, value in ours.items():
        assert value == pytest.approx(np.atleast_1d(told[name]).tolist(), rel=1e-6), name


def test_trimap_dilation_erosion():
    f = arrays("data")
    for size in (25, 50):
        assert np.array_equal(data.ellipse(size), f[f"ellipse{size}"])
    alpha = f["alpha"]
    assert np.array_equal(data.trimap(alpha), f["trimap25"])
    assert np.array_equal(data.dilation(alpha), f["dilation50"])
    assert np.array_equal(data.erosion(alpha), f["erosion50"])
    assert np.array_equal(data.dilation(alpha) - alpha, f["dilation_minus_alpha_uint8"])
    assert np.array_equal(alpha - data.erosion(alpha), f["alpha_minus_erosion_uint8"])


def test_split_and_plain_composite():
    f = arrays("data")
    fg, bg = data.split(f["rssn.fg"], f["rssn.mask"])
    np.testing.assert_allclose(fg, f["process_fg"], atol=1e-4)
    np.testing.assert_allclose(bg, f["process_bg"], atol=1e-4)
    plain = data.composite(f["rssn.fg"], data.fitted(f["rssn.bg"], f["rssn.fg"].shape), f["rssn.mask"])
    assert np.array_equal(plain, f["coco.composite"])


@pytest.mark.parametrize("case", keys("gfm", "data"))
def test_rssn(case):
    f, told, seed = arrays("data"), facts("gfm", "data")[case], int(case.removeprefix("seed"))
    denoised = (f["rssn.fg_denoise"], f["rssn.bg_denoise"]) if told["use_denoise_given"] else None
    choices = {"choose": random.Random(seed), "normal": np.random.RandomState(seed)}
    image, fg, bg = data.rssn(f["rssn.fg"], f["rssn.bg"], f["rssn.mask"], denoised, clip=False, **choices)
    assert (str(fg.dtype), str(bg.dtype)) == (told["fg_dtype"], told["bg_dtype"])
    assert np.array_equal(image, f[f"rssn.{case}.composite"])
    assert np.array_equal(fg, f[f"rssn.{case}.fg"])
    np.testing.assert_allclose(bg[::4, ::4].astype(np.float64), f[f"rssn.{case}.bg_sub4"], atol=1e-6)


def test_working_sizes():
    for told in facts("gfm", "testtime")["size_table"]:
        h, w = told["h"], told["w"]
        ours = {"third": testtime.GLANCE, "half": testtime.FOCUS, "resize_strategy": testtime.FOCUS, "rim": testtime.GLANCE}
        assert {k: list(testtime.working_size(h, w, ratio)) for k, ratio in ours.items()} == {k: told[k] for k in ours}


def test_preparation():
    f = arrays("testtime")
    (third,) = (k for k in f if k.startswith("pre.third_"))
    (half,) = (k for k in f if k.startswith("pre.half_"))
    np.testing.assert_allclose(testtime.prepared(f["image_u8"], testtime.GLANCE)[0].permute(1, 2, 0), f[third], atol=1e-4)
    np.testing.assert_allclose(testtime.prepared(f["image_u8"], testtime.FOCUS)[0].permute(1, 2, 0)[::2, ::2], f[half], atol=1e-4)


def test_stretching_and_fusing():
    f, exact = arrays("testtime"), {"rtol": 0, "atol": 1e-12}
    size = f["post.fusion_TT"].shape
    assert np.array_equal(testtime.classes(f["post.segmap"][0]), f["post.trimap_small"])
    assert np.array_equal(testtime.classes(f["post.segmap"][0, :2]), f["post.bw_small"])
    trimap, bw = (testtime.resized(f[f"post.{name}_small"], size) * 255.0 for name in ("trimap", "bw"))
    focus = testtime.resized(f["post.focus_small"], size)
    np.testing.assert_allclose(trimap, f["post.trimap_up_x255"], **exact)
    np.testing.assert_allclose(bw, f["post.bw_up_x255"], **exact)
    np.testing.assert_allclose(focus, f["post.focus_up"], rtol=0, atol=1e-6)
    # what rounding leaves of 255 depends on the version of scikit-image: the fusions are compared on the authors' maps
    for rosta, glance in (("TT", "post.trimap_up_x255"), ("FT", "post.bw_up_x255"), ("BT", "post.bw_up_x255")):
        np.testing.assert_allclose(testtime.fuse(rosta, f[glance], f["post.focus_up"], "literal"), f[f"post.fusion_{rosta}"], **exact)
    glance, literal = f["post.trimap_up_x255"], f["post.fusion_TT"]
    assert np.isin(glance, (0, 255)).mean() == pytest.approx(f["post.fraction_exact_0_or_255"].item())
    tolerant = testtime.fuse("TT", glance, f["post.focus_up"])
    sure = np.isin(np.rint(glance), (0, 255))
    assert np.array_equal(tolerant[sure], np.rint(glance[sure]) / 255)
    assert np.array_equal(tolerant[~sure], literal[~sure])
    speckles = (tolerant != literal).sum()
    assert speckles == np.count_nonzero(sure & ~np.isin(glance, (0, 255)))


def test_saved_files():
    f = arrays("testtime")
    np.testing.assert_allclose(testtime.premultiplied(f["color.image_rgb"], f["color.alpha"]), f["color.composite_bgra_float"], atol=1e-9)
    assert np.array_equal(testtime.saved(f["color.alpha"]), f["save.alpha_u8"])


@pytest.mark.parametrize("name, strategy", [("r34_TT", "HYBRID"), ("r34_TT", "RESIZE"), ("r34_FT", "HYBRID"), ("r34_BT", "HYBRID")])
def test_whole_strategy(name, strategy):
    f, told = arrays("testtime"), facts("gfm", "testtime")[f"e2e.{name}.{strategy}.means"]
    maps = testtime.matte(network(*name.rsplit("_", 1)), f["image_u8"], strategy, "literal")
    for which, unit in (("glance", 255), ("focus", 1), ("fusion", 1)):
        ours, stored = getattr(maps, which), f[f"e2e.{name}.{strategy}.{which}_sub4"]
        assert ours.shape == f["image_u8"].shape[:2]
        assert (np.abs(ours[::4, ::4] - stored) > FORWARD * unit).mean() <= FLIPPED, which
        assert ours.mean() == pytest.approx(told[which], abs=FLIPPED * unit / 10), which
    assert np.isin(maps.glance, (0, 255)).mean() == pytest.approx(told["glance_exact"], abs=FLIPPED)


@pytest.mark.parametrize("number", range(1, 6))
def test_sample_pictures_get_the_size_of_their_mattes(number):
    picture = np.asarray(Image.open(file("gfm", f"samples/original/{number}.jpg")).convert("RGB"))
    assert testtime.limited(picture).shape[1::-1] == Image.open(file("gfm", f"samples/result_alpha/{number}.png")).size
