import math

import pytest
import torch

from reid_kit import build_loss
from reid_kit.errors import InputError
from reid_kit.losses import soft_ranks
from tests.losses.pair_oracles import BATCHES, clustered, euclidean, negatives, positives, unit, value_and_gradient

NAME = "soft_ranking_threshold"


def oracle(
    x,
    y,
    temperature=1.0,
    alpha=0.5,
    thresholds="plain",
    margin="none",
    margin_value=None,
    margin_scale=1.0,
    normalize=False,
    self_comparison="one",
    rank_scale="raw",
):
    """The equation, one pair at a time."""
    x = unit(x) if normalize else x
    d = [[distance if i != j else x.sum() * 0 for j, distance in enumerate(row)] for i, row in enumerate(euclidean(x))]
    size, M = len(y), len(y)
    m = {"none": 0, "hard": 1, "soft": 0}[margin] if margin_value is None else margin_value

    def phi(excess):
        if margin == "soft":
            return margin_scale * torch.log1p(torch.exp((excess + m) / margin_scale))
        return torch.clamp(excess + m, min=0)

    terms = {True: [], False: []}
    for i in range(size):
        P = 1 + len(positives(y, i))
        low, high = (P / 2, (M + P + 1) / 2) if thresholds == "hard" else (P, P + 1)
        for j in range(size):
            if i == j:
                continue
            R = {"one": 1, "half": 0.5, "zero": 0}[self_comparison]
            R = R + sum(torch.sigmoid((d[i][j] - d[i][k]) / temperature) for k in range(size) if k != j)
            scale = M if rank_scale == "batch" else 1
            excess = (R - low) / scale if y[i] == y[j] else (high - R) / scale
            terms[bool(y[i] == y[j])].append(phi(excess))
    means = {kind: sum(found) / len(found) if found else x.sum() * 0 for kind, found in terms.items()}
    return alpha * means[True] + (1 - alpha) * means[False]


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"thresholds": "hard"},
        {"margin": "hard", "margin_value": 0.7},
        {"thresholds": "hard", "margin": "soft"},
        {"thresholds": "hard", "margin": "soft", "margin_value": 0.5, "margin_scale": 2.0, "alpha": 0.2},
        {"normalize": True, "temperature": 0.1, "thresholds": "hard", "margin": "soft"},
        {"self_comparison": "half", "margin": "soft"},
        {"self_comparison": "zero", "margin": "soft"},
        {"rank_scale": "batch", "margin": "soft"},
    ],
    ids=str,
)
def test_value_and_gradient_are_the_equations(batch, options):
    x, y = BATCHES[batch]
    value, gradient = value_and_gradient(build_loss(NAME, **options), x, y)
    expected, expected_gradient = value_and_gradient(lambda a, b: oracle(a, b, **options), x, y)
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-6)
    if batch != "duplicates":  # where a norm of 0 has no gradient
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("block", [1, 50, 200, 3000])
def test_blocks_change_nothing(monkeypatch, block):
    x, y = clustered([4] * 6, seed=2)
    loss = build_loss(NAME, thresholds="hard", margin="soft")
    value, gradient = value_and_gradient(loss, x, y)
    monkeypatch.setitem(soft_ranks.BLOCK, "cpu", block)
    again, gradient_again = value_and_gradient(loss, x, y)
    torch.testing.assert_close(again, value)
    torch.testing.assert_close(gradient_again, gradient)


@pytest.mark.parametrize("margin", ["none", "hard", "soft"])
def test_the_loss_passes_gradcheck(margin):
    x, y = clustered([3, 2, 4, 1], seed=8)
    loss = build_loss(NAME, thresholds="hard", margin=margin, temperature=0.7)
    assert torch.autograd.gradcheck(lambda a: loss(a, y), x.requires_grad_())


def separated(P=4, classes=5):
    """A resolved list: any positive is nearer than any negative, and no two distances are close."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(classes).repeat_interleave(P)
    x = 100 * torch.eye(classes, 32, dtype=torch.float64)[y]
    return x + torch.randn(len(y), 32, dtype=torch.float64, generator=generator), y


def test_a_resolved_list_costs_nothing_at_temperature_zero():
    x, y = separated()
    assert build_loss(NAME, temperature=1e-9)(x, y) == 0
    d = torch.cdist(x, x)
    R = soft_ranks.soft_ranks(d, 1e-9)
    same = y[:, None] == y
    for i in range(len(y)):
        others = positives(y, i)
        assert sorted(R[i, others].round().int().tolist()) == [2, 3, 4]
        assert sorted(R[i, ~same[i]].round().int().tolist()) == list(range(5, 21))


def test_hard_thresholds_stay_above_zero_on_a_resolved_list():
    x, y = separated()
    assert build_loss(NAME, temperature=1e-9, thresholds="hard")(x, y) > 0.1


def test_mean_ranks_follow_from_the_confusion():
    x, y = clustered([4] * 5, seed=3)
    d = torch.cdist(x, x)
    R = soft_ranks.soft_ranks(d, 1.0) - 0.5  # the convention "half"
    P, M = 4, len(y)
    for i in range(M):
        same = y == y[i]
        X = torch.sigmoid(d[i, same][:, None] - d[i, ~same][None, :]).sum()
        assert R[i, same].mean() == pytest.approx(float(P / 2 + X / P))
        assert R[i, ~same].mean() == pytest.approx(float((M + P) / 2 - X / (M - P)))


def test_why_there_are_hard_thresholds():
    """At random initialisation plain thresholds leave almost no negative active, hard ones more than half."""
    x = torch.randn(72, 2048, generator=torch.Generator().manual_seed(0))
    y = torch.arange(72) // 4
    plain, hard = build_loss(NAME), build_loss(NAME, thresholds="hard")
    plain(x, y), hard(x, y)
    assert plain.active_negatives < 0.01
    assert hard.active_negatives > 0.5


@pytest.mark.parametrize(
    "options, slack", [({}, 0), ({"margin": "soft", "margin_value": 0.5}, 0), ({"margin": "hard"}, 1)], ids=str
)
def test_active_fractions_count_the_pairs_beyond_their_threshold(options, slack):
    """Those with a non-zero hinge; a soft margin has none, so there it is the ranks beyond the threshold itself."""
    x, y = clustered([3, 2, 4], seed=7)
    loss = build_loss(NAME, **options)
    loss(x, y)
    R = soft_ranks.soft_ranks(torch.cdist(x, x), 1.0)
    near = [bool(R[i, j] + slack > 1 + len(positives(y, i))) for i in range(9) for j in positives(y, i)]
    far = [bool(R[i, j] - slack < 2 + len(positives(y, i))) for i in range(9) for j in negatives(y, i)]
    assert float(loss.active_positives) == pytest.approx(sum(near) / len(near))
    assert float(loss.active_negatives) == pytest.approx(sum(far) / len(far))
    assert float(loss.active_fraction) == pytest.approx(sum(near + far) / len(near + far))
    assert 0 < float(loss.active_fraction) < 1


def test_equal_distances_give_every_entry_the_middle_rank():
    x, y = torch.zeros(6, 3), torch.tensor([0, 0, 0, 1, 1, 1])
    value = build_loss(NAME)(x, y)  # R = 1 + 5 / 2 (but for the epsilon within the root): T+ = 3, T- = 4
    assert float(value) == pytest.approx(0.5 * 0.5 + 0.5 * 0.5, abs=1e-4)


def test_soft_margin_is_softplus():
    loss = build_loss(NAME, margin="soft", margin_value=0.5, margin_scale=2.0)
    assert float(loss.phi(torch.tensor(1.5))) == pytest.approx(2 * math.log1p(math.exp(1.0)))


@pytest.mark.parametrize(
    "options, words",
    [
        ({"thresholds": "soft"}, "thresholds.*hard, plain"),
        ({"margin": 0.3}, "margin.*none"),
        ({"temperature": 0}, "temperature.*above 0"),
        ({"alpha": 1.5}, "alpha.*between 0 and 1"),
        ({"alpha": "half"}, "alpha.*number"),
        ({"margin_scale": 0}, "margin_scale.*above 0"),
        ({"self_comparison": 1}, "self_comparison.*half, one, zero"),
        ({"rank_scale": "list"}, "rank_scale.*batch, raw"),
        ({"normalize": "yes"}, "true or false"),
        ({"margin_value": -1}, "margin_value.*at least 0"),
        ({"temprature": 1}, "temprature.*temperature"),
    ],
    ids=str,
)
def test_bad_options(options, words):
    with pytest.raises(InputError, match=words):
        build_loss(NAME, **options)
