import pytest
import torch

from reid_kit.errors import InputError
from reid_kit.losses import build_loss
from reid_kit.losses.multilevel import MultiLevel
from tests.losses.pair_oracles import BATCHES, assert_equals_oracle, clustered


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("name", ["ranked_list", "relative_absolute", "triplet_batch_hard"])
@pytest.mark.parametrize("sizes", [[6], [1, 2, 3], [3, 3]])
def test_the_levels_losses_are_summed(sizes, name, own):
    loss = build_loss(name)

    def oracle(x, y):
        total, start = 0, 0
        for size in sizes:
            total, start = total + loss(x[:, start : start + size], y), start + size
        return total

    levels = MultiLevel([build_loss(name) for _ in sizes] if own else loss, sizes)
    for batch in ("ragged", "duplicates", "one image"):
        assert_equals_oracle(levels, oracle, BATCHES[batch])


def test_a_level_does_not_see_another():
    """Moving the second level changes nothing in the gradient of the first."""
    x, y = clustered([4, 3, 2])
    loss = MultiLevel(build_loss("ranked_list"), [4, 2])
    gradients = []
    for shift in (0.0, 3.0):
        moved = torch.cat([x[:, :4], x[:, 4:] + shift], dim=1).requires_grad_()
        loss(moved, y).backward()
        gradients.append(moved.grad)
    assert torch.equal(gradients[0][:, :4], gradients[1][:, :4])
    assert not torch.equal(gradients[0][:, 4:], gradients[1][:, 4:])


def test_active_fraction_is_the_mean_over_levels():
    x, y = BATCHES["ragged"]
    loss = build_loss("ranked_list")
    fractions = []
    for level in x.split([2, 4], dim=1):
        loss(level, y)
        fractions.append(float(loss.active_fraction))
    assert fractions[0] != fractions[1]
    levels = MultiLevel(loss, [2, 4])
    levels(x, y)
    assert float(levels.active_fraction) == pytest.approx(sum(fractions) / 2)


def test_weights_are_shared_by_one_loss_and_separate_in_several():
    shared = MultiLevel(build_loss("margin", classes=5), [2, 4])
    separate = MultiLevel([build_loss("margin", classes=5) for _ in range(2)], [2, 4])
    assert [tuple(p.shape) for p in shared.parameters()] == [(5,)]
    assert [tuple(p.shape) for p in separate.parameters()] == [(5,), (5,)]
    assert shared.name == "margin" and shared.feature == "metric" and not shared.whole_batch


@pytest.mark.parametrize("sizes", [[], [3, 0], [4, -1]])
def test_wrong_sizes_are_named(sizes):
    with pytest.raises(InputError, match="sizes must give a positive width"):
        MultiLevel(build_loss("ranked_list"), sizes)


def test_as_many_losses_as_sizes():
    with pytest.raises(InputError, match=r"each of 3 levels, got \[2, 4\]"):
        MultiLevel([build_loss("ranked_list")] * 3, [2, 4])


def test_embeddings_of_another_width_are_refused():
    with pytest.raises(InputError, match=r"levels of \[4, 4\], together 8 wide, but the embeddings are 6 wide"):
        MultiLevel(build_loss("ranked_list"), [4, 4])(*BATCHES["ragged"])
