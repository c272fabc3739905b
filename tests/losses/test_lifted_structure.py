import math

import pytest
import torch
from pytorch_metric_learning import distances as pml_distances
from pytorch_metric_learning import losses as pml_losses

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
    negatives,
    positives,
    unit,
    value_and_gradient,
)


def lifted_structure(x, y, margin=1.0, normalize=False):
    """Song et al. 2016, eq. 4, over unordered pairs."""
    d = euclidean(unit(x) if normalize else x)
    pairs = [(i, j) for i in range(len(y)) for j in positives(y, i) if i < j]
    total = 0
    for i, j in pairs:
        mass = sum(torch.exp(margin - d[i][k]) for k in negatives(y, i))
        mass = mass + sum(torch.exp(margin - d[j][k]) for k in negatives(y, j))
        if negatives(y, i):
            total = total + torch.relu(d[i][j] + torch.log(mass)) ** 2
    return total / max(2 * len(pairs), 1)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("options", [{}, {"margin": 0.0}, {"margin": 0.5, "normalize": True}])
def test_lifted_structure(options, batch):
    loss = build_loss("lifted_structure", **options)
    assert_equals_oracle(loss, lambda x, y: lifted_structure(x, y, **options), BATCHES[batch], tolerance=3e-6)


def generalized(x, y, form="similarity", threshold=0.5, margin=1.0, normalize=False, miner="all"):
    """RAW eq. 9 with the sign of eq. 11, or Hermans et al. 2017, eq. 8."""
    batch = Batch.collect(x.detach(), y)
    masks = MINERS[miner](similarities(batch), batch.positives, batch.negatives)
    s, d, total = cosines(x), euclidean(unit(x) if normalize else x), 0
    for i, (p, n) in enumerate(zip(*masks)):
        P, N = p.nonzero().flatten().tolist(), n.nonzero().flatten().tolist()
        if P and N and form == "similarity":
            near, far = sum(torch.exp(s[i][k] - threshold) for k in N), sum(torch.exp(-s[i][k]) for k in P)
        elif P and N:
            near, far = sum(torch.exp(margin - d[i][k]) for k in N), sum(torch.exp(d[i][k]) for k in P)
        else:
            continue
        total = total + torch.relu(torch.log(far) + torch.log(near))
    return total / len(y)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"threshold": 1.5, "miner": "vthm"},
        {"form": "distance"},
        {"form": "distance", "margin": 0.3, "normalize": True, "miner": "semi_hard"},
    ],
)
def test_generalized_lifted_structure(options, batch):
    loss = build_loss("generalized_lifted_structure", **options)
    assert_equals_oracle(loss, lambda x, y: generalized(x, y, **options), BATCHES[batch], tolerance=3e-6)


def test_the_papers_weights_are_the_gradient():
    """RAW eq. 10 and 11: softmax of -s over P and of s over N; eq. 9 as printed has neither's sign right."""
    x, y = clustered([4, 3, 2], seed=8)
    s = torch.tensor(cosines(x)).tolist()

    def weighted(x, y):
        similarity, total = cosines(x), 0
        for i in range(len(y)):
            P, N = positives(y, i), negatives(y, i)
            for j in P:
                total = total - similarity[i][j] / sum(math.exp(s[i][j] - s[i][k]) for k in P)
            for j in N:
                total = total + similarity[i][j] / sum(math.exp(s[i][k] - s[i][j]) for k in N)
        return total / len(y)

    loss = build_loss("generalized_lifted_structure", threshold=-2.0)  # every anchor's hinge is open
    _, gradient = value_and_gradient(loss, x, y)
    assert float(loss.active_fraction) == 1
    torch.testing.assert_close(gradient, value_and_gradient(weighted, x, y)[1], rtol=1e-5, atol=1e-6)


def test_both_agree_with_pytorch_metric_learning():
    x, y = clustered([4, 3, 2, 2], seed=9)
    distance = {"distance": pml_distances.LpDistance(normalize_embeddings=False)}
    pairs = {
        "lifted_structure": pml_losses.LiftedStructureLoss(neg_margin=1, **distance),
        "generalized_lifted_structure": pml_losses.GeneralizedLiftedStructureLoss(neg_margin=1, **distance),
    }
    assert_equals_oracle(build_loss("lifted_structure"), pairs["lifted_structure"], (x, y))
    ours = build_loss("generalized_lifted_structure", form="distance")
    assert_equals_oracle(ours, pairs["generalized_lifted_structure"], (x, y))


def test_analytic_values():
    """A positive pair at distance 2 and one negative at 2 from both, in an equilateral triangle."""
    x = torch.tensor([[0.0, 0.0], [2.0, 0.0], [1.0, math.sqrt(3)]], dtype=torch.float64)
    y = torch.tensor([0, 0, 1])
    lifted = (2 + math.log(2 * math.exp(1 - 2))) ** 2 / 2
    assert float(build_loss("lifted_structure")(x, y)) == pytest.approx(lifted)
    hinge = 2 + (1 - 2)  # of two anchors; the third has no positive
    assert float(build_loss("generalized_lifted_structure", form="distance")(x, y)) == pytest.approx(2 * hinge / 3)


def test_far_negatives_switch_a_pair_off():
    x, y = torch.tensor([[0.0], [0.1], [50.0], [50.1]], dtype=torch.float64), torch.tensor([0, 0, 1, 1])
    for options in ({"name": "lifted_structure"}, {"name": "generalized_lifted_structure", "form": "distance"}):
        loss = build_loss(**options)
        value, gradient = value_and_gradient(loss, x, y)
        assert value == 0 and not gradient.any() and loss.active_fraction == 0


def test_a_memory_behind_the_batch_serves_as_positives_and_negatives():
    """Anchors against a longer gallery: every positive pair's other end has its own negatives, in the gallery."""
    x, y = clustered([4, 3, 2], seed=10)
    d, total, count = euclidean(x), 0.0, 0
    for i in range(5):
        for j in positives(y, i):
            mass = sum(math.exp(1 - d[i][k]) for k in negatives(y, i)) + sum(
                math.exp(1 - d[j][k]) for k in negatives(y, j)
            )
            total, count = total + max(float(d[i][j]) + math.log(mass), 0) ** 2 / 2, count + 1
    value = build_loss("lifted_structure").compute(Batch(x[:5], y[:5], x, y))
    assert float(value) == pytest.approx(total / count)


@pytest.mark.parametrize(
    "options",
    [
        {"name": "lifted_structure"},
        {"name": "generalized_lifted_structure", "threshold": -1.0},
        {"name": "generalized_lifted_structure", "form": "distance"},
    ],
)
def test_gradcheck(options):
    x, y = clustered([3, 2, 1], seed=2)
    loss = build_loss(**options)
    assert torch.autograd.gradcheck(lambda x: loss(x, y), x.requires_grad_())


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("lifted_structure", {"margin": -1}, "margin of lifted_structure must be a number of at least 0"),
        ("generalized_lifted_structure", {"margin": -1}, "margin of generalized_lifted_structure"),
        ("generalized_lifted_structure", {"form": "distances"}, "Did you mean 'distance'"),
    ],
)
def test_a_wrong_option_is_named(name, options, message):
    with pytest.raises(InputError, match=message):
        build_loss(name, **options)
