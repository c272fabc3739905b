"""What the checks on the device evaluate, and how results are compared."""

import numpy as np
import torch


def sides(seed=0, queries=90, gallery=900):
    """Features whose distances are exact in any order of summation, with many ties."""
    random = np.random.default_rng(seed)
    q, g = (torch.from_numpy(random.integers(0, 4, (n, 6)).astype(np.float32)) for n in (queries, gallery))
    qi, gi = random.integers(0, 40, queries), random.integers(-1, 40, gallery)
    return [q, g, qi, gi, random.integers(0, 4, queries), random.integers(0, 4, gallery)]


def assert_same(one, other):
    assert np.array_equal(one.first_match_rank, other.first_match_rank)
    assert np.array_equal(one.average_precision, other.average_precision, equal_nan=True)
    assert (one.protocol, one.queries, one.skipped) == (other.protocol, other.queries, other.skipped)
    if one.histogram is not None:
        assert np.array_equal(one.histogram.positives, other.histogram.positives)
        assert np.array_equal(one.histogram.negatives, other.histogram.negatives)
