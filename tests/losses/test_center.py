import pytest
import torch

from reid_kit.errors import InputError
from reid_kit.losses import build_loss
from tests.losses.pair_oracles import BATCHES, assert_equals_oracle, clustered

CLASSES, WIDTH = 6, 6


def center(**options):
    torch.manual_seed(0)
    loss = build_loss("center", classes=CLASSES, embedding_size=WIDTH, **options).double()
    loss.centres = torch.randn(CLASSES, WIDTH, dtype=torch.float64)
    return loss


@pytest.mark.parametrize("batch", BATCHES)
def test_is_equation_2(batch):
    loss, centres = center().eval(), center().centres

    def oracle(x, y):
        return sum((f - centres[label]) @ (f - centres[label]) / 2 for f, label in zip(x, y.tolist())) / len(x)

    assert_equals_oracle(loss, oracle, BATCHES[batch])


def test_the_centres_move_by_equation_4():
    loss = center(rate=0.3)
    before = loss.centres.clone()
    x, y = clustered([3, 1, 2], seed=2)
    loss(x.requires_grad_(), y).backward()
    for j in range(CLASSES):
        rows = [f for f, label in zip(x.detach(), y.tolist()) if label == j]
        change = sum((before[j] - f for f in rows), torch.zeros(WIDTH, dtype=torch.float64)) / (1 + len(rows))
        torch.testing.assert_close(loss.centres[j], before[j] - 0.3 * change)


def test_one_image_on_the_origin_of_a_new_run():
    """Analytic: the centres begin at 0, so the loss of a unit feature is 1/2, its gradient the feature, and the centre
    goes a quarter of the way, 1/2 * 1 / (1 + 1)."""
    loss = build_loss("center", classes=2, embedding_size=2)
    x = torch.tensor([[0.6, 0.8]], requires_grad=True)
    value = loss(x, torch.tensor([1]))
    value.backward()
    assert float(value) == pytest.approx(0.5)
    torch.testing.assert_close(x.grad, x.detach())
    torch.testing.assert_close(loss.centres, torch.tensor([[0.0, 0.0], [0.15, 0.2]]))


def test_repeated_it_ends_on_the_mean():
    loss = center()
    x, y = clustered([4, 2])
    for _ in range(200):
        loss(x, y)
    torch.testing.assert_close(loss.centres[0], x[y == 0].mean(0))
    torch.testing.assert_close(loss.centres[1], x[y == 1].mean(0))


def test_a_run_takes_its_centres_along():
    assert list(center().state_dict()) == ["centres"] and not list(center().parameters())


def test_active_fraction_is_the_share_nearer_to_another_centre():
    loss = center().eval()
    loss.centres = torch.eye(CLASSES, dtype=torch.float64)
    loss(torch.eye(CLASSES, dtype=torch.float64)[[0, 1, 2, 3]], torch.tensor([0, 1, 2, 0]))
    assert float(loss.active_fraction) == 0.25


def test_bad_input():
    with pytest.raises(InputError, match="rate of center must be at most 1, got 2"):
        center(rate=2)
    with pytest.raises(InputError, match="center was built for classes=0..5"):
        center()(torch.randn(2, WIDTH), torch.tensor([0, 6]))
    with pytest.raises(InputError, match="center was built for embedding_size=6"):
        center()(torch.randn(2, 4), torch.tensor([0, 1]))
