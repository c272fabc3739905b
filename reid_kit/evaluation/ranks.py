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
from reid_kit.evaluation.verification import HistogramCounter

ROWS_MEMORY = 128 * 2**20  # bytes of distances held at once
MOST_QUERIES = 512  # of a block
LEAST_QUERIES = 256  # of a block that is compared with the whole gallery at once: fewer make the product slow


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
    parts = []
    share = process_share(distances.gallery)
    whole = distances.gallery * LEAST_QUERIES * 4 <= ROWS_MEMORY
    width = distances.gallery if whole else max(ROWS_MEMORY // (4 * MOST_QUERIES) // TILE, 1) * TILE
    size = max(min(MOST_QUERIES, ROWS_MEMORY // (4 * width)) // TILE, 1) * TILE
    with exact_products() as threads:
        for first, last in blocks(slice(0, distances.queries), size):
            part = pairs.within(first, last)
            order = distances.order(first, last, share, threads) if whole else None
            values = values_of(part, share, order, distances, first, last, threads)
            owner, values = part.query[part.is_match], values[part.is_match]
            values = values[np.lexsort((values, owner))]  # ascending within each query
            starts = np.searchsorted(owner, np.arange(last - first + 1))
            found = 1 + np.arange(len(owner)) - starts[owner]
            if histogram is not None:
                histogram.add_positives(distances, first + owner, values)
            ahead = np.zeros(len(owner), np.int64)
            for start, stop in [(share.start, share.stop)] if whole else blocks(share, width):
                order = order if whole else distances.order(first, last, slice(start, stop), threads)
                take_out(order, part, junk, start, stop)
                if histogram is not None:
                    if junk_queries is not None and len(junk_queries):
                        rows = junk_queries[(junk_queries >= first) & (junk_queries < last)] - first
                        order.index_fill_(0, torch.from_numpy(rows).to(order.device), torch.inf)
                    histogram.add_negatives(distances, first, order)
                if order.device.type == "cpu":
                    ahead += others_ahead(order.numpy(), starts, values, threads)
                else:
                    ahead += others_ahead_on_device(order, owner, found, values)
                order = None  # before the next is made
            ahead = sum_over_processes(torch.from_numpy(ahead).to(distances.device)).cpu().numpy()
            parts.append((first + owner, found, found + ahead))
    return MatchRanks(*map(np.concatenate, zip(*parts)))


def values_of(
    pairs: Pairs,
    share: slice,
    order: Tensor | None,
    distances: Distances,
    first: int,
    last: int,
    threads: ThreadPoolExecutor,
) -> np.ndarray:
    """(n,) the values of the pairs: from (q, share) `order`, or where it is None from products of their own."""
    mine = (pairs.gallery >= share.start) & (pairs.gallery < share.stop)
    values = np.zeros(len(pairs.query), np.float32)
    row, column = pairs.query[mine], pairs.gallery[mine]
    if order is None:
        values[mine] = distances.order_of_pairs(first, last, row, column, threads)
    elif order.device.type == "cpu":  # numpy's indexing of a few thousand elements takes a tenth of torch's
        values[mine] = order.numpy()[row, column - share.start]
    else:
        values[mine] = order[torch.from_numpy(row), torch.from_numpy(column - share.start)].cpu().numpy()
    return sum_over_processes(torch.from_numpy(values).to(distances.device)).cpu().numpy()


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
        row, column, junk = (torch.from_numpy(positions).to(order.device) for positions in (row, column, junk))
        order[row, column] = torch.inf
        order.index_fill_(1, junk, torch.inf)


def others_ahead(order: np.ndarray, starts: np.ndarray, values: np.ndarray, threads: ThreadPoolExecutor) -> np.ndarray:
    """(n,) how many of the row of (q, G) `order` are at most each of `values`; those of row i begin at starts[i].

    Sorts the rows in place: numpy's vectorised sort of values takes a tenth of a search of each value among the
    matches, and less than two comparisons with each match.
    """
    list(threads.map(lambda rows: rows.sort(axis=1), np.array_split(order, torch.get_num_threads())))
    ends = zip(order, starts, starts[1:])
    return np.concatenate([row.searchsorted(values[start:end], side="right") for row, start, end in ends])


def others_ahead_on_device(order: Tensor, owner: np.ndarray, found: np.ndarray, values: np.ndarray) -> np.ndarray:
    """`others_ahead` by a search in the row's matches and a count of what fell where.

    Args:
        owner, found: (n,) the row of each of the ascending `values`, and the how-manieth of it, from 1.
    """
    most = int(found.max(initial=0))
    padded = np.full((len(order), most), np.inf, np.float32)
    padded[owner, found - 1] = values
    boundaries = torch.from_numpy(padded).to(order.device)
    offsets = torch.arange(len(order), device=order.device, dtype=torch.int32)[:, None] * (most + 1)
    counts = torch.zeros(len(order) * (most + 1), dtype=torch.int64, device=order.device)
    for start, stop in blocks(slice(0, order.shape[1]), GALLERY_BLOCK):
        places = torch.searchsorted(boundaries, order[:, start:stop].contiguous(), out_int32=True) + offsets
        counts += torch.bincount(places.flatten(), minlength=len(counts))
    return counts.view(len(order), most + 1).cumsum(1).cpu().numpy()[owner, found - 1]
