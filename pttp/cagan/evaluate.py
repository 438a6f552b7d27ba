"""What CA-GAN and two things that a user would try instead do to close-ups that training never saw.

For every picture and every one of the targets of colour.py: the distance (CIEDE2000) between the colour asked for and the weak colour C_m re-measured on the result, what
happened to the skin and to the inner mouth, how much of the gloss is left, and how visible the border is.
"""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional as F

from pttp.cagan import losses, weak
from pttp.cagan.colour import TAIL, TARGETS, delta_e, lab_of, lab_to_rgb, rgb_to_lab, scaled, unscaled
from pttp.cagan.data import TONES, Closeups, fitted
from pttp.cagan.model import CAGAN

Paint = Callable[[Tensor, Tensor, Tensor, int], Tensor]  # picture (3, S, S), areas (3, S, S) bool, targets in Lab (T, 3), region -> pictures (T, 3, S, S)
STEPS = 9
AXES = {"L*": (0, 35.0), "a*": (1, 40.0), "b*": (2, 40.0)}  # how far a sweep goes to both sides of the picture's own colour


def feather(area: Tensor, sigma: float = 2.0) -> Tensor:
    """A mask (S, S) softened at its border, in [0, 1]."""
    return losses.gaussian_blur(F.pad(area.float()[None, None], (6, 6, 6, 6), mode="replicate"), 13, sigma)[0, 0]


def lab_shift(x: Tensor, areas: Tensor, targets: Tensor, region: int) -> Tensor:
    """Baseline: everything under a feathered mask moves by the same Lab vector."""
    lab = rgb_to_lab(x)
    shift = targets - weak.median_colour(lab[None], areas[None, 0])
    return lab_to_rgb(lab + feather(areas[0]) * shift[:, :, None, None])


def hsv_recolour(x: Tensor, areas: Tensor, targets: Tensor, region: int) -> Tensor:
    """Baseline: under a feathered mask hue and saturation are the target's, and the value is scaled so that its median is."""
    asked = lab_to_rgb(targets[:, :, None, None])[..., 0, 0]
    value = x.amax(0)
    top = asked.amax(1).clamp(min=1e-6)
    ratio = top / value[areas[0]].median().clamp(min=1e-6)
    painted = (asked / top[:, None])[:, :, None, None] * (value * ratio[:, None, None]).clamp(0, 1)[:, None]
    mask = feather(areas[0])
    return x * (1 - mask) + painted * mask


def generator(net: CAGAN) -> Paint:
    """G, as a way to paint: the areas are not looked at."""

    def paint(x: Tensor, areas: Tensor, targets: Tensor, region: int) -> Tensor:
        maps = {s: m.expand(len(targets), -1, -1, -1) for s, m in net.encode(x[None]).items()}
        return net.generator(x.expand(len(targets), -1, -1, -1), maps, scaled(targets), torch.full((len(targets),), region)).image

    return paint


def gloss(lab: Tensor, area: Tensor) -> Tensor:
    """Standard deviation of L* over an area; `lab` (T, 3, S, S) -> (T,)."""
    return lab[:, 0][:, area].std(1)


def border(lab: Tensor, area: Tensor) -> Tensor:
    """Mean steepness in Delta E a pixel, within two pixels of the border of an area; `lab` (T, 3, S, S) -> (T,)."""
    soft = area.float()[None, None]
    band = (F.max_pool2d(soft, 5, 1, 2) - -F.max_pool2d(-soft, 5, 1, 2))[0, 0] > 0.5
    dx, dy = (lab.roll(-1, d) - lab for d in (-1, -2))
    steep = (dx.square().sum(1) + dy.square().sum(1) + 1e-12).sqrt()
    return steep[:, band].mean(1)


@torch.inference_mode()
def records(paint: Paint, closeups: Closeups, size: int, targets=TARGETS) -> dict[str, np.ndarray]:
    """One entry for every picture and target: picture (its number), family, tone, region and what was measured; NaN for the inner mouth of a closed one."""
    labs = torch.tensor(np.stack([lab_of(shade) for _, shade in targets])).float()
    families = np.array([family for family, _ in targets])
    pictures, masks = fitted(closeups, size)
    rows: dict[str, list[np.ndarray]] = {}
    for number, (x, areas, region, tone) in enumerate(zip(pictures, masks, closeups.region.tolist(), closeups.tones(), strict=True)):
        if not areas[:2].flatten(1).any(1).all():
            continue
        before = rgb_to_lab(x)[None]
        # as it will be seen: 8 bits
        image = (paint(x, areas, labs, region).clamp(0, 1) * 255).round() / 255
        after = rgb_to_lab(image)
        colours = [weak.median_colour(after, m.expand(len(labs), -1, -1)) for m in areas]
        own = [weak.median_colour(before, m[None]).expand(len(labs), -1) for m in areas]
        outside = ~_grown(areas[0], 3)
        row = {
            "picture": np.full(len(labs), number),
            "family": families,
            "tone": np.full(len(labs), tone),
            "region": np.full(len(labs), weak.REGIONS[region]),
            "delta_e": delta_e(labs, colours[0]),
            "drift": delta_e(own[1], colours[1]),
            "spill": delta_e(before[0][:, areas[1]].T.expand(len(labs), -1, -1), after[:, :, areas[1]].mT).mean(1),
            "inner": delta_e(own[2], colours[2]) if areas[2].sum() >= weak.LEAST else np.full(len(labs), np.nan),
            "gloss": (gloss(after, areas[0]) / gloss(before, areas[0]).clamp(min=1e-3)).numpy(),
            "seam": (border(after, areas[0]) - border(before, areas[0])).numpy(),
            "outside": (image - x).abs().mean(1)[:, outside].mean(1).numpy(),
        }
        for k, v in row.items():
            rows.setdefault(k, []).append(np.asarray(v))
    return {k: np.concatenate(v) for k, v in rows.items()}


def _grown(area: Tensor, by: int) -> Tensor:
    return F.max_pool2d(area.float()[None, None], 2 * by + 1, 1, by)[0, 0] > 0.5


def summary(rows: dict[str, np.ndarray], chosen: np.ndarray | None = None) -> dict[str, float]:
    """Numbers over the `chosen` entries (bool), or over all."""
    r = {k: v[chosen] if chosen is not None else v for k, v in rows.items()}
    tail = np.isin(r["family"], TAIL)
    result: dict[str, float] = {}
    for name, here in (("cosmetic", ~tail), ("tail", tail)):
        if here.any():
            result |= {f"{name}_median": float(np.median(r["delta_e"][here])), f"{name}_p90": float(np.percentile(r["delta_e"][here], 90))}
    inner = r["inner"][np.isfinite(r["inner"])]
    result |= {
        "drift": float(np.median(r["drift"])),
        "spill": float(np.median(r["spill"])),
        "inner": float(np.median(inner)) if len(inner) else 0.0,
        "gloss": float(np.median(r["gloss"])),
        "gloss_within_10": float((np.abs(r["gloss"] - 1) <= 0.1).mean()),
        "seam": float(np.median(r["seam"])),
        "outside": float(r["outside"].mean()),
    }
    return {k: round(v, 4) for k, v in result.items()}


def interval(values: np.ndarray, pictures: np.ndarray, draws: int = 1000) -> list[float]:
    """Between which numbers the median of `values` (n,) would lie for nine of ten other choices of as many pictures: a bootstrap over `pictures` (n,), because what is
    measured on one picture is alike. Of eleven pictures a median says less than its digits do."""
    rng = np.random.default_rng(0)
    each = [values[pictures == number] for number in np.unique(pictures)]
    medians = [np.median(np.concatenate([each[i] for i in rng.integers(len(each), size=len(each))])) for _ in range(draws)]
    return np.percentile(medians, (5, 95)).round(4).tolist()


def by_tone(rows: dict[str, np.ndarray]) -> dict[str, dict]:
    """The summary of each skin tone, and how sure its medians are."""
    made = {}
    for tone in (t for t in TONES if (rows["tone"] == t).any()):
        here = rows["tone"] == tone
        cosmetic = here & ~np.isin(rows["family"], TAIL)
        sure = {f"{name}_between": interval(rows[key][some], rows["picture"][some]) for name, key, some in (("cosmetic_median", "delta_e", cosmetic), ("drift", "drift", here))}
        made[tone] = {"pictures": len(np.unique(rows["picture"][here])), **summary(rows, here), **sure}
    return made


@torch.inference_mode()
def sweeps(paint: Paint, closeups: Closeups, size: int) -> dict[str, float]:
    """Spearman correlation of asked and got along each Lab axis, in nine steps around the picture's own colour, as far as a screen shows them: mean over pictures."""
    pictures, masks = fitted(closeups, size)
    found: dict[str, list[float]] = {axis: [] for axis in AXES}
    for x, areas, region in zip(pictures, masks, closeups.region.tolist(), strict=True):
        if not areas[0].any():
            continue
        own = weak.median_colour(rgb_to_lab(x)[None], areas[None, 0])
        for axis, (i, reach) in AXES.items():
            asked = own.repeat(STEPS, 1)
            asked[:, i] += torch.linspace(-reach, reach, STEPS)
            shown = rgb_to_lab(lab_to_rgb(asked[:, :, None, None]))[..., 0, 0]
            shown = shown[(shown - asked).abs().amax(1) < 1]
            if len(shown) < 4:
                continue
            got = weak.median_colour(rgb_to_lab(paint(x, areas, shown, region)), areas[0].expand(len(shown), -1, -1))
            found[axis].append(float(spearmanr(shown[:, i], got[:, i]).statistic))
    return {axis: round(float(np.nanmean(v)), 4) if v else 0.0 for axis, v in found.items()}


@torch.inference_mode()
def identities(net: CAGAN, closeups: Closeups, size: int) -> dict[str, float]:
    """No-op, G(x, C_m(x)) against x; cycle, G(G(x, c), C_m(x)) against x for four targets, mean absolute differences and MS-SSIM; D's own estimates against C_m and C_s."""
    pictures, masks = fitted(closeups, size)
    labs = torch.tensor(np.stack([lab_of(shade) for _, shade in TARGETS[::6]])).float()
    noop, cycle, similar, estimates = [], [], [], {"makeup": [], "skin": []}
    for x, areas, region in zip(pictures, masks, closeups.region.tolist(), strict=True):
        own = weak.median_colour(rgb_to_lab(x)[None], areas[None, 0])
        if not own.isfinite().all():
            continue
        paint = generator(net)
        noop.append(float((paint(x, areas, own, region)[0] - x).abs().mean()))
        painted = paint(x, areas, labs, region)
        back = net(painted, scaled(own).expand(len(labs), -1), torch.full((len(labs),), region)).image
        cycle.append(float((back - x).abs().mean()))
        similar.append(float(losses.ms_ssim(back, x.expand_as(back))))
        said = net.discriminator(x[None], net.encode(x[None]), torch.tensor([region]))
        for name, area in (("makeup", areas[0]), ("skin", areas[1])):
            true = weak.median_colour(rgb_to_lab(x)[None], area[None])
            estimates[name].append(float(delta_e(unscaled(getattr(said, name)), true)[0]))
    result = {"noop_mad": np.mean(noop), "cycle_mad": np.mean(cycle), "cycle_ms_ssim": np.mean(similar)}
    return {k: round(float(v), 4) for k, v in (result | {f"estimate_{k}": np.median(v) for k, v in estimates.items()}).items()}


TILTS = (0, 25, -25)  # degrees; every third face
SIZES = (1.0, 0.5, 2.0)  # of the face, of its 256 pixels


def portraits(net, root: Path, targets=TARGETS[::5]) -> dict[str, float]:
    """The whole way, with `net` a Predictor: test faces, tilted and resized, are painted as a visitor's are, and measured under their label maps. Share of faces found,
    Delta E median and 90th percentile, drift of the skin, and the share of pixels outside of the regions that changed, which has to be 0."""
    from pttp.errors import NoFaceFound

    found, distances, drifts, touched = [], [], [], 0
    for i, path in enumerate(sorted((root / "celebamask_mini" / "test" / "faces").glob("*.jpg"))):
        photo, labels = Image.open(path).convert("RGB"), Image.open(root / "celebamask_mini" / "test" / "masks" / f"{path.stem}.png")
        side = round(photo.width * SIZES[i // 3 % 3])
        photo = photo.rotate(TILTS[i % 3], Image.Resampling.BICUBIC, fillcolor=(127, 127, 127)).resize((side, side), Image.Resampling.LANCZOS)
        drawn = np.asarray(labels.rotate(TILTS[i % 3]).resize((side, side), Image.Resampling.NEAREST))
        if (here := weak.areas(drawn, "lips")) is None:
            continue
        before = rgb_to_lab(torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None].float() / 255)
        try:
            ready = net.prepare(photo)
            made = [net.paint(ready, lips=shade) for _, shade in targets]
        except NoFaceFound:
            found.append(False)
            continue
        found.append(True)
        for (_, shade), one in zip(targets, made, strict=True):
            pixels = np.array(one.image)
            after = rgb_to_lab(torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255)
            lips, skin = (torch.from_numpy(a)[None] for a in (here.makeup, here.skin))
            distances.append(float(delta_e(lab_of(shade), weak.median_colour(after, lips)[0])))
            drifts.append(float(delta_e(weak.median_colour(before, skin)[0], weak.median_colour(after, skin)[0])))
            touched += int((pixels != np.asarray(photo))[one.regions["lips"] == 0].any())
    known = distances or [np.nan]
    return {
        "faces": len(found),
        "found": round(float(np.mean(found)), 4) if found else 0.0,
        "delta_e_median": round(float(np.median(known)), 3),
        "delta_e_p90": round(float(np.percentile(known, 90)), 3),
        "drift": round(float(np.median(drifts or [np.nan])), 3),
        "touched": touched,
    }


def measure(net: CAGAN, closeups: Closeups) -> dict:
    """Everything that metrics.json says, by region: CA-GAN and the baselines; CA-GAN by family and by skin tone."""
    result = {}
    for rank, region in enumerate(weak.REGIONS):
        here = closeups.pick(closeups.region == rank)
        if not len(here):
            continue
        rows = records(generator(net), here, net.size)
        methods = {"CA-GAN": summary(rows)}
        methods |= {name: summary(records(paint, here, net.size)) for name, paint in (("Lab shift in a feathered mask", lab_shift), ("HSV recolour in a feathered mask", hsv_recolour))}
        result[region] = {
            "pictures": len(here),
            "methods": methods,
            "families": {f: round(float(np.median(rows["delta_e"][rows["family"] == f])), 3) for f in dict.fromkeys(rows["family"].tolist())},
            "tones": by_tone(rows),
            "spearman": sweeps(generator(net), here, net.size),
            **identities(net, here, net.size),
        }
    return result


def elsewhere(net: CAGAN, closeups: Closeups) -> dict:
    """Faces of another collection, by region: all of them, and by skin tone."""
    result = {}
    for rank, region in enumerate(weak.REGIONS):
        here = closeups.pick(closeups.region == rank)
        if len(here):
            rows = records(generator(net), here, net.size)
            result[region] = {"all": {"pictures": len(here), **summary(rows)}, **by_tone(rows)}
    return result


def short(net: CAGAN, closeups: Closeups) -> dict[str, float]:
    """One row of the log: every third target, on every second picture."""
    result = {}
    for rank, region in enumerate(weak.REGIONS):
        index = torch.nonzero(closeups.region == rank).flatten()[::2]
        if len(index):
            s = summary(records(generator(net), closeups.pick(index), net.size, TARGETS[::3] + TARGETS[-2:]))
            result |= {f"{region}_{k}": s[k] for k in ("cosmetic_median", "cosmetic_p90", "tail_median", "drift", "inner", "gloss", "seam") if k in s}
    return result
