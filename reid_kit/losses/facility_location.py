"""Structured clustering by facility location (Song et al. 2017; RLL's "Struct Clust")."""

import torch
import torch.nn.functional as F
from torch import Tensor

from reid_kit.losses.base import Batch, EmbeddingLoss
from reid_kit.losses.n_pair import order_of_content
from reid_kit.losses.pairs import distances, non_negative_number, normalized
from reid_kit.losses.registry import register

SWEEPS = 5  # of medoid swaps after the greedy search, as in the paper


@register("facility_location")
class FacilityLocation(EmbeddingLoss):
    """[F(X, y^) + gamma (1 - NMI(y, y^)) - F(X, y)]_+, F = -sum of distances to the medoids (RLL eq. 6 and 7).

    The true score F(X, y) takes the best medoid of each identity. y^ assigns each image to its nearest of as many
    medoids as there are identities; they are sought to maximise F(X, y^) + gamma (1 - NMI), greedily at first, then by
    swapping each medoid for the best image of its cluster in 5 sweeps (the paper's Algorithms 1 and 2; a swap is judged
    by the whole score, so that none lowers it). The search is outside the graph: only F has a gradient. NMI divides the
    mutual information by the mean of the two entropies (Schuetze et al. 2008, RLL's reference for it, and what the
    evaluation prints). F is a sum over the batch, as in the paper.

    Options:
        gamma: weight of 1 - NMI, in units of the summed distance.
        normalize: L2-normalise the embeddings first.

    `active_fraction` is the share of images whose nearest medoid is of another identity, 0 where the loss is 0.
    """

    whole_batch = True

    def __init__(self, gamma: float = 1.0, normalize: bool = False):
        super().__init__()
        self.gamma, self.normalize = non_negative_number("gamma of facility_location", gamma), normalize

    def compute(self, batch: Batch) -> Tensor:
        # in an order that depends on the content alone, and so do the search's choices among equals
        order = order_of_content(batch)
        rows, labels = batch.gallery[order], batch.gallery_labels[order]
        batch = Batch(rows, labels, rows, labels)
        d = distances(normalized(batch) if self.normalize else batch)
        _, y = torch.unique(labels, return_inverse=True)
        with torch.no_grad():
            search = MedoidSearch(d.double().cpu(), y.cpu(), self.gamma)
            predicted, truth = search.run().to(d.device), search.true_medoids().to(d.device)
            nearest = predicted[d[:, predicted].argmin(1)] if len(d) else predicted
            delta = 1 - search.nmi_of(nearest.cpu())
        images = torch.arange(len(d), device=d.device)
        loss = F.relu(-d[images, nearest].sum() + self.gamma * delta.to(d) + d[images, truth[y]].sum())
        self.active_fraction = (y[nearest] != y).sum() / max(len(d), 1) * (loss.detach() > 0)
        return loss


class MedoidSearch:
    """Seeks the set S of medoids, one for each class, with the highest F(S) + gamma * (1 - NMI of its clusters).

    d: (B, B) distances; y: (B,) classes, 0 .. C - 1, each present.
    """

    def __init__(self, d: Tensor, y: Tensor, gamma: float):
        self.d, self.y, self.gamma = d, y, gamma
        self.in_class = F.one_hot(y).float() if len(y) else d.new_zeros(0, 0)
        self.classes = self.in_class.shape[1]

    def run(self) -> Tensor:
        """(C,) medoids: greedy, then swept."""
        everyone = torch.arange(len(self.y))
        medoids = everyone[:0]
        for _ in range(self.classes):
            scores = self.scores(medoids, everyone)
            scores[medoids] = -torch.inf
            medoids = torch.cat([medoids, first_best(scores)])
        for _ in range(SWEEPS):
            before, clusters = medoids.clone(), self.d[:, medoids].argmin(1) if self.classes else everyone
            for cluster in range(self.classes):
                members = (clusters == cluster).nonzero().flatten()
                if len(members) > 1:
                    others = torch.cat([medoids[:cluster], medoids[cluster + 1 :]])
                    medoids[cluster] = members[first_best(self.scores(others, members))]
            if medoids.equal(before):
                break
        return medoids

    def scores(self, medoids: Tensor, candidates: Tensor) -> Tensor:
        """(c,) the score of `medoids` with each candidate added, from the images that the candidate takes over."""
        offered = self.d[:, candidates]
        if len(medoids):
            distance, cluster = self.d[:, medoids].min(1)
        else:
            distance, cluster = torch.full_like(self.d[:, 0], torch.inf), torch.zeros_like(self.y)
        taken = (offered < distance[:, None]).float()
        _, cell = torch.unique(cluster * self.classes + self.y, return_inverse=True)
        clusters = torch.cat([left_over(cluster, taken), taken.sum(0)[:, None]], dim=1)
        cells = torch.cat([left_over(cell, taken), taken.T @ self.in_class], dim=1)
        similarity = normalized_mutual_information(cells, clusters, self.in_class.sum(0))
        return -torch.minimum(offered, distance[:, None]).sum(0) + self.gamma * (1 - similarity)

    def true_medoids(self) -> Tensor:
        """(C,) the image of each class with the smallest sum of distances to its class."""
        same = self.y[:, None] == self.y
        sums = self.d.masked_fill(~same, 0).sum(0)
        return sums.masked_fill(self.in_class.T == 0, torch.inf).argmin(1) if self.classes else self.y

    def nmi_of(self, clusters: Tensor) -> Tensor:
        """0-d NMI of (B,) clusters with the classes."""
        cells = torch.unique(clusters * self.classes + self.y, return_counts=True)[1]
        sizes = torch.unique(clusters, return_counts=True)[1]
        return normalized_mutual_information(cells, sizes, self.in_class.sum(0))


def first_best(scores: Tensor) -> Tensor:
    """(1,) the first of the highest scores, rounding aside: two images alone in a cluster serve equally well."""
    best = scores.amax()
    return (scores >= best - 1e-6 * (1 + best.abs())).float().argmax()[None]


def left_over(group: Tensor, taken: Tensor) -> Tensor:
    """(c, groups) the sizes of the groups (B,) without what each candidate has taken, (B, c)."""
    members = F.one_hot(group).float()
    return members.sum(0) - taken.T @ members


def normalized_mutual_information(cells: Tensor, clusters: Tensor, classes: Tensor) -> Tensor:
    """NMI over the last dimension of the counts of (cluster, class) cells, clusters and classes; 1 for one and one."""
    joint, first, second = entropy(cells), entropy(clusters), entropy(classes)
    scale = (first + second) / 2
    return torch.where(scale < 1e-9, 1.0, (first + second - joint) / scale.clamp(min=1e-9))


def entropy(counts: Tensor) -> Tensor:
    """In nats, over the last dimension."""
    share = counts.double() / counts.sum(-1, keepdim=True).clamp(min=1)
    return torch.special.entr(share).sum(-1)
