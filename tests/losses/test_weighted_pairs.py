import math

import pytest
import torch
from pytorch_metric_learning import distances as pml_distances
from pytorch_metric_learning import losses as pml_losses
from pytorch_metric_learning import miners as pml_miners
from pytorch_metric_learning import reducers as pml_reducers

from reid_kit.errors import InputError
from reid_kit.losses import build_loss
from reid_kit.losses.base import Batch
from reid_kit.losses.miners import MINERS
from reid_kit.losses.pairs import similarities
from tests.losses.pair_oracles import (
    BATCHES,
    assert_equals_oracle,
    clustered,
    cosines,
    euclidean,
    unit,
    value_and_gradient,
)

ALPHA, BETA, LAMBDA = 2.0, 50.0, 0.5

TABLE_1 = {  # of the RAW paper
    "Binomial": {"name": "binomial_deviance"},
    "RAW": {"name": "relative_absolute"},
    "VTHM": {"name": "contrastive", "threshold": -1.0, "miner": "vthm"},
    "Binomial+VTHM": {"name": "binomial_deviance", "miner": "vthm"},
    "RAW+DW": {"name": "relative_absolute", "miner": "distance_weighted"},
    "RAW+SemiHard": {"name": "relative_absolute", "miner": "semi_hard"},
    "RAW+VTHM": {"name": "relative_absolute", "miner": "vthm"},
}


def mined(x, y, miner):
    """Lists of mined positives and negatives for each anchor; the masks have their own tests."""
    batch = Batch.collect(x.detach(), y)
    extra = {"dimension": x.shape[1]} if miner == "distance_weighted" else {}
    P, N = MINERS[miner](similarities(batch), batch.positives, batch.negatives, **extra)
    return [(p.nonzero().flatten().tolist(), n.nonzero().flatten().tolist()) for p, n in zip(P, N)]


def relative_absolute(x, y, miner):
    s, total = cosines(x), 0
    for i, (P, N) in enumerate(mined(x, y, miner)):
        L_pos = torch.log(1 + sum((torch.exp(-ALPHA * (s[i][k] - LAMBDA)) for k in P), x.new_zeros(())))
        L_neg = torch.log(1 + sum((torch.exp(BETA * (s[i][k] - LAMBDA)) for k in N), x.new_zeros(())))
        total = total + L_pos / ALPHA + L_neg / BETA
    return total / len(y)


def binomial_deviance(x, y, miner):
    s, total = cosines(x), 0
    for i, (P, N) in enumerate(mined(x, y, miner)):
        total = total + sum(torch.log(1 + torch.exp(ALPHA * (LAMBDA - s[i][k]))) for k in P) / max(len(P), 1)
        total = total + sum(torch.log(1 + torch.exp(BETA * (s[i][k] - LAMBDA))) for k in N) / max(len(N), 1)
    return total


def contrastive(x, y, miner, threshold=LAMBDA):
    s, terms = cosines(x), []
    for i, (P, N) in enumerate(mined(x, y, miner)):
        terms += [-s[i][k] for k in P] + [torch.relu(s[i][k] - threshold) for k in N]
    return sum(terms) / max(len(terms), 1)


def hadsell(x, y, miner, margin):
    d, terms = euclidean(x), []
    for i, (P, N) in enumerate(mined(x, y, miner)):
        terms += [d[i][k] ** 2 / 2 for k in P] + [torch.relu(margin - d[i][k]) ** 2 / 2 for k in N]
    return sum(terms) / max(len(terms), 1)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("miner", MINERS)
@pytest.mark.parametrize("oracle", [relative_absolute, binomial_deviance, contrastive])
def test_equation(oracle, miner, batch):
    def seeded(loss):
        def call(*batch):
            torch.manual_seed(0)
            return loss(*batch)

        return call

    loss = build_loss(oracle.__name__, miner=miner)
    assert_equals_oracle(seeded(loss), seeded(lambda x, y: oracle(x, y, miner)), BATCHES[batch])


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("options", [{}, {"margin": 2.0}, {"margin": 0.8, "normalize": True, "miner": "vthm"}])
def test_hadsell_form(options, batch):
    def oracle(x, y):
        x = unit(x) if options.get("normalize") else x
        return hadsell(x, y, options.get("miner", "all"), options.get("margin", 1.0))

    assert_equals_oracle(build_loss("contrastive", form="hadsell", **options), oracle, BATCHES[batch])


def weighted_sum_of_similarities(x, y, weights):
    """RAW eq. 2: sum of w s over negatives minus sum of w s over positives, the weights constant."""
    s, total = cosines(x), 0
    for i in range(len(y)):
        for j in range(len(y)):
            if j != i:
                total = total + weights[i][j] * s[i][j] * (-1 if y[i] == y[j] else 1)
    return total


def raw_weight(s, j, P, N):
    if j in P:  # eq. 15
        return 1 / (sum(math.exp(ALPHA * (s[j] - s[k])) for k in P) + math.exp(ALPHA * (s[j] - LAMBDA)))
    if j in N:  # eq. 16
        return 1 / (sum(math.exp(-BETA * (s[j] - s[k])) for k in N) + math.exp(-BETA * (s[j] - LAMBDA)))
    return 0


def binomial_weight(s, j, P, N):
    if j in P:  # eq. 13
        return ALPHA / len(P) * math.exp(ALPHA * (LAMBDA - s[j])) / (1 + math.exp(ALPHA * (LAMBDA - s[j])))
    if j in N:  # eq. 14
        return BETA / len(N) * math.exp(BETA * (s[j] - LAMBDA)) / (1 + math.exp(BETA * (s[j] - LAMBDA)))
    return 0


def contrastive_weight(s, j, P, N):
    return float(j in P or (j in N and s[j] > LAMBDA))  # eq. 6


@pytest.mark.parametrize("miner", ["all", "vthm"])
@pytest.mark.parametrize(
    "name, weight, divided_by",
    [
        ("relative_absolute", raw_weight, lambda sets: len(sets)),
        ("binomial_deviance", binomial_weight, lambda sets: 1),
        ("contrastive", contrastive_weight, lambda sets: sum(len(P) + len(N) for P, N in sets)),
    ],
)
def test_the_papers_weights_are_the_gradient(name, weight, divided_by, miner):
    x, y = BATCHES["ragged"]
    s, sets = torch.tensor(cosines(x)).tolist(), mined(x, y, miner)
    weights = [[weight(s[i], j, *sets[i]) / divided_by(sets) for j in range(len(y))] for i in range(len(y))]
    _, gradient = value_and_gradient(build_loss(name, miner=miner), x, y)
    _, expected = value_and_gradient(lambda x, y: weighted_sum_of_similarities(x, y, weights), x, y)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("row", TABLE_1)
def test_every_row_of_table_1_trains(row):
    """A few steps of gradient descent raise the mean similarity of positives over that of negatives."""
    torch.manual_seed(0)
    x, y = clustered([4] * 6, noise=1.5, dimension=16)
    loss, batch = build_loss(**TABLE_1[row]), Batch.collect(x, y)

    def gap(x):
        s = similarities(Batch.collect(x, y))
        return s[batch.positives].mean() - s[batch.negatives].mean()

    before, x = gap(x), x.requires_grad_()
    for _ in range(10):
        gradient = torch.autograd.grad(loss(x, y), x)[0]
        x = (x - 0.5 * gradient / gradient.norm()).detach().requires_grad_()
    assert gap(x) > before + 0.05


def test_vthm_alone_weights_its_pairs_equally():
    x, y = BATCHES["ragged"]
    sets = mined(x, y, "vthm")
    count = sum(len(P) + len(N) for P, N in sets)
    weights = [[float(j in P or j in N) / count for j in range(len(y))] for P, N in sets]
    _, gradient = value_and_gradient(build_loss(**TABLE_1["VTHM"]), x, y)
    _, expected = value_and_gradient(lambda x, y: weighted_sum_of_similarities(x, y, weights), x, y)
    torch.testing.assert_close(gradient, expected)


def test_raw_is_the_multi_similarity_loss():
    x, y = BATCHES["ragged"]
    theirs = pml_losses.MultiSimilarityLoss(alpha=2, beta=50, base=0.5)
    assert_equals_oracle(build_loss("relative_absolute"), theirs, (x, y))
    x, y = clustered([4, 3, 3, 2], seed=7)
    miner = pml_miners.MultiSimilarityMiner(epsilon=0.1)
    assert_equals_oracle(build_loss("relative_absolute", miner="vthm"), lambda x, y: theirs(x, y, miner(x, y)), (x, y))


def test_contrastive_agrees_with_pytorch_metric_learning():
    """Its positive term is [1 - s]_+, ours -s: the summed values differ by the number of positive pairs."""
    x, y = BATCHES["ragged"]
    theirs = pml_losses.ContrastiveLoss(
        pos_margin=1, neg_margin=0.5, distance=pml_distances.CosineSimilarity(), reducer=pml_reducers.SumReducer()
    )
    batch = Batch.collect(x, y)
    P, pairs = batch.positives.sum(), batch.positives.sum() + batch.negatives.sum()
    assert_equals_oracle(build_loss("contrastive"), lambda x, y: (theirs(x, y) - P) / pairs, (x, y))


def test_binomial_reductions():
    x, y = BATCHES["ragged"]
    total, mean = build_loss("binomial_deviance")(x, y), build_loss("binomial_deviance", reduction="mean")(x, y)
    torch.testing.assert_close(total, mean * len(y))


def test_analytic_values():
    """Two orthogonal identities of two equal images: s is 1 within and 0 between."""
    x, y = torch.eye(2, dtype=torch.float64).repeat(2, 1) * 7, torch.tensor([0, 1, 0, 1])
    raw = math.log(1 + math.exp(-1)) / 2 + math.log(1 + 2 * math.exp(-25)) / 50
    assert float(build_loss("relative_absolute")(x, y)) == pytest.approx(raw)
    binomial = math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-25))
    assert float(build_loss("binomial_deviance")(x, y)) == pytest.approx(4 * binomial)
    assert float(build_loss("contrastive")(x, y)) == pytest.approx(-1 / 3)
    assert float(build_loss("contrastive", form="hadsell", margin=7 * math.sqrt(2) + 3)(x, y)) == pytest.approx(3.0)
    assert float(build_loss("relative_absolute", miner="vthm")(x, y)) == 0  # s_p = 1 > 0 + 0.1: nothing to learn


@pytest.mark.parametrize("miner", MINERS)
@pytest.mark.parametrize("name", ["relative_absolute", "binomial_deviance"])
def test_extreme_sensitivities_stay_finite_in_float32(name, miner):
    x, y = BATCHES["ragged"]
    loss = build_loss(name, alpha=1e4, beta=1e4, miner=miner)
    for scale in (100.0, 1e-4):
        value, gradient = value_and_gradient(loss, x.float() * scale, y)
        assert value.isfinite() and gradient.isfinite().all() and gradient.any()


@pytest.mark.parametrize(
    "options",
    [
        {"name": "relative_absolute"},
        {"name": "relative_absolute", "miner": "vthm"},
        {"name": "binomial_deviance"},
        {"name": "contrastive"},
        {"name": "contrastive", "form": "hadsell", "margin": 3.0},
    ],
)
def test_gradcheck(options):
    x, y = clustered([3, 2, 1], seed=2)
    loss = build_loss(**options)
    assert torch.autograd.gradcheck(lambda x: loss(x, y), x.requires_grad_())


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("relative_absolute", {"alpha": 0}, "alpha of relative_absolute must be a number above 0"),
        ("binomial_deviance", {"beta": -1}, "beta of binomial_deviance must be a number above 0"),
        ("binomial_deviance", {"reduction": "max"}, "unknown reduction of binomial_deviance: 'max'"),
        ("contrastive", {"form": "hadsel"}, "Did you mean 'hadsell'"),
        ("contrastive", {"margin": -0.1}, "margin of contrastive must be a number of at least 0"),
    ],
)
def test_a_wrong_option_is_named(name, options, message):
    with pytest.raises(InputError, match=message):
        build_loss(name, **options)


def test_multi_similarity_is_relative_absolute_with_its_mining():
    x, y = clustered([5, 3, 2, 1], seed=4)
    same = build_loss("relative_absolute", miner={"name": "vthm", "epsilon": 0.1})
    assert_equals_oracle(build_loss("multi_similarity"), same, (x, y), tolerance=0)
    ours, theirs = build_loss("multi_similarity", miner="all"), pml_losses.MultiSimilarityLoss(2, 50, 0.5)
    assert_equals_oracle(ours, theirs, (x, y))
