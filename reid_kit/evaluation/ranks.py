"""The ranks of the matches, by counting what stands before each; no Q x G matrix is held.

A block of queries is compared with the whole gallery, a block of it at a time. What shares a query's identity is taken
out by index; a match's rank is one more than the matches before it and the others that are as near or nearer.
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


def match_ranks(
    distances: Distances, pairs: Pairs, junk: np.ndarray, histogram: HistogramCounter | None = None
) -> list[np.ndarray]:
    """The ranks of each query's matches, counted from 1, ascending. Ties count against the query.

    Args:
        junk: (n,) gallery positions that no ranking holds.
        histogram: is told of every distance between a query and a match, and a query and another identity.

    With several processes each compares the queries with its share of the gallery; the counts add up.
    """
    ranks: list[np.ndarray] = []
    size = max(TILE, min(MOST_QUERIES, ROWS_MEMORY // (4 * distances.gallery)) // TILE * TILE)
    share = process_share(distances.gallery)
    junk = junk[(junk >= share.start) & (junk < share.stop)] - share.start
    with exact_products(), ThreadPoolExecutor(torch.get_num_threads()) as threads:
        for first, last in blocks(slice(0, distances.queries), size):
            order, part = distances.order(first, last, share), pairs.within(first, last)
            values = take_out(order, part, junk, share)
            owner, values = part.query[part.is_match], values[part.is_match]
            if histogram is not None:
                histogram.add(distances, first, order, owner, values)
            values = values[np.lexsort((values, owner))]  # ascending within each query
            matches = np.split(values, np.searchsorted(owner, np.arange(1, last - first)))
            ranks += ranks_among(order, matches, threads)
            del order  # before the next block is made
    return ranks


def take_out(order: Tensor, pairs: Pairs, junk: np.ndarray, share: slice) -> np.ndarray:
    """(n,) the values of the pairs in (q, share) `order`, wherever they are; there they and junk become infinite."""
    mine = (pairs.gallery >= share.start) & (pairs.gallery < share.stop)
    values = np.zeros(len(pairs.query), np.float32)
    row, column = pairs.query[mine], pairs.gallery[mine] - share.start
    if order.device.type == "cpu":  # numpy's indexing of a few thousand elements is a tenth of torch's
        table = order.numpy()
        values[mine] = table[row, column]
        table[row, column] = np.inf
        table[:, junk] = np.inf
    else:
        row, column, junk = (torch.from_numpy(positions).to(order.device) for positions in (row, column, junk))
        values[mine] = order[row, column].cpu().numpy()
        order[row, column] = torch.inf
        order.index_fill_(1, junk, torch.inf)
    return sum_over_processes(torch.from_numpy(values).to(order.device)).cpu().numpy()


def ranks_among(order: Tensor, matches: list[np.ndarray], threads: ThreadPoolExecutor) -> list[np.ndarray]:
    """The ranks of each row's ascending `matches` among themselves and the others, which are in (q, share) `order`."""
    if order.device.type == "cpu":
        ahead = others_ahead(order.numpy(), matches, threads)
    else:
        ahead = others_ahead_on_device(order, matches)
    flat = sum_over_processes(torch.from_numpy(np.concatenate(ahead)).to(order.device)).cpu().numpy()
    ahead = np.split(flat, np.cumsum([len(values) for values in matches])[:-1])
    return [others + np.arange(1, len(others) + 1) for others in ahead]


def others_ahead(order: np.ndarray, matches: list[np.ndarray], threads: ThreadPoolExecutor) -> list[np.ndarray]:
    """How many of each row of (q, G) `order` are at most each of the row's ascending `matches`.

    Sorts the rows in place: numpy's vectorised sort of values takes a tenth of a search of each value among the
    matches, and less than two comparisons with each match.
    """
    list(threads.map(lambda rows: rows.sort(axis=1), np.array_split(order, torch.get_num_threads())))
    return [np.searchsorted(row, values, side="right") for row, values in zip(order, matches)]


def others_ahead_on_device(order: Tensor, matches: list[np.ndarray]) -> list[np.ndarray]:
    """`others_ahead` by a search in the row's matches and a count of what fell where."""
    most = max(len(values) for values in matches)
    padded = np.full((len(matches), most), np.inf, np.float32)
    for line, values in zip(padded, matches):
        line[: len(values)] = values
    boundaries = torch.from_numpy(padded).to(order.device)
    offsets = torch.arange(len(matches), device=order.device, dtype=torch.int32)[:, None] * (most + 1)
    counts = torch.zeros(len(matches) * (most + 1), dtype=torch.int64, device=order.device)
    for start, stop in blocks(slice(0, order.shape[1]), GALLERY_BLOCK):
        places = torch.searchsorted(boundaries, order[:, start:stop].contiguous(), out_int32=True) + offsets
        counts += torch.bincount(places.flatten(), minlength=len(counts))
    ahead = counts.view(len(matches), most + 1).cumsum(1).cpu().numpy()
    return [line[: len(values)] for line, values in zip(ahead, matches)]
