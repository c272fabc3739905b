"""The nearest rows of each row among all, with one distance for each pair of rows and no N x N matrix."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from torch import Tensor

from reid_kit.evaluation.distances import CORE_BLOCK, GALLERY_BLOCK, blocks


class Neighbours:
    """Squared Euclidean distances of rows (N, D): the first of them queries and the last their gallery, or all both.

    nearest (N, count): the smallest of each row, ascending, beginning with its own 0. positions (N, count): of which
    rows they are. farthest (N,): the largest, above 0.

    Squares of distances are computed, and of each only what is nearer than the nearest so far is looked at again.
    """

    def __init__(self, rows: Tensor, norms: Tensor, count: int, between: Tensor, threads: ThreadPoolExecutor):
        """
        Args:
            norms: (N,) the rows' squared norms.
            between: (Q, N - Q), or (N, N) where all rows are both, is filled with the distances of queries and gallery.
            threads: those of `exact_products`.
        """
        self.rows, self.norms, self.between = rows, norms, between
        self.nearest = rows.new_full((len(rows), count), torch.inf)
        self.positions = torch.zeros_like(self.nearest, dtype=torch.int64)
        self.farthest = torch.full_like(norms, torch.finfo(norms.dtype).tiny)
        size = CORE_BLOCK if rows.device.type == "cpu" else GALLERY_BLOCK
        parts = [slice(*part) for part in blocks(slice(0, len(rows)), size)]
        list(threads.map(self.compare_within, parts))
        for place, part in enumerate(parts[:-1]):
            limit = self.nearest[part, -1:].clone()
            *found, farthest = zip(*threads.map(partial(self.compare_across, part, limit), parts[place + 1 :]))
            self.take(part, *map(torch.cat, found))
            self.farthest[part] = torch.maximum(self.farthest[part], torch.stack(farthest).amax(0))
        self.nearest[:, 0] = 0

    @torch.inference_mode()
    def compare_within(self, part: slice) -> None:
        distances = self.distances(part, part).fill_diagonal_(-1)  # a row is its own nearest, its duplicates follow
        width = min(self.nearest.shape[1], len(distances))
        self.nearest[part, :width], positions = distances.topk(width, largest=False)
        self.positions[part, :width] = part.start + positions

    @torch.inference_mode()
    def compare_across(self, part: slice, limit: Tensor, others: slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Takes what is near for the rows `others`.

        Returns:
            (n,) row, position and distance of what is nearer than `limit` (p, 1) to the p rows of `part`, and (p,) the
            farthest.
        """
        distances = self.distances(part, others)
        row, other = below(distances, torch.maximum(limit, self.nearest[others, -1]))
        distance = distances[row, other]
        self.take(others, other, part.start + row, distance)
        near = distance < limit[row, 0]
        return row[near], others.start + other[near], distance[near], distances.amax(1)

    def distances(self, part: slice, others: slice) -> Tensor:
        """(p, o), also written to where they are wanted."""
        found = torch.addmm(self.norms[others], self.rows[part], self.rows[others].T, alpha=-2)
        found.add_(self.norms[part, None]).clamp_(min=0)
        queries = len(self.between)
        if queries == len(self.rows):
            self.between[part, others], self.between[others, part] = found, found.T
        elif part.start < queries < others.stop:
            kept = found[: queries - part.start, max(queries - others.start, 0) :]
            end = others.stop - queries
            self.between[part.start : part.start + len(kept), end - kept.shape[1] : end] = kept
        self.farthest[others] = torch.maximum(self.farthest[others], found.amax(0))
        return found

    def take(self, part: slice, row: Tensor, position: Tensor, distance: Tensor) -> None:
        """Puts (n,) distances of rows, counted from the first of `part`, among the nearest where they belong."""
        order = row.argsort(stable=True)
        row, position, distance = row[order], position[order], distance[order]
        amount = row.bincount(minlength=part.stop - part.start)
        count = self.nearest.shape[1]
        place = count + torch.arange(len(row), device=row.device) - (amount.cumsum(0) - amount)[row]
        nearest = torch.nn.functional.pad(self.nearest[part], (0, int(amount.max())), value=torch.inf)
        positions = torch.nn.functional.pad(self.positions[part], (0, int(amount.max())))
        nearest[row, place], positions[row, place] = distance, position
        self.nearest[part], chosen = nearest.topk(count, largest=False)
        self.positions[part] = positions.gather(1, chosen)


def below(distances: Tensor, limit: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns (n,) of the (r, c) distances that are less than the limit, of the same shape."""
    if distances.device.type == "cpu":  # numpy takes a fifth of torch's time for it
        flat = torch.from_numpy(np.flatnonzero(distances.numpy() < limit.numpy()))
    else:
        flat = (distances < limit).flatten().nonzero()[:, 0]
    return flat // distances.shape[1], flat % distances.shape[1]
