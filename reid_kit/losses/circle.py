"""The circle loss (Sun et al. 2020) on pairs."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from reid_kit.distributed import mean_over_processes
from reid_kit.losses.base import Batch
from reid_kit.losses.miners import PairLoss
from reid_kit.losses.pairs import masked_logsumexp, non_negative_number, positive_number, similarities
from reid_kit.losses.registry import register


@register("circle")
class Circle(PairLoss):
    """log(1 + sum over N of exp(gamma a_n (s_n - m)) * sum over P of exp(-gamma a_p (s_p - 1 + m))), mean over anchors.

    a_n = [s_n + m]_+ and a_p = [1 + m - s_p]_+, cosine s (Sun et al. 2020, eq. 5 and 6). An anchor without a
    positive or without a negative counts as 0.

    Options:
        gamma: scale; margin: m. The paper takes 128 and 0.25 for people, 80 and 0.4 for fine-grained retrieval.
        detach_weights: hold a_n and a_p constant in the gradient, as the paper does.
        miner: P and N are the mined pairs.

    `active_fraction` is the share of pairs that are mined and beyond their side's boundary: s_n > m, s_p < 1 - m.
    """

    def __init__(
        self,
        gamma: float = 128.0,
        margin: float = 0.25,
        detach_weights: bool = True,
        miner: str | Mapping = "all",
    ):
        super().__init__(miner)
        self.gamma = positive_number("gamma of circle", gamma)
        self.margin = non_negative_number("margin of circle", margin)
        self.detach_weights = detach_weights

    def compute(self, batch: Batch) -> Tensor:
        s, m = similarities(batch), self.margin
        positives, negatives = self.mine(batch, s)
        self.report(torch.where(batch.same, positives & (s < 1 - m), negatives & (s > m)), batch)
        a_p, a_n = F.relu(1 + m - s), F.relu(s + m)
        if self.detach_weights:
            a_p, a_n = a_p.detach(), a_n.detach()
        attraction = masked_logsumexp(-self.gamma * a_p * (s - (1 - m)), positives)
        repulsion = masked_logsumexp(self.gamma * a_n * (s - m), negatives)
        return mean_over_processes(F.softplus(attraction + repulsion).sum(), len(s))
