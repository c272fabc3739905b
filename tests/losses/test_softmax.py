import math

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


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_value_and_gradient_are_those_of_the_loop(smoothing, bias):
    loss, x, y = loss_and_batch(label_smoothing=smoothing, bias=bias)
    if bias:
        torch.nn.init.normal_(loss.bias)
    offsets = loss.bias if bias else [0.0] * 5
    x.requires_grad_()
    expected = 0
    for row, label in zip(x, y):
        scores = torch.stack([row @ weight + offset for weight, offset in zip(loss.weight, offsets)])
        log = scores - scores.exp().sum().log()
        expected = expected - (1 - smoothing) * log[label] - smoothing * log.mean()
    expected = expected / len(y)
    value = loss(x, y)
    torch.testing.assert_close(value, expected)
    for variable in (x, *loss.parameters()):
        mine, theirs = (torch.autograd.grad(v, variable, retain_graph=True)[0] for v in (value, expected))
        torch.testing.assert_close(mine, theirs)
    scores = F.linear(x, loss.weight, loss.bias)
    torch.testing.assert_close(value, F.cross_entropy(scores, y, label_smoothing=smoothing))


def test_active_fraction_is_the_share_of_wrong_answers():
    loss, x, y = loss_and_batch()
    loss(x, y)
    wrong = [int((loss.weight @ row).argmax()) != label for row, label in zip(x, y.tolist())]
    assert float(loss.active_fraction) == pytest.approx(sum(wrong) / 7)


def test_labels_beyond_the_classes():
    loss, x, y = loss_and_batch()
    with pytest.raises(InputError, match="classes=0..4.*labels 0 to 5"):
        loss(x, y.where(y != 4, 5))


def test_a_negative_label():
    loss, x, y = loss_and_batch()
    with pytest.raises(InputError, match="labels -1 to 4"):
        loss(x, y.where(y != 3, -1))


def test_embeddings_of_another_width():
    loss, x, y = loss_and_batch()
    with pytest.raises(InputError, match="embedding_size=4, but the embeddings are 3 wide"):
        loss(x[:, :3], y)


def test_before_training_every_identity_is_as_likely():
    torch.manual_seed(0)
    loss = build_loss("softmax", classes=50, embedding_size=16)
    assert float(loss(torch.randn(20, 16), torch.arange(20))) == pytest.approx(math.log(50), abs=0.01)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"label_smoothing": 1.0}, "label_smoothing.*below 1"),
        ({"label_smoothing": -0.1}, "label_smoothing.*at least 0"),
        ({"classes": 0}, "classes of softmax must be a whole number of at least 1"),
        ({"embedding_size": -1}, "embedding_size of softmax"),
        ({"bias": "no"}, "true or false"),
    ],
    ids=str,
)
def test_bad_options(options, words):
    with pytest.raises(InputError, match=words):
        build_loss("softmax", **{"classes": 2, "embedding_size": 2, **options})


def test_missing_options_are_named():
    with pytest.raises(InputError, match="classes"):
        build_loss("softmax")
