"""Looking inside: the three-part step of the paper on one close-up of YOUR photo, and sweeps along each axis of Lab as on the authors' page."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pttp.cagan.colour import delta_e, lab_to_rgb, rgb_to_lab, scaled, unscaled
from pttp.cagan.predict import INNER, Part, Predictor

STEPS = 9
AXES = {"L*": (0, 35.0), "a*": (1, 40.0), "b*": (2, 40.0)}  # how far a sweep goes to both sides


@dataclass(frozen=True)
class Sweep:
    """One axis: `asked` and `got` (9, 3) Lab, `delta_e` (9,) between them, `shown` (9,) whether a screen has the colour asked for; `pictures` (9, S, S, 3) uint8."""

    axis: str
    asked: np.ndarray
    got: np.ndarray
    delta_e: np.ndarray
    shown: np.ndarray
    pictures: np.ndarray


@dataclass(frozen=True)
class Step:
    """The paper's training step on one close-up. `x`, `changed` = G(x, c), `back` = G(x', own colour), (S, S, 3) uint8; `where` (S, S) in [0, 1], G's own idea of
    the makeup; `difference` (S, S), Delta E (1976) of every pixel; Lab (3,) of `asked`, of the colours that G (`own`) and D see: `source` D(x), `judged` D(x'),
    each (3, 3) of makeup, skin, inside; `looks` (3, S/4, S/4), where D looked for them in x'; `cycle`, mean absolute difference of x'' and x in [0, 1]."""

    x: np.ndarray
    changed: np.ndarray
    back: np.ndarray
    where: np.ndarray
    difference: np.ndarray
    asked: np.ndarray
    own: np.ndarray
    source: np.ndarray
    judged: np.ndarray
    looks: np.ndarray
    cycle: float

    @property
    def losses(self) -> dict[str, float]:
        """What D's estimates say, as CIEDE2000: the colour missed (L_color), the skin's and the inside's drift (L_bg)."""
        asked, skin, inside = (float(delta_e(a, b)) for a, b in ((self.asked, self.judged[0]), (self.source[1], self.judged[1]), (self.source[2], self.judged[2])))
        return {"color": asked, "skin": skin, "inside": inside}


def pixels(x: Tensor) -> np.ndarray:
    """(B, 3, S, S) in [0, 1] -> (B, S, S, 3) uint8."""
    return (x.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def _median(lab: Tensor, where: Tensor) -> np.ndarray:
    inside = where[0] > INNER
    if not inside.any():
        inside = where[0] >= where.max()
    return lab[:, inside].median(1).values.cpu().double().numpy()


@torch.inference_mode()
def step(net: Predictor, part: Part, asked: np.ndarray) -> Step:
    """`asked` Lab (3,)."""
    model, region = net.net, torch.tensor([part.region], device=net.device)
    c = scaled(torch.from_numpy(np.asarray(asked)).float()[None]).to(net.device)
    change = model.generator(part.x, part.maps, c, region)
    maps = model.encode(change.image)
    source, judged = model.discriminator(part.x, part.maps, region), model.discriminator(change.image, maps, region)
    back = model.generator(change.image, maps, change.own, region).image
    lab, after = rgb_to_lab(part.x), rgb_to_lab(change.image)

    def colours(said) -> np.ndarray:
        return unscaled(torch.cat([said.makeup, said.skin, said.inside])).cpu().double().numpy()

    return Step(
        *(pixels(v)[0] for v in (part.x, change.image, back)),
        change.where[0, 0].cpu().numpy(),
        (after - lab).square().sum(1).sqrt()[0].cpu().numpy(),
        np.asarray(asked, np.float64),
        unscaled(change.own)[0].cpu().double().numpy(),
        colours(source),
        colours(judged),
        judged.looks[0].cpu().numpy(),
        float((back - part.x).abs().mean()),
    )


@torch.inference_mode()
def sweeps(net: Predictor, part: Part) -> list[Sweep]:
    """L*, a* and b*, each in nine steps around the makeup colour that G sees in the close-up."""
    model, found = net.net, []
    lab = rgb_to_lab(part.x)
    maps = {s: m.expand(STEPS, -1, -1, -1) for s, m in part.maps.items()}
    region = torch.full((STEPS,), part.region, device=net.device)
    own = model.generator.own_colour(scaled(lab), part.maps, region[:1])
    for axis, (i, reach) in AXES.items():
        asked = unscaled(own).repeat(STEPS, 1)
        asked[:, i] += torch.linspace(-reach, reach, STEPS, device=net.device)
        seen = rgb_to_lab(lab_to_rgb(asked[:, :, None, None]))[..., 0, 0]
        change = model.generator(part.x.expand(STEPS, -1, -1, -1), maps, scaled(asked), region)
        after = rgb_to_lab(change.image)
        got = np.stack([_median(a, w) for a, w in zip(after, change.where, strict=True)])
        wanted = asked.cpu().double().numpy()
        found.append(Sweep(axis, wanted, got, delta_e(wanted, got), ((seen - asked).abs().amax(1) < 1).cpu().numpy(), pixels(change.image)))
    return found
