import pytest
import torch
from pytorch_metric_learning import losses as pml_losses

from reid_kit.errors import InputError
from reid_kit.losses import build_loss
from reid_kit.losses.base import Batch
from reid_kit.losses.miners import MINERS
from reid_kit.losses.pairs import similarities
from tests.losses.pair_oracles import BATCHES, assert_equals_oracle, clustered, euclidean, unit


def mined(x, y, miner):
    batch = Batch.collect(x.detach(), y)
    extra = {"dimension": x.shape[1]} if miner == "distance_weighted" else {}
    return MINERS[miner](similarities(batch), batch.positives, batch.negatives, **extra)


def oracle(x, y, beta, margin=0.2, miner="distance_weighted"):
    """Wu et al. 2017, divided by the number of terms above 0; `beta` holds every label's boundary."""
    P, N = mined(x, y, miner)
    d, terms = euclidean(unit(x)), []
    for i in range(len(y)):
        for j in range(len(y)):
            if P[i, j]:
                terms.append(torch.relu(d[i][j] - beta[y[i]] + margin))
            if N[i, j]:
                terms.append(torch.relu(beta[y[i]] - d[i][j] + margin))
    active = [term for term in terms if term > 0]
    return sum(active) / max(len(active), 1)


def seeded(loss):
    def call(x, y):
        torch.manual_seed(0)
        return loss(x, y)

    return call


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("options", [{}, {"margin": 0.05}, {"miner": "all"}, {"miner": "vthm", "margin": 0.0}])
def test_equation(options, batch):
    loss = build_loss("margin", **options)
    boundary = [1.2] * 5
    assert_equals_oracle(seeded(loss), seeded(lambda x, y: oracle(x, y, boundary, **options)), BATCHES[batch], 3e-6)


@pytest.mark.parametrize("classes", [None, 5])
def test_gradient_of_the_boundary(classes):
    x, y = BATCHES["ragged"]
    loss = build_loss("margin", classes=classes, beta=1.0)
    with torch.no_grad():
        loss.beta += torch.linspace(0, 0.3, classes or 1)
    boundary = loss.beta.detach().double().expand(5).clone().requires_grad_()
    seeded(loss)(x, y).backward()
    (expected,) = torch.autograd.grad(seeded(lambda x, y: oracle(x, y, boundary))(x, y), boundary)
    assert loss.beta.shape == (classes or 1,)
    expected = expected if classes else expected.sum()[None]
    torch.testing.assert_close(loss.beta.grad.double(), expected, atol=1e-6, rtol=0)


def test_agrees_with_pytorch_metric_learning_on_the_same_triplets():
    """Each positive of an anchor beside one of its drawn negatives: the terms are those of our pairs."""
    x, y = clustered([4] * 6, noise=2.0, dimension=16)
    torch.manual_seed(0)
    P, N = mined(x, y, "distance_weighted")
    assert torch.equal(P.sum(1), N.sum(1))
    (a, p), (_, n) = P.nonzero(as_tuple=True), N.nonzero(as_tuple=True)
    theirs = pml_losses.MarginLoss(margin=0.2, beta=1.2)
    assert_equals_oracle(seeded(build_loss("margin")), lambda x, y: theirs(x, y, (a, p, n)), (x, y), 3e-6)


def test_analytic_value():
    """Pairs of the unit square's corners: one positive pair at 2, negatives at sqrt(2)."""
    x = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]], dtype=torch.float64)
    loss = build_loss("margin", miner="all", beta=1.5)
    value = loss(x, torch.tensor([0, 0, 1, 2]))
    P, N = 2 - 1.5 + 0.2, 1.5 - 2**0.5 + 0.2  # 2 ordered positive pairs; 8 negatives at sqrt(2), 2 beyond reach at 2
    assert float(value) == pytest.approx((2 * P + 8 * N) / 10)
    assert float(loss.active_fraction) == pytest.approx(10 / 12)


def test_gradcheck_with_its_boundary():
    x, y = clustered([3, 2, 1], seed=2)
    loss = build_loss("margin", miner="all", classes=3).double()
    # the number of active terms is constant around x
    assert torch.autograd.gradcheck(lambda x, beta: loss(x, y), (x.requires_grad_(), loss.beta))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"margin": -0.2}, "margin of margin must be a number of at least 0"),
        ({"beta": 0}, "beta of margin must be a number above 0"),
        ({"classes": 0}, "classes of margin must be a whole number of at least 1"),
    ],
)
def test_a_wrong_option_is_named(options, message):
    with pytest.raises(InputError, match=message):
        build_loss("margin", **options)


def test_a_label_without_a_boundary_is_named():
    with pytest.raises(InputError, match="margin was built for classes=0..2"):
        build_loss("margin", classes=3)(*BATCHES["ragged"])
