import math

import pytest
import torch
from pytorch_metric_learning import losses as pml_losses

from reid_kit.errors import InputError
from reid_kit.losses import build_loss, pairs
from tests.losses.pair_oracles import (
    BATCHES,
    assert_equals_oracle,
    clustered,
    negatives,
    positives,
    unit,
    value_and_gradient,
)


def angular_loss(angle=45.0, n_pair_weight=1.0, angular_weight=2.0, normalize=True):
    t = math.tan(math.radians(angle)) ** 2

    def loss(x, y):
        f, terms = unit(x) if normalize else x, []
        for a in range(len(y)):
            for p in positives(y, a):
                N = negatives(y, a)
                far = [torch.exp(4 * t * (f[a] + f[p]) @ f[n] - 2 * (1 + t) * f[a] @ f[p]) for n in N]
                near = [torch.exp(f[a] @ f[n] - f[a] @ f[p]) for n in N]
                zero = x.sum() * 0
                terms.append(
                    n_pair_weight * torch.log(1 + sum(near, zero)) + angular_weight * torch.log(1 + sum(far, zero))
                )
        return sum(terms) / max(len(terms), 1)

    return loss


OPTIONS = [{}, {"angle": 36.0, "n_pair_weight": 0.0, "angular_weight": 1.0}, {"angle": 30.0, "normalize": False}]


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("options", OPTIONS)
def test_is_the_papers_sum(options, batch):
    assert_equals_oracle(build_loss("angular", **options), angular_loss(**options), BATCHES[batch])


def test_agrees_with_pytorch_metric_learning_without_the_n_pair_term():
    ours = build_loss("angular", angle=40.0, n_pair_weight=0.0, angular_weight=1.0)
    theirs = pml_losses.AngularLoss(alpha=40)  # normalises anchors and positives, but not the negatives
    assert_equals_oracle(ours, lambda x, y: theirs(unit(x), y), clustered([4, 3, 2, 1]))


def test_blocks_change_nothing(monkeypatch):
    x, y = clustered([5, 4, 3], seed=3)
    whole = value_and_gradient(build_loss("angular"), x, y)
    monkeypatch.setattr(pairs, "BLOCK", 30)
    for ours, expected in zip(value_and_gradient(build_loss("angular"), x, y), whole):
        torch.testing.assert_close(ours, expected)


def test_collapsed_embeddings():
    # exponents: 0 of the n-pair term; 4 * 2 - 2 * 2 = 4 of the angular one; two negatives each
    loss = build_loss("angular")
    value = loss(torch.ones(4, 5), torch.tensor([0, 0, 1, 1]))
    assert value.item() == pytest.approx(math.log(3) + 2 * math.log(1 + 2 * math.exp(4)), rel=1e-5)
    assert loss.active_fraction == 1
    loss(torch.tensor([[1.0, 0], [1, 0], [-1, 0], [-1, 0]]), torch.tensor([0, 0, 1, 1]))
    assert loss.active_fraction == 0


def test_large_unnormalised_embeddings_stay_finite():
    x, y = clustered([3, 3, 2], seed=1)
    x = (100 * unit(x)).float().requires_grad_()
    value = build_loss("angular", normalize=False)(x, y)
    value.backward()
    assert value.isfinite() and x.grad.isfinite().all()


def test_gradcheck():
    x, y = clustered([2, 3, 1], seed=8)
    assert torch.autograd.gradcheck(lambda x: build_loss("angular")(x, y), x.requires_grad_())


@pytest.mark.parametrize("options", [{"angle": 0}, {"angle": 90}, {"n_pair_weight": -1.0}, {"angular_weight": -1.0}])
def test_options_are_checked(options):
    with pytest.raises(InputError, match=f"{next(iter(options))} of angular"):
        build_loss("angular", **options)
