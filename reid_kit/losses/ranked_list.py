"""The ranked list loss (RLL, CVPR 2019): each query against the non-trivial part of its list."""

import torch
from torch import Tensor

from reid_kit.distributed import mean_over_processes
from reid_kit.errors import InputError, unknown_name
from reid_kit.losses.base import Batch, EmbeddingLoss
from reid_kit.losses.pairs import (
    distances,
    fraction,
    masked_mean,
    masked_softmax,
    non_negative_number,
    normalized,
    positive_number,
)
from reid_kit.losses.registry import register


@register("ranked_list")
class RankedList(EmbeddingLoss):
    """Mean over queries of L_P + L_N, on L2-normalised embeddings (RLL eq. 8-14).

    P* holds the positives with d > alpha - m, N* the negatives with d < alpha (m is `margin`):
    L_P = mean over P* of d - (alpha - m); L_N = sum over N* of (w / sum w) (alpha - d), w = exp(T (alpha - d)).

    Options:
        alpha: the boundary that negatives are pushed beyond; margin: positives are pulled within alpha - margin.
        temperature: T; 0 weights all of N* equally.
        detach_gallery: hold the list constant, so that only the query f(x_i) is updated, as the paper says.
        detach_weights: hold w constant in the gradient.
        query_weight: "uniform", or "mined_mass": queries weighted by |P*| + sum w, as in the authors' released code.
    """

    def __init__(
        self,
        alpha: float = 1.2,
        margin: float = 0.4,
        temperature: float = 10.0,
        detach_gallery: bool = True,
        detach_weights: bool = True,
        query_weight: str = "uniform",
    ):
        super().__init__()
        if query_weight not in ("uniform", "mined_mass"):
            raise unknown_name("query_weight of ranked_list:", query_weight, ("uniform", "mined_mass"))
        self.alpha = positive_number("alpha of ranked_list", alpha)
        self.margin = non_negative_number("margin of ranked_list", margin)
        self.temperature = non_negative_number("temperature of ranked_list", temperature)
        if query_weight == "mined_mass" and temperature * alpha > 60:
            raise InputError(
                f"query_weight mined_mass of ranked_list needs temperature * alpha of at most 60, where sums of "
                f"exp({temperature} * {alpha}) still fit float32"
            )
        self.detach_gallery, self.detach_weights, self.query_weight = detach_gallery, detach_weights, query_weight

    def compute(self, batch: Batch) -> Tensor:
        batch = normalized(batch)
        gallery = batch.gallery.detach() if self.detach_gallery else batch.gallery
        d = distances(Batch(batch.anchors, batch.anchor_labels, gallery, batch.gallery_labels, batch.first))
        too_far = d - (self.alpha - self.margin)
        too_near = self.alpha - d
        mined_positives = batch.positives & (too_far > 0)
        mined_negatives = batch.negatives & (too_near > 0)
        self.active_fraction = fraction(mined_positives | mined_negatives, of=batch.positives | batch.negatives)

        w = masked_softmax(self.temperature * too_near, mined_negatives)
        if self.detach_weights:
            w = w.detach()
        losses = masked_mean(too_far, mined_positives) + (w * too_near).sum(1)
        if self.query_weight == "uniform":
            return mean_over_processes(losses.sum(), len(losses))
        unscaled = (self.temperature * too_near.detach()).masked_fill(~mined_negatives, -torch.inf).exp()
        mass = mined_positives.sum(1) + unscaled.sum(1)
        return mean_over_processes((mass * losses).sum(), mass.sum())
