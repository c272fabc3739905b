"""Smooth average precision (Brown et al. 2020)."""

import torch
from torch import Tensor

from reid_kit.distributed import mean_over_processes
from reid_kit.losses.base import Batch, EmbeddingLoss
from reid_kit.losses.pairs import in_blocks, positive_number, similarities
from reid_kit.losses.registry import register


@register("smooth_ap")
class SmoothAP(EmbeddingLoss):
    """1 - AP, mean over the anchors with positives: AP = (1/|P|) sum over p of R(p, P) / R(p, P and N), cosine s.

    R(p, S) = 1 + sum over j in S, j != p, of sigmoid((s_j - s_p) / temperature) is the soft rank of p among S (Brown
    et al. 2020). The anchor is not in its own list; the authors' code counts it as a positive of its own, which
    gives smaller values. Identities may be unequal and in any order.

    Options:
        temperature: of the sigmoid.

    `active_fraction` is the share of positive pairs with a negative at least as similar.
    """

    def __init__(self, temperature: float = 0.01):
        super().__init__()
        self.temperature = positive_number("temperature of smooth_ap", temperature)

    def compute(self, batch: Batch) -> Tensor:
        s, positives, negatives = similarities(batch), batch.positives, batch.negatives
        nearest = s.detach().masked_fill(~negatives, -torch.inf).amax(1, keepdim=True)
        self.active_fraction = (positives & (nearest >= s)).sum() / positives.count_nonzero().clamp(min=1)
        total = sum(in_blocks(self.lost, positives, s, positives, negatives))
        return mean_over_processes(total, positives.any(1).sum())

    def lost(self, s: Tensor, positives: Tensor, negatives: Tensor, anchors: Tensor, matches: Tensor) -> Tensor:
        """The sum of (1 - R(p, P) / R(p, P and N)) / |P| over some positive pairs."""
        ahead = ((s[anchors] - s[anchors, matches][:, None]) / self.temperature).sigmoid()
        among = positives[anchors].scatter(1, matches[:, None], False)
        R_P = 1 + ahead.masked_fill(~among, 0).sum(1)
        R_N = ahead.masked_fill(~negatives[anchors], 0).sum(1)
        return (R_N / (R_P + R_N) / positives.sum(1)[anchors]).sum()
