"""The quadruplet loss (Chen et al. 2017)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from reid_kit.losses.base import Batch, EmbeddingLoss
from reid_kit.losses.pairs import distances, non_negative_number, normalized
from reid_kit.losses.registry import register


@register("quadruplet")
class Quadruplet(EmbeddingLoss):
    """Mean over triplets of [d_ij - d_ik + margin1]_+ plus mean over quadruplets of [d_ij - d_kl + margin2]_+.

    i and j share an identity; k is of another one, and in the second term l of a third (the paper's learned g is a
    distance here). All triplets and quadruplets of the batch count. Sorted distances and their running sums give
    the sums of hinges exactly, in O(B^2 log B) time and O(B^2) memory.

    Options:
        margin1, margin2: in units of the distance; the paper's 1 and 0.5.
        squared: squared Euclidean distances.
        normalize: L2-normalise the embeddings first.

    `active_fraction` is the share of triplets and quadruplets above 0.
    """

    whole_batch = True

    def __init__(self, margin1: float = 1.0, margin2: float = 0.5, squared: bool = False, normalize: bool = False):
        super().__init__()
        self.margin1 = non_negative_number("margin1 of quadruplet", margin1)
        self.margin2 = non_negative_number("margin2 of quadruplet", margin2)
        self.distance, self.normalize = "squared" if squared else "euclidean", normalize

    def compute(self, batch: Batch) -> Tensor:
        matrix = distances(normalized(batch) if self.normalize else batch, self.distance)
        d = matrix.double()  # the running sums are of B^2 terms
        i, j = batch.positives.nonzero(as_tuple=True)
        k, l = batch.negatives.nonzero(as_tuple=True)  # noqa: E741
        _, identity = torch.unique(batch.gallery_labels, return_inverse=True)

        triplets = GroupedHinges(d[k, l], group=k, groups=len(d))
        sum1, active1, count1 = triplets(d[i, j] + self.margin1, i)
        # (k, l) of three identities: all negative pairs, less those with k in i's identity, less those with l in it
        everywhere = GroupedHinges(d[k, l], group=torch.zeros_like(k), groups=1)
        touching = GroupedHinges(d[k, l], group=identity[k], groups=len(d))
        t = d[i, j] + self.margin2
        sum2, active2, count2 = (
            total - 2 * part for total, part in zip(everywhere(t, torch.zeros_like(i)), touching(t, identity[i]))
        )
        self.active_fraction = (active1 + active2).sum() / (count1 + count2).sum().clamp(min=1)
        loss = sum1.sum() / count1.sum().clamp(min=1) + sum2.sum() / count2.sum().clamp(min=1)
        return loss.to(matrix.dtype)


class GroupedHinges:
    """Sums of [t - v]_+ over the values v (N,) of one group, for many (t, group), by sorting the values once.

    group: (N,) the group of each value, below `groups`.
    """

    def __init__(self, values: Tensor, group: Tensor, groups: int):
        order = values.detach().argsort()
        self.sorted = values.detach()[order]
        # a value's key is (group, its place among all values); sorted keys keep each group in a row, in order
        self.keys, by_group = (group[order] * (len(values) + 1) + torch.arange(len(values), device=group.device)).sort()
        self.sums = F.pad(values[order][by_group].cumsum(0), (1, 0))
        self.edges = torch.searchsorted(self.keys, torch.arange(groups + 1, device=group.device) * (len(values) + 1))

    def __call__(self, t: Tensor, group: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For each of t (Q,): the sum of hinges, the number of values below t, and the group's size."""
        start, end = self.edges[group], self.edges[group + 1]
        place = torch.searchsorted(self.sorted, t.detach())
        place = torch.searchsorted(self.keys, group * (len(self.keys) + 1) + place)
        below = place - start
        return t * below - (self.sums[place] - self.sums[start]), below, end - start
