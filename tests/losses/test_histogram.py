import math

import pytest
import torch
from pytorch_metric_learning import losses as pml_losses

from reid_kit.errors import InputError
from reid_kit.losses import build_loss
from tests.losses.pair_oracles import BATCHES, assert_equals_oracle, clustered, cosines


def histogram_loss(bins):
    def loss(x, y):
        step, s = 2 / (bins - 1), cosines(x)
        pairs = {True: [], False: []}
        for i in range(len(y)):
            for j in range(i):
                pairs[bool(y[i] == y[j])].append(s[i][j].clamp(-1, 1))
        if not all(pairs.values()):
            return 0.0
        h = {}
        for kind, values in pairs.items():
            centres = [-1 + r * step for r in range(bins)]
            h[kind] = [sum((1 - (v - t).abs() / step).clamp(min=0) for v in values) / len(values) for t in centres]
        return sum(h[False][r] * sum(h[True][: r + 1]) for r in range(bins))

    return loss


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("bins", [100, 11, 2])
def test_is_the_papers_estimate(bins, batch):
    x, y = BATCHES[batch]
    if batch == "duplicates":  # a similarity of exactly 1 lies on the kink of the clamp
        torch.testing.assert_close(build_loss("histogram", bins=bins)(x, y), histogram_loss(bins)(x, y))
    else:
        assert_equals_oracle(build_loss("histogram", bins=bins), histogram_loss(bins), (x, y))


def test_agrees_with_pytorch_metric_learning_of_one_bin_less():
    assert_equals_oracle(build_loss("histogram"), pml_losses.HistogramLoss(n_bins=99), clustered([4, 3, 2]))


def test_two_pairs_apart_and_together():
    loss = build_loss("histogram")
    y = torch.tensor([0, 0, 1, 1])
    assert loss(torch.tensor([[1.0, 0], [1, 0], [-1, 0], [-1, 0]]), y) == 0
    assert loss.active_fraction == 0
    # all similarities 1: the last bin holds everything, and a tie counts in full
    assert loss(torch.ones(4, 3), y).item() == pytest.approx(1)


def test_values_between_two_centres_are_shared():
    # 3 bins at -1, 0, 1; the positive pair at cos 60 = 1/2, the negatives at cos 90 = 0 and cos 30 = sqrt(3)/2
    angles = torch.tensor([0.0, math.pi / 3, math.pi / 2], dtype=torch.float64)
    x = torch.stack([angles.cos(), angles.sin()], dim=1)
    above = math.sqrt(3) / 2  # share of the second negative in the last bin
    expected = (1 + (1 - above)) / 2 * 0.5 + above / 2 * 1
    loss = build_loss("histogram", bins=3)
    assert loss(x, torch.tensor([0, 0, 1])).item() == pytest.approx(expected)
    assert loss.active_fraction.item() == pytest.approx(2 / 3)


def test_gradcheck():
    x, y = clustered([2, 3, 1], seed=8)
    assert torch.autograd.gradcheck(lambda x: build_loss("histogram", bins=20)(x, y), x.requires_grad_())


def test_bins_are_checked():
    with pytest.raises(InputError, match="bins of histogram"):
        build_loss("histogram", bins=1)
