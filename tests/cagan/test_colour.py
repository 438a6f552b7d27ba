"""Lab and back, the same as scikit-image says, and colours as people write them."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from pttp.cagan import colour
from pttp.errors import BadInput


def test_lab_is_scikit_images():
    from skimage.color import rgb2lab

    rgb = torch.rand(2, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rgb[0, :, 0, :3] = torch.tensor([[0.0, 1, 0.02]] * 3, dtype=torch.float64)
    expected = rgb2lab(rgb.permute(0, 2, 3, 1).numpy())
    assert np.abs(colour.rgb_to_lab(rgb).permute(0, 2, 3, 1).numpy() - expected).max() < 1e-3


def test_there_and_back_with_gradients():
    rgb = torch.rand(1, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).mul(0.98).add(0.01)
    rgb[..., 0] = 0.0
    rgb.requires_grad_()
    back = colour.lab_to_rgb(colour.rgb_to_lab(rgb))
    torch.testing.assert_close(back, rgb)
    back.sum().backward()
    torch.testing.assert_close(rgb.grad[..., 1:], torch.ones_like(rgb.grad[..., 1:]))
    assert rgb.grad.isfinite().all()


def test_beyond_the_gamut_there_is_a_way_back():
    lab = torch.tensor([20.0, 90, -120]).view(1, 3, 1, 1).requires_grad_()
    rgb = colour.lab_to_rgb(lab)
    assert rgb.min() >= 0 and rgb.max() <= 1
    rgb.sum().backward()
    assert lab.grad.isfinite().all() and lab.grad.abs().max() > 0


def test_scaled():
    lab = torch.tensor([[0.0, 110, -110], [100, 0, 55]])
    assert colour.scaled(lab).tolist() == [[-1, 1, -1], [1, 0, 0.5]]
    torch.testing.assert_close(colour.unscaled(colour.scaled(lab)), lab)
    torch.testing.assert_close(colour.unscaled(colour.scaled(lab[:, :, None, None])), lab[:, :, None, None])


@pytest.mark.parametrize(
    ("text", "rgb"),
    [("#b01030", (176, 16, 48)), ("B01030", (176, 16, 48)), ("#f0a", (255, 0, 170)), (" #fff ", (255, 255, 255)), ("rgb(1, 2,3)", (1, 2, 3)), ("rgba(254.6, 0.4, 10, 1)", (255, 0, 10))],
)
def test_parse(text, rgb):
    assert colour.parse(text) == rgb


@pytest.mark.parametrize("text", ["", "red", "#12", "#12345g", "rgb(256, 0, 0)", "rgb(1, 2)", "rgb(1.2.3, 0, 0)", None, 7, "#b01030; drop", "x" * 9999])
def test_parse_refuses(text):
    with pytest.raises(BadInput, match="#rrggbb") as caught:
        colour.parse(text)
    assert len(str(caught.value)) < 120


def test_named_colours():
    assert len(colour.TARGETS) == 24 and {f for f, _ in colour.TARGETS} >= set(colour.TAIL)
    for _, shade in colour.TARGETS:
        assert colour.hex_of(colour.lab_of(shade)) == shade
    assert colour.lab_of("#ffffff")[0] == pytest.approx(100, abs=1e-3)


def test_delta_e():
    """A pair of Sharma, Wu and Dalal's test data."""
    assert colour.delta_e(np.array([50, 2.6772, -79.7751]), np.array([50, 0, -82.7485])) == pytest.approx(2.0425, abs=1e-4)
