"""From the ranks of a query's matches to what is reported. Ranks count from 1 and ascend."""

import numpy as np

from reid_kit.errors import unknown_name


def step_average_precision(ranks: np.ndarray) -> float:
    """Mean over the matches of the precision at each: what current papers and toolkits report."""
    return float((np.arange(1, len(ranks) + 1) / ranks).mean())


def trapezoid_average_precision(ranks: np.ndarray) -> float:
    """Mean over the matches of the mean precision before and at each: Market-1501's original script."""
    found = np.arange(1, len(ranks) + 1)
    before = np.where(ranks > 1, (found - 1) / np.maximum(ranks - 1, 1), 1.0)
    return float(((before + found / ranks) / 2).mean())


AVERAGE_PRECISIONS = {"step": step_average_precision, "trapezoid": trapezoid_average_precision}


def average_precision_of(kind: str):
    if kind not in AVERAGE_PRECISIONS:
        raise unknown_name("average_precision", kind, AVERAGE_PRECISIONS)
    return AVERAGE_PRECISIONS[kind]


def inverse_negative_penalty(ranks: np.ndarray) -> float:
    """Number of matches over the rank of the last one (Ye et al. 2021, mINP)."""
    return len(ranks) / int(ranks[-1])
