import math

import pytest
import torch

from reid_kit import build_loss
from reid_kit.errors import InputError
from reid_kit.losses.cross_batch_memory import CrossBatchMemory
from tests.losses.cases import CASES, OPTIONS, build
from tests.losses.pair_oracles import clustered


def batches():
    return [clustered([3, 2, 1], seed=seed) for seed in range(4)]


def log1p_sum(exponents):
    return torch.log1p(sum((exponent.exp() for exponent in exponents), torch.zeros((), dtype=torch.float64)))


def test_the_gallery_is_the_batch_and_what_came_before():
    """RAW's equation over a gallery of the batch and the last five embeddings, by a loop."""
    loss = CrossBatchMemory(build_loss("relative_absolute"), size=5)
    memory_x, memory_y = torch.empty(0, 6, dtype=torch.float64), torch.empty(0, dtype=torch.int64)
    for x, y in batches():
        leaf = x.clone().requires_grad_()
        value = loss(leaf, y)
        f = torch.nn.functional.normalize(torch.cat([leaf, memory_x]))
        labels = torch.cat([y, memory_y])
        expected = 0
        for i in range(len(y)):
            P = [f[i] @ f[j] for j in range(len(labels)) if labels[j] == y[i] and j != i]
            N = [f[i] @ f[j] for j in range(len(labels)) if labels[j] != y[i]]
            expected = expected + log1p_sum([-2 * (s - 0.5) for s in P]) / 2
            expected = expected + log1p_sum([50 * (s - 0.5) for s in N]) / 50
        torch.testing.assert_close(value, expected / len(y))
        gradients = [torch.autograd.grad(v, leaf, retain_graph=True)[0] for v in (value, expected / len(y))]
        torch.testing.assert_close(*gradients)
        memory_x, memory_y = torch.cat([memory_x, x])[-5:], torch.cat([memory_y, y])[-5:]
        assert torch.equal(loss.embeddings, memory_x) and torch.equal(loss.labels, memory_y)


def test_the_memory_holds_no_graph_and_survives_a_checkpoint():
    loss = CrossBatchMemory(build_loss("soft_ranking_threshold"), size=100)
    for x, y in batches()[:3]:
        loss(x.clone().requires_grad_(), y)
    assert not loss.embeddings.requires_grad and len(loss.embeddings) == 18
    other = CrossBatchMemory(build_loss("soft_ranking_threshold"), size=100)
    other.load_state_dict(loss.state_dict())
    x, y = batches()[3]
    assert torch.equal(loss(x, y), other(x, y))


def test_ranks_run_over_the_batch_and_the_memory():
    """SRT with hard thresholds, by a loop: P_i and M_i count the memory too."""
    memory, batch = clustered([3, 2, 1], seed=1), clustered([2, 3, 1], seed=2)
    loss = CrossBatchMemory(build_loss("soft_ranking_threshold", thresholds="hard"), size=100)
    loss(*memory)
    value = loss(*batch)
    x, y = torch.cat([batch[0], memory[0]]), torch.cat([batch[1], memory[1]])
    terms = {True: [], False: []}
    for i in range(6):
        d = [float((x[i] - other).norm()) for other in x]
        P, M = int((y == y[i]).sum()), 12
        for j in set(range(12)) - {i}:
            R = 1 + sum(1 / (1 + math.exp(d[k] - d[j])) for k in range(12) if k != j)
            same = bool(y[i] == y[j])
            terms[same].append(max(R - P / 2 if same else (M + P + 1) / 2 - R, 0))
    assert float(value) == pytest.approx(sum(sum(t) / len(t) for t in terms.values()) / 2)


SPLIT = sorted({case.values[0] for case in CASES if not build(*case.values).whole_batch})


@pytest.mark.parametrize("name", SPLIT)
def test_every_loss_that_splits_over_anchors_takes_a_memory(name):
    """Images of the batch keep a gradient, remembered ones change the value but get none."""
    options = OPTIONS.get(name, {})
    (x, y), (past, past_y) = clustered([3, 2, 2], seed=3, dimension=8), clustered([2, 3, 2], seed=4, dimension=8)
    loss, plain = (build(name, options) for _ in range(2))
    memory = CrossBatchMemory(loss, size=100)
    past.requires_grad_()
    memory(past, past_y)
    value = memory(x.requires_grad_(), y)
    plain(past.detach(), past_y)  # center moves its centres by all that it has seen
    gradient, none = torch.autograd.grad(value, [x, past], allow_unused=True)
    assert none is None and gradient.isfinite().all() and gradient.any()
    assert torch.equal(value, plain(x, y)) == (not loss.needs_positives)
    assert torch.equal(memory.active_fraction, loss.active_fraction)


def test_a_batch_larger_than_the_memory_leaves_its_last_rows():
    x, y = clustered([3, 2, 1])
    loss = CrossBatchMemory(build_loss("contrastive"), size=4)
    loss(x, y)
    assert torch.equal(loss.embeddings, x[2:]) and torch.equal(loss.labels, y[2:])


def test_a_memory_of_another_width():
    loss = CrossBatchMemory(build_loss("contrastive"), size=100)
    loss(*clustered([3, 3], dimension=6))
    with pytest.raises(InputError, match="6 wide, but the batch's are 4 wide"):
        loss(*clustered([3, 3], dimension=4))


@pytest.mark.parametrize("name", ["histogram", "spectral_clustering"])
def test_losses_on_whole_batches_take_no_memory(name):
    with pytest.raises(InputError, match=f"{name}.*takes no memory"):
        CrossBatchMemory(build_loss(name), 10)


@pytest.mark.parametrize("size", [0, -3, 2.5, "100", True])
def test_bad_size(size):
    with pytest.raises(InputError, match="at least 1"):
        CrossBatchMemory(build_loss("contrastive"), size)
