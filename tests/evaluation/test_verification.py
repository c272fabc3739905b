import numpy as np
import pytest

from reid_kit import evaluate_retrieval
from reid_kit.errors import InputError
from reid_kit.evaluation import evaluate_distances, verification


def example(seed=0):
    random = np.random.default_rng(seed)
    centres = 2 * random.standard_normal((12, 5))
    qi, gi = random.integers(0, 12, 150), random.integers(-1, 12, 700)
    q, g = (centres[i] + random.standard_normal((len(i), 5)) for i in (qi, gi))
    return q.astype(np.float32), g.astype(np.float32), qi, gi, random.integers(0, 3, 150), random.integers(0, 3, 700)


def pairs(q, g, qi, gi, qc, gc, metric):
    """Distances of matching and of other pairs, one at a time."""
    positives, negatives = [], []
    for i in range(len(q)):
        for j in range(len(g)):
            a, b = q[i].astype(np.float64), g[j].astype(np.float64)
            distance = np.linalg.norm(a - b) if metric == "euclidean" else 1 - a @ b / np.sqrt(a @ a * (b @ b))
            if gi[j] == -1 or (gi[j] == qi[i] and gc[j] == qc[i]):
                continue
            (positives if gi[j] == qi[i] else negatives).append(distance)
    return np.array(positives), np.array(negatives)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_counts_of_pairs_below_a_threshold(metric, monkeypatch):
    monkeypatch.setattr(verification, "COUNTED", 30_000)  # several histograms a block
    sides = example()
    histogram = evaluate_retrieval(*sides, metric=metric, histogram=True).histogram
    positives, negatives = pairs(*sides, metric)
    assert histogram.positives.sum() == len(positives) and histogram.negatives.sum() == len(negatives)
    for edge in range(0, len(histogram.edges), 997):
        for counts, exact in ((histogram.positives, positives), (histogram.negatives, negatives)):
            near = (np.abs(exact - histogram.edges[edge]) < 1e-4).sum()  # may fall on either side in float32
            assert abs(counts[:edge].sum() - (exact < histogram.edges[edge]).sum()) <= near
    for rate in (1e-4, 1e-3, 1e-2, 0.5):
        point = histogram.at(rate)
        assert point.false_match_rate <= rate
        assert point.false_match_rate == pytest.approx((negatives < point.threshold).mean(), abs=2 / len(negatives))
        assert point.true_match_rate == pytest.approx((positives < point.threshold).mean(), abs=2 / len(positives))
        wider = point.threshold + 1.001 * (histogram.edges[1] - histogram.edges[0])
        assert (negatives < wider + 1e-4).mean() > rate - 2 / len(negatives)  # the next edge lets more through


def test_rates_at_the_ends():
    histogram = evaluate_retrieval(*example(), histogram=True).histogram
    assert histogram.at(1.0).true_match_rate == 1.0 and histogram.at(1.0).false_match_rate == 1.0
    assert histogram.at(0.0).false_match_rate == 0.0
    with pytest.raises(InputError, match=r"\[0, 1\], got 1.5"):
        histogram.at(1.5)


def test_given_distances_and_equal_features():
    q, g, qi, gi, qc, gc = example()
    distances = np.linalg.norm(q[:, None].astype(np.float64) - g[None], axis=2)
    given = evaluate_distances(distances, qi, gi, qc, gc, histogram=True).histogram
    own = evaluate_retrieval(q, g, qi, gi, qc, gc, histogram=True).histogram
    assert given.at(0.01).true_match_rate == pytest.approx(own.at(0.01).true_match_rate, abs=0.01)
    alike = evaluate_retrieval(np.ones((4, 2)), np.ones((9, 2)), [0, 1, 2, 3], range(9), histogram=True).histogram
    assert alike.negatives.sum() == 32 and alike.at(0.1).true_match_rate == 0.0 and alike.at(1.0).true_match_rate == 1.0
    assert evaluate_retrieval(*example()).histogram is None
