"""Same person or not, by a threshold on the distance: histograms of distances, and what a threshold lets through."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import betaincinv, ndtri, stdtrit
from torch import Tensor

from reid_kit.distributed import sum_over_processes
from reid_kit.errors import InputError
from reid_kit.evaluation.distances import Distances, blocks
from reid_kit.evaluation.features import to_device
from reid_kit.operating_point import FALSE_MATCH_RATES, OperatingPoint

BINS = 2**14
COUNTED = 2**22  # values of one histogram: float32 counts to 2**24, and their distances are held beside all others
GROUPS = 32  # of query identities; how their rates differ gives the interval of a rate


@dataclass(frozen=True)
class DistanceHistogram:
    """How many pairs lie at which distance.

    edges: (bins + 1,) distances. positives_of, negatives_of: (groups, bins) numbers of pairs of a query with a match,
    and with another identity, by the group that the query's identity was put into; pairs that the protocol ignores are
    in neither.
    """

    edges: np.ndarray
    positives_of: np.ndarray
    negatives_of: np.ndarray

    @property
    def positives(self) -> np.ndarray:
        """(bins,) of all groups."""
        return self.positives_of.sum(0)

    @property
    def negatives(self) -> np.ndarray:
        """(bins,) of all groups."""
        return self.negatives_of.sum(0)

    def at(self, false_match_rate: float) -> OperatingPoint:
        """The largest threshold, among the edges, that lets through at most this share of the negatives.

        Raises:
            InputError: a rate outside [0, 1].
        """
        if not 0 <= false_match_rate <= 1:
            raise InputError(f"a false-match rate lies in [0, 1], got {false_match_rate}")
        false = np.concatenate([[0], np.cumsum(self.negatives)])
        edge = int(np.searchsorted(false, false_match_rate * false[-1], side="right")) - 1
        (true, of_true), (false, of_false) = (
            (counts[:, :edge].sum(1), counts.sum(1)) for counts in (self.positives_of, self.negatives_of)
        )
        return OperatingPoint(
            threshold=float(self.edges[edge]),
            true_match_rate=float(true.sum() / max(of_true.sum(), 1)),
            false_match_rate=float(false.sum() / max(of_false.sum(), 1)),
            interval=rate_interval(false, of_false, ends=2),
            pairs=int(of_false.sum()),
            true_match_interval=rate_interval(true, of_true),
        )

    def points(self, false_match_rates: Sequence[float] = FALSE_MATCH_RATES) -> dict[float, OperatingPoint]:
        """`at` each of the rates that is one pair or more; of a rarer error that many pairs say nothing."""
        pairs = self.negatives_of.sum()
        return {rate: self.at(rate) for rate in false_match_rates if rate * pairs >= 1}


def rate_interval(seen: np.ndarray, pairs: np.ndarray, ends: int = 1, level: float = 0.95) -> tuple[float, float]:
    """The interval of the rate at which pairs are taken for one identity, by how much groups of identities differ.

    That of Clopper and Pearson (1934) for so many pairs as would vary as much if each were drawn apart from all others
    (Korn and Graubard 1998).

    Args:
        seen: (groups,) the pairs taken for one, of (groups,) `pairs`; a pair is in the group of its query.
        ends: the identities of a pair. 2 double the standard error: the gallery's makes as much of it as the query's.
        level: of confidence, in (0, 1).
    """
    seen, pairs = seen[pairs > 0], pairs[pairs > 0]
    groups, count = len(pairs), pairs.sum()
    if groups < 2:  # which tell nothing of others
        return 0.0, 1.0
    rate, tail = seen.sum() / count, (1 - level) / 2
    parts = ends * (seen - rate * pairs) / count
    variance = groups / (groups - 1) * parts @ parts
    if variance > 0:
        count = min(count, rate * (1 - rate) / variance * (ndtri(tail) / stdtrit(groups - 1, tail)) ** 2)
    low = betaincinv(rate * count, (1 - rate) * count + 1, tail) if rate > 0 else 0.0
    high = betaincinv(rate * count + 1, (1 - rate) * count, 1 - tail) if rate < 1 else 1.0
    return float(low), float(high)


class HistogramCounter:
    """Fills a histogram, a block of distances at a time.

    query_ids: (Q,) integers.
    """

    def __init__(self, largest: float, device: torch.device, query_ids: np.ndarray):
        self.largest = largest * (1 + 1e-5) or 1.0  # rounding puts nothing above it
        identities, place = np.unique(query_ids, return_inverse=True)
        self.groups = min(GROUPS, len(identities))
        self.group = np.random.default_rng(0).permutation(len(identities))[place] % self.groups
        self.positives, self.negatives = torch.zeros(2, self.groups, BINS, dtype=torch.int64, device=device)

    def add_positives(self, distances: Distances, queries: np.ndarray, values: Tensor) -> None:
        """
        Args:
            queries, values: (n,) query and order value of each match, of all processes.
        """
        self.add(self.positives, distances, queries, values[:, None])

    def add_negatives(self, distances: Distances, first: int, order: Tensor) -> None:
        """
        Args:
            first: the query of the first row of `order` (q, share), where what is no negative is infinite.
        """
        self.add(self.negatives, distances, np.arange(first, first + len(order)), order)

    def add(self, counts: Tensor, distances: Distances, queries: np.ndarray, order: Tensor) -> None:
        """Counts (n, m) order values of (n,) queries into (groups, BINS), a group at a time."""
        group = self.group[queries]
        by_group = np.argsort(group, kind="stable")
        ends = np.searchsorted(group[by_group], np.arange(self.groups + 1))
        rows, queries = (to_device(each, order.device) for each in (by_group, queries[by_group]))
        for number, (begin, end) in enumerate(zip(ends, ends[1:])):
            for start, stop in blocks(slice(begin, end), max(COUNTED // max(order.shape[1], 1), 1)):
                values = distances.of_order(order[rows[start:stop]], queries[start:stop, None])
                counts[number] += torch.histc(values.clamp_(min=0), BINS, 0, self.largest).long()  # leaves infinity out

    def result(self) -> DistanceHistogram:
        counts = (count.cpu().numpy() for count in (self.positives, sum_over_processes(self.negatives)))
        return DistanceHistogram(np.linspace(0, self.largest, BINS + 1), *counts)
