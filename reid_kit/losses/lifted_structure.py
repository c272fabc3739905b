"""The lifted structure loss and its generalisation: the farthest positives against the nearest negatives, smoothly."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from reid_kit.distributed import mean_over_processes
from reid_kit.errors import unknown_name
from reid_kit.losses.base import Batch, EmbeddingLoss
from reid_kit.losses.miners import PairLoss
from reid_kit.losses.pairs import (
    distances,
    fraction,
    masked_logsumexp,
    non_negative_number,
    normalized,
    number,
    similarities,
)
from reid_kit.losses.registry import register


@register("lifted_structure")
class LiftedStructure(EmbeddingLoss):
    """1 / (2|P|) sum over unordered positive pairs of [d_ij + log(sum_k exp(m - d_ik) + sum_l exp(m - d_jl))]_+^2.

    Song et al. 2016, eq. 4; k and l are the negatives of i and of j. RLL's eq. 3 misprints it: the logarithm closes
    early and the hinge's square is missing.

    Options:
        margin: m, on the Euclidean distance.
        normalize: L2-normalise the embeddings first.

    `active_fraction` is the share of positive pairs with a non-zero term.
    """

    def __init__(self, margin: float = 1.0, normalize: bool = False):
        super().__init__()
        self.margin = non_negative_number("margin of lifted_structure", margin)
        self.normalize = normalize

    def compute(self, batch: Batch) -> Tensor:
        batch = normalized(batch) if self.normalize else batch
        # the negatives of both ends are needed, and the other end may stand anywhere in the gallery
        gallery = Batch(batch.gallery, batch.gallery_labels, batch.gallery, batch.gallery_labels)
        matrix, anchors = distances(gallery), slice(batch.first, batch.first + len(batch.anchors))
        repulsion = masked_logsumexp(self.margin - matrix, gallery.negatives)
        counted = batch.positives & batch.negatives.any(1, keepdim=True)
        repulsion = repulsion.masked_fill(repulsion.isinf(), 0)  # without negatives: not counted, and no NaN's source
        hinge = F.relu(matrix[anchors] + torch.logaddexp(repulsion[anchors, None], repulsion))
        self.active_fraction = fraction(hinge > 0, of=counted)
        # each unordered pair stands twice among the ordered ones, the anchors' rows
        return mean_over_processes(hinge.masked_fill(~counted, 0).square().sum() / 2, batch.positives.count_nonzero())


@register("generalized_lifted_structure")
class GeneralizedLiftedStructure(PairLoss):
    """Mean over anchors of [log sum over P of exp(-s) + log sum over N of exp(s - lambda)]_+, cosine s.

    RAW eq. 9, whose print subtracts the second logarithm and gives the easiest negative the most weight, against its
    own eq. 11; with the weights of eq. 10 and 11 for its gradient, it is the form here.

    Options:
        form: "similarity" as above, or "distance": [log sum over P of exp(d) + log sum over N of exp(margin - d)]_+ on
            the Euclidean distance (Hermans et al. 2017, eq. 8).
        threshold: lambda of the similarity form.
        margin: of the distance form.
        normalize: L2-normalise the embeddings first, in the distance form.
        miner: P and N are the mined pairs.

    `active_fraction` is the share of anchors with a non-zero term.
    """

    def __init__(
        self,
        form: str = "similarity",
        threshold: float = 0.5,
        margin: float = 1.0,
        normalize: bool = False,
        miner: str | Mapping = "all",
    ):
        super().__init__(miner)
        if form not in ("similarity", "distance"):
            raise unknown_name("form of generalized_lifted_structure:", form, ("similarity", "distance"))
        self.margin = non_negative_number("margin of generalized_lifted_structure", margin)
        self.threshold = number("threshold of generalized_lifted_structure", threshold)
        self.form, self.normalize = form, normalize

    def compute(self, batch: Batch) -> Tensor:
        s = similarities(batch)
        positives, negatives = self.mine(batch, s)
        if self.form == "similarity":
            attraction, repulsion = -s, s - self.threshold
        else:
            d = distances(normalized(batch) if self.normalize else batch)
            attraction, repulsion = d, self.margin - d
        hinge = F.relu(masked_logsumexp(attraction, positives) + masked_logsumexp(repulsion, negatives))
        self.active_fraction = (hinge > 0).float().mean()
        return mean_over_processes(hinge.sum(), len(hinge))
