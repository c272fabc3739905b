import pytest
import torch

from reid_kit import build_loss
from reid_kit.errors import InputError
from reid_kit.losses.cross_batch_memory import CrossBatchMemory
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


@pytest.mark.parametrize("name", ["histogram", "spectral_clustering"])
def test_losses_on_whole_batches_take_no_memory(name):
    with pytest.raises(InputError, match=f"{name}.*takes no memory"):
        CrossBatchMemory(build_loss(name), 10)


def test_bad_size():
    with pytest.raises(InputError, match="at least 1"):
        CrossBatchMemory(build_loss("contrastive"), 0)
