"""The recipe, end to end on a handful of drawn close-ups: it runs, resumes, measures, and leaves weights that load; who learns from what."""
from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pttp import trunk
from pttp.cagan import data, evaluate, train
from pttp.cagan.colour import TARGETS, lab_of, rgb_to_lab
from pttp.cagan.locate import Locator
from pttp.cagan.model import CAGAN
from tests.cagan import made_closeups


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    made_closeups.write(root)
    torch.manual_seed(0)
    save_file({k: v.contiguous() for k, v in trunk.Lite0().state_dict().items()}, root / "lite0.safetensors")
    return root


@pytest.fixture(scope="module")
def closeups(root):
    return data.read(root, "train")


def test_the_recipe(root, tmp_path):
    options = ["--data", root, "--trunk", root / "lite0.safetensors", "--run", tmp_path, "--out", tmp_path / "out", "--batch", 2, "--size", 64, "--steps", 3, "--eval-every", 2]
    train.main([str(o) for o in options])
    assert len((tmp_path / "eval.csv").read_text().splitlines()) == 3
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    lips = metrics["metrics"]["lips"]
    assert lips["pictures"] == 2 and metrics["metrics"]["eyes"]["pictures"] == 4
    assert set(lips["methods"]) == {"CA-GAN", "Lab shift in a feathered mask", "HSV recolour in a feathered mask"} and set(lips["tones"]) == {"dark", "light"}
    assert lips["methods"]["Lab shift in a feathered mask"]["cosmetic_median"] < 5 < lips["methods"]["CA-GAN"]["cosmetic_median"], "three steps teach nothing"
    assert train.table(metrics) in (tmp_path / "out" / "MODEL_CARD.md").read_text()
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert {v.dtype for v in weights.values()} == {torch.float16, torch.int64}
    CAGAN(**json.loads((tmp_path / "out" / "config.json").read_text())).load_state_dict(weights)
    train.main([str(o) for o in options])  # finished: measured again, not trained again
    for a, b in zip(weights.values(), load_file(tmp_path / "out" / "model.safetensors").values(), strict=True):
        assert torch.equal(a, b)


def test_the_localiser_is_shipped_with_the_networks(root, tmp_path):
    """A finished training is exported again, with the localiser beside it; the rest stays the same."""
    locator = Locator()
    save_file({k: v.contiguous() for k, v in locator.state_dict().items()}, tmp_path / "locator.safetensors")
    options = ["--data", root, "--trunk", root / "lite0.safetensors", "--run", tmp_path, "--out", tmp_path / "out", "--batch", 2, "--size", 64, "--steps", 1]
    train.main([str(o) for o in options])
    alone = load_file(tmp_path / "out" / "model.safetensors")
    train.main([str(o) for o in [*options, "--locator", tmp_path / "locator.safetensors"]])
    both = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(both[k], v) for k, v in alone.items())
    assert torch.equal(both["locator.trunk.conv_stem.weight"], locator.trunk.conv_stem.weight.detach().half())
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == {"size": 64, "locator": True}
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["metrics"]["portraits"]["faces"] == 0, "there are no whole faces among these close-ups"
    assert "The whole way" in train.table(metrics)


def test_reading(closeups):
    assert len(closeups) == 9 and closeups.region.tolist() == [0] * 3 + [1] * 6
    assert closeups.tones()[:3] == ["light", "dark", "light"]
    expected = rgb_to_lab(torch.tensor([170.0, 80, 90]).view(3, 1, 1) / 255).flatten()
    assert (closeups.makeup[:3] - expected).abs().max() < 4
    # right eyes are mirrored, so that all of these are the same drawing
    assert torch.equal(closeups.areas[3], closeups.areas[6].flip(2))


def test_views_keep_picture_and_areas_together(closeups):
    x, areas = data.views(closeups, torch.zeros(16, dtype=torch.long), 96, torch.Generator().manual_seed(0))
    assert x.shape == areas.shape == (16, 3, 96, 96)
    for lab, area in zip(rgb_to_lab(x), areas, strict=True):
        makeup, skin = lab[:, area[0] > 0.9].mean(1), lab[:, area[1] > 0.9].mean(1)
        assert makeup[1] - skin[1] > 8 or lab[1:].abs().max() < 0.1, "lips are redder than skin, wherever they went"


def test_batches_repeat_and_targets_are_colours_of_a_screen(closeups):
    draw = data.batches(closeups, 64, 32)
    first, again = (draw(3, torch.Generator().manual_seed(3)) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a, b)
    _, _, c, region = first
    assert 0.4 < float((region == 0).float().mean()) < 0.8
    assert c[:, 0].std() > 0.2 and c[:, 2].max() > 0.25 and c[:, 2].min() < -0.25, "blues and yellows are among them"


@pytest.fixture
def game(root):
    torch.manual_seed(1)
    net = CAGAN(64)
    return train.Game(net).train()


def test_each_network_is_fixed_in_the_others_losses(game, closeups):
    batch = data.batches(closeups, 2, 64)(0, torch.Generator().manual_seed(0))
    parts = game(*batch)
    net = game.net
    generator, critic = [p for p in net.generator.parameters()], [p for p in net.discriminator.parameters()]

    def reaches(loss, weights):
        return any(g is not None and g.abs().max() > 0 for g in torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True))

    for name in ("color", "bg", "adv", "cycle", "weak", "own", "keep", "texture"):
        assert reaches(parts[name], generator) and not reaches(parts[name], critic), name
    for name in ("d_colours", "d_real_fake"):
        assert reaches(parts[name], critic) and not reaches(parts[name], generator), name


def test_no_mask_enters_the_generator(game, closeups):
    """Other areas, same picture: the same x'."""
    x, areas, c, region = data.batches(closeups, 2, 64)(0, torch.Generator().manual_seed(0))
    seen = []
    game.net.generator.register_forward_hook(lambda module, inputs, output: seen.append(output.image.detach()))
    for given in (areas, torch.zeros_like(areas)):
        game(x, given, c, region)
    assert torch.equal(seen[0], seen[2])


def test_a_few_steps_bring_the_colour(game, closeups):
    """It must not stay the identity: sixty steps on one picture already move the lips most of the way."""
    lips = closeups.pick([0])
    optimizer = torch.optim.AdamW(game.parameters(), 2e-3)
    draw = data.batches(lips, 4, 64)
    for step in range(60):
        optimizer.zero_grad()
        game(*draw(step, torch.Generator().manual_seed(step)))["loss"].backward()
        torch.nn.utils.clip_grad_norm_(game.parameters(), 5.0)
        optimizer.step()
    game.eval()
    said = evaluate.summary(evaluate.records(evaluate.generator(game.net), lips, 64))
    nothing = evaluate.summary(evaluate.records(lambda x, areas, labs, region: x.expand(len(labs), -1, -1, -1), lips, 64))
    assert said["cosmetic_median"] < 0.5 * nothing["cosmetic_median"]


def test_doing_nothing_is_measured_as_nothing(closeups):
    rows = evaluate.records(lambda x, areas, labs, region: x.expand(len(labs), -1, -1, -1), closeups, 64)
    s = evaluate.summary(rows)
    assert s["drift"] == s["spill"] == s["inner"] == s["outside"] == s["seam"] == 0 and s["gloss"] == s["gloss_within_10"] == 1
    own = np.median(rows["delta_e"])
    assert own > 10


@pytest.mark.parametrize(("paint", "gloss"), [(evaluate.lab_shift, (0.85, 1.1)), (evaluate.hsv_recolour, (0.2, 1.3))])
def test_baselines_reach_the_colour(closeups, paint, gloss):
    lips = closeups.pick([0, 2])
    s = evaluate.summary(evaluate.records(paint, lips, 96))
    assert s["cosmetic_median"] < 4 and s["drift"] < 0.5 and gloss[0] < s["gloss"] < gloss[1]
    assert evaluate.sweeps(paint, lips, 96)["L*"] > 0.95


def test_border_sees_an_edge():
    lab = torch.zeros(1, 3, 32, 32)
    area = torch.zeros(32, 32, dtype=torch.bool)
    area[8:24, 8:24] = True
    flat = evaluate.border(lab, area)
    lab[:, 0, area] = 20
    assert evaluate.border(lab, area) > flat + 2


def test_families_have_their_own_numbers(closeups):
    rows = evaluate.records(evaluate.lab_shift, closeups.pick([0]), 64, (("reds", "#b01030"), ("blue", "#2d4fa3")))
    assert rows["family"].tolist() == ["reds", "blue"] and {"cosmetic_median", "tail_median"} <= set(evaluate.summary(rows))
    assert len(TARGETS) == 24 and lab_of(TARGETS[0][1]).shape == (3,)


def test_a_median_of_few_pictures_is_told_as_unsure():
    rng = np.random.default_rng(0)
    pictures = np.repeat(np.arange(200), 24)
    values = np.repeat(rng.uniform(0, 1, 200), 24)  # alike on each picture
    low, high = evaluate.interval(values, pictures)
    assert low < np.median(values) < high < low + 0.25
    few = pictures < 6
    least, most = evaluate.interval(values[few], pictures[few])
    assert most - least > 2 * (high - low), "and not as if six pictures were 144"


def test_tones_are_told_apart_with_how_sure_they_are(closeups):
    rows = evaluate.records(evaluate.lab_shift, closeups.only("lips"), 64)
    tones = evaluate.by_tone(rows)
    assert list(tones) == ["dark", "light"] and all(s["pictures"] == closeups.only("lips").tones().count(t) for t, s in tones.items())
    for s in tones.values():
        assert s["drift_between"][0] <= s["drift"] <= s["drift_between"][1]
        assert s["cosmetic_median_between"][0] <= s["cosmetic_median"] <= s["cosmetic_median_between"][1]
