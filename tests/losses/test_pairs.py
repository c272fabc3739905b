import math

import pytest
import torch

from reid_kit.errors import InputError
from reid_kit.losses import pairs
from reid_kit.losses.base import Batch
from tests.losses.pair_oracles import clustered, euclidean


def batch_of(x, y):
    return Batch.collect(x, y)


def random_rows(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_distances_are_those_of_the_loop():
    x, y = clustered([3, 2, 1])
    expected = torch.tensor([[float((a - b).norm()) for b in x] for a in x], dtype=torch.float64)
    torch.testing.assert_close(pairs.distances(batch_of(x, y)), expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(pairs.distances(batch_of(x, y), "squared"), expected.square(), rtol=1e-9, atol=1e-12)
    cosine = [[1 - float(a @ b / a.norm() / b.norm()) for b in x] for a in x]
    torch.testing.assert_close(
        pairs.distances(batch_of(x, y), "cosine"), torch.tensor(cosine, dtype=torch.float64), rtol=1e-9, atol=1e-12
    )


def test_gradient_of_distances_is_that_of_the_loop():
    x, y = clustered([3, 2, 1])
    weights = random_rows(6, 6).fill_diagonal_(0)
    gradients = []
    for rows in (lambda a: pairs.distances(batch_of(a, y)), lambda a: torch.stack([torch.stack(r) for r in loop(a)])):
        leaf = x.clone().requires_grad_()
        gradients.append(torch.autograd.grad((weights * rows(leaf)).sum(), leaf)[0])
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-10)


def loop(x):
    return [[d if i != j else x.sum() * 0 for j, d in enumerate(row)] for i, row in enumerate(euclidean(x))]


@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_a_common_offset_costs_no_digits(shift):
    x, y = clustered([4, 4, 4], dimension=32)
    expected = torch.cdist(x, x)
    found = pairs.distances(batch_of((x + shift).float(), y))
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("norm", [1e-4, 1.0, 100.0])
def test_duplicates_add_no_noise_to_the_gradient(norm):
    """A pair at distance 0 has no direction: with it, the gradient is that of all other pairs."""
    x = torch.nn.functional.normalize(random_rows(12, 64)).float() * norm
    x[7:] = x[:5]
    y = torch.arange(12)
    leaf = x.clone().requires_grad_()
    gradient = torch.autograd.grad(pairs.distances(batch_of(leaf, y)).sum(), leaf)[0]
    exact = x.double()
    apart = exact[:, None] - exact[None]
    lengths = apart.norm(dim=2, keepdim=True)
    expected = 2 * (apart / lengths.masked_fill(lengths == 0, 1)).sum(1)
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("kind", pairs.DISTANCES)
def test_an_anchor_is_at_0_from_itself_and_only_there_by_definition(kind):
    x, y = clustered([2, 2])
    x[1] = x[0]
    matrix = pairs.distances(batch_of(100 * x, y), kind)
    assert torch.equal(matrix.diagonal(), torch.zeros(4, dtype=torch.float64))
    assert matrix[0, 1] == pytest.approx(0, abs=2e-6)


def test_masked_reductions_are_those_of_the_loop():
    values, mask = 30 * random_rows(5, 7), random_rows(5, 7, seed=1) > 0
    mask[2] = False
    for i in range(5):
        chosen = values[i][mask[i]]
        if len(chosen):
            assert pairs.masked_logsumexp(values, mask)[i] == pytest.approx(float(chosen.logsumexp(0)))
            assert pairs.masked_mean(values, mask)[i] == pytest.approx(float(chosen.mean()))
        torch.testing.assert_close(pairs.masked_softmax(values, mask)[i][mask[i]], chosen.softmax(0))
        assert not pairs.masked_softmax(values, mask)[i][~mask[i]].any()
    assert pairs.masked_logsumexp(values, mask)[2] == -math.inf
    assert pairs.masked_mean(values, mask)[2] == 0


@pytest.mark.parametrize("reduction", [pairs.masked_logsumexp, pairs.masked_softmax, pairs.masked_mean])
@pytest.mark.parametrize("scale", [1.0, 1e4, 1e30])
def test_gradients_of_masked_reductions_stay_within_the_mask(reduction, scale):
    values = (scale * random_rows(4, 6).float()).requires_grad_()
    mask = random_rows(4, 6, seed=1) > 0
    mask[1] = False
    outcome = reduction(values, mask)
    gradient = torch.autograd.grad(outcome.masked_fill(outcome.isinf(), 0).square().sum() / scale, values)[0]
    assert gradient.isfinite().all()
    assert not gradient[~mask].any()


def test_masked_reductions_pass_gradcheck():
    mask = random_rows(4, 6, seed=1) > -0.5
    for reduction in (pairs.masked_logsumexp, pairs.masked_softmax, pairs.masked_mean):
        values = random_rows(4, 6).requires_grad_()
        assert mask.any(1).all() and torch.autograd.gradcheck(lambda v, f=reduction: f(v, mask), values)


def test_fraction():
    of = torch.tensor([True, True, False, True])
    assert pairs.fraction(torch.tensor([True, False, True, False]), of) == pytest.approx(1 / 3)
    assert pairs.fraction(of, torch.zeros_like(of)) == 0


@pytest.mark.parametrize("value", ["1e-4", None, True, float("nan"), -1, [1]])
def test_what_is_not_a_number_in_range(value):
    for check in (pairs.positive_number, pairs.non_negative_number):
        with pytest.raises(InputError, match="^m must be a number"):
            check("m", value)


def test_numbers_in_range():
    assert pairs.positive_number("m", 2) == 2 and pairs.non_negative_number("m", 0) == 0
    with pytest.raises(InputError, match="above 0, got 0"):
        pairs.positive_number("m", 0)
