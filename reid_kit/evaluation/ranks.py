"""The ranks of the matches, by counting what stands before each; no Q x G matrix is held.

A block of queries is compared with the whole gallery, or with a piece of it at a time where that is too large. What
shares a query's identity is taken out by index; a match's rank is one more than the matches before it and the others
that are as near or nearer.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reid_kit.distributed import sum_over_processes
from reid_kit.evaluation.distances import GALLERY_BLOCK, TILE, Distances, blocks, exact_products, process_share
from reid_kit.evaluation.features import to_device
from reid_kit.evaluation.verification import HistogramCounter

ROWS_MEMORY = 128 * 2**20  # bytes of distances held at once
MOST_QUERIES = 512  # of a block
LEAST_QUERIES = 256  # of a block that is compared with the whole gallery at once: fewer make the product slow
PAIRS_HELD = 2**20  # same-identity pairs of a block, at most: where an identity has very many images
COMPARED = 2**25  # comparisons of a distance with a match that a GPU holds at once
MOST_COMPARED = 256  # matches of a query; with more of them a GPU sorts, too


@dataclass(frozen=True)
class Pairs:
    """The same-identity pairs of each query with the gallery, in the order of queries.

    query, gallery (n,): positions. is_match (n,) bool: False where the protocol ignores the pair.
    """

    query: np.ndarray
    gallery: np.ndarray
    is_match: np.ndarray

    def within(self, first: int, last: int) -> "Pairs":
        """Those of queries first .. last - 1, counted from `first`."""
        part = slice(*np.searchsorted(self.query, (first, last)))
        return Pairs(self.query[part] - first, self.gallery[part], self.is_match[part])


def same_identity_pairs(
    query_ids: np.ndarray,
    gallery_ids: np.ndarray,
    query_cameras: np.ndarray | None,
    gallery_cameras: np.ndarray | None,
    same_set: bool,
) -> Pairs:
    """All pairs of equal identity; ignored are those of one camera, and with `same_set` a query with itself."""
    order = np.argsort(gallery_ids, kind="stable")
    ordered = gallery_ids[order]
    begin, end = np.searchsorted(ordered, query_ids, "left"), np.searchsorted(ordered, query_ids, "right")
    count = end - begin
    query = np.repeat(np.arange(len(query_ids)), count)
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    gallery = order[np.repeat(begin, count) + within]
    is_match = np.ones(len(query), bool)
    if query_cameras is not None:
        is_match &= query_cameras[query] != gallery_cameras[gallery]
    if same_set:
        is_match &= query != gallery
    return Pairs(query, gallery, is_match)


@dataclass(frozen=True)
class MatchRanks:
    """Where the matches of the queries stand.

    query (n,): whose match it is, ascending. found (n,): the how-manieth of that query. rank (n,): counted from 1.
    """

    query: np.ndarray
    found: np.ndarray
    rank: np.ndarray


def match_ranks(
    distances: Distances,
    pairs: Pairs,
    junk: np.ndarray,
    histogram: HistogramCounter | None = None,
    junk_queries: np.ndarray | None = None,
) -> MatchRanks:
    """The ranks of each query's matches. Ties count against the query.

    Args:
        junk: (n,) gallery positions that no ranking holds.
        histogram: is told of every distance between a query and a match, and a query and another identity.
        junk_queries: (n,) positions of queries without pairs, of whose distances the histogram is told nothing.

    With several processes each compares the queries with its share of the gallery; the counts add up.
    """
    share = process_share(distances.gallery)
    whole = distances.gallery * LEAST_QUERIES * 4 <= ROWS_MEMORY
    width = distances.gallery if whole else max(ROWS_MEMORY // (4 * MOST_QUERIES) // TILE, 1) * TILE
    crowd = max(int(np.bincount(pairs.query, minlength=1).max()), 1)
    size = max(min(MOST_QUERIES, ROWS_MEMORY // (4 * width)) // TILE, 1) * TILE
    size = min(size, max(PAIRS_HELD // crowd, 1))
    owners, places, counts = [], [], []
    with exact_products(distances.device) as threads:
        for first, last in blocks(slice(0, distances.queries), size):
            part = pairs.within(first, last)
            order = distances.order(first, last, share, threads) if whole else None
            values = values_of(part, share, order, distances, first, last, threads)
            owner, matches = part.query[part.is_match], to_device(np.flatnonzero(part.is_match), distances.device)
            starts = np.searchsorted(owner, np.arange(last - first + 1))
            place = np.arange(len(owner)) - starts[owner]
            row, column = (to_device(at, distances.device) for at in (owner, place))
            nearest = values.new_full((last - first, int(np.diff(starts).max())), torch.inf)
            nearest[row, column] = values[matches]
            nearest = nearest.sort(1).values  # each query's matches, ascending
            if histogram is not None:
                histogram.add_positives(distances, first + owner, nearest[row, column])
            ahead = torch.zeros_like(nearest, dtype=torch.int64)
            for start, stop in [(share.start, share.stop)] if whole else blocks(share, width):
                order = order if whole else distances.order(first, last, slice(start, stop), threads)
                take_out(order, part, junk, start, stop)
                if histogram is not None:
                    if junk_queries is not None and len(junk_queries):
                        rows = junk_queries[(junk_queries >= first) & (junk_queries < last)] - first
                        order.index_fill_(0, torch.from_numpy(rows).to(order.device), torch.inf)
                    histogram.add_negatives(distances, first, order)
                if order.device.type == "cpu":
                    ahead += others_ahead(order, nearest, threads)
                else:
                    ahead += others_ahead_on_device(order, nearest)
                order = None  # before the next is made
            owners.append(first + owner)
            places.append(place)
            counts.append(ahead[row, column])
    owner, place = np.concatenate(owners), np.concatenate(places)
    ahead = sum_over_processes(torch.cat(counts)).cpu().numpy()  # the one time that the device is waited for
    return MatchRanks(owner, 1 + place, 1 + place + ahead)


def values_of(
    pairs: Pairs,
    share: slice,
    order: Tensor | None,
    distances: Distances,
    first: int,
    last: int,
    threads: ThreadPoolExecutor,
) -> Tensor:
    """(n,) the values of the pairs: from (q, share) `order`, or where it is None from products of their own."""
    mine = np.flatnonzero((pairs.gallery >= share.start) & (pairs.gallery < share.stop))
    row, column = pairs.query[mine], pairs.gallery[mine]
    if order is None:
        found = distances.order_of_pairs(first, last, row, column, threads)
    else:
        found = picked(order, row, column - share.start)
    values = torch.zeros(len(pairs.query), device=distances.device)
    values[to_device(mine, distances.device)] = found
    return sum_over_processes(values)


def picked(table: Tensor, row: np.ndarray, column: np.ndarray) -> Tensor:
    """(n,) the values at the positions; on a CPU by numpy, which takes a tenth of torch's time for a few thousand."""
    if table.device.type == "cpu":
        return torch.from_numpy(table.numpy()[row, column])
    return table[to_device(row, table.device), to_device(column, table.device)]


def take_out(order: Tensor, pairs: Pairs, junk: np.ndarray, start: int, stop: int) -> None:
    """Makes the pairs and junk infinite in (q, stop - start) `order` of that part of the gallery."""
    here = (pairs.gallery >= start) & (pairs.gallery < stop)
    row, column = pairs.query[here], pairs.gallery[here] - start
    junk = junk[(junk >= start) & (junk < stop)] - start
    if order.device.type == "cpu":
        table = order.numpy()
        table[row, column] = np.inf
        table[:, junk] = np.inf
    else:
        row, column, junk = (to_device(positions, order.device) for positions in (row, column, junk))
        order.index_put_((row, column), order.new_full((), torch.inf))
        order.index_fill_(1, junk, torch.inf)


def others_ahead(order: Tensor, nearest: Tensor, threads: ThreadPoolExecutor) -> Tensor:
    """(q, m) how many of each row of (q, G) `order` are at most each of (q, m) `nearest`, which ascend.

    Sorts the rows in place: numpy's vectorised sort of values takes a tenth of a search of each value among the
    matches, and less than two comparisons with each match.
    """
    rows = order.numpy()
    list(threads.map(lambda part: part.sort(axis=1), np.array_split(rows, torch.get_num_threads())))
    found = np.empty(nearest.shape, np.int64)
    for place, (row, values) in enumerate(zip(rows, nearest.numpy())):
        found[place] = row.searchsorted(values, side="right")
    return torch.from_numpy(found)


def others_ahead_on_device(order: Tensor, nearest: Tensor) -> Tensor:
    """`others_ahead` by a comparison with each match, without a wait; by sorted pieces where the matches are many."""
    ahead, many = torch.zeros_like(nearest, dtype=torch.int64), nearest.shape[1] > MOST_COMPARED
    size = GALLERY_BLOCK if many else max(COMPARED // max(nearest.numel(), 1), 1)
    for start, stop in blocks(slice(0, order.shape[1] if nearest.numel() else 0), size):
        piece = order[:, start:stop]
        if many:
            ahead += torch.searchsorted(piece.sort(1).values, nearest, right=True)
        else:
            ahead += (piece[:, None] <= nearest[:, :, None]).sum(2)
    return ahead
