from itertools import product

import numpy as np
import pytest
import torch
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN
from scipy.stats import ttest_ind

from reid_kit.errors import InputError
from reid_kit.evaluation import evaluate_retrieval
from reid_kit.evaluation.statistics import (
    holm,
    mean_interval,
    paired_difference,
    permutation_p_value,
    result_intervals,
    runs_half_width,
    verdict,
)


def population(generator, identities):
    """Values of the queries of so many identities, and the identities: skewed, of ragged sizes, alike within one."""
    sizes = generator.integers(1, 8, identities)
    of_identity = generator.beta(0.6, 0.5, identities)
    clusters = np.repeat(np.arange(identities), sizes)
    return np.clip(of_identity[clusters] + generator.normal(0, 0.1, len(clusters)), 0, 1), clusters


TRUTH = population(np.random.default_rng(99), 1_000_000)[0].mean()


def coverage(identities, trials, clustered=True):
    generator, held = np.random.default_rng(identities), 0
    for _ in range(trials):
        values, clusters = population(generator, identities)
        interval = mean_interval(values, clusters if clustered else np.arange(len(values)))
        held += interval.low <= TRUTH <= interval.high
    return held / trials


@pytest.mark.parametrize("identities, trials", [(20, 1500), (45, 1500), (300, 600)])
def test_intervals_hold_the_truth_as_often_as_they_say(identities, trials):
    assert 0.93 <= coverage(identities, trials) <= 0.97


def test_queries_of_an_identity_are_no_independent_draws():
    assert coverage(45, 400, clustered=False) < 0.8


def test_the_same_draws_each_time_and_any_order_of_the_queries():
    values, clusters = population(np.random.default_rng(0), 50)
    order = np.random.default_rng(1).permutation(len(values))
    first, again, shuffled = (
        mean_interval(values, clusters),
        mean_interval(values, clusters),
        mean_interval(values[order], clusters[order]),
    )
    assert first == again
    assert np.allclose([first.low, first.high], [shuffled.low, shuffled.high], atol=1e-12)


def test_one_identity_and_equal_values():
    one = mean_interval(np.array([0.2, 0.6]), np.array([7, 7]))
    assert (one.value, one.low, one.high) == (pytest.approx(0.4), 0.2, 0.6)
    same = mean_interval(np.ones(10), np.arange(10) // 2)
    assert (same.value, same.low, same.high) == (1, 1, 1)


def test_intervals_of_a_result():
    generator = np.random.default_rng(3)
    ids = generator.integers(0, 12, 90)
    centres = generator.normal(size=(12, 8))
    q, g = (torch.from_numpy(centres[ids] + generator.normal(size=(90, 8))).float() for _ in range(2))
    query_ids = ids.copy()
    query_ids[:3] = 77  # have no match, are skipped
    result = evaluate_retrieval(q, g, query_ids, ids)
    found = result_intervals(result)
    assert found["mAP"].value == pytest.approx(result.mAP) and found["CMC@1"].value == pytest.approx(result.cmc[1])
    assert all(each.low < each.value < each.high for each in found.values())
    counted = ~np.isnan(result.average_precision)
    assert found["mAP"] == mean_interval(result.average_precision[counted], query_ids[counted])


@pytest.mark.parametrize("same_set", [False, True])
def test_r_precision_and_map_at_r_are_those_of_pytorch_metric_learning(same_set):
    generator = np.random.default_rng(5)
    ids = np.sort(generator.integers(0, 9, 120))  # ragged
    features = torch.from_numpy(generator.normal(size=(120, 6)) + 0.4 * ids[:, None]).float()
    query, gallery = (slice(None), slice(None)) if same_set else (slice(0, 120, 3), slice(1, 120, 2))
    sides = features[query], features[gallery], ids[query], ids[gallery]
    ours = evaluate_retrieval(*sides, same_set=same_set)
    calculator = AccuracyCalculator(
        include=("r_precision", "mean_average_precision_at_r"),
        k="max_bin_count",
        knn_func=CustomKNN(LpDistance(normalize_embeddings=False)),
        device=torch.device("cpu"),
    )
    labels = [torch.from_numpy(side) for side in sides[2:]]
    theirs = calculator.get_accuracy(sides[0], labels[0], sides[1], labels[1], ref_includes_query=same_set)
    assert ours.r_precision == pytest.approx(theirs["r_precision"], abs=1e-9)
    assert ours.map_at_r == pytest.approx(theirs["mean_average_precision_at_r"], abs=1e-9)


def test_permutation_p_value_is_that_of_all_signs():
    differences = np.random.default_rng(7).normal(0.5, 1, 9)
    signed = np.array([np.dot(signs, differences) for signs in product((-1, 1), repeat=9)])
    exact = (np.abs(signed) >= abs(differences.sum()) - 1e-12).mean()
    assert permutation_p_value(differences) == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 10_000))
    assert permutation_p_value(np.zeros(5)) == 1


def test_no_difference_is_claimed_as_seldom_as_promised():
    generator, claimed, outside = np.random.default_rng(11), 0, 0
    for trial in range(300):
        values, clusters = population(generator, 40)
        noise = generator.normal(0, 0.2, (2, len(values))) + generator.normal(0, 0.2, (2, 40))[:, clusters]
        found = paired_difference(values + noise[0], values + noise[1], clusters, seed=trial)
        claimed += found.p_value <= 0.05
        outside += not found.interval.low <= 0 <= found.interval.high
    assert 0.02 <= claimed / 300 <= 0.085 and 0.02 <= outside / 300 <= 0.085


def test_runs_add_their_scatter_to_the_interval():
    values, clusters = population(np.random.default_rng(2), 60)
    one = paired_difference(values, values + 0.02, clusters)
    assert one.interval.low == pytest.approx(0.02) and one.p_value < 0.001
    runs = np.array([[-0.03], [0.0], [0.03]])
    several = paired_difference(values + runs, values + 0.02 + runs, clusters)
    welch = ttest_ind(runs[:, 0] + 0.02, runs[:, 0], equal_var=False).confidence_interval(0.95)
    assert several.interval.value == pytest.approx(0.02)
    assert (several.interval.low, several.interval.high) == (pytest.approx(welch.low), pytest.approx(welch.high))
    assert verdict(one, one.p_value) == "better"
    assert verdict(several, several.p_value) == "cannot tell"
    assert verdict(paired_difference(values + 0.02, values, clusters), 0.001) == "worse"
    assert verdict(one, 0.06) == "cannot tell"


def test_a_side_of_one_run_adds_nothing():
    assert runs_half_width(np.array([0.3]), np.array([0.5]), 0.95) == 0
    several = np.array([0.5, 0.6, 0.55])
    half = several.std(ddof=1) / np.sqrt(3) * 4.302652729696142  # t at 0.975 with 2 degrees of freedom
    assert runs_half_width(np.array([0.3]), several, 0.95) == pytest.approx(half)


def test_holm_is_the_loop_of_its_paper():
    p_values = [0.01, 0.04, 0.03, 0.005, 0.9]
    ordered, expected, running = sorted(p_values), {}, 0.0
    for step, p in enumerate(ordered):
        running = max(running, min(1.0, (len(ordered) - step) * p))
        expected[p] = running
    assert holm(p_values) == pytest.approx([expected[p] for p in p_values])
    assert holm([]) == [] and holm([0.2]) == [0.2]


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: mean_interval(np.array([]), np.array([])), "(0,)"),
        (lambda: mean_interval(np.ones(3), np.ones(2)), "(2,)"),
        (lambda: mean_interval(np.ones(3), np.ones(3), level=1.0), "1.0"),
        (lambda: paired_difference(np.ones(3), np.ones(4), np.ones(3)), "3 and of 4"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(InputError, match=words.replace("(", r"\(").replace(")", r"\)")):
        call()
