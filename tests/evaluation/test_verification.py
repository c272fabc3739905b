import numpy as np
import pytest
from scipy.stats import beta, binomtest, norm, t

from reid_kit import evaluate_retrieval
from reid_kit.errors import InputError
from reid_kit.evaluation import evaluate_distances, verification
from reid_kit.evaluation.verification import rate_interval


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


def test_an_interval_is_as_of_independent_pairs_where_groups_do_not_differ_more():
    exact = binomtest(8, 400).proportion_ci(0.95, "exact")
    assert rate_interval(np.full(4, 2), np.full(4, 100)) == pytest.approx((exact.low, exact.high))
    assert rate_interval(np.zeros(4), np.full(4, 100)) == pytest.approx((0, binomtest(0, 400).proportion_ci(0.95).high))
    assert rate_interval(np.full(4, 9), np.full(4, 9))[1] == 1
    assert rate_interval(np.array([3, 0]), np.array([10, 0])) == (0, 1)  # one group with pairs


@pytest.mark.parametrize("ends", [1, 2])
def test_an_interval_is_as_of_fewer_pairs_where_groups_differ(ends):
    seen, pairs = np.array([30, 1, 2, 5, 0]), np.array([100, 90, 110, 100, 50])
    rate = 38 / 450
    residuals = seen - rate * pairs
    error = ends * np.sqrt(5 / 4 * (residuals**2).sum()) / 450  # of a ratio, linearised
    fewer = rate * (1 - rate) / error**2 * (norm.ppf(0.975) / t.ppf(0.975, 4)) ** 2
    x, y = rate * fewer, (1 - rate) * fewer
    expected = beta.ppf(0.025, x, y + 1), beta.ppf(0.975, x + 1, y)
    assert rate_interval(seen, pairs, ends) == pytest.approx(expected)


def test_intervals_of_rates_hold_the_truth_in_a_simulation(monkeypatch):
    """Identities differ in how alike they are to others, so that pairs are far from independent draws."""
    monkeypatch.setattr(verification, "BINS", 1024)
    random = np.random.default_rng(0)

    def images(identities, each):
        centres = random.standard_normal((identities, 8)) * random.gamma(2, 0.5, (identities, 1))
        ids = np.repeat(np.arange(identities), each)
        return (centres[ids] + 0.4 * random.standard_normal((len(ids), 8))).astype(np.float32), ids

    many = images(1500, 1)[0]
    others = np.sort(np.concatenate([np.linalg.norm(many[i + 1 :] - many[i], axis=1) for i in range(len(many))]))
    two = images(50_000, 2)[0]
    matches = np.sort(np.linalg.norm(two[::2] - two[1::2], axis=1))
    trials, held = 120, np.zeros(3)
    for _ in range(trials):
        features, ids = images(60, 6)
        query = np.arange(len(ids)) % 6 < 2
        sides = features[query], features[~query], ids[query], ids[~query]
        point = evaluate_retrieval(*sides, histogram=True).histogram.at(0.01)
        false, true = (np.searchsorted(each, point.threshold) / len(each) for each in (others, matches))
        as_if_independent = binomtest(round(point.false_match_rate * point.pairs), point.pairs).proportion_ci(0.95)
        held += [
            point.interval[0] <= false <= point.interval[1],
            point.true_match_interval[0] <= true <= point.true_match_interval[1],
            as_if_independent.low <= false <= as_if_independent.high,
        ]
    assert (held[:2] / trials > 0.88).all() and held[2] / trials < 0.7, held / trials
