"""The triplet family: which positives meet which negatives, and how they are weighted."""

import torch
import torch.nn.functional as F
from torch import Tensor

from reid_kit.distributed import mean_over_processes
from reid_kit.errors import unknown_name
from reid_kit.losses.base import Batch, EmbeddingLoss
from reid_kit.losses.pairs import (
    check_distance,
    distances,
    fraction,
    in_blocks,
    masked_softmax,
    non_negative_number,
    normalized,
)
from reid_kit.losses.registry import register


class TripletLoss(EmbeddingLoss):
    """What the triplets share: phi(x) = max(x + margin, 0) for a number, softplus(x) for margin "soft".

    Options:
        margin: a number of at least 0, in units of the distance, or "soft".
        distance: "euclidean", "squared" (Euclidean) or "cosine".
        normalize: L2-normalise the embeddings first.

    `active_fraction` is the share of triplets with x + margin above 0 ("soft": with x above 0).
    """

    def __init__(self, margin: float | str = 0.3, distance: str = "euclidean", normalize: bool = False):
        super().__init__()
        if margin != "soft":
            non_negative_number(f"margin of {self.name}, where not 'soft',", margin)
        self.margin, self.distance, self.normalize = margin, check_distance(distance), normalize

    def distances(self, batch: Batch) -> Tensor:
        return distances(normalized(batch) if self.normalize else batch, self.distance)

    def phi(self, x: Tensor) -> Tensor:
        return F.softplus(x) if self.margin == "soft" else F.relu(x + self.margin)

    def active(self, x: Tensor) -> Tensor:
        return x.detach() > (0 if self.margin == "soft" else -self.margin)

    def mean(self, x: Tensor, counted: Tensor) -> Tensor:
        """The mean of phi(x) over the entries of x that are `counted`."""
        self.active_fraction = fraction(self.active(x), of=counted)
        return mean_over_processes(self.phi(x.masked_fill(~counted, 0)).masked_fill(~counted, 0).sum(), counted.sum())


@register("triplet")
class Triplet(TripletLoss):
    """phi(d_ap - d_an) over all triplets (SRT's "Tri."; RLL eq. 1 and RAW eq. 7 with the squared distance).

    Options:
        reduction: "mean" over all triplets, or over those with a non-zero term, "mean_nonzero".
    """

    def __init__(
        self,
        margin: float | str = 0.3,
        distance: str = "euclidean",
        normalize: bool = False,
        reduction: str = "mean",
    ):
        super().__init__(margin, distance, normalize)
        if reduction not in ("mean", "mean_nonzero"):
            raise unknown_name("reduction of triplet:", reduction, ("mean", "mean_nonzero"))
        self.reduction = reduction

    def compute(self, batch: Batch) -> Tensor:
        matrix, negatives = self.distances(batch), batch.negatives
        total, active = map(sum, zip(*in_blocks(self.terms, batch.positives, matrix, negatives)))
        triplets = (batch.positives.sum(1) * negatives.sum(1)).sum()
        self.active_fraction = active / triplets.clamp(min=1)
        return mean_over_processes(total, active if self.reduction == "mean_nonzero" else triplets)

    def terms(self, matrix: Tensor, negatives: Tensor, anchors: Tensor, positives: Tensor) -> tuple[Tensor, Tensor]:
        """Summed phi and the number of active triplets, of some positive pairs with all their negatives."""
        x = matrix[anchors, positives][:, None] - matrix.index_select(0, anchors)
        counted = negatives.index_select(0, anchors)
        return self.phi(x).masked_fill(~counted, 0).sum(), (self.active(x) & counted).sum()


@register("triplet_hard_negative")
class TripletHardNegative(TripletLoss):
    """phi(d_ap - min_n d_an): every positive pair with the hardest negative of its anchor (SRT's "Tri-HN")."""

    def compute(self, batch: Batch) -> Tensor:
        matrix, negatives = self.distances(batch), batch.negatives
        nearest = matrix.masked_fill(~negatives, torch.inf).amin(1, keepdim=True)
        counted = batch.positives & negatives.any(1, keepdim=True)
        return self.mean(matrix - nearest.masked_fill(nearest.isinf(), 0), counted)


@register("triplet_batch_hard")
class TripletBatchHard(TripletLoss):
    """phi(max_p d_ap - min_n d_an), mean over anchors (SRT's "Tri-BH"; Hermans et al. 2017, eq. 5)."""

    def compute(self, batch: Batch) -> Tensor:
        matrix, positives, negatives = self.distances(batch), batch.positives, batch.negatives
        farthest = matrix.masked_fill(~positives, -torch.inf).max(1).values
        nearest = matrix.masked_fill(~negatives, torch.inf).min(1).values
        counted = positives.any(1) & negatives.any(1)
        return self.mean(farthest.masked_fill(~counted, 0) - nearest.masked_fill(~counted, 0), counted)


@register("triplet_semi_hard")
class TripletSemiHard(TripletLoss):
    """For each positive pair the nearest negative farther than the positive, else the farthest negative.

    RLL's "Triplet Semihard": the FaceNet rule (Schroff et al. 2015) as TensorFlow ships it, with margin 1 on the
    squared distance.
    """

    def __init__(self, margin: float | str = 1.0, distance: str = "squared", normalize: bool = False):
        super().__init__(margin, distance, normalize)

    def compute(self, batch: Batch) -> Tensor:
        matrix, negatives = self.distances(batch), batch.negatives
        # sorted negatives of each anchor, padded with infinity: a search finds the first one beyond the positive
        ordered = matrix.masked_fill(~negatives, torch.inf).sort(dim=1).values
        after = torch.searchsorted(ordered.detach(), matrix.detach().contiguous(), right=True)
        count = negatives.sum(1, keepdim=True)
        chosen = ordered.gather(1, torch.minimum(after, (count - 1).clamp(min=0)))
        counted = batch.positives & (count > 0)
        return self.mean(matrix - chosen.masked_fill(chosen.isinf(), 0), counted)


@register("triplet_adaptive_weight")
class TripletAdaptiveWeight(TripletLoss):
    """phi(sum_p w_p d_ip - sum_n w_n d_in), w_p = softmax over P_i of d, w_n = softmax over N_i of -d.

    SRT's "Tri-AW" (Ristani and Tomasi 2018, eq. 2). The anchor is never among its positives.

    Options:
        detach_weights: hold the weights constant in the gradient.
    """

    def __init__(
        self,
        margin: float | str = 0.3,
        distance: str = "euclidean",
        normalize: bool = False,
        detach_weights: bool = False,
    ):
        super().__init__(margin, distance, normalize)
        self.detach_weights = detach_weights

    def compute(self, batch: Batch) -> Tensor:
        matrix, positives, negatives = self.distances(batch), batch.positives, batch.negatives
        w_p, w_n = masked_softmax(matrix, positives), masked_softmax(-matrix, negatives)
        if self.detach_weights:
            w_p, w_n = w_p.detach(), w_n.detach()
        return self.mean((w_p * matrix).sum(1) - (w_n * matrix).sum(1), positives.any(1) & negatives.any(1))
