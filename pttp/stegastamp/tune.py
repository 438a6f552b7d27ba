"""The encoder's residual is a first guess, made in one pass. A few steps of gradient descent through the decoder make it fit this picture: ours, not the paper's.

The encoder learned what is right for most pictures; where a picture is nearly black, white or of one strong colour, half of what it adds is clipped away,
and some bits are lost. The decoder's gradient knows where they can be put instead. Every step asks it about the stamp as saved and about a few views of it
through the same imitation of print and camera that training uses (distort.py), so that the answer holds outside of the file as well; the sum of squares of
what is added may not exceed a budget, so that the stamp gets quieter, not louder.
"""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pttp.stegastamp import distort
from pttp.stegastamp.model import Decoder

STEPS = 8
VIEWS = 3
CAMERA = 0.6  # strength of the distortions
QUIETER = 0.8  # of the encoder's own mean square
LOUDEST = 1e-3  # mean square at strength 1: 30 dB
RATE = 4e-3
MARGIN = 1.0  # a bit's logit should be on its side by about this much


def tuned(decoder: Decoder, cover: Tensor, residual: Tensor, bits: np.ndarray, strength: float = 1.0, steps: int = STEPS) -> Tensor:
    """`residual` (1, 3, S, S) for `cover` (1, 3, S, S) in [0, 1], both at the network's size, changed so that `decoder` reads `bits` (100,) more surely.

    Its mean square, after clipping, is at most QUIETER times what it was and at most LOUDEST x `strength`^2. The same picture and bits give the same answer.
    """
    if not steps:
        return residual
    sign = 2 * torch.from_numpy(bits)[None].to(cover).float() - 1
    g = torch.Generator().manual_seed(0)
    cover, residual = cover.clone(), residual.clone()  # what came out of inference mode cannot be differentiated
    budget = min(QUIETER * float(_added(cover, residual)), LOUDEST * strength**2)
    residual.requires_grad_()
    adam = torch.optim.Adam([residual], lr=RATE * strength)
    for _ in range(steps):
        with torch.enable_grad():
            stamped = (cover + residual).clamp(0, 1)
            seen = torch.cat([stamped, distort.camera(stamped.expand(VIEWS, -1, -1, -1), CAMERA, g)])
            loss = F.softplus(MARGIN - sign * decoder(seen).float()).mean()
        (residual.grad,) = torch.autograd.grad(loss, residual)
        adam.step()
        with torch.no_grad():
            residual.mul_(min(1.0, (budget / float(_added(cover, residual))) ** 0.5))
    return residual.detach()


def _added(cover: Tensor, residual: Tensor) -> Tensor:
    with torch.no_grad():
        return ((cover + residual).clamp(0, 1) - cover).square().mean().clamp(min=1e-12)
