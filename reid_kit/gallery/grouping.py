"""Proposed identities of images without labels: clusters by the distance of their k-reciprocal neighbourhoods."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse
from sklearn.cluster import DBSCAN
from sklearn.metrics.cluster import contingency_matrix, pair_confusion_matrix

from reid_kit.errors import InputError
from reid_kit.evaluation.distances import exact_products
from reid_kit.evaluation.features import Array, FeatureRows
from reid_kit.evaluation.neighbours import Neighbours
from reid_kit.evaluation.rerank import encode, sparse_rows

UNGROUPED = -1


def group_vectors(vectors: Array, distance: float = 0.5, least: int = 2, k1: int = 10, k2: int = 3) -> np.ndarray:
    """(N,) a number for each group, from 0 by falling size, and UNGROUPED; how many there are is found, not given.

    DBSCAN on the Jaccard distance of k-reciprocal encodings (Zhong et al. 2017), as unsupervised re-identification does
    it (Song et al. 2020). Distances are sparse, O(N k1) in memory; pairs that share no neighbour are at 1.

    Args:
        vectors: (N, D) L2-normalised.
        distance: images nearer than this belong together, 0 to 1: less gives more, purer groups.
        least: images of a group.
        k1, k2: see `k_reciprocal_distance`; with a k1 of many more than the images of an identity strangers get into
            its groups. For fewer images than k1 + 1 they are less.

    Raises:
        InputError: fewer than three images; a distance, size or number of neighbours out of range.
    """
    rows = FeatureRows(vectors, "gallery", torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    if len(rows) < 3:
        raise InputError(f"{len(rows)} images are too few to group")
    if not 0 < distance < 1 or least < 2:
        raise InputError(f"distance must lie between 0 and 1 and least be at least 2, got {distance:g} and {least}")
    if not 1 <= k2 <= k1:
        raise InputError(f"the number of neighbours k1 must be at least 1, and k2 lie in 1 .. k1; got {k1} and {k2}")
    near = jaccard_neighbours(rows, distance, min(k1, len(rows) - 1), min(k2, len(rows) - 1))
    labels = DBSCAN(eps=distance, min_samples=least, metric="precomputed").fit_predict(near)
    return by_size(labels)


def jaccard_neighbours(rows: FeatureRows, distance: float, k1: int, k2: int) -> sparse.csr_matrix:
    """(N, N) Jaccard distances of k-reciprocal encodings, of pairs at `distance` or nearer, a row's own 0 too."""
    with exact_products() as threads:
        block = rows.block(slice(None))
        found = Neighbours(block, rows.squared_norms, k1 + 1, block.new_empty(0, len(block)), threads)
        positions = found.positions.cpu().numpy()
        V = encode(found, positions, k1, threads)
        V = sparse_rows(positions[:, :k2], np.full((len(block), k2), 1 / k2)) @ V
    columns = V.tocsc()
    near, values = [], []
    for row in range(len(rows)):
        part = slice(V.indptr[row], V.indptr[row + 1])
        shared = columns[:, V.indices[part]]
        minima = np.minimum(shared.data, np.repeat(V.data[part], np.diff(shared.indptr)))
        common = np.bincount(shared.indices, minima, minlength=len(rows))  # each row sums to 1
        jaccard = 1 - common / (2 - common)
        jaccard[row] = 0
        near.append(np.flatnonzero(jaccard <= distance))
        values.append(np.maximum(jaccard[near[-1]], 0))
    ends = np.cumsum([0, *map(len, near)])
    return sparse.csr_matrix((np.concatenate(values), np.concatenate(near), ends), (len(rows), len(rows)))


def by_size(labels: np.ndarray) -> np.ndarray:
    """The same groups, numbered from 0 on by falling size."""
    grouped = labels != UNGROUPED
    sizes = np.bincount(labels[grouped])
    place = np.empty(len(sizes), int)
    place[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    return np.where(grouped, place[labels] if len(sizes) else UNGROUPED, UNGROUPED)


class Agreement(NamedTuple):
    """Precision and recall of groups against identities, over pairs and over images (BCubed; Bagga, Baldwin 1998)."""

    pair_precision: float
    pair_recall: float
    bcubed_precision: float
    bcubed_recall: float


def agreement(groups: np.ndarray, identities: Sequence[str]) -> Agreement:
    """How well groups are identities; an ungrouped image is a group of its own. A share of no pairs is 1."""
    alone = groups == UNGROUPED
    groups = np.where(alone, groups.max(initial=0) + 1 + np.arange(len(groups)), groups)
    (_, wrong), (missed, right) = pair_confusion_matrix(identities, groups).tolist()
    table = contingency_matrix(identities, groups, sparse=True).tocoo()  # identities in rows
    squares = table.data.astype(float) ** 2
    of_identity, of_group = (
        np.asarray(table.sum(axis)).ravel()[ends] for axis, ends in ((1, table.row), (0, table.col))
    )
    return Agreement(
        right / (right + wrong) if right + wrong else 1.0,
        right / (right + missed) if right + missed else 1.0,
        float((squares / of_group).sum() / len(groups)),
        float((squares / of_identity).sum() / len(groups)),
    )
