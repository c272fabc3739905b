"""The nearest rows of a gallery, in the evaluator's order to the bit: ties stand in the order of positions.

All rows are compared in blocks, by whichever product is fastest. What may be among the nearest, within the rounding
of two such products, is compared once more as `evaluate_retrieval` does it, and that decides.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from reid_kit.evaluation.distances import FeatureDistances, blocks, exact_products
from reid_kit.evaluation.features import FeatureRows
from reid_kit.evaluation.neighbours import below

QUERIES = 256  # of a block
ROWS = 4096  # of the gallery come first
PART_PAIRS, PART_ROWS = 2**20, 2**17  # that one core compares at once, at most
PAIRS = 2**23  # that are compared before the limit is drawn closer
EPSILON = 2.0**-23


def nearest_rows(distances: FeatureDistances, count: int, allowed: np.ndarray | None = None) -> np.ndarray:
    """(Q, count) positions of the nearest gallery rows, -1 where there are fewer.

    Memory beside the features stays below 256 MB.

    Args:
        allowed: (G,) bool, the rows to look among; None is all.
    """
    small = distances.queries * distances.gallery <= PART_ROWS
    with exact_products(distances.device, 1 if small else None) as threads:  # starting several would take longer
        parts = [
            _nearest_of_block(distances, first, last, count, allowed, threads)
            for first, last in blocks(slice(0, distances.queries), QUERIES)
        ]
    return np.concatenate(parts)


def nearest_among(distances: FeatureDistances, rows: np.ndarray, count: int) -> np.ndarray:
    """(Q, count) positions of the nearest of each query's own (Q, n) rows, -1 where there are fewer; -1 is no row.

    In the order of their float32 distances, which may differ from the evaluator's by rounding.
    """
    gallery, found = distances.gallery_rows, np.full((len(rows), count), -1)

    def rank(place: int) -> None:
        row = np.sort(rows[place][rows[place] >= 0])
        with torch.inference_mode():
            order = _order(gallery.block(row) @ distances.query.block(slice(place, place + 1)).T, gallery, row)
        near = order[:, 0].cpu().numpy().argsort(kind="stable")[:count]
        found[place, : len(near)] = row[near]

    with exact_products(distances.device, 1 if len(rows) == 1 else None) as threads:
        list(threads.map(rank, range(len(rows))))
    return found


def _nearest_of_block(
    distances: FeatureDistances,
    first: int,
    last: int,
    count: int,
    allowed: np.ndarray | None,
    threads: ThreadPoolExecutor,
) -> np.ndarray:
    rows, gallery = distances.query.block(slice(first, last)), distances.gallery_rows
    norms = gallery.squared_norms
    # two float32 products of D terms differ by at most 2 D units of rounding of |q| |g|
    length = 1.0 if gallery.cosine else float(norms.max().sqrt())
    slack = EPSILON * ((2 * gallery.width + 8) * rows.norm(dim=1) * length + 4 * length**2)
    limit = torch.full_like(slack, torch.finfo(torch.float32).max)  # of the k-th nearest so far
    most = limit.clone()

    @torch.inference_mode()
    def candidates(part: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Query, row and order value of what may be among the nearest in a part of the gallery."""
        start, stop = part
        block = gallery.block(slice(start, stop))
        order = torch.mv(block, rows[0])[:, None] if len(rows) == 1 else block @ rows.T
        _order(order, gallery, slice(start, stop))
        if allowed is not None and not allowed[start:stop].all():
            order[torch.from_numpy(~allowed[start:stop]).to(order.device)] = torch.inf
        bound = limit
        if stop - start > count and bool((limit == most).any()):
            bound = torch.minimum(limit, order.kthvalue(count, dim=0).values + slack)
        row, query = below(order, torch.minimum(bound + slack, most)[None])
        return query.cpu().numpy(), row.cpu().numpy() + start, order[row, query].cpu().numpy()

    nothing = np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32)
    found = nothing  # query, row and the evaluator's order value of the nearest so far
    for wave in _waves(len(norms), len(rows)):
        if allowed is not None:
            wave = [(start, stop) for start, stop in wave if allowed[start:stop].any()]
        near = [np.concatenate(parts) for parts in zip(nothing, *threads.map(candidates, wave))]
        query, row = _within(*near, count, 2 * slack.cpu().numpy())
        value = nothing[2]
        if len(query):
            value = distances.order_of_pairs(first, last, query, row, threads).cpu().numpy()
        found = _nearest(*(np.concatenate(pair) for pair in zip(found, (query, row, value))), count)
        full = np.flatnonzero(np.bincount(found[0], minlength=len(rows)) == count)
        if len(full):
            ends = np.searchsorted(found[0], full, side="right") - 1
            limit[torch.from_numpy(full)] = torch.from_numpy(found[2][ends]).to(limit)
    return _filled(*found[:2], len(rows), count)


def _order(products: Tensor, gallery: FeatureRows, rows: slice | np.ndarray) -> Tensor:
    """Order values, as `FeatureDistances` defines them, in place of the (n, Q) products of gallery rows and queries."""
    norms = gallery.squared_norms[rows][:, None]
    return products.mul_(-norms.rsqrt()) if gallery.cosine else products.mul_(-2).add_(norms)


def _waves(gallery: int, queries: int) -> Iterator[list[tuple[int, int]]]:
    """Parts of the gallery: the first alone, which gives a limit, then as many as PAIRS allows."""
    yield [(0, min(ROWS, gallery))]
    size = max(PAIRS // queries // ROWS, 1) * ROWS
    part = max(min(PART_PAIRS // queries, PART_ROWS) // ROWS, 1) * ROWS
    for start, stop in blocks(slice(ROWS, gallery), size):
        yield list(blocks(slice(start, stop), part))


def _within(
    query: np.ndarray, row: np.ndarray, value: np.ndarray, count: int, slack: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The pairs whose value is at most the `count`-th least of their query's and `slack` (Q,) of it."""
    if not len(query):
        return query, row
    order = np.lexsort((value, query))
    query, row, value = query[order], row[order], value[order]
    last = np.searchsorted(query, query) + count - 1  # where the count-th of each one's query would stand
    there = np.minimum(last, len(query) - 1)
    full = (last < len(query)) & (query[there] == query)
    kept = ~full | (value <= value[there] + slack[query])
    return query[kept], row[kept]


def _nearest(query: np.ndarray, row: np.ndarray, value: np.ndarray, count: int) -> tuple[np.ndarray, ...]:
    """The `count` pairs of each query of least value, then of least row, in that order."""
    order = np.lexsort((row, value, query))
    order = order[_places(query[order]) < count]
    return query[order], row[order], value[order]


def _filled(query: np.ndarray, row: np.ndarray, queries: int, count: int) -> np.ndarray:
    """(queries, count) rows in their order, -1 where a query has fewer."""
    nearest = np.full((queries, count), -1)
    nearest[query, _places(query)] = row
    return nearest


def _places(query: np.ndarray) -> np.ndarray:
    """The place of each among those of its query, which stand together."""
    return np.arange(len(query)) - np.searchsorted(query, query)
