"""Batches that every pair loss must take, and the pieces of which the plain-loop oracles are made."""

import torch


def clustered(counts, seed=0, noise=0.7, dimension=6):
    """Shuffled identities of the given numbers of images, overlapping but not mixed."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor([identity for identity, count in enumerate(counts) for _ in range(count)])
    labels = labels[torch.randperm(len(labels), generator=generator)]
    centres = torch.randn(len(counts), dimension, generator=generator, dtype=torch.float64)
    spread = torch.randn(len(labels), dimension, generator=generator, dtype=torch.float64)
    return centres[labels] + noise * spread, labels


def duplicated():
    """A ragged batch in which two rows of one identity, and two rows of different ones, are the same."""
    embeddings, labels = clustered([4, 3, 2, 1], seed=3)
    first, second = (labels == 0).nonzero().flatten()[:2]
    embeddings[second] = embeddings[first].clone()
    embeddings[labels == 3] = embeddings[(labels == 1).nonzero().flatten()[0]].clone()
    return embeddings, labels


BATCHES = {
    "ragged": clustered([5, 3, 2, 1, 1]),
    "ragged, easy": clustered([2, 4, 3], seed=1, noise=0.1),
    "duplicates": duplicated(),
    "singletons": clustered([1] * 5, seed=4),
    "one identity": clustered([5], seed=5),
    "one image": clustered([1], seed=6),
}


def cosines(x):
    return [[(a / a.norm()) @ (b / b.norm()) for b in x] for a in x]


def euclidean(x):
    return [[(a - b).norm() for b in x] for a in x]


def unit(x):
    return torch.stack([a / a.norm() for a in x])


def positives(y, i):
    return [j for j in range(len(y)) if y[j] == y[i] and j != i]


def negatives(y, i):
    return [j for j in range(len(y)) if y[j] != y[i]]


def value_and_gradient(loss, x, y):
    x = x.clone().requires_grad_()
    value = loss(x, y)
    value = value if isinstance(value, torch.Tensor) and value.requires_grad else x.sum() * 0 + value
    return value.detach(), torch.autograd.grad(value, x)[0]


def assert_equals_oracle(loss, oracle, batch, tolerance=1e-6):
    """The same value and the same gradient; a loss must be connected to the graph by itself."""
    x, y = batch
    assert loss(x.clone().requires_grad_(), y).requires_grad
    for ours, theirs in zip(value_and_gradient(loss, x, y), value_and_gradient(oracle, x, y)):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
