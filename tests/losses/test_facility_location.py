import itertools
import math

import pytest
import torch
from sklearn.metrics import normalized_mutual_info_score

from reid_kit.errors import InputError
from reid_kit.losses import build_loss
from reid_kit.losses.facility_location import MedoidSearch
from tests.losses.pair_oracles import BATCHES, assert_equals_oracle, clustered


def clusters_of(d, medoids):
    return [min(range(len(medoids)), key=lambda k: d[i][medoids[k]]) for i in range(len(d))]


def score(d, y, medoids, gamma):
    """F of the assignment to the nearest medoids + gamma * (1 - NMI)."""
    nmi = normalized_mutual_info_score(y, clusters_of(d, medoids), average_method="arithmetic")
    return -sum(min(float(d[i][j]) for j in medoids) for i in range(len(d))) + gamma * (1 - nmi)


def best(candidates, value):
    values = [value(candidate) for candidate in candidates]
    return next(c for c, v in zip(candidates, values) if v >= max(values) - 1e-6 * (1 + abs(max(values))))


def searched(d, y, gamma):
    medoids = []
    for _ in set(y):
        longer = [medoids + [i] for i in range(len(y)) if i not in medoids]
        medoids = best(longer, lambda medoids: score(d, y, medoids, gamma))
    for _ in range(5):
        clusters = clusters_of(d, medoids)
        for k in range(len(medoids)):
            swaps = [medoids[:k] + [i] + medoids[k + 1 :] for i in range(len(y)) if clusters[i] == k]
            medoids = best(swaps, lambda medoids: score(d, y, medoids, gamma)) if swaps else medoids
    return medoids


def facility_location(gamma):
    """RLL eq. 6 by loops, the images in the order of (label, embedding)."""

    def loss(x, y):
        order = sorted(range(len(y)), key=lambda i: (int(y[i]), x[i].tolist()))
        x, y = x[order], [int(y[i]) for i in order]
        d = [[(a - b).square().sum().add(1e-24).sqrt() for b in x] for a in x]
        medoids = searched([[float(v) for v in row] for row in d], y, gamma)
        predicted = -sum(min(d[i][j] for j in medoids) for i in range(len(y)))
        truth = 0
        for label in set(y):
            members = [i for i in range(len(y)) if y[i] == label]
            truth = truth + max(-sum(d[i][j] for i in members) for j in members)
        nmi = normalized_mutual_info_score(y, clusters_of(d, medoids), average_method="arithmetic")
        return (predicted + gamma * (1 - nmi) - truth).clamp(min=0)

    return loss


@pytest.mark.parametrize("batch", [name for name in BATCHES if name != "duplicates"])
@pytest.mark.parametrize("gamma", [0.0, 1.0, 30.0])
def test_is_the_loop_over_candidates(gamma, batch):
    assert_equals_oracle(build_loss("facility_location", gamma=gamma), facility_location(gamma), BATCHES[batch], 1e-5)


def test_known_medoids_on_a_line():
    # classes (0, 1, 2) and (10, 11, 15): true medoids 1 and 11, F(truth) = -2 - 5
    x = torch.tensor([[0.0], [1], [2], [10], [11], [15]], dtype=torch.float64)
    y = torch.tensor([0, 0, 0, 1, 1, 1])
    d = (x - x.T).abs()
    search = MedoidSearch(d, y, gamma=0.0)
    assert sorted(search.run().tolist()) == [1, 4] and search.true_medoids().tolist() == [1, 4]
    loss = build_loss("facility_location", gamma=0.0)
    assert loss(x, y).item() == pytest.approx(0, abs=1e-9) and loss.active_fraction == 0
    # labels (0 | 1 2 10 11 15): the medoids stay 1 and 11, the truth costs 0 + 9 + 8 + 1 + 4 = 22 by medoid 10 instead
    wrong = torch.tensor([0, 1, 1, 1, 1, 1])
    assert build_loss("facility_location", gamma=0.0)(x, wrong).item() == pytest.approx(23 - 7)


def test_the_margin_is_gamma_where_the_labels_share_nothing_with_the_clusters():
    # two tight places, each with one image of either identity: F(pred) = 0, NMI = 0, F(truth) = -2 * 3
    x = torch.tensor([[0.0, 0], [3, 0], [0, 0], [3, 0]])
    loss = build_loss("facility_location", gamma=5.0)
    assert loss(x, torch.tensor([0, 0, 1, 1])).item() == pytest.approx(5 + 6, abs=1e-4)
    assert loss.active_fraction == 0.5


@pytest.mark.parametrize("seed", range(4))
def test_search_comes_near_the_best_of_all_medoid_sets_and_never_above(seed):
    x, y = clustered([3, 3, 2], seed=seed, noise=1.5)
    y = y.sort().values
    d, labels = torch.cdist(x, x).tolist(), y.tolist()
    found = score(d, labels, MedoidSearch(torch.cdist(x, x), y, 2.0).run().tolist(), 2.0)
    highest = max(score(d, labels, list(S), 2.0) for S in itertools.combinations(range(8), 3))
    assert highest - 0.1 * abs(highest) <= found <= highest + 1e-9


def test_any_order_of_the_batch_gives_the_same_value_with_pairs_that_tie():
    x, y = clustered([2] * 8, seed=3, noise=1.5)
    values = [build_loss("facility_location")(x, y)]
    for seed in range(4):
        order = torch.randperm(16, generator=torch.Generator().manual_seed(seed))
        values.append(build_loss("facility_location")(x[order], y[order]))
    assert values[0] > 0
    torch.testing.assert_close(torch.stack(values), values[0].expand(5), rtol=1e-12, atol=0)


def test_nmi_of_the_search_is_that_of_scikit_learn():
    y = torch.tensor([0, 0, 0, 1, 1, 2])
    search = MedoidSearch(torch.zeros(6, 6, dtype=torch.float64), y, 1.0)
    for clusters in ([0, 0, 1, 1, 2, 2], [0] * 6, [2, 2, 2, 0, 0, 1]):
        expected = normalized_mutual_info_score(y, clusters, average_method="arithmetic")
        assert search.nmi_of(torch.tensor(clusters)).item() == pytest.approx(expected, abs=1e-12)


def test_identical_embeddings_leave_the_margin_alone():
    x = torch.ones(6, 4, requires_grad=True)
    value = build_loss("facility_location", gamma=2.0)(x, torch.tensor([0, 0, 1, 1, 2, 2]))
    value.backward()
    assert 0 < value.item() <= 2 and x.grad.eq(0).all()


def test_gradcheck():
    x, y = clustered([3, 3, 2], seed=8, noise=1.5)
    loss = build_loss("facility_location")
    assert loss(x, y) > 0
    assert torch.autograd.gradcheck(lambda x: loss(x, y), x.requires_grad_())


def test_negative_gamma_is_refused():
    with pytest.raises(InputError, match="gamma of facility_location"):
        build_loss("facility_location", gamma=-math.pi)
