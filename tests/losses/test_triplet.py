import math

import pytest
import torch
from pytorch_metric_learning import losses as pml
from pytorch_metric_learning import reducers
from pytorch_metric_learning.distances import LpDistance

from reid_kit import build_loss
from reid_kit.errors import InputError
from reid_kit.losses import pairs
from tests.losses.pair_oracles import BATCHES, clustered, euclidean, negatives, positives, unit, value_and_gradient


def distance_rows(x, distance, normalize):
    x = unit(x) if normalize else x
    if distance == "cosine":
        return [[1 - a @ b for b in unit(x)] for a in unit(x)]
    rows = euclidean(x)
    return [[d * d for d in row] for row in rows] if distance == "squared" else rows


def phi(x, margin):
    return torch.log1p(torch.exp(x)) if margin == "soft" else torch.clamp(x + margin, min=0)


def mean(terms, x):
    return sum(terms) / len(terms) if terms else x.sum() * 0


def each_anchor(x, y, distance, normalize):
    d = distance_rows(x, distance, normalize)
    for i in range(len(y)):
        yield [d[i][j] for j in positives(y, i)], [d[i][k] for k in negatives(y, i)]


def all_triplets(x, y, margin, distance, normalize):
    rows = each_anchor(x, y, distance, normalize)
    return mean([phi(p - n, margin) for P, N in rows for p in P for n in N], x)


def hard_negative(x, y, margin, distance, normalize):
    rows = each_anchor(x, y, distance, normalize)
    return mean([phi(p - min(N), margin) for P, N in rows if N for p in P], x)


def batch_hard(x, y, margin, distance, normalize):
    rows = each_anchor(x, y, distance, normalize)
    return mean([phi(max(P) - min(N), margin) for P, N in rows if P and N], x)


def semi_hard(x, y, margin, distance, normalize):
    terms = []
    for P, N in each_anchor(x, y, distance, normalize):
        for p in P:
            if N:
                beyond = [n for n in N if n > p]
                terms.append(phi(p - (min(beyond) if beyond else max(N)), margin))
    return mean(terms, x)


def adaptive_weight(x, y, margin, distance, normalize):
    terms = []
    for P, N in each_anchor(x, y, distance, normalize):
        if P and N:
            P, N = torch.stack(P), torch.stack(N)
            terms.append(phi((P.softmax(0) * P).sum() - ((-N).softmax(0) * N).sum(), margin))
    return mean(terms, x)


ORACLES = {
    "triplet": all_triplets,
    "triplet_hard_negative": hard_negative,
    "triplet_batch_hard": batch_hard,
    "triplet_semi_hard": semi_hard,
    "triplet_adaptive_weight": adaptive_weight,
}
SETTINGS = [
    {"margin": 0.3, "distance": "euclidean", "normalize": False},
    {"margin": "soft", "distance": "euclidean", "normalize": False},
    {"margin": 1.0, "distance": "squared", "normalize": False},
    {"margin": 0.2, "distance": "cosine", "normalize": False},
    {"margin": "soft", "distance": "euclidean", "normalize": True},
]


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("batch", [name for name in BATCHES if name != "duplicates"])
def test_value_and_gradient_are_the_equations(name, settings, batch):
    x, y = BATCHES[batch]
    value, gradient = value_and_gradient(build_loss(name, **settings), x, y)
    expected, expected_gradient = value_and_gradient(lambda a, b: ORACLES[name](a, b, **settings), x, y)
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-5, atol=1e-6)


def test_all_triplets_agree_with_the_common_library():
    x, y = clustered([4, 3, 2, 5], seed=2)
    for mine, theirs in (
        ({"reduction": "mean_nonzero"}, {}),
        ({"reduction": "mean"}, {"reducer": reducers.MeanReducer()}),
    ):
        other = pml.TripletMarginLoss(margin=0.4, distance=LpDistance(normalize_embeddings=False), **theirs)
        assert float(build_loss("triplet", margin=0.4, **mine)(x, y)) == pytest.approx(float(other(x, y)), rel=1e-5)


@pytest.mark.parametrize("block", [1, 40])
def test_blocks_of_triplets_change_nothing(monkeypatch, block):
    x, y = clustered([4, 3, 2, 5], seed=2)
    loss = build_loss("triplet", margin="soft")
    value, gradient = value_and_gradient(loss, x, y)
    active = float(loss.active_fraction)
    monkeypatch.setattr(pairs, "BLOCK", block)
    again, gradient_again = value_and_gradient(loss, x, y)
    torch.testing.assert_close(again, value)
    torch.testing.assert_close(gradient_again, gradient)
    assert float(loss.active_fraction) == pytest.approx(active)


def test_the_anchor_is_not_among_its_positives():
    """Positives at 1.2 and 1.1 weigh by their softmax; a zero from the anchor itself would pull the sum down."""
    x = torch.tensor([[0.0], [1.2], [-1.1], [9.0]], dtype=torch.float64)
    y = torch.tensor([0, 0, 0, 1])
    weight = math.exp(1.2) / (math.exp(1.2) + math.exp(1.1))
    loss = build_loss("triplet_adaptive_weight", margin=100.0)
    terms = []
    for i in range(3):
        P = torch.tensor([abs(float(x[i] - x[j])) for j in range(3) if j != i])
        terms.append(float((P.softmax(0) * P).sum()) - abs(float(x[i] - x[3])) + 100)
    assert float(loss(x, y)) == pytest.approx(sum(terms) / 3)
    assert terms[0] == pytest.approx(weight * 1.2 + (1 - weight) * 1.1 - 9 + 100)


def test_detached_weights_are_constant_in_the_gradient():
    x, y = clustered([3, 3, 2], seed=9)

    def frozen(a, b):
        terms = []
        for P, N in each_anchor(a, b, "euclidean", False):
            if P and N:
                P, N = torch.stack(P), torch.stack(N)
                terms.append(phi((P.softmax(0).detach() * P).sum() - ((-N).softmax(0).detach() * N).sum(), "soft"))
        return mean(terms, a)

    _, gradient = value_and_gradient(build_loss("triplet_adaptive_weight", margin="soft", detach_weights=True), x, y)
    torch.testing.assert_close(gradient, value_and_gradient(frozen, x, y)[1], rtol=1e-5, atol=1e-7)
    _, free = value_and_gradient(build_loss("triplet_adaptive_weight", margin="soft"), x, y)
    assert (free - gradient).abs().max() > 1e-3


def test_soft_margin_of_equal_vectors_is_ln_2():
    x, y = torch.zeros(4, 3), torch.tensor([0, 0, 1, 1])
    for name in ORACLES:
        assert float(build_loss(name, margin="soft")(x, y)) == pytest.approx(math.log(2), abs=1e-5)


def test_adaptive_weights_survive_large_distances():
    x, y = clustered([4] * 4, seed=1)
    loss = build_loss("triplet_adaptive_weight")
    assert float(loss(1000 * x, y)) == pytest.approx(float(build_loss("triplet_batch_hard")(1000 * x, y)), rel=1e-2)


def test_active_fraction():
    x = torch.tensor([[0.0], [1.0], [3.0], [10.0]])
    y = torch.tensor([0, 0, 1, 1])
    loss = build_loss("triplet", margin=0.0)
    loss(x, y)  # of eight triplets, those of the anchor at 3 (7 against 3 and 2) and one at 10 (none) are active
    expected = [
        abs(x[a] - x[p]) > abs(x[a] - x[n])
        for a, p in ((0, 1), (1, 0), (2, 3), (3, 2))
        for n in range(4)
        if y[n] != y[a]
    ]
    assert float(loss.active_fraction) == pytest.approx(sum(map(bool, expected)) / 8)


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize(
    "options, words", [({"margin": -0.1}, "at least 0"), ({"margin": "hard"}, "soft"), ({"distance": "l1"}, "cosine")]
)
def test_bad_options(name, options, words):
    with pytest.raises(InputError, match=words):
        build_loss(name, **options)
