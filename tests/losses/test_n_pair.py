import itertools
import math

import pytest
import torch
from pytorch_metric_learning import losses as pml_losses
from pytorch_metric_learning.distances import DotProductSimilarity

from reid_kit.errors import InputError
from reid_kit.losses import build_loss
from tests.losses.pair_oracles import BATCHES, assert_equals_oracle, clustered, value_and_gradient

L2 = 0.002


def equation_2(x, pairs):
    """RLL eq. 2 and the regulariser, for the given (anchor, positive) rows."""
    total = x.sum() * 0
    for i, (a, p) in enumerate(pairs):
        others = [torch.exp(x[a] @ x[q] - x[a] @ x[p]) for j, (_, q) in enumerate(pairs) if j != i]
        total = total + torch.log(1 + sum(others, x.new_zeros(())))
        total = total + L2 * (x[a] @ x[a] + x[p] @ x[p]) / 2
    return total / max(len(pairs), 1)


def pairs_of(x, y):
    """The two images of every identity whose embeddings come first in the dictionary."""
    rows = [
        sorted((i for i in range(len(y)) if y[i] == label), key=lambda i: x[i].tolist()) for label in set(y.tolist())
    ]
    return [images[:2] for images in rows if len(images) > 1]


@pytest.mark.parametrize("batch", BATCHES)
def test_is_equation_2(batch):
    assert_equals_oracle(build_loss("n_pair"), lambda x, y: equation_2(x, pairs_of(x, y)), BATCHES[batch])


def test_of_two_images_each_is_equation_2_for_one_choice_of_anchors_and_any_order_of_the_batch():
    x, y = clustered([2] * 4, seed=2)
    images = [(y == label).nonzero().flatten().tolist() for label in range(4)]
    choices = [equation_2(x, pairs) for pairs in itertools.product(*([(a, b), (b, a)] for a, b in images))]
    ours = build_loss("n_pair")(x, y)
    assert min(abs(ours - choice) for choice in choices) < 1e-12
    for seed in range(5):
        order = torch.randperm(8, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(build_loss("n_pair")(x[order], y[order]), ours)


def test_equal_first_coordinates_leave_the_order_to_the_others():
    """As ReLU makes them: all zero, or zero in one identity alone."""
    for zeros in (slice(None), slice(0, 5)):
        x, y = clustered([3, 2, 4], seed=3)
        x[zeros, 0] = 0
        assert_equals_oracle(build_loss("n_pair"), lambda x, y: equation_2(x, pairs_of(x, y)), (x, y))
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(build_loss("n_pair")(x[order], y[order]), build_loss("n_pair")(x, y))


def test_agrees_with_pytorch_metric_learning_on_raw_dot_products():
    x, y = clustered([2] * 5, seed=7)
    order = torch.tensor([i for pair in pairs_of(x, y) for i in pair])  # their anchors are the first images
    theirs = pml_losses.NPairsLoss(distance=DotProductSimilarity(normalize_embeddings=False))
    expected = value_and_gradient(theirs, x[order], y[order])
    for ours, reference in zip(value_and_gradient(build_loss("n_pair", l2=0.0), x[order], y[order]), expected):
        torch.testing.assert_close(ours, reference)


def test_collapsed_embeddings_give_the_log_of_the_number_of_identities_and_count_no_pair_as_wrong():
    loss = build_loss("n_pair", l2=0.0)
    assert loss(torch.ones(9, 4), torch.tensor([0, 0, 1, 1, 1, 2, 2, 3, 4])).item() == pytest.approx(math.log(3))
    assert loss.active_fraction == 0


def test_active_fraction_counts_anchors_with_a_nearer_negative():
    # anchors are the lower rows: (1, 0) prefers its own (2, 0); (0, 1) prefers (2, 9) to its own (0, 2)
    x = torch.tensor([[1.0, 0.0], [2.0, 9.0], [0.0, 1.0], [0.0, 2.0]])
    loss = build_loss("n_pair")
    loss(x, torch.tensor([0, 0, 1, 1]))
    assert loss.active_fraction == 0.5


def test_gradcheck():
    x, y = clustered([2, 3, 2, 1], seed=8)
    assert torch.autograd.gradcheck(lambda x: build_loss("n_pair")(x, y), x.requires_grad_())


def test_negative_l2_is_refused():
    with pytest.raises(InputError, match="l2 of n_pair"):
        build_loss("n_pair", l2=-1.0)
