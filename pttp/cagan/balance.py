"""No skin tone is served worse than the others: what a loss weighs follows what is measured.

After group DRO (Sagawa et al., 2020, arXiv 1911.08731), but as a controller: the weight of a group grows for as long as its own measure, which need not be the loss
nor have a gradient, is worse than that of the others. A fixed rule, such as "the darker, the heavier", has to guess how a loss and a measure are related.
"""
from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pttp.cagan.data import TONES
from pttp.cagan.weak import REGIONS

RATE = 0.02  # of a weight, a step, where its group is twice as bad as the mean
MOST = 6.0
MEMORY = 0.98  # of the running means, for every step that shows the group
EDGES = [low for low, _ in TONES.values()][1:]  # L*


class Balance(nn.Module):
    """Weights of each of `kinds` by region and skin tone. A group is a pair of them; the weights of a region multiply to 1."""

    def __init__(self, kinds: tuple[str, ...]):
        super().__init__()
        self.kinds = kinds
        shape = len(kinds), len(REGIONS), len(TONES)
        for name in ("total", "count", "log_weight"):
            self.register_buffer(name, torch.zeros(shape))

    def forward(self, kind: str, region: Tensor, lightness: Tensor) -> Tensor:
        """What a loss of this kind weighs in pictures (B,) of a `region` and with skin of `lightness` (L*, NaN where unknown)."""
        return self.log_weight[self.kinds.index(kind)][region, self.tone(lightness)].exp()

    def tone(self, lightness: Tensor) -> Tensor:
        return torch.bucketize(lightness.nan_to_num(sum(EDGES) / 2), lightness.new_tensor(EDGES), right=True)

    @torch.no_grad()
    def listen(self, kind: str, region: Tensor, lightness: Tensor, measured: Tensor) -> None:
        """`measured` (B,), the lower the better, NaN where unknown: remember it, and move the weights."""
        i, shape = self.kinds.index(kind), self.total.shape[1:]
        known = measured.isfinite()
        group = region * len(TONES) + self.tone(lightness)
        count = torch.zeros(shape.numel(), device=measured.device).index_add(0, group, known.float()).view(shape)
        mean = torch.zeros(shape.numel(), device=measured.device).index_add(0, group, measured.nan_to_num().float()).view(shape) / count.clamp(min=1)
        shown = (count > 0).float()
        kept = 1 - (1 - MEMORY) * shown
        self.total[i] = kept * self.total[i] + (1 - MEMORY) * mean
        self.count[i] = kept * self.count[i] + (1 - MEMORY) * shown
        often = (self.count[i] > 0.3).all(1, keepdim=True)  # a mean of two or three pictures says nothing
        running = self.total[i] / self.count[i].clamp(min=1e-6)
        excess = running / running.mean(1, keepdim=True).clamp(min=1e-6) - 1
        moved = self.log_weight[i] + RATE * excess * often
        self.log_weight[i] = (moved - moved.mean(1, keepdim=True)).clamp(-math.log(MOST), math.log(MOST))
