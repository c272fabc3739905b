import pytest
import torch

from reid_kit.errors import InputError
from reid_kit.losses import build_loss
from tests.losses.pair_oracles import BATCHES, assert_equals_oracle, clustered, negatives, positives, unit


def hinges(x, y, margin1=1.0, margin2=0.5, squared=False, normalize=False):
    f = unit(x) if normalize else x
    size = range(len(y))
    d = [[(f[i] - f[j]) @ (f[i] - f[j]) if squared else (f[i] - f[j]).norm() for j in size] for i in size]
    first, second = [], []
    for i in size:
        for j in positives(y, i):
            first += [(d[i][j] - d[i][k] + margin1).clamp(min=0) for k in negatives(y, i)]
            second += [
                (d[i][j] - d[k][l] + margin2).clamp(min=0)
                for k in size
                for l in size  # noqa: E741
                if len({int(y[i]), int(y[k]), int(y[l])}) == 3
            ]
    return first, second


def quadruplet_loss(**options):
    return lambda x, y: sum(sum(terms) / len(terms) for terms in hinges(x, y, **options) if terms)


OPTIONS = [{}, {"margin1": 0.3, "margin2": 0.1, "squared": True}, {"normalize": True}, {"margin1": 0.0, "margin2": 0.0}]
SMALL = {**BATCHES, "ragged": clustered([4, 2, 2, 1, 1])}


@pytest.mark.parametrize("batch", SMALL)
@pytest.mark.parametrize("options", OPTIONS)
def test_is_the_sum_over_all_triplets_and_quadruplets(options, batch):
    x, y = SMALL[batch]
    if batch == "duplicates":  # distances of 0: the loop's root has no gradient there
        loss = build_loss("quadruplet", **options)
        torch.testing.assert_close(loss(x, y), quadruplet_loss(**options)(x, y), atol=1e-5, rtol=1e-5)
    else:
        assert_equals_oracle(build_loss("quadruplet", **options), quadruplet_loss(**options), (x, y))


def test_active_fraction_counts_triplets_and_quadruplets():
    x, y = clustered([3, 2, 2, 1], seed=2)
    loss = build_loss("quadruplet")
    loss(x, y)
    terms = sum(hinges(x, y), [])
    assert 0 < loss.active_fraction < 1
    assert loss.active_fraction.item() == pytest.approx(sum(float(term > 0) for term in terms) / len(terms))


def test_collapsed_embeddings_give_the_margins():
    loss = build_loss("quadruplet", margin1=0.25, margin2=0.75)
    assert loss(torch.ones(6, 3), torch.tensor([0, 0, 1, 1, 2, 2])).item() == pytest.approx(1.0)
    assert loss.active_fraction == 1
    # two identities make triplets, but no quadruplet
    assert loss(torch.ones(4, 3), torch.tensor([0, 0, 1, 1])).item() == pytest.approx(0.25)


def test_large_distances_in_float32_lose_no_digits_in_the_running_sums():
    x, y = clustered([4] * 24, seed=9, dimension=16)
    x = 100 * unit(x)
    exact = build_loss("quadruplet")(x, y)
    torch.testing.assert_close(build_loss("quadruplet")(x.float(), y).double(), exact, rtol=1e-5, atol=0)


def test_gradcheck():
    x, y = clustered([2, 3, 1], seed=8)
    assert torch.autograd.gradcheck(lambda x: build_loss("quadruplet")(x, y), x.requires_grad_())


@pytest.mark.parametrize("option", ["margin1", "margin2"])
def test_margins_are_checked(option):
    with pytest.raises(InputError, match=f"{option} of quadruplet"):
        build_loss("quadruplet", **{option: -0.1})
