"""Losses that are a weight for every pair, in the view of the RAW paper ("A unified view of deep metric learning").

Its Table 1, with S = relative_absolute, B = binomial_deviance, C = contrastive at threshold -1 (every weight 1):
Binomial is B; RAW is S; VTHM is C with miner vthm; Binomial+VTHM, RAW+DW, RAW+SemiHard and RAW+VTHM are B and S with
miner vthm, distance_weighted and semi_hard.
"""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from reid_kit.distributed import mean_over_processes, sum_over_processes
from reid_kit.errors import unknown_name
from reid_kit.losses.base import Batch
from reid_kit.losses.miners import PairLoss
from reid_kit.losses.pairs import (
    distances,
    masked_logsumexp,
    masked_mean,
    non_negative_number,
    normalized,
    number,
    positive_number,
    similarities,
)
from reid_kit.losses.registry import register


class SensitivePairLoss(PairLoss):
    """What RAW and binomial deviance share: sensitivities to positives and negatives, and a threshold."""

    def __init__(self, alpha: float, beta: float, threshold: float, miner: str | Mapping):
        super().__init__(miner)
        self.alpha = positive_number(f"alpha of {self.name}", alpha)
        self.beta = positive_number(f"beta of {self.name}", beta)
        self.threshold = number(f"threshold of {self.name}", threshold)

    def exponents(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """-alpha (s - lambda), the mined positives, beta (s - lambda) and the mined negatives, each (A, G)."""
        s = similarities(batch)
        positives, negatives = self.mine(batch, s)
        self.report(positives | negatives, batch)
        return -self.alpha * (s - self.threshold), positives, self.beta * (s - self.threshold), negatives


@register("relative_absolute")
class RelativeAbsolute(SensitivePairLoss):
    """Mean over anchors of (1/alpha) log(1 + sum over P of exp(-alpha (s - lambda)))
    + (1/beta) log(1 + sum over N of exp(beta (s - lambda))), cosine s (RAW eq. 17; the multi-similarity loss).

    Its gradient weights each pair by its similarity and by how it compares with the anchor's other pairs: eq. 15, 16.

    Options:
        alpha, beta: sensitivity to positives and to negatives.
        threshold: lambda.
        miner: P and N are the mined pairs; the paper's full method is "vthm".
    """

    def __init__(self, alpha: float = 2.0, beta: float = 50.0, threshold: float = 0.5, miner: str | Mapping = "all"):
        super().__init__(alpha, beta, threshold, miner)

    def compute(self, batch: Batch) -> Tensor:
        attraction, positives, repulsion, negatives = self.exponents(batch)
        L_pos = F.softplus(masked_logsumexp(attraction, positives)) / self.alpha
        L_neg = F.softplus(masked_logsumexp(repulsion, negatives)) / self.beta
        return mean_over_processes((L_pos + L_neg).sum(), len(L_pos))


@register("multi_similarity")
class MultiSimilarity(RelativeAbsolute):
    """`relative_absolute` under its published name, with its mining: the multi-similarity loss (Wang et al. 2019).

    Options:
        alpha, beta, threshold: as there.
        miner: P and N are the mined pairs; "vthm" is the paper's section 3.3, with its epsilon of 0.1.
    """

    def __init__(self, alpha: float = 2.0, beta: float = 50.0, threshold: float = 0.5, miner: str | Mapping = "vthm"):
        super().__init__(alpha, beta, threshold, miner)


@register("binomial_deviance")
class BinomialDeviance(SensitivePairLoss):
    """Over anchors, mean over P of log(1 + exp(alpha (lambda - s))) + mean over N of log(1 + exp(beta (s - lambda))).

    RAW eq. 12 (Yi et al. 2014), cosine s.

    Options:
        alpha, beta: sensitivity to positives and to negatives.
        threshold: lambda.
        reduction: the paper's "sum" over anchors, or their "mean".
        miner: P and N are the mined pairs.
    """

    def __init__(
        self,
        alpha: float = 2.0,
        beta: float = 50.0,
        threshold: float = 0.5,
        reduction: str = "sum",
        miner: str | Mapping = "all",
    ):
        super().__init__(alpha, beta, threshold, miner)
        if reduction not in ("sum", "mean"):
            raise unknown_name("reduction of binomial_deviance:", reduction, ("sum", "mean"))
        self.reduction = reduction

    def compute(self, batch: Batch) -> Tensor:
        attraction, positives, repulsion, negatives = self.exponents(batch)
        losses = masked_mean(F.softplus(attraction), positives) + masked_mean(F.softplus(repulsion), negatives)
        mean = mean_over_processes(losses.sum(), len(losses))
        return mean * sum_over_processes(mean.new_full((), len(losses))) if self.reduction == "sum" else mean


@register("contrastive")
class Contrastive(PairLoss):
    """Mean over pairs of [s - lambda]_+ for negatives and -s for positives, cosine s (RAW eq. 5); or Hadsell's form.

    Options:
        form: "paper", or "hadsell": d^2 / 2 for positives and [margin - d]_+^2 / 2 for negatives, Euclidean d
            (Hadsell et al. 2006, eq. 4).
        threshold: lambda of the paper's form; at -1 every mined pair has weight 1.
        margin: of Hadsell's form.
        normalize: L2-normalise the embeddings first, in Hadsell's form; the paper's always does.
        miner: the pairs that the mean is over.
    """

    def __init__(
        self,
        form: str = "paper",
        threshold: float = 0.5,
        margin: float = 1.0,
        normalize: bool = False,
        miner: str | Mapping = "all",
    ):
        super().__init__(miner)
        if form not in ("paper", "hadsell"):
            raise unknown_name("form of contrastive:", form, ("paper", "hadsell"))
        self.margin = non_negative_number("margin of contrastive", margin)
        self.threshold = number("threshold of contrastive", threshold)
        self.form, self.normalize = form, normalize

    def compute(self, batch: Batch) -> Tensor:
        s = similarities(batch)
        positives, negatives = self.mine(batch, s)
        if self.form == "paper":
            active = negatives & (s > self.threshold)
            weights = active.to(s.dtype).masked_fill_(positives, -1)
            total = (weights * s).sum() - self.threshold * active.count_nonzero()
        else:
            d = distances(normalized(batch) if self.normalize else batch)
            active = negatives & (d < self.margin)
            attraction, repulsion = d.masked_fill(~positives, 0), (self.margin - d).masked_fill(~active, 0)
            total = (attraction.square() + repulsion.square()).sum() / 2
        self.report(positives | active, batch)
        return mean_over_processes(total, positives.count_nonzero() + negatives.count_nonzero())
