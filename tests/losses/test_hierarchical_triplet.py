import pytest
import torch

from reid_kit.errors import InputError
from reid_kit.losses import build_loss
from reid_kit.losses.cross_batch_memory import CrossBatchMemory
from reid_kit.losses.weighted_sum import Term, WeightedSum
from tests.losses.pair_oracles import assert_equals_oracle, clustered, negatives, positives, unit

CLASSES, WIDTH, LEVELS, BETA = 7, 6, 5, 0.2


def squared(a, b):
    return ((a - b) ** 2).sum()


def tree(x, y):
    """Thresholds by level, each class's node by level and the spread of each class, by the paper's sums over pairs."""
    x, classes = unit(x), sorted(set(y.tolist()))
    members = {c: [a for a, label in zip(x, y) if label == c] for c in classes}
    spread = {}
    for c, rows in members.items():
        pairs = [squared(a, b) for i, a in enumerate(rows) for j, b in enumerate(rows) if i != j]
        spread[c] = sum(pairs) / len(pairs) if pairs else torch.tensor(0.0)
    d0 = sum(spread.values()) / len(classes)
    thresholds = [level * (4 - d0) / LEVELS + d0 for level in range(LEVELS + 1)]
    between = {}
    for p in classes:
        for q in classes:
            pairs = [squared(a, b) for a in members[p] for b in members[q]]
            between[p, q] = sum(pairs) / len(pairs)
    nodes = []
    for threshold in thresholds:
        node = {c: c for c in classes}
        for _ in classes:  # chains: as often as a class could be passed on
            for p in classes:
                for q in classes:
                    if between[p, q] <= threshold:
                        node[p] = node[q] = min(node[p], node[q])
        nodes.append(node)
    return thresholds, nodes, spread


def hierarchical_triplet(seen, power):
    """The loss over all triplets, with the tree of what was `seen`, or none."""
    grown = seen and tree(*seen)

    def margin(a, n):
        if not grown:
            return BETA
        thresholds, nodes, spread = grown
        merged = next(level for level, node in enumerate(nodes) if node[a] == node[n])
        return BETA + thresholds[merged] - spread[a]

    def loss(x, y):
        x, terms = unit(x), []
        for i in range(len(y)):
            for j in positives(y, i):
                for k in negatives(y, i):
                    gap = squared(x[i], x[j]) ** (power / 2) - squared(x[i], x[k]) ** (power / 2)
                    terms.append(torch.clamp(gap + margin(int(y[i]), int(y[k])), min=0))
        return sum(terms) / (2 * len(terms)) if terms else x.sum() * 0

    return loss


def build(**options):
    options = {"levels": LEVELS, "beta": BETA, **options}
    return build_loss("hierarchical_triplet", classes=CLASSES, embedding_size=WIDTH, **options).double()


SEEN = clustered([6, 5, 4, 3, 2, 4, 1], seed=11, noise=0.5)


@pytest.mark.parametrize("distance, power", [("squared", 2), ("euclidean", 1)])
@pytest.mark.parametrize("epochs", [0, 1])
@pytest.mark.parametrize("counts", [[5, 3, 2, 1, 1], [2, 2, 2, 2, 2, 2, 2], [4], [1, 1, 1]])
def test_equal_to_the_equation(counts, epochs, distance, power):
    loss = build(distance=distance)
    if epochs:
        for rows in torch.arange(len(SEEN[1])).split(4):
            loss(SEEN[0][rows], SEEN[1][rows])
        loss.end_epoch()
    oracle = hierarchical_triplet(epochs and SEEN, power)
    assert_equals_oracle(loss, oracle, clustered(counts, seed=3))


def test_the_tree_is_the_papers():
    loss = build()
    loss(*SEEN)
    loss.end_epoch()
    thresholds, nodes, spread = tree(*SEEN)
    torch.testing.assert_close(loss.tree.thresholds, torch.stack(thresholds))
    torch.testing.assert_close(loss.tree.spread, torch.stack([spread[c].double() for c in range(CLASSES)]))
    for found, expected in zip(loss.tree.nodes, nodes):
        expected = torch.tensor([expected[c] for c in range(CLASSES)])
        assert torch.equal(found[:, None] == found, expected[:, None] == expected)
    merging = [len(set(node.values())) for node in nodes]
    assert merging[0] > merging[-2] and merging[-1] == 1  # the case is not a trivial one


def test_an_epoch_forgets_the_one_before():
    fresh, loss = build(), build()
    loss(torch.randn(9, WIDTH, dtype=torch.float64), torch.arange(9) % CLASSES)
    loss.end_epoch()
    for one in (fresh, loss):
        one(*SEEN)
        one.end_epoch()
    assert all(torch.equal(a, b) for a, b in zip(fresh.buffers(), loss.buffers()))


def test_only_training_is_remembered_and_a_checkpoint_holds_it():
    loss, resumed = build(), build()
    loss(*SEEN)
    loss.eval()(torch.randn(9, WIDTH, dtype=torch.float64), torch.arange(9) % CLASSES)
    resumed.load_state_dict(loss.state_dict())
    for one in (loss, resumed):
        one.end_epoch()
    assert loss.tree.counts.sum() == 0 and loss.tree.thresholds[-1] == 4
    assert all(torch.equal(a, b) for a, b in zip(resumed.buffers(), loss.buffers()))


def test_an_objective_tells_a_loss_that_another_wraps():
    loss = build()
    objective = WeightedSum([Term("hierarchical_triplet", CrossBatchMemory(loss, 20).double(), 1.0, "metric")])
    for _ in range(2):  # the remembered rows do not count again
        objective.losses[0](*SEEN)
    assert loss.tree.counts.sum() == 2 * len(SEEN[1])
    objective.end_epoch()
    assert loss.tree.thresholds[-1] == 4


def test_epochs_that_show_little():
    loss = build()
    loss.end_epoch()  # nothing at all
    assert loss.tree.thresholds.sum() == 0
    loss(SEEN[0][:1], SEEN[1][:1])  # one image
    loss.end_epoch()
    assert loss.tree.spread.sum() == pytest.approx(0) and len(loss.tree.nodes[0].unique()) == CLASSES
    alone = build_loss("hierarchical_triplet", classes=1, embedding_size=WIDTH).double()
    alone(SEEN[0][:4], torch.zeros(4, dtype=torch.int64))
    alone.end_epoch()


def test_bad_options():
    for option in ("levels", "beta"):
        with pytest.raises(InputError, match=f"{option} of hierarchical_triplet"):
            build(**{option: 0})
    with pytest.raises(InputError, match="hierarchical_triplet was built for classes=0..6"):
        build()(torch.randn(2, WIDTH), torch.tensor([7, 7]))
    with pytest.raises(InputError, match="hierarchical_triplet was built for embedding_size=6"):
        build()(torch.randn(2, 5), torch.tensor([0, 0]))
