"""Soft ranks, in tiles and by polynomials, against the sum that defines them."""

import pytest
import torch

from reid_kit.losses import soft_ranks
from tests.losses.pair_oracles import clustered


def by_polynomials(rows):
    return soft_ranks._is_long(rows, soft_ranks._span(rows)[1])


def naive(rows, temperature):
    return 0.5 + torch.sigmoid((rows[:, :, None] - rows[:, None, :]) / temperature).sum(2)


def outcome(function, rows, weights):
    rows = rows.clone().requires_grad_()
    ranks = function(rows)
    return ranks.detach(), torch.autograd.grad((ranks * weights).sum(), rows)[0]


ROWS = {
    "even": torch.rand(3, 700, dtype=torch.float64),
    "one far away": torch.cat([torch.rand(2, 699, dtype=torch.float64), torch.tensor([[7.0], [1.0]])], dim=1),
    "two clusters": torch.rand(2, 700, dtype=torch.float64) * 0.1 + torch.tensor([0.0] * 600 + [3.0] * 100),
    "all equal": torch.full((2, 300), 2.5, dtype=torch.float64),
    "ties": torch.randint(4, (2, 400)).double(),
}


@pytest.mark.parametrize("temperature", [0.05, 0.3, 10.0])
@pytest.mark.parametrize("kind", ROWS)
def test_polynomials_are_the_sum(kind, temperature, monkeypatch):
    rows = ROWS[kind][:, torch.randperm(ROWS[kind].shape[1], generator=torch.Generator().manual_seed(0))]
    weights = torch.randn(rows.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(soft_ranks, "LENGTH_A_DEGREE", 0)
    assert by_polynomials(rows / temperature)
    expected, expected_gradient = outcome(lambda r: naive(r, temperature), rows, weights)
    ranks, gradient = outcome(lambda r: soft_ranks.soft_ranks(r, temperature), rows, weights)
    torch.testing.assert_close(ranks, expected, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-9, atol=1e-9 / temperature)
    ranks, gradient = outcome(lambda r: soft_ranks.soft_ranks(r, temperature), rows.float(), weights.float())
    torch.testing.assert_close(ranks.double(), expected, rtol=1e-5, atol=1e-5)
    assert (gradient.double() - expected_gradient).norm() <= 1e-4 * expected_gradient.norm()


def test_a_long_list_takes_polynomials_and_a_short_or_wide_one_tiles():
    def ways(*shape, span=1.0):
        return by_polynomials(torch.rand(*shape) * span)

    assert ways(2, 8192, span=20) and not ways(2, 72, span=20) and not ways(2, 1000, span=1e4)
    assert not by_polynomials(torch.tensor([[0.0, float("nan")]]).repeat(1, 500))
    assert not by_polynomials(torch.tensor([[0.0, float("inf")]]).repeat(1, 500))


def test_polynomials_hold_no_more_than_a_block(monkeypatch):
    monkeypatch.setitem(soft_ranks.BLOCK, "cpu", 2**16)
    rows = torch.rand(64, 2000, requires_grad=True)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        soft_ranks.soft_ranks(rows, 1.0).sum().backward()
    sizes = [event.nbytes() for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    assert max(sizes) <= 8 * max(2**16, rows.numel())


@pytest.mark.parametrize("block", [1, 20, 2**19])
def test_ranks_pass_gradcheck(monkeypatch, block):
    """In parts of one entry of a list, of two, and all at once."""
    monkeypatch.setitem(soft_ranks.BLOCK, "cpu", block)
    rows = torch.randn(4, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(lambda r: soft_ranks.soft_ranks(r, 0.3), rows)


def test_no_more_than_a_block_is_held_at_once(monkeypatch):
    """In tiles, of two lists of 3,000: all their differences would be 72 MB, and twice that with the sigmoid's."""
    monkeypatch.setattr(soft_ranks, "LENGTH_A_DEGREE", 10**6)
    rows = torch.rand(2, 3000, requires_grad=True)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        soft_ranks.soft_ranks(rows, 1.0).sum().backward()
    sizes = [event.nbytes() for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    assert 2**20 < max(sizes) <= 4 * soft_ranks.BLOCK["cpu"]


def test_float32_is_the_naive_form_to_five_digits():
    x, y = clustered([4] * 32, dimension=64)
    rows = torch.cdist(x, x)

    def naive(rows):
        return 0.5 + torch.sigmoid((rows[:, :, None] - rows[:, None, :]) / 0.7).sum(2)

    def outcome(function, rows):
        rows = rows.clone().requires_grad_()
        ranks = function(rows)
        return ranks.detach(), torch.autograd.grad((ranks.log()).sum(), rows)[0]

    expected, expected_gradient = outcome(naive, rows)
    ranks, gradient = outcome(lambda r: soft_ranks.soft_ranks(r, 0.7), rows.float())
    torch.testing.assert_close(ranks.double(), expected, rtol=1e-5, atol=0)
    assert (gradient.double() - expected_gradient).norm() / expected_gradient.norm() < 1e-5


def test_adding_a_constant_to_every_distance_changes_nothing():
    rows = torch.rand(5, 9, dtype=torch.float64)
    ranks = soft_ranks.soft_ranks
    torch.testing.assert_close(ranks(rows, 0.2), ranks(rows + 3.7, 0.2))
