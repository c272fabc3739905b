"""How far a number can be trusted: the interval of a result, and whether two results differ.

The queries of one identity succeed and fail together, so a query is no independent draw. Identities are what the
bootstrap draws, with all their queries (cluster bootstrap, Davison and Hinkley 1997, section 3.8), and identities are
what changes sides in the permutation test. docs/statistics.md shows how often the intervals hold the truth.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, t

from reid_kit.errors import InputError
from reid_kit.evaluation.retrieval import RetrievalResult

LEVEL = 0.95  # of confidence
RESAMPLES = 2000  # of a bootstrap
PERMUTATIONS = 10_000  # so that the least p-value is one ten-thousandth
BLOCK = 2**22  # numbers drawn at once


@dataclass(frozen=True)
class Interval:
    """A value and the ends of its confidence interval."""

    value: float
    low: float
    high: float


def result_intervals(result: RetrievalResult) -> dict[str, Interval]:
    """The 95 % intervals of "mAP" and "CMC@1"."""
    clusters = result.query_ids[~np.isnan(result.average_precision)]
    return {name: mean_interval(values, clusters) for name, values in query_values(result).items()}


def query_values(result: RetrievalResult) -> dict[str, np.ndarray]:
    """What each counted query adds to "mAP" and "CMC@1", whose mean the measure is: (queries,) each."""
    counted = ~np.isnan(result.average_precision)
    first = result.first_match_rank[counted] == 1
    return {"mAP": result.average_precision[counted], "CMC@1": first.astype(np.float64)}


def mean_interval(values: np.ndarray, clusters: np.ndarray, level: float = LEVEL, seed: int = 0) -> Interval:
    """The mean of `values` with its interval, by a bootstrap over clusters.

    The percentiles are moved out by what Student's t has over the normal distribution (expanded percentile interval,
    Hesterberg 2015), without which the interval of few clusters is too narrow.

    Args:
        values: (N,), one for each query. clusters: (N,) integers, the identity of each.
        level: of confidence, in (0, 1). seed: of the draws.

    Raises:
        InputError: no values, lengths that differ, a level outside (0, 1).
    """
    values, clusters = np.asarray(values, np.float64), np.asarray(clusters)
    if values.ndim != 1 or not len(values) or values.shape != clusters.shape:
        raise InputError(f"an interval needs (N,) values and (N,) clusters, got {values.shape} and {clusters.shape}")
    if not 0 < level < 1:
        raise InputError(f"a level of confidence lies in (0, 1), got {level}")
    sums, counts = cluster_sums(values, clusters)
    number = len(sums)
    if number == 1:  # which tells nothing of others
        return Interval(float(values.mean()), float(values.min()), float(values.max()))
    drawn = np.concatenate([draws @ sums / (draws @ counts) for draws in cluster_draws(number, seed)])
    tail = norm.cdf(t.ppf((1 - level) / 2, number - 1) * np.sqrt(number / (number - 1)))
    return Interval(float(values.mean()), *map(float, np.quantile(drawn, [tail, 1 - tail])))


def cluster_sums(values: np.ndarray, clusters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(C,) the sum of each cluster's values, and (C,) how many it has."""
    place = np.unique(clusters, return_inverse=True)[1]
    return np.bincount(place, values), np.bincount(place).astype(np.float64)


def cluster_draws(number: int, seed: int) -> Iterator[np.ndarray]:
    """(n, number) how often each cluster is drawn in n resamples; RESAMPLES in all."""
    generator = np.random.default_rng(seed)
    size = max(BLOCK // number, 1)
    for start in range(0, RESAMPLES, size):
        rows = min(size, RESAMPLES - start)
        drawn = generator.integers(number, size=(rows, number)) + number * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * number).reshape(rows, number).astype(np.float64)


@dataclass(frozen=True)
class Difference:
    """The second mean less the first: with its interval, and the p-value of there being none."""

    interval: Interval
    p_value: float


def paired_difference(
    first: np.ndarray, second: np.ndarray, clusters: np.ndarray, level: float = LEVEL, seed: int = 0
) -> Difference:
    """By how much the second method is better on the same queries.

    The interval joins two: of the queries, by `mean_interval` of each query's difference, and of the runs, by Welch's
    t on the means of the runs where a side has several; the squares of their half-widths add up (Zou and Donner 2008).
    The p-value is that of a permutation test of these runs, in which the methods' values of an identity could as well
    change places (Smucker et al. 2007).

    Args:
        first, second: (N,) values of the same queries in the same order, or (R, N) those of R runs.
        clusters: (N,) integers, the identity of each query.

    Raises:
        InputError: shapes that do not agree.
    """
    first, second = (np.atleast_2d(np.asarray(values, np.float64)) for values in (first, second))
    if first.shape[1] != second.shape[1]:
        raise InputError(f"values of {first.shape[1]} and of {second.shape[1]} queries cannot be compared in pairs")
    differences = second.mean(0) - first.mean(0)
    of_queries = mean_interval(differences, clusters, level, seed)
    value, of_runs = of_queries.value, runs_half_width(first.mean(1), second.mean(1), level)
    low = value - np.hypot(value - of_queries.low, of_runs)
    high = value + np.hypot(of_queries.high - value, of_runs)
    p_value = permutation_p_value(cluster_sums(differences, clusters)[0], seed)
    return Difference(Interval(value, float(low), float(high)), p_value)


def runs_half_width(first: np.ndarray, second: np.ndarray, level: float) -> float:
    """Half the width of Welch's interval for a difference of means of runs; a side of one run adds nothing."""
    sides = [side for side in (first, second) if len(side) > 1]
    shares = [side.var(ddof=1) / len(side) for side in sides]
    if not sum(shares):
        return 0.0
    freedom = sum(shares) ** 2 / sum(share**2 / (len(side) - 1) for side, share in zip(sides, shares))
    return float(-t.ppf((1 - level) / 2, freedom) * np.sqrt(sum(shares)))


def permutation_p_value(differences: np.ndarray, seed: int = 0) -> float:
    """Two-sided, of (C,) differences whose signs could as well be others if there were none in truth."""
    observed = abs(differences.sum()) * (1 - 1e-12)
    generator, extreme = np.random.default_rng(seed), 0
    size = max(BLOCK // len(differences), 1)
    for start in range(0, PERMUTATIONS, size):
        signs = generator.integers(2, size=(min(size, PERMUTATIONS - start), len(differences))) * 2.0 - 1
        extreme += int((np.abs(signs @ differences) >= observed).sum())
    return (extreme + 1) / (PERMUTATIONS + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of several comparisons, corrected for their number (Holm 1979): in their order."""
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values, np.float64)[order] * np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return corrected.tolist()


def verdict(difference: Difference, corrected_p_value: float, level: float = LEVEL) -> str:
    """Of the second method: "better" or "worse" where interval and corrected p-value agree, else "cannot tell"."""
    interval = difference.interval
    if corrected_p_value > 1 - level or interval.low <= 0 <= interval.high:
        return "cannot tell"
    return "better" if interval.value > 0 else "worse"
