"""The head of the ranking of chosen queries."""

from typing import NamedTuple

import numpy as np
import torch

from reid_kit.evaluation.distances import Distances, exact_products
from reid_kit.evaluation.features import Array
from reid_kit.evaluation.ranks import same_identity_pairs


class RankedList(NamedTuple):
    """gallery (k,) positions, nearest first; correct (k,) bool; distance (k,)."""

    gallery: np.ndarray
    correct: np.ndarray
    distance: np.ndarray


def ranked_lists(
    distances: Distances,
    chosen: np.ndarray,
    query_ids: Array,
    gallery_ids: Array,
    query_cameras: Array | None = None,
    gallery_cameras: Array | None = None,
    *,
    length: int = 10,
    same_set: bool = False,
    junk_id: int = -1,
) -> list[RankedList]:
    """The `length` nearest gallery entries of chosen queries, without those that the protocol ignores.

    Where distances tie, matches come last, as they are counted.

    Args:
        distances: of the chosen queries and the gallery: those that were measured.
        chosen: (n,) the positions of the queries among all.
        query_ids, gallery_ids, query_cameras, gallery_cameras: of all.
        same_set: queries are gallery entries themselves, at the same positions.
    """
    query_ids, gallery_ids = np.asarray(query_ids)[chosen], np.asarray(gallery_ids)
    cameras = (None, None)
    if query_cameras is not None:
        cameras = np.asarray(query_cameras)[chosen], np.asarray(gallery_cameras)
    pairs = same_identity_pairs(query_ids, gallery_ids, *cameras, same_set=False)
    with exact_products() as threads:
        order = distances.order(0, len(chosen), slice(0, len(gallery_ids)), threads)
        order[pairs.query[~pairs.is_match], pairs.gallery[~pairs.is_match]] = torch.inf
        order[:, np.flatnonzero(gallery_ids == junk_id)] = torch.inf
        if same_set:
            order[torch.arange(len(chosen)), torch.as_tensor(chosen)] = torch.inf
        found = distances.of_order(order, torch.arange(len(chosen))[:, None]).cpu().numpy()
    lists = []
    for query_id, row, values in zip(query_ids, order.cpu().numpy(), found):
        ranked = np.lexsort((gallery_ids == query_id, row))[:length]
        ranked = ranked[np.isfinite(row[ranked])]
        lists.append(RankedList(ranked, gallery_ids[ranked] == query_id, values[ranked]))
    return lists


def worst(average_precision: np.ndarray, count: int) -> np.ndarray:
    """Positions of the `count` counted queries of least average precision."""
    return ordered(average_precision)[:count]


def worst_and_median(average_precision: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the `count` counted queries of least average precision, and of `count` others around the median."""
    order = ordered(average_precision)
    middle = max(len(order) // 2 - count // 2, count)
    return order[:count], order[middle : middle + count]


def ordered(average_precision: np.ndarray) -> np.ndarray:
    """Positions of the counted queries by average precision; equal ones shuffled, as neighbours are alike."""
    shuffled = np.random.default_rng(0).permutation(len(average_precision))
    order = shuffled[np.argsort(average_precision[shuffled], kind="stable")]
    return order[: np.count_nonzero(~np.isnan(average_precision))]
