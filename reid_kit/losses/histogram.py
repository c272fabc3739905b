"""The histogram loss (Ustinova and Lempitsky 2016)."""

import torch
from torch import Tensor

from reid_kit.losses.base import Batch, EmbeddingLoss
from reid_kit.losses.pairs import similarities, whole_number
from reid_kit.losses.registry import register


@register("histogram")
class Histogram(EmbeddingLoss):
    """The probability that a random negative pair is more similar than a random positive one.

    L = sum over r of h-_r * sum over q <= r of h+_q, h+ and h- the histograms of the cosine similarities of positive
    and negative pairs. Bin r is centred at t_r = -1 + r * step, step = 2 / (bins - 1); a similarity between two centres
    is shared by both linearly. A batch without positive or without negative pairs gives 0.

    Options:
        bins: number of bins, their centres from -1 to 1.

    `active_fraction` is the share of pairs on the wrong side: negatives above the least similar positive pair, and
    positives below the most similar negative pair.
    """

    whole_batch = True

    def __init__(self, bins: int = 100):
        super().__init__()
        self.bins = whole_number("bins of histogram", bins, least=2)

    def compute(self, batch: Batch) -> Tensor:
        s, positives, negatives = similarities(batch).clamp(-1, 1), batch.positives, batch.negatives
        lowest = s.detach().masked_fill(~positives, torch.inf).amin()
        highest = s.detach().masked_fill(~negatives, -torch.inf).amax()
        wrong = (positives & (s < highest)) | (negatives & (s > lowest))
        self.active_fraction = wrong.sum() / (positives | negatives).sum().clamp(min=1)
        cumulated = self.density(s[positives]).cumsum(0)
        return (self.density(s[negatives]) * cumulated).sum()

    def density(self, s: Tensor) -> Tensor:
        """(bins,) the shares of the similarities s (N,), each spread over its two nearest bins."""
        place = (s + 1) * (self.bins - 1) / 2
        lower = place.detach().floor().clamp(max=self.bins - 2).long()
        above = place - lower
        counts = s.new_zeros(self.bins).index_add(0, lower, 1 - above).index_add(0, lower + 1, above)
        return counts / max(len(s), 1)
