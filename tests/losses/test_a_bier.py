import math

import pytest
import torch

from reid_kit.errors import InputError
from reid_kit.losses import build_loss
from tests.losses.pair_oracles import BATCHES, assert_equals_oracle, clustered, cosines, value_and_gradient

SIZES, ALPHA, BETA, LAMBDA = [1, 2, 3], 2.0, 50.0, 0.5


def a_bier(**options):
    torch.manual_seed(0)
    return build_loss("a_bier", **{"embedding_size": 6, "sizes": SIZES, "hidden": 7, **options}).double()


def boosting(x, y):
    """Learner by learner and pair by pair; weights are minus the derivative of the ensemble's log(1 + exp(-z))."""
    S, z = {}, {}
    total, start = 0, 0
    for m, size in enumerate(SIZES, start=1):
        s = cosines(x[:, start : start + size])
        start += size
        losses = {True: [], False: []}
        for i in range(len(y)):
            for j in range(len(y)):
                if i == j:
                    continue
                weight = 1.0 if m == 1 else 1 / (1 + math.exp(z[i, j]))
                same = bool(y[i] == y[j])
                margin = ALPHA * (s[i][j] - LAMBDA) if same else BETA * (LAMBDA - s[i][j])
                losses[same].append(weight * torch.log(1 + torch.exp(-margin)))
                eta = 2 / (m + 1)
                S[i, j] = (1 - eta) * S.get((i, j), 0.0) + eta * float(s[i][j])
                z[i, j] = ALPHA * (S[i, j] - LAMBDA) if same else BETA * (LAMBDA - S[i, j])
        total = total + sum(sum(terms) / len(terms) for terms in losses.values() if terms)
    return total


@pytest.mark.parametrize("batch", BATCHES)
def test_is_boosting_by_loops(batch):
    assert_equals_oracle(a_bier(diversity=0.0), boosting, BATCHES[batch])


def test_first_part_has_the_gradient_of_binomial_deviance_whatever_the_weights_of_the_others():
    x, y = clustered([3, 3, 3])  # balanced, so that means over anchors and over pairs agree
    _, gradient = value_and_gradient(a_bier(sizes=[3, 3], diversity=0.0), x, y)
    _, expected = value_and_gradient(build_loss("binomial_deviance", reduction="mean"), x[:, :3], y)
    torch.testing.assert_close(gradient[:, :3], expected)


def test_active_fraction_is_that_of_the_ensemble():
    # sub-embeddings agree: positives at 1 and negatives at 0, on the threshold's right sides
    loss = build_loss("a_bier", embedding_size=6, sizes=[2, 2, 2], diversity=0.0)
    x = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]]).repeat(1, 3)
    loss(x, torch.tensor([0, 0, 1, 1]))
    assert loss.active_fraction == 0
    loss(x, torch.tensor([0, 1, 0, 1]))
    assert loss.active_fraction == 0.5 + 0.5 / 3  # 4 of 12 positives at 0; of 8 negatives 4 at 1


def dependence(loss, x):
    """The regulariser without its reversal, by loops."""
    parts = [p / p.norm(dim=1, keepdim=True) * math.sqrt(p.shape[1]) for p in x.split(SIZES, dim=1)]
    total = 0
    for (i, j), (first, _, second) in zip([(0, 1), (0, 2), (1, 2)], loss.regressors):
        r = (parts[j] @ first.weight.T + first.bias).clamp(min=0) @ second.weight.T + second.bias
        total = total - sum((f * g) ** 2 for f, g in zip(parts[i].flatten(), r.flatten())) / r.numel()
        for layer in (first, second):
            total = total + 100 * sum((w @ w - 1) ** 2 for w in layer.weight) / len(layer.weight)
            total = total + 100 * (layer.bias @ layer.bias - 1).clamp(min=0)
    return total


def perturbed():
    loss = a_bier(diversity=0.1)
    for number, parameter in enumerate(loss.parameters()):
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)).double()
    loss.regressors[0][0].bias.data += 1  # beyond the unit ball
    return loss


def test_regressors_follow_the_gradient_and_embeddings_its_opposite():
    (x, y), loss = clustered([4, 3, 2]), perturbed()
    found = torch.autograd.grad(loss(x, y), list(loss.parameters()))
    expected = torch.autograd.grad(0.1 * dependence(loss, x), list(loss.parameters()))
    for ours, theirs in zip(found, expected):
        torch.testing.assert_close(ours, theirs)
    value, gradient = value_and_gradient(loss, x, y)
    boosted, slope = value_and_gradient(boosting, x, y)
    diverse, reversed_slope = value_and_gradient(lambda x, y: 0.1 * dependence(loss, x), x, y)
    torch.testing.assert_close(value, boosted + diverse)
    torch.testing.assert_close(gradient, slope - reversed_slope)


def test_regressors_start_where_their_penalty_is_zero():
    x, _ = clustered([4, 3, 2])
    loss = a_bier()
    parts = loss.dependence(x.split(SIZES, dim=1))
    loss.weight_penalty = 0.0
    torch.testing.assert_close(parts, loss.dependence(x.split(SIZES, dim=1)))


def test_parts_grow_apart_against_trained_regressors():
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(64, 4, generator=generator)
    x = torch.cat([common, common], dim=1).requires_grad_()
    torch.manual_seed(0)
    loss = build_loss("a_bier", embedding_size=8, sizes=[4, 4], diversity=1.0, hidden=16)
    optimizer = torch.optim.Adam(loss.parameters(), 0.01)
    for _ in range(100):  # the regressor learns to find the first part in the second
        optimizer.zero_grad()
        value = loss.dependence(x.split([4, 4], dim=1))
        value.backward()
        optimizer.step()
    x.grad = None
    before = loss.dependence(x.split([4, 4], dim=1))
    before.backward()
    x.data -= 0.1 * x.grad / x.grad.norm(dim=1, keepdim=True)
    assert loss.dependence(x.split([4, 4], dim=1)) > before  # less similarity: the term is minus it


def test_gradcheck_of_the_last_part_of_which_no_weight_is_a_function():
    x, y = clustered([2, 3, 2], seed=8)
    loss, part = a_bier(sizes=[3, 3], diversity=0.0), x[:, 3:].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda part: loss(torch.cat([x[:, :3], part], dim=1), y), part)


def test_sizes_and_options_are_checked():
    assert build_loss("a_bier").sizes == [96, 160, 256]
    assert build_loss("a_bier", embedding_size=32, sizes=[32]).sizes == [6, 10, 16]
    assert build_loss("a_bier", sizes=[2, 3]).sizes == [2, 3]
    with pytest.raises(InputError, match="sizes of a_bier"):
        build_loss("a_bier", embedding_size=6, sizes=[2, 2, 3])
    with pytest.raises(InputError, match="sizes of a_bier"):
        a_bier()(torch.randn(2, 7), torch.tensor([0, 0]))
    for option, value in {"alpha": 0, "beta": -1, "diversity": -1.0, "weight_penalty": -1.0, "hidden": 0}.items():
        with pytest.raises(InputError, match=f"{option} of a_bier"):
            a_bier(**{option: value})
