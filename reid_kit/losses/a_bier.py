"""Boosting independent embeddings robustly, with adversarial regressors (A-BIER; Opitz et al. 2018)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reid_kit.distributed import mean_over_processes
from reid_kit.losses.base import Batch, EmbeddingLoss
from reid_kit.losses.hdc import check_sizes, part_sizes
from reid_kit.losses.pairs import non_negative_number, number, positive_number, similarities, whole_number
from reid_kit.losses.registry import register

SHARES = (3, 5, 8)  # of the learners in the width: 96, 160 and 256 of 512


@register("a_bier")
class ABier(EmbeddingLoss):
    """Sub-embeddings boosted on the binomial loss, and pushed apart by regressors that predict one from another.

    Learner m = 1 .. M has the cosine similarities s_m of its part of the embedding. Its loss is the mean over positive
    plus the mean over negative pairs of w_m * log(1 + exp(-z(s_m))), with z(s) = alpha (s - threshold) for a positive
    and beta (threshold - s) for a negative pair. The ensemble so far is S_m = (1 - eta_m) S_(m-1) + eta_m s_m,
    eta_m = 2 / (m + 1), and the weights are the negative gradient of its loss by its margin, held constant:
    w_1 = 1, w_(m+1) = 1 / (1 + exp(z(S_m))). The learners' losses add up.

    Diversity: for each pair of learners i < j a regressor (two linear layers, ReLU between) maps f_j to r, wide as f_i.
    The term is -mean over images and dimensions of (f_i * r)^2, which the regressors minimise; through a reversed
    gradient the embeddings maximise it. To keep it bounded, `weight_penalty` times mean over rows w of (w.w - 1)^2 and
    [b.b - 1]_+ of the regressors' weights and biases are added. The paper bounds f by the norms of the layer that
    makes it; a loss sees embeddings alone, so f is scaled here to a root mean square of 1, and the weights are ours.

    Options:
        embedding_size: width of the embedding; the sum of `sizes`, or 512, where not given. From a config the model's.
        sizes: widths of the parts, from the first learner. From a config they are the levels of the model; a model of
            one level is split 3 : 5 : 8 as in the paper, and so where no sizes are given.
        alpha, beta, threshold: of the binomial loss; the paper's 2, 2 * 25 and 0.5.
        diversity: weight of the diversity term; 0 leaves boosting alone.
        weight_penalty: within the diversity term.
        hidden: width of the regressors' hidden layer.

    `active_fraction` is the share of pairs on the wrong side of the threshold for the whole ensemble.
    """

    def __init__(
        self,
        embedding_size: int | None = None,
        sizes: Sequence[int] | None = None,
        alpha: float = 2.0,
        beta: float = 50.0,
        threshold: float = 0.5,
        diversity: float = 0.01,
        weight_penalty: float = 100.0,
        hidden: int = 512,
    ):
        super().__init__()
        check_sizes("a_bier", sizes)
        width = sum(sizes or [512]) if embedding_size is None else embedding_size
        self.sizes = part_sizes("a_bier", sizes, whole_number("embedding_size of a_bier", width), SHARES)
        self.alpha = positive_number("alpha of a_bier", alpha)
        self.beta = positive_number("beta of a_bier", beta)
        self.threshold = number("threshold of a_bier", threshold)
        self.diversity = non_negative_number("diversity of a_bier", diversity)
        self.weight_penalty = non_negative_number("weight_penalty of a_bier", weight_penalty)
        hidden = whole_number("hidden of a_bier", hidden)
        learners = range(len(self.sizes))
        self.couples = [(i, j) for j in learners for i in range(j)] if diversity else []
        self.regressors = nn.ModuleList(
            nn.Sequential(nn.Linear(self.sizes[j], hidden), nn.ReLU(), nn.Linear(hidden, self.sizes[i]))
            for i, j in self.couples
        )
        for layer in (layer for regressor in self.regressors for layer in (regressor[0], regressor[2])):
            layer.weight.data = F.normalize(layer.weight.data)  # what the penalty asks for
            nn.init.zeros_(layer.bias)

    def compute(self, batch: Batch) -> Tensor:
        part_sizes("a_bier", self.sizes, batch.gallery.shape[1], SHARES)
        anchors = batch.anchors.split(self.sizes, dim=1)
        return self.boosted(batch, anchors) + self.diversity * self.dependence(anchors)

    def boosted(self, batch: Batch, anchors: Sequence[Tensor]) -> Tensor:
        positives, negatives = batch.positives, batch.negatives
        loss, weight, ensemble = 0, 1, 0
        for m, (part, gallery) in enumerate(zip(anchors, batch.gallery.split(self.sizes, dim=1)), start=1):
            s = similarities(Batch(part, batch.anchor_labels, gallery, batch.gallery_labels, batch.first))
            terms = weight * F.softplus(-self.margins(s, batch))
            for pairs in (positives, negatives):
                loss = loss + mean_over_processes(terms.masked_fill(~pairs, 0).sum(), pairs.sum())
            eta = 2 / (m + 1)
            ensemble = (1 - eta) * ensemble + eta * s.detach()
            z = self.margins(ensemble, batch)
            weight = torch.sigmoid(-z)
        self.active_fraction = ((z < 0) & (positives | negatives)).sum() / (positives | negatives).sum().clamp(min=1)
        return loss

    def margins(self, s: Tensor, batch: Batch) -> Tensor:
        """z(s) of every pair: above 0 on the right side of the threshold."""
        return torch.where(batch.same, self.alpha * (s - self.threshold), self.beta * (self.threshold - s))

    def dependence(self, anchors: Sequence[Tensor]) -> Tensor:
        """The regressors' loss, its gradient reversed towards the embeddings."""
        total = anchors[0].sum() * 0
        for (i, j), regressor in zip(self.couples, self.regressors):
            target, source = (_reversed(F.normalize(anchors[part]) * self.sizes[part] ** 0.5) for part in (i, j))
            found = (target * regressor(source.to(regressor[0].weight.dtype))).square()
            total = total - mean_over_processes(found.sum(), found.numel())
            for layer in (regressor[0], regressor[2]):
                norms = layer.weight.square().sum(1)
                excess = F.relu(layer.bias.square().sum() - 1)
                total = total + self.weight_penalty * ((norms - 1).square().mean() + excess)
        return total


def _reversed(values: Tensor) -> Tensor:
    """`values` with the opposite gradient."""
    return 2 * values.detach() - values
