"""The N-pair loss (Sohn 2016): one positive against one negative of every other identity."""

import torch
import torch.nn.functional as F
from torch import Tensor

from reid_kit.losses.base import Batch, EmbeddingLoss
from reid_kit.losses.pairs import non_negative_number
from reid_kit.losses.registry import register


@register("n_pair")
class NPair(EmbeddingLoss):
    """Mean over identities of log(1 + sum over j != i of exp(f_i.f_j+ - f_i.f_i+)), f not normalised (RLL eq. 2).

    Every identity with two images or more gives one pair (f_i, f_i+), so eq. 2 holds for any batch; sample K = 2 to use
    all images. The paper leaves open which of two images is the anchor. Here the images of an identity stand in the
    lexicographic order of their embeddings, the first is the anchor and the second its positive: a choice as arbitrary
    as a random one, but the same for any order of the batch.

    Options:
        l2: weight of the mean squared norm of the embeddings in the pairs, which keeps the dot products bounded.

    `active_fraction` is the share of anchors with a negative more similar than their positive.
    """

    whole_batch = True

    def __init__(self, l2: float = 0.002):
        super().__init__()
        self.l2 = non_negative_number("l2 of n_pair", l2)

    def compute(self, batch: Batch) -> Tensor:
        first, second = identity_pairs(batch)
        anchors, positives = batch.gallery[first], batch.gallery[second]
        pairs = max(len(first), 1)
        scores = anchors @ positives.T
        self.active_fraction = (scores > scores.diagonal()[:, None]).any(1).sum() / pairs
        # the sum of exponents over all j, i included, is what the cross entropy of choosing i takes
        entropy = F.cross_entropy(scores, torch.arange(len(first), device=scores.device), reduction="sum")
        return (entropy + self.l2 * (anchors.square().sum() + positives.square().sum()) / 2) / pairs


def identity_pairs(batch: Batch) -> tuple[Tensor, Tensor]:
    """The first and the second image of every identity that has two, by the lexicographic order of embeddings."""
    order = order_of_content(batch)
    labels = batch.gallery_labels[order]
    continues = labels[1:] == labels[:-1]
    starts = continues & ~F.pad(continues, (1, 0))[:-1]
    return order[:-1][starts], order[1:][starts]


def order_of_content(batch: Batch) -> Tensor:
    """The gallery's rows by label, then lexicographically by embedding: the same for any order of the batch."""
    rows, labels = batch.gallery.detach(), batch.gallery_labels
    order = rows[:, 0].argsort()
    order = order[labels[order].argsort(stable=True)]
    tied = (labels[order].diff() == 0) & (rows[order, 0].diff() == 0)
    if tied.any():  # only then do the other columns matter, whose order costs far more
        place = torch.unique(rows, dim=0, return_inverse=True)[1]
        order = place.argsort(stable=True)
        order = order[labels[order].argsort(stable=True)]
    return order
