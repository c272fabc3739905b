import warnings

import pytest
import torch

from reid_kit.errors import InputError, NonFiniteError
from reid_kit.losses import LOSSES, build_loss
from reid_kit.losses.base import Batch, EmbeddingLoss, check
from reid_kit.losses.registry import option_names


class Record(EmbeddingLoss):
    """Keeps what it is called with."""

    def compute(self, batch):
        self.batch = batch
        self.autocast = torch.is_autocast_enabled("cpu")
        return (batch.anchors @ batch.gallery.T).sum()


def small():
    return torch.arange(8.0).reshape(4, 2), torch.tensor([7, 3, 7, 7])


def test_masks_of_anchors_that_stand_in_the_middle_of_a_gallery():
    gallery_labels = torch.tensor([7, 3, 7, 7, 3])
    batch = Batch(torch.zeros(2, 1), gallery_labels[1:3], torch.zeros(5, 1), gallery_labels, first=1)
    assert batch.is_self.tolist() == [[False, True, False, False, False], [False, False, True, False, False]]
    assert batch.same.tolist() == [[False, True, False, False, True], [True, False, True, True, False]]
    assert batch.positives.tolist() == [[False, False, False, False, True], [True, False, False, True, False]]
    assert batch.negatives.tolist() == [[True, False, True, True, False], [False, True, False, False, True]]


def test_duplicates_are_pairs():
    batch = Batch.collect(torch.zeros(3, 2), torch.tensor([1, 1, 2]))
    assert batch.positives.sum() == 2
    assert batch.negatives.sum() == 4


def test_a_whole_batch_has_all_rows_as_anchors():
    x, y = small()
    batch = Batch.collect(x, y, whole=True)
    assert batch.anchors is batch.gallery and batch.first == 0


def test_half_precision_and_autocast_are_left_at_the_door():
    x, y = small()
    loss = Record()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(x.bfloat16(), y)
    assert value.dtype == loss.batch.anchors.dtype == torch.float32
    assert not loss.autocast
    loss(x.double(), y)
    assert loss.batch.gallery.dtype == torch.float64


@pytest.mark.parametrize(
    "embeddings, labels, words",
    [
        (torch.zeros(4), torch.zeros(4, dtype=torch.int64), r"\(B, D\) float"),
        (torch.zeros(4, 2, dtype=torch.int64), torch.zeros(4, dtype=torch.int64), "int64"),
        (torch.zeros(4, 2), torch.zeros(4, 1, dtype=torch.int64), r"\(4,\) integer.*\(4, 1\)"),
        (torch.zeros(4, 2), torch.zeros(4), "float32"),
        (torch.zeros(4, 2), torch.zeros(4, dtype=torch.bool), "bool"),
    ],
)
def test_bad_input_is_named(embeddings, labels, words):
    with pytest.raises(InputError, match=words):
        check(embeddings, labels)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_rows_that_are_not_finite_are_named(value):
    x = torch.zeros(9, 2)
    x[1:8, 0] = value
    with pytest.raises(NonFiniteError, match=r"7 of 9 embeddings.*first rows \[1, 2, 3, 4, 5\]$"):
        check(x, torch.zeros(9, dtype=torch.int64))


def test_large_finite_rows_are_taken_though_their_sum_overflows():
    check(torch.full((9, 2), 3e38), torch.zeros(9, dtype=torch.int64))
    check(torch.full((9, 2), 6e4, dtype=torch.float16), torch.zeros(9, dtype=torch.int64))


def test_infinities_that_cancel_are_named():
    x = torch.tensor([[1.0, 2.0], [torch.inf, -torch.inf]])
    with pytest.raises(NonFiniteError, match=r"1 of 2 embeddings.*first rows \[1\]$"):
        check(x, torch.tensor([0, 1]))


def test_the_warning_points_at_the_line_that_called_the_loss():
    x, _ = small()
    loss = Record()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loss(x, torch.arange(4))
        loss(x, torch.arange(4))
    assert [warning.filename for warning in caught] == [__file__]
    assert "Record: a batch without any positive pair" in str(caught[0].message)


def test_no_warning_where_there_are_positives():
    x, y = small()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Record()(x, y)


def test_a_subclass_without_an_equation_says_so():
    with pytest.raises(NotImplementedError, match="EmbeddingLoss has no compute"):
        EmbeddingLoss()(*small())


@pytest.mark.parametrize("kind", [torch.int8, torch.int16, torch.int32, torch.uint8, torch.uint16, torch.uint64])
@pytest.mark.parametrize("name", sorted(LOSSES))
def test_labels_of_any_integer_type(name, kind):
    known, given = option_names(name), {"classes": 4, "embedding_size": 6, "sizes": [2, 2, 2]}
    torch.manual_seed(0)
    embeddings, labels = torch.randn(16, 6), torch.arange(16) % 4
    torch.manual_seed(1)
    losses = [build_loss(name, **{key: value for key, value in given.items() if key in known}) for _ in range(2)]
    losses[1].load_state_dict(losses[0].state_dict())
    values = []
    for loss, given_labels in zip(losses, (labels, labels.to(kind))):
        torch.manual_seed(2)  # margin draws its negatives
        values.append(loss(embeddings, given_labels))
    assert torch.equal(*values)


@pytest.mark.parametrize("labels", [torch.zeros(2), torch.zeros(2, dtype=torch.bool), torch.zeros(2) * 1j, [0, 1]])
def test_labels_of_no_integer_type(labels):
    with pytest.raises(InputError, match="integer tensor|two tensors"):
        Record()(torch.zeros(2, 3), labels)
