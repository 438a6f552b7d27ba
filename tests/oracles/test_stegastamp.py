"""Our StegaStamp against what the authors' TensorFlow code computes (fixtures: NHWC, weights from the tensors' names)."""
from __future__ import annotations

from functools import lru_cache, partial

import numpy as np
import pytest
import torch
from torch import Tensor

from pttp.stegastamp import geometry, losses, message, official, original
from pttp.stegastamp import jpeg as jpegs
from pttp.stegastamp.model import Critic, StegaStamp, spatial_transform
from tests.oracles import common
from tests.oracles.common import FORWARD, GRADIENT, assert_within

tensors, facts = partial(common.tensors, "stegastamp"), partial(common.facts, "stegastamp")


def nchw(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)


def nhwc(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


def assert_near(ours: Tensor, theirs: Tensor, tolerance: float = FORWARD, scale: float | None = None, what: str = "") -> None:
    """As in common.py; `scale` is the standard deviation of the whole tensor where only a part of it, or its mean, is compared."""
    if scale is None:
        common.assert_near(ours, theirs, tolerance, what)
    else:
        assert_within(ours, theirs, tolerance * scale, what)


@lru_cache(maxsize=1)  # 200 MB each
def variables(group: str) -> dict[str, np.ndarray]:
    """The authors' variables in the fixture groups A (spatial transformer at its start), B (it does something) and G (everything louder)."""
    shapes = facts("variables")["variables"]
    value = {name: v.numpy() for name, v in common.values("stegastamp", shapes, tensorflow=True).items()}
    identity = np.array([1, 0, 0, 0, 1, 0], np.float32)
    if group == "B":
        value["W_fc1"] = np.float32(0.1) * value["W_fc1"]
        value["b_fc1"] = identity + np.float32(0.5) * value["b_fc1"]
    else:
        value["W_fc1"], value["b_fc1"] = np.zeros_like(value["W_fc1"]), identity
    if group == "G":
        value = {name: v * np.float32(1.6) if v.ndim > 1 else v for name, v in value.items()}
    return value


def images() -> Tensor:
    return nchw(tensors("images")["images_u8_nhwc"]).float() / 255


def our_name(their: str) -> str:
    """Their layer (without scope) -> our module of the whole network."""
    if their.startswith("W_fc1") or their.startswith("b_fc1"):
        return "decoder.theta"
    kind, _, number = their.rpartition("/")[2].partition("_")
    number = int(number or 0)
    if kind == "dense":
        return ("encoder.secret", "decoder.locator_hidden", "decoder.hidden", "decoder.bits")[number]
    if number < 15:
        return f"encoder.{official.ENCODER[number]}"
    return f"decoder.{(official.LOCATOR + official.READER)[number - 15]}"


def run_and_watch(net: StegaStamp, image: Tensor, secret: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Residual, logits, and what every layer gave (before its activation), by our name. In float64: what is left is their rounding."""
    seen, hooks = {}, []
    for name, module in net.named_modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            hooks.append(module.register_forward_hook(lambda m, i, o, name=name: seen.__setitem__(name, o)))
    with torch.inference_mode():
        residual, logits = net.encoder(image, secret), net.decoder(image)
    for h in hooks:
        h.remove()
    return residual, logits, seen


@pytest.fixture(scope="module", params=["A", "B", "G"])
def run(request):
    """One fixture group: its name, its fixtures, our network in float64, and what it computes."""
    fixtures = tensors("network")
    net = official.network(variables(request.param)).double()
    image, secret = images()[:1].double(), fixtures["secret"][:1].double()
    return request.param, fixtures, net, image, *run_and_watch(net, image, secret)


def test_whole_network(run):
    group, f, net, image, residual, logits, _ = run
    r, scale = nhwc(residual), residual.std().item()
    compared = {
        "residual_sub4": r[:, ::4, ::4],
        "residual_sub8": r[:, ::8, ::8],
        "residual_crop_tl": r[:, :24, :24],
        "residual_crop_br": r[:, -24:, -24:],
        "residual_chmean": r.mean((1, 2)),
    }
    for name, ours in compared.items():
        if f"{group}.{name}" in f:
            assert_near(ours, f[f"{group}.{name}"], scale=scale)
    assert_near(logits, f[f"{group}.logits"])
    clear = f[f"{group}.logits"].abs() > 1e-5
    assert torch.equal((logits > 0)[clear], f[f"{group}.bits"][clear] == 1)


def test_spatial_transformer_in_the_network(run):
    group, f, net, image, *_ = run
    with torch.inference_mode():
        theta = net.decoder.locate(image)
        out = nhwc(spatial_transform(image.float() - 0.5, theta.float()))
    assert_near(theta, f[f"{group}.theta"])
    compared = {"stn_sub4": out[:, ::4, ::4], "stn_crop_tl": out[:, :16, :16], "stn_crop_br": out[:, -16:, -16:]}
    steepest = out.diff(dim=1).abs().max().item() + out.diff(dim=2).abs().max().item()
    for name, ours in compared.items():
        off = (ours - f[f"{group}.{name}"]).abs()
        assert off.max().item() <= 5e-5 * steepest  # what a float32 coordinate near 400 is good for, in pixels
        assert off.square().mean().sqrt().item() <= FORWARD * out.std().item()
    assert_near(out.mean((1, 2)), f[f"{group}.stn_chmean"], scale=out.std().item())


def test_every_layer(run):
    group, f, net, image, residual, _, seen = run
    checked = 0
    for name, theirs in f.items():
        if not name.startswith((f"{group}.enc_mean.", f"{group}.dec_mean.", f"{group}.dec_full.")):
            continue
        kind, layer = name.split(".", 2)[1:]
        layer, what = layer.replace("/BiasAdd", ".BiasAdd").replace("/Relu", ".Relu").rsplit(".", 1)
        if layer == "conv2d_13":
            continue  # not in our network, see test_the_unused_convolution
        ours = seen[our_name(layer)]
        scale = ours.std().item()
        ours = ours.relu() if what == "Relu" else ours
        if our_name(layer) == "encoder.secret":
            ours = nhwc(ours.view(1, 3, net.encoder.grid, net.encoder.grid)).flatten(1)
        if kind == "dec_full" or ours.ndim == 2:
            terms = dict(net.named_modules())[our_name(layer)].weight[0].numel()
            rounding = torch.finfo(torch.float32).eps * terms**0.5  # of their float32 sum; above FORWARD only for the 320,000 terms of dense_1
            assert_near(ours.view_as(theirs), theirs, max(FORWARD, rounding), scale, name)
        else:
            assert_near(ours.mean((0, 2, 3)), theirs, FORWARD, scale, name)
        checked += 1
    if checked == 0:
        pytest.skip(f"no layer means in group {group}")


def test_the_unused_convolution(run):
    """The authors compute a convolution on conv9 that nothing uses; its values follow from ours."""
    group, f, _, _, _, _, seen = run
    if f"{group}.enc_mean.conv2d_13.Relu" not in f:
        pytest.skip(f"not in group {group}")
    v = variables(group)
    kernel = torch.from_numpy(v["stega_stamp_encoder/conv2d_13/kernel"]).permute(3, 2, 0, 1).double()
    out = torch.nn.functional.conv2d(seen["encoder.conv9"].relu(), kernel, torch.from_numpy(v["stega_stamp_encoder/conv2d_13/bias"]).double(), padding=1)
    assert_near(out.mean((0, 2, 3)), f[f"{group}.enc_mean.conv2d_13.BiasAdd"], scale=out.std().item())
    assert_near(out.relu().mean((0, 2, 3)), f[f"{group}.enc_mean.conv2d_13.Relu"], scale=out.std().item())


def test_the_secret_map_and_the_stamped_picture(run):
    group, f, net, image, residual, _, seen = run
    if f"{group}.secret_dense_relu" not in f:
        pytest.skip(f"not in group {group}")
    ours = nhwc(seen["encoder.secret"].relu().view(1, 3, net.encoder.grid, net.encoder.grid)).flatten(1)
    assert_near(ours, f[f"{group}.secret_dense_relu"])
    middle = slice(net.size // 2 - 12, net.size // 2 + 12)
    assert_near(nhwc((image + residual).clamp(0, 1))[:, middle, middle], f[f"{group}.hidden_crop_mid"])


def test_float32_reads_the_same(run):
    group, f, net, image, _, logits, _ = run
    single = official.network(variables(group))
    with torch.inference_mode():
        assert_near(single.decoder(image.float()), logits, tolerance=3 * FORWARD)


def test_critic():
    f, critic = tensors("network"), Critic()
    critic.load_state_dict(official.critic_state_dict(variables("A")))
    with torch.inference_mode():
        image = images()[:1].double()
        heat = critic.double().heatmap(image)
    assert_near(nhwc(heat), f["A.disc_map"])
    assert_near(heat.mean().view(1), f["A.disc_mean"], scale=heat.std().item())


def test_our_parameters_are_theirs():
    """Every variable that the authors use, and nothing else."""
    info = facts("variables")
    used = [n for n in info["variables"] if "conv2d_13/" not in n]
    ours = official.state_dict(variables("A")).keys() | {f"critic.{k}" for k in official.critic_state_dict(variables("A"))}
    assert len(ours) == len(used)
    with torch.device("meta"):
        assert official.state_dict(variables("A")).keys() == StegaStamp().state_dict().keys()


@pytest.mark.parametrize("case", ["sq", "rect", "resize"])
@pytest.mark.parametrize("grad", [False, True], ids=["grid_sample", "taps"])
def test_stn_op(case, grad):
    f = tensors("stn_op")
    image, theta, theirs = nchw(f[f"{case}.image_nhwc"]), f[f"{case}.theta"].clone().requires_grad_(grad), f[f"{case}.out_nhwc"]
    ours = nhwc(spatial_transform(image, theta, theirs.shape[1:3])).detach()
    assert_near(ours, theirs)


@pytest.mark.parametrize("seed", common.keys("stegastamp", "warp"))
def test_warp(seed):
    f, info = tensors("warp"), facts("warp")[seed]
    size = info["image_size"]
    offsets = f[f"{seed}.offsets_tlx_tly_blx_bly_trx_try_brx_bry"].numpy().reshape(-1, 4, 2)[:, [0, 2, 3, 1]]  # ours go round clockwise
    m1 = geometry.homography((geometry.square(size) + offsets).astype(np.float32), geometry.square(size))
    matrices = np.stack([np.linalg.inv(m1), m1], 1).reshape(-1, 2, 9)[..., :8]
    theirs = f[f"{seed}.Ms"].numpy()
    np.testing.assert_allclose(matrices, theirs, rtol=1e-9, atol=1e-6)
    if f"{seed}.image_nhwc" in f:
        image = nchw(f[f"{seed}.image_nhwc"])
        for k in (0, 1):
            assert_near(nhwc(geometry.warp(image, torch.from_numpy(theirs[:, k]))), f[f"{seed}.warp_M{k}"])


def test_matrices_are_drawn_as_theirs():
    """Corners move by at most the shift, M0 undoes M1 up to the factor that they forget."""
    m = original.warp_matrices(400, 40, 64, torch.Generator().manual_seed(0)).numpy()
    m0, m1 = (np.concatenate([m[:, k], np.ones((64, 1))], 1).reshape(-1, 3, 3) for k in (0, 1))
    for a, b in zip(m0, m1, strict=True):
        full = np.linalg.inv(b)
        np.testing.assert_allclose(a.flatten()[:8], full.flatten()[:8], rtol=1e-9)
        moved = np.abs(geometry.transform_points(full, geometry.square(400)) - geometry.square(400))
        assert moved.max() <= 40.001
    assert np.abs(np.linalg.inv(m1)[:, 2, 2] - 1).max() > 0.005


def test_blur_kernels():
    f = tensors("blur_kernels")
    for case in facts("blur_kernels"):
        ours = original.blur_kernel(*(case[f"u_{name}"] for name in ("select", "sig_gauss", "theta", "sig_line", "w_line")))
        assert_near(ours, f[case["name"]])


ROUNDINGS = {"diff_round": jpegs.diff_round, "round_only_at_0": jpegs.round_only_at_0}


def test_jpeg():
    f = tensors("jpeg")
    cases = [k for k in f if k.endswith((".ds0", ".ds1"))]
    assert cases
    for case in cases:
        size, quality, rounding, subsample = case.split(".")
        factor = facts("jpeg")["quality_to_factor"][quality[1:]]
        assert jpegs.quality_to_factor(float(quality[1:])) == pytest.approx(factor, abs=1e-12)
        assert jpegs.quality_to_factor(torch.tensor([float(quality[1:])])).item() == pytest.approx(factor, abs=1e-6)
        ours = nhwc(jpegs.jpeg(nchw(f[f"img_{size}"]), factor + 1e-4, ROUNDINGS[rounding], subsample == "ds1"))
        off = (ours - f[case]).abs()
        assert (off > 1e-4).float().mean() <= 1e-3, case


def test_jpeg_parts():
    f = tensors("jpeg")
    for name, rounding in ROUNDINGS.items():
        assert_near(rounding(f["round.x"]), f[f"round.{name}"])
    luma, chroma = jpegs.quantisation_tables(torch.zeros(1))
    assert torch.equal(luma.T, f["tables.y"]) and torch.equal(chroma, f["tables.c"])


def test_jpeg_gradient():
    f = tensors("jpeg")
    for case in (k for k in f if k.endswith("grad_of_sum_squares")):
        size, quality, rounding, _ = case.split(".")
        x = nchw(f[f"img_{size}"]).clone().requires_grad_()
        jpegs.jpeg(x, facts("jpeg")["quality_to_factor"][quality[1:]] + 1e-4, ROUNDINGS[rounding]).square().sum().backward()
        assert_near(nhwc(x.grad), f[case], tolerance=GRADIENT)


def draws_of(case: dict, shape: torch.Size) -> original.Draws:
    """Their recorded uniform numbers; the noise comes from its seed, in their layout."""
    b, c, h, w = shape
    u, border = case["u"], case.get("border_u") or [[0.0]]
    noise = np.random.default_rng(case["noise_seed"]).standard_normal((b, h, w, c)).astype(np.float32)
    one = {k: float(u[k]) for k in ("select", "sig_gauss", "theta", "sig_line", "w_line", "noise_std", "sat", "jpegq")}
    several = {k: nchw(torch.tensor(u[k])) for k in ("bri", "hue")}
    return original.Draws(noise=nchw(torch.from_numpy(noise)), contrast=torch.tensor(u["contrast"]), border=torch.tensor(border[0]), **several, **one)


def settings_of(args: dict) -> original.Settings:
    alike = {name: args[name] for name in ("contrast_low", "contrast_high", "jpeg_quality")}
    return original.Settings(bri=args["rnd_bri"], hue=args["rnd_hue"], noise=args["rnd_noise"], sat=args["rnd_sat"], ramp=args["contrast_ramp"], **alike)


def test_transform_net():
    f, info, x = tensors("transform_net"), facts("transform_net"), images()
    for case, fact in info["cases"].items():
        out = nhwc(original.transform_net(x, draws_of(fact, x.shape), fact["global_step"], settings_of(info["args"])))
        for ours, theirs in ((out[:, ::4, ::4], f[f"{case}.out_sub4"]), (out[:, 40:56, 40:56], f[f"{case}.out_crop"])):
            assert ((ours - theirs).abs() > 1e-4).float().mean() <= 1e-3, case  # a coefficient at the edge of rounding may fall on the other side
        assert_near(out.mean((1, 2)), f[f"{case}.out_mean"], scale=out.std().item(), what=case)


def test_yuv_and_falloff():
    f = tensors("losses")
    assert_near(nhwc(losses.rgb_to_yuv(nchw(f["yuv.rgb"]))), f["yuv.yuv"])
    ours = losses.edge_falloff(400)
    assert_near(ours[::8, ::8], f["falloff_full_sub8"])
    row, col = f["falloff_row0"], f["falloff_col0"]
    assert_near(ours, 1 - torch.outer(row, col))


def test_small_losses():
    f, small = tensors("losses"), facts("losses")["small"]
    pred, true = f["small.pred"], f["small.true"]
    assert losses.secret_loss(pred, true).item() == pytest.approx(small["sigmoid_ce"], rel=FORWARD)
    assert losses.secret_accuracy(pred, true) == pytest.approx((small["bit_acc"], small["str_acc"]), abs=1e-6)


def tensorflow_mean(x: Tensor) -> list[float]:
    """Mean per channel of (B, C, H, W) as TensorFlow's kernel adds: pixel after pixel in float32, which costs digits that a better sum keeps."""
    pixels = nhwc(x).reshape(-1, x.shape[1]).float().numpy()
    return (np.cumsum(pixels, 0, dtype=np.float32)[-1] / np.float32(len(pixels))).tolist()


@pytest.fixture(scope="module")
def models():
    critic = Critic()
    critic.load_state_dict(official.critic_state_dict(variables("A")))
    return official.network(variables("A")), critic


@pytest.mark.parametrize("case", [c for c in common.keys("stegastamp", "losses") if c != "small"])
def test_training_pass(case, models):
    (net, critic), f, fact = models, tensors("losses"), facts("losses")[case]
    image, secret = images(), tensors("network")["secret"]
    args = (image, secret, f["M"], draws_of(fact, image.shape), fact["global_step"], fact["borders"])
    with torch.enable_grad() if "grad_l2" in fact else torch.no_grad():
        p = original.training_pass(net.encoder, net.decoder, critic, *args)
        ours = original.losses(p, image, secret, fact["loss_scales"], fact["yuv_scales"], fact["l2_edge_gain"])
    pictures = {"image_warped": p.image_warped, "encoded_warped": p.encoded_warped, "encoded_image": p.encoded, "transformed_image": p.transformed}
    pictures["residual"] = p.residual_warped + 0.5  # as their summary shows it
    for name, picture in pictures.items():
        picture = nhwc(picture.detach())
        assert_near(picture.mean((1, 2)), f[f"{case}.{name}.mean"], scale=picture.std().item())
        if f"{case}.{name}.sub8" in f:
            # coordinates near 400 are only good to 3e-5 pixels in float32, more where a picture was warped twice
            steepest = max(picture.diff(dim=1).abs().max().item(), picture.diff(dim=2).abs().max().item())
            off = (picture[:, ::8, ::8] - f[f"{case}.{name}.sub8"]).abs()
            assert (off > 1e-4 * steepest).float().mean() <= 1e-3
    assert_near(p.logits.detach(), f[f"{case}.decoded_logits"], tolerance=3 * FORWARD)
    assert_near(nhwc(p.heatmap.detach()), f[f"{case}.discriminator"])
    theirs = fact["scalars"]
    assert ours["bit_accuracy"] == pytest.approx(fact["bit_acc"], abs=1e-6) and ours["all_right"] == pytest.approx(theirs["str_acc"], abs=1e-6)
    assert ours["secret"].item() == pytest.approx(fact["secret_loss"], rel=FORWARD)
    assert ours["critic"].item() == pytest.approx(fact["D_loss"], rel=FORWARD, abs=FORWARD * p.heatmap.std().item())
    assert p.fake.item() == pytest.approx(theirs["G_loss"], rel=FORWARD)

    weighted = losses.weighted_difference(p.encoded, image, fact["l2_edge_gain"]).detach()
    assert ours["yuv"].tolist() == pytest.approx(weighted.double().square().mean((0, 2, 3)).tolist(), rel=FORWARD)
    as_they_add = tensorflow_mean(weighted.square())
    assert as_they_add == pytest.approx([theirs[f"{c}_loss"] for c in "YUV"], rel=FORWARD)
    picture_loss = float(np.dot(as_they_add, fact["yuv_scales"]))
    assert picture_loss == pytest.approx(theirs["image_loss"], rel=FORWARD)
    w = fact["loss_scales"]
    assert w[0] * picture_loss + w[2] * ours["secret"].item() + w[3] * p.fake.item() == pytest.approx(fact["loss"], rel=FORWARD)

    if "grad_l2" in fact:
        compare_gradients(net, ours["loss"], fact)


def compare_gradients(net: StegaStamp, loss: Tensor, fact: dict) -> None:
    """Length of every variable's gradient.

    One ReLU or JPEG coefficient on the other side of its kink moves a small gradient by some 1e-4, so a tenth of them may be off by up to 1e-3.
    """
    net.zero_grad()
    loss.backward()
    ours = dict(net.named_parameters())
    assert not [n for n in fact["no_gradient"] if "conv2d_13/" not in n]
    assert len(fact["grad_l2"]) == len(ours)
    off = {}
    for name, theirs in fact["grad_l2"].items():
        leaf = "bias" if name.endswith("bias") or name == "b_fc1" else "weight"
        length = ours[f"{our_name(name.removesuffix('/kernel').removesuffix('/bias'))}.{leaf}"].grad.double().norm().item()
        off[name] = abs(length - theirs) / theirs if theirs else length
    assert max(off.values()) <= 1e-3, sorted(off.items(), key=lambda x: -x[1])[:5]
    assert np.mean([x > GRADIENT for x in off.values()]) <= 0.1, sorted(off.items(), key=lambda x: -x[1])[:9]
    net.zero_grad()


def bits_of(text: str) -> np.ndarray:
    return np.array([int(c) for c in text], np.uint8)


def test_bch_encode():
    for case in facts("bch_vectors")["encode"]:
        data = np.unpackbits(np.frombuffer(bytes.fromhex(case["data_hex"]), np.uint8))
        word, theirs = message.encode_words(data[None])[0], bits_of(case["bits"])
        assert (word == theirs[: message.CODE]).all() and not theirs[message.CODE :].any()
        ecc = np.packbits(np.concatenate([word[message.DATA :], np.zeros(5, np.uint8)])).tobytes()
        assert ecc.hex() == case["ecc_hex"]
        text = message.text_of(bytes.fromhex(case["data_hex"]))
        if text:
            assert (message.pack(text) == theirs).all()


def test_bch_constants():
    info = facts("bch_vectors")
    assert message.GENERATOR == int(info["generator_hex"], 16)
    assert (message.FIELD, message.REPAIRS, message.CHECKS) == (info["n"], info["t"], info["ecc_bits"])


def test_bch_decode():
    """Every case within the code's power is repaired alike.

    Beyond it their library now and then announces a repair that does not end at a code word; we refuse those.
    """
    cases = facts("bch_vectors")["decode"]
    words = np.stack([bits_of(c["bits"])[: message.CODE] for c in cases])
    ours, repaired = message.correct(words)
    for case, word, fixed, n in zip(cases, words, ours, repaired, strict=True):
        data = bytes.fromhex(case["data_hex"])
        claimed = message.encode_words(np.unpackbits(np.frombuffer(data, np.uint8))[None])[0]
        if case["nerr"] >= 0 and (claimed != word).sum() != case["nerr"]:
            assert not case["ok"] and n == -1
            continue
        assert n == case["nerr"]
        assert np.packbits(fixed[: message.DATA]).tobytes() == data


def test_bch_power():
    """What their exhaustive proof says, tried on ours: all patterns of one and two flips, and as many random ones of three to five."""
    proof, n = facts("bch_proof"), message.CODE
    one = np.eye(n, dtype=np.uint8)
    i, j = np.triu_indices(n, 1)
    assert len(one) == proof["exhaustive_1_flips_of_91"]["tried"] and len(i) == proof["exhaustive_2_flips_of_91"]["tried"]
    rng = np.random.default_rng(0)
    flips = [one, one[i] ^ one[j]]
    for count in (3, 4, 5):
        picked = np.argsort(rng.random((20_000, n)), 1)[:, :count]
        pattern = np.zeros((20_000, n), np.uint8)
        np.put_along_axis(pattern, picked, 1, 1)
        flips.append(pattern)
    for pattern in flips:
        sent = message.encode_words(rng.integers(0, 2, (len(pattern), message.DATA), dtype=np.uint8))
        fixed, repaired = message.correct(sent ^ pattern)
        assert (fixed == sent).all() and (repaired == pattern.sum(1)).all()


def detector_cases() -> list[dict]:
    return facts("detector")["cases"]


def frame_of_detector() -> np.ndarray:
    h, w = 480, 640
    x, y = np.meshgrid(np.arange(w), np.arange(h))
    return np.stack([x * 255 // w, y * 255 // h, (x + y) % 256], -1).astype(np.uint8)


def test_detector_geometry():
    """Mask -> corners -> homography -> square. The mask is drawn by OpenCV, as theirs was."""
    cv2 = pytest.importorskip("cv2", reason="OpenCV draws the masks of these fixtures")
    frame = frame_of_detector()
    h, w = frame.shape[:2]
    picture = torch.from_numpy(frame).permute(2, 0, 1).double() / 255
    for case in detector_cases():
        mask = np.zeros((h, w), np.uint8)
        cv2.fillConvexPoly(mask, np.array(case["quad_drawn"], np.int32), 255)
        regions = geometry.regions(mask > 0)
        quads = geometry.quads_in_mask(mask > 0)
        assert len(quads) == len(case["found"])
        for quad, found, (_, area) in zip(quads, case["found"], regions, strict=False):
            assert area == found["contour_area"]
            np.testing.assert_allclose(quad, found["corners"], rtol=0, atol=1e-4)
            assert geometry.polygon_area(quad) == pytest.approx(found["poly_area"], rel=1e-6)
            np.testing.assert_allclose(geometry.homography(quad, geometry.square(399)), found["homography"], rtol=1e-5, atol=1e-9)
            out = geometry.rectify(picture, quad[None], 400)[0].permute(1, 2, 0).numpy()
            np.testing.assert_allclose(out.mean((0, 1)), found["warp_mean"], atol=0.5 / 255)
            for place, theirs in found["warp_probe"].items():
                row, col = map(int, place.split(","))
                assert np.abs(out[row, col] - theirs).max() <= probe_tolerance(frame, found["homography"], row, col)


def probe_tolerance(frame: np.ndarray, homography: list, row: int, col: int) -> float:
    """OpenCV rounds coordinates to 1/32 pixel and values to whole levels: half a level, and what 1/64 pixel makes of the local range."""
    x, y = geometry.transform_points(np.linalg.inv(np.array(homography)), np.array([col, row]))
    x, y = int(np.floor(x)), int(np.floor(y))
    around = frame[max(y - 1, 0) : y + 3, max(x - 1, 0) : x + 3].reshape(-1, 3).astype(int)
    return (0.5 + 1e-3 + 2 / 64 * np.ptp(around, axis=0).max()) / 255


def test_ordering_of_corners():
    for case in facts("detector")["order_points"]:
        points = np.array(case["pts"])
        np.testing.assert_allclose(geometry.order_points(points), case["ordered"])
        assert geometry.polygon_area(points) == pytest.approx(case["area"], rel=1e-9)
        np.testing.assert_allclose(geometry.intersection(*points), case["intersect"], rtol=1e-9)
