"""The soft ranking threshold loss (SRT, ICIP 2021): ranks, not distances, against thresholds that fit each anchor."""

import torch
import torch.nn.functional as F
from torch import Tensor

from reid_kit.distributed import mean_over_processes
from reid_kit.errors import InputError, unknown_name
from reid_kit.losses.base import Batch, EmbeddingLoss
from reid_kit.losses.pairs import distances, fraction, non_negative_number, normalized, positive_number
from reid_kit.losses.registry import register
from reid_kit.losses.soft_ranks import soft_ranks

SELF_COMPARISON = {"one": 0.5, "half": 0.0, "zero": -0.5}  # what is added to the sum over all k, k = j included


@register("soft_ranking_threshold")
class SoftRankingThreshold(EmbeddingLoss):
    """L = alpha * mean over positive pairs of phi(R_ij - T+_i) + (1 - alpha) * mean over negatives of phi(T-_i - R_ij).

    R_ij = 1 + sum over k != j of sigmoid((d_ij - d_ik) / temperature) is the soft rank of j in anchor i's list, which
    holds the anchor itself. P_i counts the anchor and its positives, M_i the list.

    Options:
        thresholds: "plain": T+ = P_i, T- = P_i + 1; "hard": T+ = P_i / 2, T- = (M_i + P_i + 1) / 2, the mean ranks of
            a resolved list. With "hard" the loss does not reach 0 on a resolved list, where half of each side's ranks
            lie beyond their mean; its gradient is what counts.
        margin: phi(x) is max(x, 0) for "none", max(x + m, 0) for "hard", s * softplus((x + m) / s) for "soft".
        margin_value: m; 1 for "hard" and 0 for "soft" where not given. margin_scale: s.
        temperature: on raw Euclidean distances; with `normalize` 0.03 to 0.3 are sensible.
        alpha: the weight of the positive side.
        normalize: L2-normalise the embeddings first.
        self_comparison: the "1 +" of R_ij is "one"; "half" compares j with itself (sigmoid(0)), "zero" leaves it out.
        rank_scale: "raw" ranks, or ranks and thresholds divided by M_i ("batch").

    The table's SRT is plain and none, SRT-F is hard and soft. Memory is O(B^2) (reid_kit/losses/soft_ranks.py).

    `active_positives` and `active_negatives` are the shares of pairs with a rank beyond their threshold, or within
    the margin of it where the margin is "hard"; `active_fraction` is that of all pairs.
    """

    def __init__(
        self,
        temperature: float = 1.0,
        alpha: float = 0.5,
        thresholds: str = "plain",
        margin: str = "none",
        margin_value: float | None = None,
        margin_scale: float = 1.0,
        normalize: bool = False,
        self_comparison: str = "one",
        rank_scale: str = "raw",
    ):
        super().__init__()
        choices = {
            "thresholds": (thresholds, ("plain", "hard")),
            "margin": (margin, ("none", "hard", "soft")),
            "self_comparison": (self_comparison, tuple(SELF_COMPARISON)),
            "rank_scale": (rank_scale, ("raw", "batch")),
        }
        for option, (value, valid) in choices.items():
            if value not in valid:
                raise unknown_name(f"{option} of soft_ranking_threshold:", value, valid)
        if non_negative_number("alpha of soft_ranking_threshold", alpha) > 1:
            raise InputError(f"alpha of soft_ranking_threshold must lie between 0 and 1, got {alpha}")
        if margin_value is None:
            margin_value = 1.0 if margin == "hard" else 0.0
        self.temperature = positive_number("temperature of soft_ranking_threshold", temperature)
        self.margin_scale = positive_number("margin_scale of soft_ranking_threshold", margin_scale)
        self.margin_value = non_negative_number("margin_value of soft_ranking_threshold", margin_value)
        self.alpha, self.thresholds, self.margin, self.normalize = alpha, thresholds, margin, normalize
        self.self_comparison, self.rank_scale = self_comparison, rank_scale

    def compute(self, batch: Batch) -> Tensor:
        matrix = distances(normalized(batch) if self.normalize else batch)
        R = soft_ranks(matrix, self.temperature) - 0.5 + SELF_COMPARISON[self.self_comparison]
        P = batch.same.sum(1, keepdim=True).to(R.dtype)
        M = len(batch.gallery)
        lower, upper = (P / 2, (M + P + 1) / 2) if self.thresholds == "hard" else (P, P + 1)
        if self.rank_scale == "batch":
            R, lower, upper = R / M, lower / M, upper / M
        positives, negatives = batch.positives, batch.negatives
        beyond = torch.where(positives, R - lower, upper - R)
        active = beyond > (-self.margin_value if self.margin == "hard" else 0)
        self.active_positives, self.active_negatives = fraction(active, of=positives), fraction(active, of=negatives)
        self.active_fraction = fraction(active, of=positives | negatives)
        penalties = self.phi(beyond)
        L_pos = mean_over_processes(penalties.masked_fill(~positives, 0).sum(), positives.count_nonzero())
        L_neg = mean_over_processes(penalties.masked_fill(~negatives, 0).sum(), negatives.count_nonzero())
        return self.alpha * L_pos + (1 - self.alpha) * L_neg

    def phi(self, x: Tensor) -> Tensor:
        """The penalty of a rank that lies x beyond its threshold."""
        if self.margin == "none":
            return F.relu(x)
        if self.margin == "hard":
            return F.relu(x + self.margin_value)
        return self.margin_scale * F.softplus((x + self.margin_value) / self.margin_scale)
