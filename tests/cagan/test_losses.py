"""Every loss on a case that can be done by hand."""
from __future__ import annotations

import pytest
import torch

from pttp.cagan import losses


@pytest.fixture
def x():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_colour_distance():
    said = torch.tensor([[0.2, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, torch.nan]])
    # .2 of L* is 10 units, .5 of a* is 55
    assert losses.colour_distance(said, torch.zeros(3, 3)) == pytest.approx(((10 / 50) ** 2 + (55 / 50) ** 2) / 2)
    assert losses.colour_distance(said[2:], torch.zeros(1, 3)) == 0
    assert losses.color(said[:2], said[:2]) == losses.background(said[:2], said[:2]) == losses.weak(said[:2], said[:2]) == 0


def test_unknown_colours_send_no_gradient():
    said = torch.zeros(2, 3, requires_grad=True)
    losses.colour_distance(said, torch.tensor([[0.1, 0.1, 0.1], [torch.nan] * 3])).backward()
    assert said.grad[0].abs().min() > 0 and said.grad[1].abs().max() == 0


def test_hinge():
    real, fake = torch.tensor([2.0, 0.5]), torch.tensor([-2.0, 0.0])
    assert losses.real_fake(real, fake) == pytest.approx((0 + 0.5) / 2 + (0 + 1) / 2)
    assert losses.adversarial(fake) == 1


def test_ms_ssim(x):
    """The three-scale value from its definition, with scikit-image's local statistics."""
    import numpy as np
    from skimage.metrics import structural_similarity

    assert losses.ms_ssim(x, x) == pytest.approx(1)
    y = (x + 0.2 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    assert losses.ms_ssim(x, y) < 0.95
    one = losses.ms_ssim(x, y, scales=1).item()
    options = dict(channel_axis=0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0, full=True)
    maps = [structural_similarity(a.numpy(), b.numpy(), **options)[1][:, 5:-5, 5:-5] for a, b in zip(x, y, strict=True)]
    assert one == pytest.approx(float(np.mean(maps)), abs=1e-4)


def test_cycle(x):
    assert losses.cycle(x, x) == pytest.approx(0, abs=1e-6)
    assert losses.cycle(x * 0.9, x) > (0.1 * x).mean()


def test_keep_counts_outside_only(x):
    changed, outside, care = x.clone(), torch.zeros(2, 1, 64, 64), torch.ones(2)
    changed[..., :32] += 0.3
    outside[..., 32:] = 1
    assert losses.keep(changed, x, outside, care) == 0
    assert losses.keep(changed, x, 1 - outside, care) == pytest.approx(0.3)
    assert losses.keep(changed, x, 1 - outside, torch.tensor([1.0, 3.0])) == pytest.approx(0.6)


def test_texture_allows_one_shift_and_nothing_else(x):
    inside = torch.zeros(2, 1, 64, 64)
    inside[..., 10:50, 10:50] = 1
    assert losses.texture(x + inside * torch.tensor([0.5, -0.2, 0.1]).view(3, 1, 1), x, inside) == pytest.approx(0, abs=1e-6)
    flat = torch.where(inside > 0, 0.5, x)
    assert losses.texture(flat, x, inside) > 0.1
    ramp = x.clone()
    ramp[..., 10:30, 10:50] += 0.4
    assert losses.texture(ramp, x, inside) == pytest.approx(0.2 * 3 / 3, abs=1e-5)


def test_gloss_is_the_spread_of_lightness_alone(x):
    inside = torch.zeros(2, 1, 64, 64)
    inside[..., 10:50, 10:50] = 1
    shift = torch.tensor([0.5, -0.2, 0.1]).view(3, 1, 1)
    assert losses.gloss(x + shift, x, inside) == pytest.approx(0, abs=1e-5)
    doubled = x * torch.tensor([2.0, 1.0, 1.0]).view(3, 1, 1)
    assert losses.gloss(doubled, x, inside) == pytest.approx(0.693, abs=0.01)
    assert losses.gloss(torch.where(inside > 0, x, doubled), x, inside) == pytest.approx(0, abs=1e-5)  # what lies outside does not count


def test_border_counts_new_steps_in_the_band(x):
    band, flat, one = torch.zeros(2, 1, 64, 64), torch.zeros(2, 3, 64, 64), torch.ones(2)
    band[..., 30:34] = 1
    step = flat.clone()
    step[:, 0, :, 32:] = 0.2  # 10 Delta E
    assert losses.border(step, flat, band, one) == pytest.approx(0.2 / 4, abs=1e-3)  # in one of its four columns
    assert losses.border(step, flat, band, torch.tensor([1.0, 3.0])) == pytest.approx(2 * 0.2 / 4, abs=2e-3)
    assert losses.border(flat, step, band, one) == 0  # a border that went away is no seam
    soft = flat.clone()
    soft[:, 0] = (torch.arange(64) - 29).clamp(0, 6) / 6 * 0.2
    assert losses.border(soft, flat, band, one) < 0.8 * losses.border(step, flat, band, one)
    assert losses.border(step, flat, torch.zeros_like(band), one) == 0
