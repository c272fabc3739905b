import pytest
import torch
from pytorch_metric_learning import losses as pml_losses
from sklearn.metrics import average_precision_score

from reid_kit.errors import InputError
from reid_kit.losses import build_loss, pairs
from reid_kit.losses.base import Batch
from tests.losses.pair_oracles import BATCHES, assert_equals_oracle, clustered, cosines, negatives, positives


def oracle(x, y, temperature=0.01):
    """Brown et al. 2020, over the anchors that have positives."""

    def rank(s, p, among):
        return 1 + sum(torch.sigmoid((s[j] - s[p]) / temperature) for j in among if j != p)

    s, losses = cosines(x), []
    for i in range(len(y)):
        P, N = positives(y, i), negatives(y, i)
        if P:
            losses.append(1 - sum(rank(s[i], p, P) / rank(s[i], p, P + N) for p in P) / len(P))
    return sum(losses) / max(len(losses), 1)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("temperature", [0.01, 0.1, 3.0])
def test_equation(temperature, batch):
    loss = build_loss("smooth_ap", temperature=temperature)
    assert_equals_oracle(loss, lambda x, y: oracle(x, y, temperature), BATCHES[batch])


def test_tends_to_average_precision():
    x, y = clustered([6, 4, 3, 2, 1], noise=1.5)
    s, precisions = torch.tensor(cosines(x)), []
    for i in range(len(y)):
        others = torch.arange(len(y)) != i
        if positives(y, i):
            precisions.append(average_precision_score(y[others] == y[i], s[i][others]))
    expected = 1 - sum(precisions) / len(precisions)
    assert 0.1 < expected < 0.9
    assert float(build_loss("smooth_ap", temperature=1e-6)(x, y)) == pytest.approx(expected, abs=1e-6)


def test_tends_to_the_share_of_negatives_as_temperature_grows():
    """Every comparison is 1/2: AP is (1 + (P - 1) / 2) / (1 + (M - 2) / 2), M the batch."""
    x, y = clustered([4, 4, 4])
    loss = build_loss("smooth_ap", temperature=1e6)(x, y)
    assert float(loss) == pytest.approx(1 - (1 + 2 / 2) / (1 + 10 / 2), abs=1e-5)


def test_agrees_with_pytorch_metric_learning_where_that_is_right():
    """Sorted identities, as many as images of each, and every anchor a positive of its own."""
    x, y = clustered([4, 4, 4, 4])
    x, y = x[y.argsort()], y.sort().values
    among_itself = Batch(x, y, x, y, first=len(y))  # no row of the gallery is the anchor's own
    theirs = pml_losses.SmoothAPLoss(temperature=0.01)
    assert float(build_loss("smooth_ap").compute(among_itself)) == pytest.approx(float(theirs(x, y)), abs=1e-5)


def test_blocks_change_nothing(monkeypatch):
    loss = build_loss("smooth_ap", temperature=0.1)
    x, y = BATCHES["ragged"]
    for block in (1, 3 * len(y)):
        monkeypatch.setattr(pairs, "BLOCK", block)
        assert_equals_oracle(loss, lambda x, y: oracle(x, y, 0.1), (x, y))


def test_active_fraction_counts_positives_behind_a_negative():
    x, y = BATCHES["ragged"]
    s = cosines(x)
    behind = [any(s[i][n] >= s[i][p] for n in negatives(y, i)) for i in range(len(y)) for p in positives(y, i)]
    loss = build_loss("smooth_ap")
    loss(x, y)
    assert 0 < sum(behind) < len(behind)
    assert float(loss.active_fraction) == pytest.approx(sum(behind) / len(behind))


def test_gradcheck():
    x, y = clustered([3, 2, 1], seed=2)
    loss = build_loss("smooth_ap", temperature=0.2)
    assert torch.autograd.gradcheck(lambda x: loss(x, y), x.requires_grad_())


def test_a_wrong_temperature_is_named():
    with pytest.raises(InputError, match="temperature of smooth_ap must be a number above 0"):
        build_loss("smooth_ap", temperature=0)
