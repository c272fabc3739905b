"""The head of the ranking of chosen queries."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from reid_kit.evaluation.distances import FeatureDistances, exact_products
from reid_kit.evaluation.features import Array, FeatureRows
from reid_kit.evaluation.ranks import same_identity_pairs


class RankedList(NamedTuple):
    """gallery (k,) positions, nearest first; correct (k,) bool."""

    gallery: np.ndarray
    correct: np.ndarray


def ranked_lists(
    query_features: Array,
    gallery_features: Array,
    query_ids: np.ndarray,
    gallery_ids: np.ndarray,
    query_cameras: np.ndarray | None = None,
    gallery_cameras: np.ndarray | None = None,
    *,
    length: int = 10,
    metric: str = "euclidean",
    same_set: Sequence[int] | None = None,
    junk_id: int = -1,
) -> list[RankedList]:
    """The `length` nearest gallery entries of each query, without those that the protocol ignores.

    Args:
        same_set: for queries that are gallery entries themselves, their positions there.
    """
    query = FeatureRows(query_features, "query", torch.device("cpu"), metric == "cosine")
    gallery = FeatureRows(gallery_features, "gallery", torch.device("cpu"), metric == "cosine")
    pairs = same_identity_pairs(query_ids, gallery_ids, query_cameras, gallery_cameras, same_set=False)
    with exact_products() as threads:
        distances = FeatureDistances(query, gallery).order(0, len(query), slice(0, len(gallery)), threads)
    distances = distances.clone()  # an inference tensor takes no changes
    distances[pairs.query[~pairs.is_match], pairs.gallery[~pairs.is_match]] = torch.inf
    distances[:, np.flatnonzero(gallery_ids == junk_id)] = torch.inf
    if same_set is not None:
        distances[torch.arange(len(query)), torch.as_tensor(same_set)] = torch.inf
    values, nearest = distances.topk(min(length, len(gallery)), largest=False)
    lists = []
    for query_id, row, ranked in zip(query_ids, values.numpy(), nearest.numpy()):
        ranked = ranked[np.isfinite(row)]
        lists.append(RankedList(ranked, gallery_ids[ranked] == query_id))
    return lists


def worst(average_precision: np.ndarray, count: int) -> np.ndarray:
    """Positions of the `count` counted queries of least average precision."""
    return np.argsort(average_precision, kind="stable")[: min(count, np.count_nonzero(~np.isnan(average_precision)))]


def worst_and_median(average_precision: np.ndarray, count: int) -> np.ndarray:
    """Positions of the `count` counted queries of least average precision, and of `count` around the median."""
    order = worst(average_precision, len(average_precision))
    middle = max(len(order) // 2 - count // 2, 0)
    return np.array(list(dict.fromkeys([*order[:count], *order[middle : middle + count]])))
