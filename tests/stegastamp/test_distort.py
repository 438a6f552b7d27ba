"""Every distortion: nothing at strength 0, pictures of the right kind at full strength, gradients, repeatable; and what it does."""
from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from pttp.stegastamp import distort
from pttp.stegastamp import jpeg as jpegs
from pttp.stegastamp import original

NAMES = list(distort.CHAIN)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def photos():
    """Something like photos: smooth colours, an edge, texture; (4, 3, 96, 112)."""
    g = seeded(7)
    smooth = torch.nn.functional.interpolate(torch.rand(4, 3, 6, 7, generator=g), size=(96, 112), mode="bicubic")
    texture = 0.1 * torch.randn(4, 3, 96, 112, generator=g)
    texture[..., 56:] = 0
    return (smooth * 0.7 + 0.15 + texture).clamp(0.02, 0.98)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_a_distortion_is_a_picture_with_a_gradient(photos, name, strength):
    x = photos.clone().requires_grad_()
    y = distort.CHAIN[name][0](x, strength, seeded())
    assert y.shape == x.shape and y.min() >= 0 and y.max() <= 1
    assert (y - x).abs().mean() > 1e-4
    y.square().sum().backward()
    assert torch.isfinite(x.grad).all() and (x.grad.flatten(1).abs().sum(1) > 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_no_strength_no_change(photos, name):
    torch.testing.assert_close(distort.CHAIN[name][0](photos, 0.0, seeded()), photos, atol=2e-6, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_the_generator_decides(photos, name):
    one, same, other = (distort.CHAIN[name][0](photos, 1.0, seeded(s)) for s in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("blur", "occlusion")])  # which leave some as they are
def test_each_picture_gets_its_own(name):
    x = (torch.rand(1, 3, 64, 64, generator=seeded(3)) * 0.6 + 0.2).expand(4, -1, -1, -1)
    y = distort.CHAIN[name][0](x, 1.0, seeded(5))
    assert len({p.contiguous().numpy().tobytes() for p in y}) >= 3  # two may draw the same size


@pytest.mark.parametrize("name", NAMES)
def test_more_strength_more_change(photos, name):
    change = [np.mean([(distort.CHAIN[name][0](photos, s, seeded(i)) - photos).abs().mean().item() for i in range(6)]) for s in (0.1, 0.4, 1.0)]
    assert change[0] < change[1] < change[2]


def test_camera_takes_names(photos):
    assert torch.equal(distort.camera(photos, 0.0, seeded()), photos)
    assert torch.equal(distort.camera(photos, {}, seeded()), photos)
    only_noise = [distort.camera(photos, {"noise": 1.0}, seeded(i)) for i in range(20)]
    changed = [y for y in only_noise if not torch.equal(y, photos)]
    assert 5 < len(changed) < 20
    assert all((y - photos).abs().mean() < 0.08 for y in changed)


def test_camera_keeps_the_gradient(photos):
    for seed in range(10):
        x = photos.clone().requires_grad_()
        distort.camera(x, 1.0, seeded(seed)).sum().backward()
        assert torch.isfinite(x.grad).all() and x.grad.abs().sum() > 0


@pytest.mark.parametrize("quality", [40, 50, 75, 95])
def test_jpeg_is_close_to_a_real_one(photos, quality):
    """Against Pillow's encoder at the same quality; it also rounds the colour planes, and upsamples chroma in its own way, which is left out here."""
    ours = jpegs.jpeg(photos, jpegs.quality_to_factor(quality), jpegs.round_through, subsample=False, as_authors=False)
    real = []
    for p in photos:
        buffer = io.BytesIO()
        Image.fromarray((p.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)).save(buffer, "JPEG", quality=quality, subsampling="4:4:4")
        real.append(torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1).float() / 255)
    real = torch.stack(real)
    assert (ours - real).abs().mean() < 0.25 * (real - photos).abs().mean() + 1 / 255


def test_each_picture_has_its_own_jpeg_quality(photos):
    qualities = torch.tensor([20.0, 50.0, 80.0, 95.0])
    together = jpegs.jpeg(photos, jpegs.quality_to_factor(qualities) + 1e-4)
    for i, q in enumerate(qualities.tolist()):
        torch.testing.assert_close(together[i : i + 1], jpegs.jpeg(photos[i : i + 1], jpegs.quality_to_factor(q) + 1e-4), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(16, 16), (16, 20), (20, 16), (7, 5), (33, 48), (1, 1)])
def test_jpeg_takes_any_size(size):
    x = torch.rand(2, 3, *size, generator=seeded())
    y = jpegs.jpeg(x, jpegs.quality_to_factor(100.0) + 1e-4, jpegs.round_through, subsample=False)
    assert y.shape == x.shape and (y - x).abs().max() < 0.02


def test_a_blur_keeps_the_mean_and_takes_the_detail(photos):
    y = distort.blur(photos.repeat(8, 1, 1, 1), 1.0, seeded(1))
    x = photos.repeat(8, 1, 1, 1)
    rough = [(z[..., 1:] - z[..., :-1]).abs().mean((1, 2, 3)) for z in (x, y)]
    blurred = (y - x).abs().amax((1, 2, 3)) > 1e-5
    assert 8 < blurred.sum() < 24
    assert (rough[1] < rough[0])[blurred].all()
    torch.testing.assert_close(y.mean((1, 2, 3)), x.mean((1, 2, 3)), atol=0.01, rtol=0)


def test_occlusion_covers_what_it_says():
    x = torch.full((200, 3, 64, 64), 0.5)
    covered = (distort.occlusion(x, 1.0, seeded()) != 0.5).any(1).float().mean((1, 2))
    assert covered.max() <= 0.16 and covered.mean() > 0.03


def test_authors_draws_are_uniform():
    g, draws = seeded(), []
    for _ in range(300):
        d = original.Draws.sample((2, 3, 8, 8), g)
        several = torch.cat([v.flatten() for v in (d.contrast, d.bri, d.hue, d.border)]).tolist()
        draws.append([d.select, d.sig_gauss, d.theta, d.sig_line, d.w_line, d.noise_std, d.sat, d.jpegq, *several])
    draws = np.array(draws)
    assert (draws >= 0).all() and (draws < 1).all() and abs(draws.mean() - 0.5) < 0.01 and (abs(draws.std(0) - 12**-0.5) < 0.03).all()


def test_the_authors_chain_rises_with_its_steps(photos):
    d = original.Draws.sample(photos.shape, seeded())
    change = [(original.transform_net(photos, d, step) - photos).abs().mean().item() for step in (100, 400, 1000, 5000)]
    assert change[0] < change[1] < change[2] == change[3]
