import pytest
import torch

from reid_kit.errors import InputError
from reid_kit.losses import build_loss
from reid_kit.losses.hdc import part_sizes
from tests.losses.pair_oracles import BATCHES, assert_equals_oracle, clustered, unit, value_and_gradient

SIZES = [1, 2, 3]


def rounded_up(numerator, denominator):
    return -(-numerator // denominator)


def hdc(cascade=True, margin=1.0, squared=True, normalize=True):
    """The cascade by lists of pairs, for ratios of 1, 1/2 and 1/5."""

    def loss(x, y):
        every = [(i, j) for i in range(len(y)) for j in range(i)]
        P, N = [p for p in every if y[p[0]] == y[p[1]]], [p for p in every if y[p[0]] != y[p[1]]]
        counts, total, start = (len(P), len(N)), 0, 0
        all_pairs = P, N
        for size, denominator in zip(SIZES, (1, 2, 5)):
            f = unit(x[:, start : start + size]) if normalize else x[:, start : start + size]
            start += size

            def d(pair, f=f):
                square = (f[pair[0]] - f[pair[1]]).square().sum()
                return square if squared else square.sqrt()

            P, N = (P, N) if cascade else all_pairs
            P = sorted(P, key=d, reverse=True)[: rounded_up(counts[0], denominator)]
            N = sorted(N, key=d)[: rounded_up(counts[1], denominator)]
            terms = [d(pair) for pair in P] + [(margin - d(pair)).clamp(min=0) for pair in N]
            total = total + sum(terms) / max(len(terms), 1)
        return total

    return loss


@pytest.mark.parametrize("batch", [name for name in BATCHES if name != "duplicates"])
@pytest.mark.parametrize("cascade", [True, False])
def test_is_the_cascade_by_lists(cascade, batch):
    # one head of three dimensions at least: on a circle or a line pairs tie
    assert_equals_oracle(
        build_loss("hdc", sizes=SIZES, cascade=cascade, normalize=False, margin=4.0),
        hdc(cascade, margin=4.0, normalize=False),
        BATCHES[batch],
    )


def test_normalized_heads_and_euclidean_distance():
    x, y = clustered([5, 3, 2, 1], seed=2)
    x[:, :1] = x[:, :1].abs() + 1  # a head of one dimension is normalised to 1: its pairs tie, all are kept
    loss, oracle = build_loss("hdc", sizes=SIZES, cascade=False), hdc(cascade=False)
    assert_equals_oracle(loss, oracle, (x, y))
    loss = build_loss("hdc", sizes=SIZES, distance="euclidean", normalize=False, margin=2.0)
    assert_equals_oracle(loss, hdc(squared=False, normalize=False, margin=2.0), (x, y))


def test_heads_choose_among_what_the_head_before_kept():
    # two heads of one number; positive pairs (0, 1), (2, 3) are far apart in one head and near in the other
    x = torch.tensor([[0.0, 0.0], [3.0, 1.0], [10.0, 10.0], [11.0, 13.0]], requires_grad=True)
    y = torch.tensor([0, 0, 1, 1])
    options = {"sizes": [1, 1], "ratios": [0.5, 0.5], "normalize": False, "distance": "euclidean", "margin": 0.0}
    # 1 of 2 positive and 2 of 4 negative pairs: cascaded, both heads keep (0, 1); alone, the second prefers (2, 3)
    assert build_loss("hdc", **options)(x, y).item() == pytest.approx((3 + 1) / 3)
    assert build_loss("hdc", cascade=False, **options)(x, y).item() == pytest.approx((3 + 3) / 3)


def test_gradient_reaches_kept_pairs_alone():
    x, y = clustered([4, 4, 4], seed=4)
    loss = build_loss("hdc", sizes=SIZES, ratios=[1.0, 1.0, 0.01], normalize=False, margin=0.0)
    _, gradient = value_and_gradient(loss, x, y)
    assert (gradient[:, :3] != 0).any(1).all()
    assert (gradient[:, 3:] != 0).any(1).sum() == 2  # one positive pair; no negative is nearer than 0


def test_collapsed_embeddings():
    # every head: positives 0, negatives the margin; 3 + 12, 2 + 6 and 1 + 3 (rounded up) pairs are kept
    loss = build_loss("hdc", margin=0.5)
    value = loss(torch.ones(6, 9), torch.tensor([0, 0, 1, 1, 2, 2]))
    assert value.item() == pytest.approx(0.5 * (12 / 15 + 6 / 8 + 3 / 4))
    assert loss.active_fraction.item() == pytest.approx((12 + 6 + 3) / (15 + 8 + 4))


def test_sizes():
    assert part_sizes("hdc", None, 10, shares=(1, 1, 1)) == [3, 4, 3]
    assert part_sizes("hdc", [512], 512, shares=(3, 5, 8)) == [96, 160, 256]
    x, y = clustered([3, 2, 2], dimension=6)
    torch.testing.assert_close(build_loss("hdc")(x, y), build_loss("hdc", sizes=[2, 2, 2])(x, y))
    with pytest.raises(InputError, match="sizes of hdc"):
        build_loss("hdc", sizes=[2, 2, 3])(x, y)
    with pytest.raises(InputError, match="sizes and ratios of hdc"):
        build_loss("hdc", sizes=[3, 3])


@pytest.mark.parametrize("options", [{"ratios": [1.0, 0.5, 0.0]}, {"ratios": [1.5]}, {"ratios": []}, {"margin": -1.0}])
def test_options_are_checked(options):
    with pytest.raises(InputError, match=f"{next(iter(options))} of hdc"):
        build_loss("hdc", **options)


def test_gradcheck():
    x, y = clustered([2, 3, 2], seed=8)
    assert torch.autograd.gradcheck(lambda x: build_loss("hdc")(x, y), x.requires_grad_())
