import pytest
import torch

from reid_kit.losses import build_loss
from tests.losses.pair_oracles import assert_equals_oracle, clustered, unit, value_and_gradient


def indicators(y):
    columns = [(y == label).double() for label in y.unique()]
    return torch.stack([column / column.sum().sqrt() for column in columns], dim=1)


def full_rank_loss(x, y):
    """-1/2 tr(J J^T F (F^T F)^-1 F^T): the pseudo-inverse where the columns of F are independent."""
    J = indicators(y)
    return -torch.trace(J @ J.T @ x @ torch.linalg.inv(x.T @ x) @ x.T) / 2


def closed_form(x, y):
    J, inverse = indicators(y), torch.linalg.pinv(x)
    return -torch.trace(J @ J.T @ x @ inverse) / 2, (x @ inverse @ J - J) @ (inverse @ J).T


TALL = [
    clustered(counts, seed=seed, dimension=4) for seed, counts in enumerate([[5, 3, 2, 1], [1] * 6, [7], [4, 4, 4]])
]


@pytest.mark.parametrize("batch", TALL)
def test_is_the_definition_by_the_inverse_of_full_rank(batch):
    assert_equals_oracle(build_loss("spectral_clustering"), full_rank_loss, batch)


def test_normalized_embeddings():
    loss = build_loss("spectral_clustering", normalize=True)
    assert_equals_oracle(loss, lambda x, y: full_rank_loss(unit(x), y), TALL[0])


def low_rank():
    x, y = clustered([4, 3, 2], dimension=6)
    return x[:, :2] @ x[:2], y


def repeated_rows():
    x, y = clustered([4, 3, 2], dimension=6)
    return x[y], y


DEFICIENT = {
    "rank 2": low_rank(),
    "repeated rows": repeated_rows(),
    "wide": clustered([2, 2, 1], dimension=9),
    "one direction": (torch.ones(5, 3, dtype=torch.float64), torch.tensor([0, 1, 0, 2, 1])),
    "zeros": (torch.zeros(5, 3, dtype=torch.float64), torch.tensor([0, 1, 0, 2, 1])),
    "one image": clustered([1], dimension=3),
}


@pytest.mark.parametrize("batch", DEFICIENT)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_gradient_is_the_closed_form_at_any_rank(dtype, batch):
    x, y = DEFICIENT[batch]
    value, gradient = value_and_gradient(build_loss("spectral_clustering"), x.to(dtype), y)
    expected = closed_form(x, y)
    tolerance = 1e-8 if dtype == torch.float64 else 1e-4
    torch.testing.assert_close(value.double(), expected[0], rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(gradient.double(), expected[1], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("norm", [100.0, 1e-4])
def test_does_not_depend_on_the_scale(norm):
    x, y = TALL[0]
    value, gradient = value_and_gradient(build_loss("spectral_clustering"), x, y)
    scaled = value_and_gradient(build_loss("spectral_clustering"), (norm * x).float(), y)
    torch.testing.assert_close(scaled[0].double(), value, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(scaled[1].double() * norm, gradient, rtol=1e-3, atol=1e-5)


def test_spanned_and_collapsed():
    y = torch.tensor([0, 0, 0, 1, 1, 2])
    loss = build_loss("spectral_clustering")
    assert loss(torch.nn.functional.one_hot(y).float() * torch.tensor([3.0, 1, 2]), y).item() == pytest.approx(-1.5)
    assert loss.active_fraction.item() == pytest.approx(0, abs=1e-6)
    # one direction: J J^T of the constant vector, tr = 1
    assert loss(torch.ones(6, 4), y).item() == pytest.approx(-0.5)
    assert loss.active_fraction.item() == pytest.approx(2 / 3)


def test_descent_reaches_the_minimum():
    x, y = clustered([8] * 4, seed=1, noise=1.0, dimension=5)
    x = x.float().requires_grad_()
    loss, optimizer = build_loss("spectral_clustering"), torch.optim.Adam([x], 0.05)
    for _ in range(300):
        optimizer.zero_grad()
        value = loss(x, y)
        value.backward()
        optimizer.step()
    assert value.item() < -1.99


def test_gradcheck_at_full_rank():
    x, y = clustered([3, 3, 2], seed=8, dimension=4)
    assert torch.autograd.gradcheck(lambda x: build_loss("spectral_clustering")(x, y), x.requires_grad_())
