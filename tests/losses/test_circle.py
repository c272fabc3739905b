import math

import pytest
import torch
from pytorch_metric_learning import losses as pml_losses
from pytorch_metric_learning import reducers as pml_reducers

from reid_kit.errors import InputError
from reid_kit.losses import build_loss
from reid_kit.losses.base import Batch
from reid_kit.losses.miners import MINERS
from reid_kit.losses.pairs import similarities
from tests.losses.pair_oracles import BATCHES, assert_equals_oracle, clustered, cosines, value_and_gradient


def oracle(x, y, gamma=128.0, margin=0.25, detach_weights=True, miner="all"):
    """Sun et al. 2020, eq. 6, with O_p = 1 + m, O_n = -m, Delta_p = 1 - m, Delta_n = m."""
    batch = Batch.collect(x.detach(), y)
    masks = MINERS[miner](similarities(batch), batch.positives, batch.negatives)
    s, total = cosines(x), 0
    for i, (p, n) in enumerate(zip(*masks)):
        S_p, S_n = [s[i][j] for j in p.nonzero().flatten()], [s[i][j] for j in n.nonzero().flatten()]
        a_p = [torch.relu(1 + margin - (v.detach() if detach_weights else v)) for v in S_p]
        a_n = [torch.relu((v.detach() if detach_weights else v) + margin) for v in S_n]
        left = sum(torch.exp(gamma * a * (v - margin)) for a, v in zip(a_n, S_n))
        right = sum(torch.exp(-gamma * a * (v - (1 - margin))) for a, v in zip(a_p, S_p))
        total = total + torch.log(1 + left * right + x.new_zeros(()))
    return total / len(y)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"detach_weights": False},
        {"gamma": 80.0, "margin": 0.4},
        {"gamma": 1.0, "margin": 0.0},
        {"gamma": 8.0, "miner": "vthm"},
    ],
)
def test_equation_and_what_it_holds_constant(options, batch):
    loss = build_loss("circle", **options)
    assert_equals_oracle(loss, lambda x, y: oracle(x, y, **options), BATCHES[batch], tolerance=1e-6)


def test_agrees_with_pytorch_metric_learning():
    x, y = clustered([4, 3, 2, 2], seed=9)
    for gamma, margin in ((80, 0.4), (128, 0.25)):
        theirs = pml_losses.CircleLoss(m=margin, gamma=gamma, reducer=pml_reducers.MeanReducer())
        assert_equals_oracle(build_loss("circle", gamma=gamma, margin=margin), theirs, (x, y))


def test_analytic_value():
    """Two orthogonal identities of two equal images: s_p = 1, s_n = 0, two negatives an anchor."""
    x, y = torch.eye(2, dtype=torch.float64).repeat(2, 1), torch.tensor([0, 1, 0, 1])
    for gamma, m in ((1.0, 0.25), (4.0, 0.4)):
        expected = math.log(1 + 2 * math.exp(-gamma * m * m) * math.exp(-gamma * m * m))
        assert float(build_loss("circle", gamma=gamma, margin=m)(x, y)) == pytest.approx(expected)


def test_large_scales_stay_finite_and_give_the_hardest_pairs():
    """As gamma grows, loss / gamma tends to [a_n (s_n - m) - a_p (s_p - 1 + m)]_+ of the hardest pair of each side."""
    x, y = BATCHES["ragged"]
    gamma, m, s = 1e6, 0.25, torch.tensor(cosines(x))
    batch, total = Batch.collect(x, y), 0.0
    for i in range(len(y)):
        P, N = s[i][batch.positives[i]], s[i][batch.negatives[i]]
        if len(P):
            hardest = (torch.relu(N + m) * (N - m)).max() - (torch.relu(1 + m - P) * (P - 1 + m)).min()
            total += max(float(hardest), 0) / len(y)
    value, gradient = value_and_gradient(build_loss("circle", gamma=gamma), x.float(), y)
    assert float(value) / gamma == pytest.approx(total, rel=1e-4)
    assert gradient.isfinite().all()


def test_active_fraction_counts_pairs_beyond_their_boundary():
    x, y = BATCHES["ragged"]
    s, batch = torch.tensor(cosines(x)), Batch.collect(x, y)
    beyond = (batch.positives & (s < 0.75)).sum() + (batch.negatives & (s > 0.25)).sum()
    loss = build_loss("circle")
    loss(x, y)
    assert float(loss.active_fraction) == pytest.approx(float(beyond / (batch.positives | batch.negatives).sum()))


def test_gradcheck():
    x, y = clustered([3, 2, 1], seed=2)
    loss = build_loss("circle", gamma=8.0, detach_weights=False)
    assert torch.autograd.gradcheck(lambda x: loss(x, y), x.requires_grad_())


@pytest.mark.parametrize(
    "options, message",
    [
        ({"gamma": 0}, "gamma of circle must be a number above 0"),
        ({"margin": -0.25}, "margin of circle must be a number of at least 0"),
    ],
)
def test_a_wrong_option_is_named(options, message):
    with pytest.raises(InputError, match=message):
        build_loss("circle", **options)
