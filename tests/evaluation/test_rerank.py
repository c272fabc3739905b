import numpy as np
import pytest
import torch

from reid_kit.errors import InputError, NonFiniteError
from reid_kit.evaluation import neighbours, rerank
from reid_kit.evaluation.rerank import k_reciprocal_distance


def dense(q, g, k1, k2, lambda_value):
    """The definition, with N x N matrices in float64."""
    Q = len(q)
    return dense_of_all(np.concatenate([q, g]), k1, k2, lambda_value)[:Q, Q:]


def dense_of_all(x, k1, k2, lambda_value):
    x = x.astype(np.float64)
    n = len(x)
    original = ((x[:, None] - x[None]) ** 2).sum(2)
    original /= original.max(1, keepdims=True)
    rank = np.argsort(original, axis=1, kind="stable")

    def reciprocal(i, k):
        return [j for j in rank[i, : k + 1] if i in rank[j, : k + 1]]

    V = np.zeros((n, n))
    for i in range(n):
        near = reciprocal(i, k1)
        expanded = set(near)
        for j in near:
            candidates = reciprocal(j, round(k1 / 2))
            if len(set(candidates) & set(near)) > 2 / 3 * len(candidates):
                expanded |= set(candidates)
        expanded = sorted(expanded)
        weights = np.exp(-original[i, expanded])
        V[i, expanded] = weights / weights.sum()
    if k2 > 1:
        V = np.stack([V[rank[i, :k2]].mean(0) for i in range(n)])
    jaccard = np.empty((n, n))
    for i in range(n):
        for j in range(n):
            jaccard[i, j] = 1 - np.minimum(V[i], V[j]).sum() / np.maximum(V[i], V[j]).sum()
    return lambda_value * original + (1 - lambda_value) * jaccard


def clusters(seed, queries=15, gallery=70):
    random = np.random.default_rng(seed)
    centres = random.standard_normal((9, 6))
    sides = [centres[random.integers(0, 9, n)] + 0.4 * random.standard_normal((n, 6)) for n in (queries, gallery)]
    return [side.astype(np.float32) for side in sides]


@pytest.mark.parametrize("k1, k2, lambda_value", [(20, 6, 0.3), (7, 3, 0.5), (5, 1, 0.0), (1, 1, 1.0), (11, 11, 0.2)])
@pytest.mark.parametrize("rows", [512, 16, 7])
@pytest.mark.parametrize("seed", [0, 1])
def test_equal_to_the_dense_definition(seed, rows, k1, k2, lambda_value, monkeypatch):
    monkeypatch.setattr(rerank, "ROWS", rows)
    monkeypatch.setattr(neighbours, "CORE_BLOCK", rows)  # fewer than the images, and than their neighbours
    q, g = clusters(seed)
    found = k_reciprocal_distance(q, g, k1, k2, lambda_value)
    expected = dense(q, g, k1, k2, lambda_value)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)
    found += 1  # what is returned can be written to


@pytest.mark.parametrize("rows", [512, 7])
def test_a_set_that_is_its_own_gallery_is_taken_once(rows, monkeypatch):
    monkeypatch.setattr(rerank, "ROWS", rows)
    monkeypatch.setattr(neighbours, "CORE_BLOCK", rows)
    _, x = clusters(3, gallery=40)
    found = k_reciprocal_distance(x, x, 7, 3, same_set=True)
    np.testing.assert_allclose(found.numpy(), dense_of_all(x, 7, 3, 0.3), rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="one set, got 40 queries and a gallery of 39"):
        k_reciprocal_distance(x, x[1:], 7, 3, same_set=True)
    with pytest.raises(InputError, match="for 40 images"):
        k_reciprocal_distance(x, x, 40, 3, same_set=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_gives_the_cpu_s_distances():
    sides = clusters(2)
    expected = k_reciprocal_distance(*sides)
    torch.testing.assert_close(k_reciprocal_distance(*sides, device="cuda").cpu(), expected, rtol=1e-4, atol=1e-5)


def test_bad_input():
    q, g = clusters(0)
    with pytest.raises(InputError, match="k1 must lie in 1 .. 84, for 85 images.*got 85 and 6"):
        k_reciprocal_distance(q, g, k1=85)
    with pytest.raises(InputError, match="k2 in 1 .. k1"):
        k_reciprocal_distance(q, g, k1=5, k2=6)
    with pytest.raises(InputError, match="device 'cuda:77' cannot be used here"):
        k_reciprocal_distance(q, g, device="cuda:77")
    with pytest.raises(InputError, match="lambda_value"):
        k_reciprocal_distance(q, g, lambda_value=1.5)
    with pytest.raises(NonFiniteError, match="1 query features"):
        k_reciprocal_distance(np.where(np.arange(len(q))[:, None] == 3, np.nan, q), g)
