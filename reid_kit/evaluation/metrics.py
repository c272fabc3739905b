"""From the ranks of the queries' matches to what is reported. Ranks count from 1."""

import numpy as np

from reid_kit.errors import unknown_name


def step_precision(found: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """The precision at each match: what current papers and toolkits average."""
    return found / ranks


def trapezoid_precision(found: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """The mean of the precision before and at each match: Market-1501's original script."""
    before = np.where(ranks > 1, (found - 1) / np.maximum(ranks - 1, 1), 1.0)
    return (before + found / ranks) / 2


PRECISIONS = {"step": step_precision, "trapezoid": trapezoid_precision}


def precision_of(kind: str):
    if kind not in PRECISIONS:
        raise unknown_name("average_precision", kind, PRECISIONS)
    return PRECISIONS[kind]
