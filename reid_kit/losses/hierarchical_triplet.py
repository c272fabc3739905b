"""The hierarchical triplet loss (Ge et al. 2018): the margin of a triplet grows with how far its classes lie apart."""

import torch
import torch.nn.functional as F
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from torch import Tensor, nn

from reid_kit.distributed import gather_rows
from reid_kit.losses.base import Batch
from reid_kit.losses.pairs import positive_number, whole_number
from reid_kit.losses.registry import register
from reid_kit.losses.softmax import check_classes, check_width
from reid_kit.losses.triplet import Triplet


@register("hierarchical_triplet")
class HierarchicalTriplet(Triplet):
    """1 / 2 mean over all triplets of [d_ap - d_an + beta + d_H(y_a, y_n) - s(y_a)]_+ on L2-normalised embeddings.

    The tables' HTL (Ge et al. 2018). d_H(y_a, y_n) is the threshold of the level at which the two classes merge in a
    tree of all classes, s(y_a) the mean distance within the anchor's class. The embeddings of an epoch make the tree of
    the next. In the first the margin is beta: a conventional triplet loss, with which the paper pre-trains.
    SAMPLER.HARD_IDENTITY_POOL stands for the paper's batches of anchor classes with their neighbours.

    Options:
        classes: number of identities; labels lie in 0 .. classes - 1. From a config it is the training set's.
        embedding_size: width of the feature. From a config it is the model's.
        levels: L of the tree.
        beta: the paper's constant margin.
        distance: "squared", that of the tree's thresholds, or "euclidean", as the paper writes the triplet's.
    """

    def __init__(
        self, classes: int, embedding_size: int, levels: int = 16, beta: float = 0.1, distance: str = "squared"
    ):
        super().__init__(margin=0.0, distance=distance, normalize=True)
        self.beta = positive_number("beta of hierarchical_triplet", beta)
        self.tree = ClassTree(
            whole_number("classes of hierarchical_triplet", classes),
            whole_number("embedding_size of hierarchical_triplet", embedding_size),
            whole_number("levels of hierarchical_triplet", levels),
        )

    def compute(self, batch: Batch) -> Tensor:
        check_classes(batch.anchor_labels, len(self.tree.counts), self.name)
        check_width(batch.anchors, self.tree.sums.shape[1], self.name)
        if self.training:
            embeddings = F.normalize(batch.anchors.detach())
            self.tree.observe(gather_rows(embeddings), gather_rows(batch.anchor_labels.long()))
        return super().compute(batch) / 2

    def distances(self, batch: Batch) -> Tensor:
        """(A, G): d_ap of positive pairs, d_an less the triplet's margin of negative ones."""
        margins = self.beta + self.tree.margins(batch.anchor_labels, batch.gallery_labels)
        return super().distances(batch) - margins.masked_fill(batch.same, 0)

    def end_epoch(self) -> None:
        self.tree.grow()


class ClassTree(nn.Module):
    """Classes that merge, level by level, where their mean squared distance is at most the level's threshold.

    For unit-norm embeddings the mean squared distance of two classes is 2 - 2 mu_p.mu_q, so that sums and counts are
    all that it takes. Classes merge through chains of near ones. Before `grow` has been called all margins are 0.
    """

    def __init__(self, classes: int, embedding_size: int, levels: int):
        super().__init__()
        self.register_buffer("sums", torch.zeros(classes, embedding_size))  # of the running epoch
        self.register_buffer("counts", torch.zeros(classes))
        self.register_buffer("nodes", torch.zeros(levels + 1, classes, dtype=torch.int64))  # by level, each class's
        self.register_buffer("thresholds", torch.zeros(levels + 1))
        self.register_buffer("spread", torch.zeros(classes))  # s: the mean squared distance within each class

    def observe(self, embeddings: Tensor, labels: Tensor) -> None:
        """Adds (n, D) embeddings of unit norm with their (n,) labels to the epoch's."""
        self.sums.index_add_(0, labels, embeddings.to(self.sums))
        self.counts.index_add_(0, labels, torch.ones_like(labels, dtype=self.counts.dtype))

    def grow(self) -> None:
        """Makes the tree of what was observed since it was last made. A class not seen stands 2 apart from all."""
        seen = self.counts > 0
        if len(seen) < 2 or not seen.any():
            return
        means = self.sums / self.counts.clamp(min=1)[:, None]
        within = 2 * (1 - means.square().sum(1)).clamp(min=0) * self.counts / (self.counts - 1).clamp(min=1)
        self.spread.copy_(within)
        least = within[seen].mean()
        steps = torch.linspace(0, 1, len(self.thresholds)).to(least)
        self.thresholds.copy_(least + (4 - least) * steps)  # 4: the largest squared distance of unit norms
        between = (2 - 2 * means @ means.T).clamp(min=0).double().cpu().numpy()
        merges = linkage(squareform(between, checks=False), "single")
        for node, threshold in zip(self.nodes[:-1], self.thresholds.tolist()):  # the last is the root, which holds all
            node.copy_(torch.from_numpy(fcluster(merges, threshold, "distance")))
        self.sums.zero_()
        self.counts.zero_()

    def margins(self, anchors: Tensor, others: Tensor) -> Tensor:
        """(A, G) d_H(y_a, y_g) - s(y_a) for (A,) and (G,) labels."""
        classes, place = torch.cat([anchors, others]).unique(return_inverse=True)
        nodes = self.nodes[:, classes]
        level = (nodes[:, :, None] != nodes[:, None]).sum(0)
        table = self.thresholds[level] - self.spread[classes, None]
        return table[place[: len(anchors), None], place[len(anchors) :]]
