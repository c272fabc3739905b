"""Blocks of distances between queries and the gallery, of features or given."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from reid_kit.distributed import rank, world_size
from reid_kit.errors import InputError, NonFiniteError
from reid_kit.evaluation.features import Array, FeatureRows, as_tensor, to_device
from reid_kit.precision import float32_products

GALLERY_BLOCK = 4096  # gallery entries whose features are converted at once; processes share the gallery in these
CORE_BLOCK = 1024  # gallery entries that one core of a CPU compares at once, at most
TILE = 64  # rows and columns of a product come in whole tiles: at a ragged edge equal rows can differ in the last bit
CPU = torch.device("cpu")
CHECKED = 2**22  # given distances that are checked at once


class Distances(Protocol):
    """What ranks a gallery for each query. name: for the protocol line. largest: no distance is above it."""

    name: str
    queries: int
    gallery: int
    device: torch.device

    @property
    def largest(self) -> float: ...

    def order(self, first: int, last: int, share: slice, threads: ThreadPoolExecutor) -> Tensor:
        """(last - first, share) float32 values that ascend with the distance; the caller may write to them.

        Args:
            threads: those of `exact_products`.
        """
        ...

    def order_of_pairs(
        self, first: int, last: int, query: np.ndarray, gallery: np.ndarray, threads: ThreadPoolExecutor
    ) -> Tensor:
        """(n,) what `order` holds for pairs of queries, counted from `first`, and gallery entries; on the device."""
        ...

    def of_order(self, order: Tensor, query: Tensor) -> Tensor:
        """The distances that `order` values stand for; `query`, of a shape that broadcasts: whose they are."""
        ...


class FeatureDistances:
    """Euclidean or cosine distances of features.

    Euclidean ones are ordered by |g|^2 - 2 q.g, cosine ones by -q.g / |g|: what a query adds to all its distances,
    or multiplies them by, changes no order. Products are of whole tiles, so that equal rows tie to the bit; on a
    GPU, which chooses how to add up by the shape, all are of one shape.
    """

    def __init__(self, query: FeatureRows, gallery: FeatureRows):
        if query.width != gallery.width:
            raise InputError(
                f"query features are {query.width} wide, gallery features {gallery.width}: one model for both"
            )
        self.query, self.gallery_rows = query, gallery
        self.queries, self.gallery, self.device = len(query), len(gallery), query.device
        self.name = f"{'cosine' if gallery.cosine else 'euclidean'} distance"

    @property
    def largest(self) -> float:
        if self.gallery_rows.cosine:
            return 2.0
        return float(sum(side.squared_norms.max().sqrt() for side in (self.query, self.gallery_rows)))

    def order(self, first: int, last: int, share: slice, threads: ThreadPoolExecutor) -> Tensor:
        rows = whole_tiles(self.query.block(slice(first, last)))
        count, tile = share.stop - share.start, self.tile
        found = rows.new_empty(len(rows), -(-count // tile) * tile)
        tail = share.stop - count % tile  # apart, so that no more than it has to be filled up
        size = count if self.device.type == "cpu" and self.gallery_rows.ready else GALLERY_BLOCK
        for start, stop in (*blocks(slice(share.start, tail), max(size, 1)), *blocks(slice(tail, share.stop), tile)):
            self.compare(rows, slice(start, stop), found[:, start - share.start :], threads)
        return found[: last - first, :count]

    @property
    def tile(self) -> int:
        """The columns of a product come in multiples of this; on a GPU each has as many."""
        if self.device.type == "cpu":
            return TILE
        return min(GALLERY_BLOCK, -(-self.gallery // TILE) * TILE)

    def compare(self, rows: Tensor, part: slice | np.ndarray, found: Tensor, threads: ThreadPoolExecutor) -> None:
        """Writes the order values of `rows` and a part of the gallery, which begins at the first column of `found`."""
        block = whole_tiles(self.gallery_rows.block(part), self.tile)
        at = part if isinstance(part, slice) else to_device(part, self.device)
        norms = whole_tiles(self.gallery_rows.squared_norms[at, None], self.tile)[:, 0]
        share = -(-len(block) // torch.get_num_threads() // TILE) * TILE
        size = min(share, CORE_BLOCK) if self.device.type == "cpu" else len(block)

        @torch.inference_mode()
        def write(piece: tuple[int, int]) -> None:
            start, stop = piece
            out = found[:, start:stop]
            if self.gallery_rows.cosine:
                torch.matmul(rows, block[start:stop].T, out=out).mul_(-norms[start:stop].rsqrt())
            else:
                torch.addmm(norms[start:stop], rows, block[start:stop].T, alpha=-2, out=out)

        list(threads.map(write, blocks(slice(0, len(block)), size)))

    def order_of_pairs(
        self, first: int, last: int, query: np.ndarray, gallery: np.ndarray, threads: ThreadPoolExecutor
    ) -> Tensor:
        rows = whole_tiles(self.query.block(slice(first, last)))
        values = rows.new_empty(len(query))
        wanted, place = np.unique(gallery, return_inverse=True)
        for start, stop in blocks(slice(0, len(wanted)), GALLERY_BLOCK):
            found = rows.new_empty(len(rows), -(-(stop - start) // self.tile) * self.tile)
            self.compare(rows, wanted[start:stop], found, threads)
            here = np.flatnonzero((place >= start) & (place < stop))
            row, column, here = (to_device(at, self.device) for at in (query[here], place[here] - start, here))
            values[here] = found[row, column]
        return values

    def of_order(self, order: Tensor, query: Tensor) -> Tensor:
        norms = self.query.squared_norms[query]
        if self.gallery_rows.cosine:
            return 1 + order * norms.rsqrt()
        return (order + norms).clamp_(min=0).sqrt_()


class GivenDistances:
    """Distances (Q, G) that are there already, as after re-ranking."""

    def __init__(self, distances: Array, name: str):
        self.matrix, self.name = as_tensor(distances), name
        if self.matrix.ndim != 2 or 0 in self.matrix.shape:
            shape = tuple(self.matrix.shape)
            raise InputError(f"distances must be (Q, G) with at least one row and column, got {shape}")
        size = max(CHECKED // self.matrix.shape[1], 1)
        wrong = int(sum((~torch.isfinite(rows)).sum() for rows in self.matrix.split(size)))
        if wrong:
            raise NonFiniteError(f"{wrong} distances are NaN or infinite")
        self.queries, self.gallery, self.device = *self.matrix.shape, self.matrix.device

    @property
    def largest(self) -> float:
        return float(self.matrix.max())

    def order(self, first: int, last: int, share: slice, threads: ThreadPoolExecutor) -> Tensor:
        return self.matrix[first:last, share].float().clone()

    def order_of_pairs(
        self, first: int, last: int, query: np.ndarray, gallery: np.ndarray, threads: ThreadPoolExecutor
    ) -> Tensor:
        return self.matrix[to_device(first + query, self.device), to_device(gallery, self.device)].float()

    def of_order(self, order: Tensor, query: Tensor) -> Tensor:
        return order


def whole_tiles(rows: Tensor, tile: int = TILE) -> Tensor:
    """(n, D) with rows of zeros up to a multiple of `tile`."""
    return torch.nn.functional.pad(rows, (0, 0, 0, -len(rows) % tile)) if len(rows) % tile else rows


def blocks(part: slice, size: int) -> Iterator[tuple[int, int]]:
    for start in range(part.start, part.stop, size):
        yield start, min(start + size, part.stop)


def process_share(count: int) -> slice:
    """This process's part of the gallery: whole blocks, so that every product is one that a single process does."""
    parts = -(-count // GALLERY_BLOCK)
    first, last = (parts * part // world_size() for part in (rank(), rank() + 1))
    return slice(min(first * GALLERY_BLOCK, count), min(last * GALLERY_BLOCK, count))


@contextmanager
def exact_products(device: torch.device = CPU, most: int | None = None) -> Iterator[ThreadPoolExecutor]:
    """Matrix products in full float32, whatever the process has chosen for training.

    Yields threads, one for each core that torch may use and at most `most`, in which torch uses one core. They do on a
    CPU what takes long: the threads of a product on all cores would spin for a while after it and hold up what follows.
    Instead of a single thread, and on another device, on whose stream the device's work stands in order, their `map`
    works in the calling one.
    """
    cores = torch.get_num_threads()
    used = min(cores, most or cores)
    if device.type == "cpu" and used > 1:
        threads = ThreadPoolExecutor(used, initializer=torch.set_num_threads, initargs=(1,))
    else:
        threads = nullcontext(SimpleNamespace(map=map))
    try:
        if device.type == "cpu" and used == 1:
            torch.set_num_threads(1)
        with float32_products(), torch.inference_mode(), threads as given:
            yield given
    finally:
        torch.set_num_threads(cores)  # the last number set is that of threads to come
