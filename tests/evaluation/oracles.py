"""The protocol, one query at a time, with a sort."""

import numpy as np


def sorted_gallery(q, g, metric):
    if metric == "cosine":
        return 1 - (g @ q) / np.linalg.norm(g, axis=1) / np.linalg.norm(q)
    return ((g - q) ** 2).sum(1)


def evaluate(q, g, qi, gi, qc=None, gc=None, *, metric="euclidean", kind="step", same_set=False, junk_id=-1):
    """(ranks of the matches) of each query: a list of lists. Ties: every other entry first."""
    q, g = np.asarray(q, np.float64), np.asarray(g, np.float64)
    ranks = []
    for i in range(len(q)):
        distances = sorted_gallery(q[i], g, metric)
        entries = []
        for j in range(len(g)):
            ignored = gi[j] == junk_id or (same_set and i == j)
            ignored = ignored or (qc is not None and gi[j] == qi[i] and gc[j] == qc[i])
            if not ignored:
                entries.append((distances[j], gi[j] == qi[i]))
        entries.sort()
        ranks.append([place for place, (_, match) in enumerate(entries, 1) if match])
    return ranks


def average_precision(ranks, kind):
    if not ranks:
        return np.nan
    total = 0.0
    for found, rank in enumerate(ranks, 1):
        at = found / rank
        before = (found - 1) / (rank - 1) if rank > 1 else 1.0
        total += at if kind == "step" else (before + at) / 2
    return total / len(ranks)
