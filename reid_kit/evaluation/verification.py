"""Same person or not, by a threshold on the distance: histograms of distances, and what a threshold lets through."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import betaincinv
from torch import Tensor

from reid_kit.distributed import sum_over_processes
from reid_kit.errors import InputError
from reid_kit.evaluation.distances import Distances, blocks
from reid_kit.operating_point import FALSE_MATCH_RATES, OperatingPoint

BINS = 2**14
COUNTED = 2**22  # values of one histogram: float32 counts to 2**24, and their distances are held beside all others


@dataclass(frozen=True)
class DistanceHistogram:
    """How many pairs lie at which distance.

    edges: (bins + 1,) distances. positives, negatives: (bins,) numbers of pairs of a query with a match, and with
    another identity; pairs that the protocol ignores are in neither.
    """

    edges: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray

    def at(self, false_match_rate: float) -> OperatingPoint:
        """The largest threshold, among the edges, that lets through at most this share of the negatives.

        Raises:
            InputError: a rate outside [0, 1].
        """
        if not 0 <= false_match_rate <= 1:
            raise InputError(f"a false-match rate lies in [0, 1], got {false_match_rate}")
        false, true = (np.concatenate([[0], np.cumsum(count)]) for count in (self.negatives, self.positives))
        edge = int(np.searchsorted(false, false_match_rate * false[-1], side="right")) - 1
        rates = (float(count[edge] / max(count[-1], 1)) for count in (true, false))
        seen, pairs = int(false[edge]), int(false[-1])
        return OperatingPoint(float(self.edges[edge]), *rates, clopper_pearson(seen, pairs), pairs)

    def points(self, false_match_rates: Sequence[float] = FALSE_MATCH_RATES) -> dict[float, OperatingPoint]:
        """`at` each of the rates that is one pair or more; of a rarer error that many pairs say nothing."""
        return {rate: self.at(rate) for rate in false_match_rates if rate * self.negatives.sum() >= 1}


def clopper_pearson(seen: int, pairs: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of a probability of which `seen` of `pairs` trials came true (Clopper and Pearson 1934)."""
    tail = (1 - confidence) / 2
    low = betaincinv(seen, pairs - seen + 1, tail) if seen else 0.0
    high = betaincinv(seen + 1, pairs - seen, 1 - tail) if seen < pairs else 1.0
    return float(low), float(high)


class HistogramCounter:
    """Fills a histogram, a block of distances at a time."""

    def __init__(self, largest: float, device: torch.device):
        self.largest = largest * (1 + 1e-5) or 1.0  # rounding puts nothing above it
        self.positives, self.negatives = torch.zeros(2, BINS, dtype=torch.int64, device=device)

    def add_positives(self, distances: Distances, queries: Tensor, values: Tensor) -> None:
        """
        Args:
            queries, values: (n,) query and order value of each match, of all processes.
        """
        self.positives += self.count(distances.of_order(values, queries))

    def add_negatives(self, distances: Distances, first: int, order: Tensor) -> None:
        """
        Args:
            first: the query of the first row of `order` (q, share), where what is no negative is infinite.
        """
        for start, stop in blocks(slice(0, len(order)), max(COUNTED // max(order.shape[1], 1), 1)):
            queries = torch.arange(first + start, first + stop, device=order.device)[:, None]
            self.negatives += self.count(distances.of_order(order[start:stop], queries))

    def count(self, values: Tensor) -> Tensor:
        return torch.histc(values.clamp(min=0), BINS, 0, self.largest).long()  # leaves infinity out

    def result(self) -> DistanceHistogram:
        counts = (count.cpu().numpy() for count in (self.positives, sum_over_processes(self.negatives)))
        return DistanceHistogram(np.linspace(0, self.largest, BINS + 1), *counts)
