import pytest
import torch
import torch.nn.functional as F

from reid_kit import build_loss
from reid_kit.errors import InputError


def loss_and_batch(**options):
    torch.manual_seed(0)
    loss = build_loss("softmax", classes=5, embedding_size=4, **options).double()
    torch.nn.init.normal_(loss.weight)
    return loss, torch.randn(7, 4, dtype=torch.float64), torch.tensor([0, 4, 2, 2, 1, 0, 3])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_value_and_gradient_are_those_of_the_loop(smoothing):
    loss, x, y = loss_and_batch(label_smoothing=smoothing)
    x.requires_grad_()
    expected = 0
    for row, label in zip(x, y):
        scores = torch.stack([row @ weight for weight in loss.weight])
        log = scores - scores.exp().sum().log()
        expected = expected - (1 - smoothing) * log[label] - smoothing * log.mean()
    expected = expected / len(y)
    value = loss(x, y)
    torch.testing.assert_close(value, expected)
    for variable in (x, loss.weight):
        mine, theirs = (torch.autograd.grad(v, variable, retain_graph=True)[0] for v in (value, expected))
        torch.testing.assert_close(mine, theirs)
    torch.testing.assert_close(value, F.cross_entropy(x @ loss.weight.T, y, label_smoothing=smoothing))


def test_active_fraction_is_the_share_of_wrong_answers():
    loss, x, y = loss_and_batch()
    loss(x, y)
    wrong = [int((loss.weight @ row).argmax()) != label for row, label in zip(x, y.tolist())]
    assert float(loss.active_fraction) == pytest.approx(sum(wrong) / 7)


def test_labels_beyond_the_classes():
    loss, x, y = loss_and_batch()
    with pytest.raises(InputError, match="classes=0..4.*labels 0 to 5"):
        loss(x, y.where(y != 4, 5))


def test_bad_smoothing():
    with pytest.raises(InputError, match="label_smoothing"):
        build_loss("softmax", classes=2, embedding_size=2, label_smoothing=1.0)


def test_missing_options_are_named():
    with pytest.raises(InputError, match="classes"):
        build_loss("softmax")
