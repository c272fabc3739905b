import copy
import pickle

import pytest
import torch
from pytorch_metric_learning import miners as pml_miners

from reid_kit.errors import InputError
from reid_kit.losses import build_loss
from reid_kit.losses.miners import MINERS, build_miner, distance_weighted, gap_above
from tests.losses.pair_oracles import BATCHES, clustered, cosines, negatives, positives


def masks(x, y):
    """Similarities, positives and negatives, by loops."""
    P, N = torch.zeros(len(y), len(y), dtype=torch.bool), torch.zeros(len(y), len(y), dtype=torch.bool)
    for i in range(len(y)):
        P[i, positives(y, i)] = True
        N[i, negatives(y, i)] = True
    return torch.tensor(cosines(x), dtype=x.dtype), P, N


def vthm_rule(s, P, N, epsilon=0.1):
    return [j for j in P if N and s[j] < max(s[n] for n in N) + epsilon], [
        j for j in N if P and s[j] > min(s[p] for p in P) - epsilon
    ]


def hardest_rule(s, P, N):
    return [j for j in P if s[j] == min(s[p] for p in P)], [j for j in N if s[j] == max(s[n] for n in N)]


def semi_hard_rule(s, P, N, margin=0.1):
    triplets = [(p, n) for p in P for n in N if s[p] - margin < s[n] < s[p]]
    return [p for p, _ in triplets], [n for _, n in triplets]


RULES = {
    "all": (lambda s, P, N: (P, N), [{}]),
    "hardest": (hardest_rule, [{}]),
    "vthm": (vthm_rule, [{}, {"epsilon": 0.0}, {"epsilon": 0.5}]),
    "semi_hard": (semi_hard_rule, [{}, {"margin": 0.02}, {"margin": 0.6}]),
}


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", RULES)
def test_masks_are_those_of_the_rule(name, batch):
    x, y = BATCHES[batch]
    s, P, N = masks(x, y)
    rule, choices = RULES[name]
    for options in choices:
        mined = build_miner({"name": name, **options})(s, P, N)
        for i in range(len(y)):
            expected = rule(s[i].tolist(), positives(y, i), negatives(y, i), **options)
            for mask, indices in zip(mined, expected):
                assert sorted(set(indices)) == mask[i].nonzero().flatten().tolist()


def test_vthm_agrees_with_multi_similarity_mining():
    x, y = clustered([4, 3, 3, 2], seed=7)
    s, P, N = masks(x, y)
    a1, p, a2, n = pml_miners.MultiSimilarityMiner(epsilon=0.1)(x, y)
    ours = MINERS["vthm"](s, P, N)
    for mask, rows, columns in ((ours[0], a1, p), (ours[1], a2, n)):
        expected = torch.zeros_like(mask)
        expected[rows, columns] = True
        assert torch.equal(mask, expected)


def test_gap_above_is_strict_and_infinite_at_the_top():
    values = torch.tensor([[0.0, 1.0, 1.0, 3.0], [2.0, 1.0, 0.0, 5.0]])
    mask = torch.tensor([[True, True, True, True], [False, True, False, False]])
    inf = torch.inf
    assert gap_above(values, mask).tolist() == [[1, 2, 2, inf], [inf, inf, 1, inf]]


def spread(distances):
    """Similarities of anchors whose negatives stand at the given distances, after as many positives as in `counts`."""
    return 1 - torch.tensor(distances, dtype=torch.float64).square() / 2


def test_distance_weighted_draws_follow_the_inverse_density():
    """One positive an anchor, one draw: the frequency of a negative is its share of 1 / q(d)."""
    distances, rows, dimension = [0.1, 0.4, 0.7, 0.9, 1.2, 1.39, 1.41], 40_000, 6
    s = spread([0.3, *distances]).expand(rows, -1)
    P = torch.zeros_like(s, dtype=torch.bool)
    P[:, 0] = True
    torch.manual_seed(0)
    kept, drawn = distance_weighted(s, P, ~P, dimension)
    floored = [max(d, 0.5) for d in distances[:-1]]
    weights = torch.tensor([1 / (d ** (dimension - 2) * (1 - d * d / 4) ** ((dimension - 3) / 2)) for d in floored])
    shares = weights / weights.sum()
    frequencies = drawn[:, 1:-1].double().mean(0)
    deviation = (shares * (1 - shares) / rows).sqrt()
    assert ((frequencies - shares).abs() < 4 * deviation).all()
    assert torch.equal(kept, P)
    assert drawn.sum(1).eq(1).all() and not drawn[:, -1].any()  # beyond the cut


def test_distance_weighted_draws_as_many_as_positives_without_repetition():
    s = spread([[0.5, 0.5, 0.8, 1.0, 1.2, 1.3, 1.5]] * 50)
    for count, expected in ((0, 0), (1, 1), (2, 2)):
        P, N = torch.zeros_like(s, dtype=torch.bool), torch.zeros_like(s, dtype=torch.bool)
        P[:, :count], N[:, 2:] = True, True
        assert distance_weighted(s, P, N, 16)[1].sum(1).tolist() == [expected] * 50
    P, N = torch.zeros_like(s, dtype=torch.bool), torch.zeros_like(s, dtype=torch.bool)
    P[:, :2], N[:, 5:] = True, True
    assert distance_weighted(s, P, N, 16)[1].tolist() == [[False] * 5 + [True, False]] * 50  # one within the cut


def test_distance_weighted_starves_no_row_in_many_dimensions():
    """At 2,048 dimensions 1 / q differs by hundreds of orders of magnitude between these anchors."""
    s = spread([[0.3, 0.5, 0.52, 0.6], [0.3, 1.36, 1.38, 1.39]]).float()
    P = torch.zeros_like(s, dtype=torch.bool)
    P[:, 0] = True
    assert distance_weighted(s, P, ~P, 2048)[1].sum(1).tolist() == [1, 1]


def test_distance_weighted_is_a_function_of_the_seed():
    s, P, N = masks(*clustered([4, 4, 4, 4], noise=2.0))
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(distance_weighted(s, P, N, 6)[1])
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize(
    "choice, message",
    [
        ("vhtm", "unknown miner 'vhtm'. Did you mean 'vthm'?"),
        ({"name": "vthm", "epsilom": 0.1}, "Did you mean 'epsilon'?"),
        ({"name": "vthm", "similarities": 0.1}, "unknown option of miner 'vthm'"),
        ({"name": "vthm", "epsilon": -0.1}, "epsilon of miner vthm must be a number of at least 0"),
        ({"name": "semi_hard", "margin": "0.1"}, "margin of miner semi_hard must be a number of at least 0"),
        ({"epsilon": 0.1}, "a miner is a name or a mapping"),
        (["vthm"], "a miner is a name or a mapping"),
        (None, "a miner is a name or a mapping"),
    ],
)
def test_a_wrong_choice_is_named(choice, message):
    with pytest.raises(InputError, match=message.replace("?", r"\?")):
        build_loss("relative_absolute", miner=choice)


def test_distance_weighted_checks_its_range():
    loss = build_loss("margin", miner={"name": "distance_weighted", "floor": 1.5})
    with pytest.raises(InputError, match="0 < floor < cut <= 2"):
        loss(*BATCHES["ragged"])


def test_the_mapping_is_not_changed():
    choice = {"name": "vthm", "epsilon": 0.2}
    build_loss("relative_absolute", miner=choice)
    assert choice == {"name": "vthm", "epsilon": 0.2}


def test_a_loss_with_a_miner_can_be_copied_and_pickled():
    x, y = BATCHES["ragged"]
    loss = build_loss("relative_absolute", miner={"name": "vthm", "epsilon": 0.2})
    for other in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert other(x, y) == loss(x, y)


def test_active_fraction_is_the_share_of_mined_pairs():
    x, y = BATCHES["ragged"]
    s, P, N = masks(x, y)
    loss = build_loss("relative_absolute", miner="vthm")
    loss(x, y)
    kept = MINERS["vthm"](s, P, N)
    assert loss.active_fraction == pytest.approx(float((kept[0].sum() + kept[1].sum()) / (P.sum() + N.sum())))
