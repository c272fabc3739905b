"""The ranks of the matches, by counting: no gallery is sorted, and no Q x G matrix is held.

A block of queries is compared with the whole gallery, a block of it at a time. What shares a query's identity is taken
out by index; a match's rank is one more than the matches before it and the others that are as near or nearer.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reid_kit.distributed import rank, sum_over_processes, world_size
from reid_kit.evaluation.features import FeatureRows

ROWS_MEMORY = 128 * 2**20  # bytes of distances held at once
MOST_QUERIES = 512  # of a block
GALLERY_BLOCK = 4096  # columns of one matrix product
LONG_ROW = 50_000  # columns from which on counting is worth several threads
TILE = 64  # rows and columns of a product come in whole tiles: at a ragged edge equal rows can differ in the last bit


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


DistanceRows = Callable[[int, int, slice], Tensor]  # queries first .. last - 1 and a share of the gallery -> (q, share)


def match_ranks(
    distance_rows: DistanceRows, sizes: tuple[int, int], pairs: Pairs, junk: np.ndarray
) -> list[np.ndarray]:
    """The ranks of each query's matches, counted from 1, ascending. Ties count against the query.

    Args:
        distance_rows: gives a block of distances, which may be written to. sizes: Q and G.
        junk: (n,) gallery positions that no ranking holds.

    With several processes each compares the queries with its share of the gallery; the counts add up.
    """
    ranks: list[np.ndarray] = []
    queries, gallery = sizes
    size = max(TILE, min(MOST_QUERIES, ROWS_MEMORY // (4 * gallery)) // TILE * TILE)
    share = process_share(gallery)
    with exact_products(), ThreadPoolExecutor(torch.get_num_threads()) as threads:
        for first in range(0, queries, size):
            last = min(first + size, queries)
            ranks += block_ranks(distance_rows(first, last, share), share, pairs.within(first, last), junk, threads)
    return ranks


def block_ranks(
    distances: Tensor, share: slice, pairs: Pairs, junk: np.ndarray, threads: ThreadPoolExecutor
) -> list[np.ndarray]:
    """The ranks of the matches of each query of (q, share) distances."""
    mine = (pairs.gallery >= share.start) & (pairs.gallery < share.stop)
    row, column = (torch.from_numpy(a[mine]).to(distances.device) for a in (pairs.query, pairs.gallery - share.start))
    values = torch.zeros(len(pairs.query), device=distances.device)
    values[torch.from_numpy(mine).to(distances.device)] = distances[row, column]
    values = sum_over_processes(values).cpu().numpy()
    distances[row, column] = torch.inf
    junk = junk[(junk >= share.start) & (junk < share.stop)] - share.start
    distances.index_fill_(1, torch.from_numpy(junk).to(distances.device), torch.inf)

    owner, values = pairs.query[pairs.is_match], values[pairs.is_match]
    values = values[np.lexsort((values, owner))]  # ascending within each query
    matches = np.split(values, np.searchsorted(owner, np.arange(1, len(distances))))
    if distances.device.type == "cpu":
        spread = threads.map if distances.shape[1] > LONG_ROW else map
        counts = list(spread(count_ahead, distances.numpy(), matches))
    else:
        counts = count_ahead_on_device(distances, matches)
    flat = torch.from_numpy(np.concatenate(counts)).to(distances.device)
    flat = sum_over_processes(flat).cpu().numpy()
    counts = np.split(flat, np.cumsum([len(m) for m in matches])[:-1])
    return [ahead + np.arange(1, len(ahead) + 1) for ahead in counts]


def process_share(count: int) -> slice:
    """This process's part of the gallery: whole blocks, so that every product is one that a single process does."""
    blocks = -(-count // GALLERY_BLOCK)
    first, last = (blocks * part // world_size() for part in (rank(), rank() + 1))
    return slice(min(first * GALLERY_BLOCK, count), min(last * GALLERY_BLOCK, count))


def order_distances(rows: Tensor, gallery: FeatureRows, share: slice) -> Tensor:
    """(q, share) float32 values that order the gallery by distance from each row of queries.

    Euclidean distances are ordered by |g|^2 - 2 q.g, cosine ones by -q.g. Products are of whole tiles, so that equal
    rows tie to the bit wherever they stand.
    """
    queries, rows = len(rows), whole_tiles(rows)
    found = rows.new_empty(len(rows), -(-(share.stop - share.start) // TILE) * TILE)
    for start, stop in blocks(share, GALLERY_BLOCK):
        block = whole_tiles(gallery.block(start, stop))
        out = found[:, start - share.start :][:, : len(block)]
        if gallery.cosine:
            torch.matmul(rows, block.T, out=out).neg_()
        else:
            torch.addmm(block.square().sum(1), rows, block.T, alpha=-2, out=out)
    return found[:queries, : share.stop - share.start]


def whole_tiles(rows: Tensor) -> Tensor:
    """(n, D) with rows of zeros up to a multiple of TILE."""
    return torch.nn.functional.pad(rows, (0, 0, 0, -len(rows) % TILE))


def blocks(part: slice, size: int) -> Iterator[tuple[int, int]]:
    for start in range(part.start, part.stop, size):
        yield start, min(start + size, part.stop)


def count_ahead(distances: np.ndarray, matches: np.ndarray) -> np.ndarray:
    """How many of `distances` (G,) are at most each of the ascending `matches` (k,)."""
    counts = np.zeros(len(matches), np.int64)
    for index in range(len(matches) - 1, -1, -1):
        ahead = distances <= matches[index]
        counts[index] = np.count_nonzero(ahead)
        if not counts[index]:
            break
        if index > 8 and counts[index] < len(distances) // 8:  # copying costs as much as eight comparisons
            distances = distances[ahead]  # what lies behind a match lies behind all nearer ones
    return counts


def count_ahead_on_device(distances: Tensor, matches: list[np.ndarray]) -> list[np.ndarray]:
    """`count_ahead` for each row of (q, G): a search in the row's matches, and a count of what fell where."""
    most = max(len(m) for m in matches)
    padded = np.full((len(matches), most), np.inf, np.float32)
    for line, values in zip(padded, matches):
        line[: len(values)] = values
    boundaries = torch.from_numpy(padded).to(distances.device)
    offsets = torch.arange(len(matches), device=distances.device, dtype=torch.int32)[:, None] * (most + 1)
    counts = torch.zeros(len(matches) * (most + 1), dtype=torch.int64, device=distances.device)
    for start, stop in blocks(slice(0, distances.shape[1]), GALLERY_BLOCK):
        places = torch.searchsorted(boundaries, distances[:, start:stop].contiguous(), out_int32=True) + offsets
        counts += torch.bincount(places.flatten(), minlength=len(counts))
    ahead = counts.view(len(matches), most + 1).cumsum(1).cpu().numpy()
    return [line[: len(values)] for line, values in zip(ahead, matches)]


@contextmanager
def exact_products():
    """Matrix products in full float32, whatever the process has chosen for training."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_float32_matmul_precision(before)
