import numpy as np
import pytest
import torch

from reid_kit.errors import InputError
from reid_kit.evaluation import expansion
from reid_kit.evaluation.expansion import expand_queries, pool_queries


@pytest.mark.parametrize("neighbours, alpha", [(1, 0.0), (5, 0.0), (5, 3.0), (40, 1.5)])
def test_expansion_is_a_weighted_mean_with_the_nearest(neighbours, alpha):
    random = np.random.default_rng(neighbours)
    q, g = random.standard_normal((70, 6)), random.standard_normal((40, 6))
    found = expand_queries(q, g, neighbours, alpha).numpy()
    for query, row in zip(q, found):
        query = query / np.linalg.norm(query)
        scored = sorted(((query @ entry / np.linalg.norm(entry), tuple(entry)) for entry in g), reverse=True)
        total = query.copy()
        for similarity, entry in scored[:neighbours]:
            total += max(similarity, 0) ** alpha * np.array(entry) / np.linalg.norm(entry)
        np.testing.assert_allclose(row, total / np.linalg.norm(total), atol=1e-5)


def test_an_image_is_not_its_own_neighbour(monkeypatch):
    monkeypatch.setattr(expansion, "ROWS", 7)
    x = np.random.default_rng(1).standard_normal((20, 6))
    found = expand_queries(x, x, 3, 1.0, same_set=True)
    others = [expand_queries(x[i : i + 1], np.delete(x, i, axis=0), 3, 1.0) for i in range(20)]
    torch.testing.assert_close(found, torch.cat(others), rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match=r"1 \.\. 19, the size of the gallery without the query; got 20"):
        expand_queries(x, x, 20, same_set=True)


def test_bad_expansion():
    with pytest.raises(InputError, match=r"1 \.\. 3, the size of the gallery; got 4"):
        expand_queries(np.ones((2, 2)), np.ones((3, 2)), 4)
    for alpha in (-1, np.inf, np.nan):
        with pytest.raises(InputError, match="alpha must be at least 0"):
            expand_queries(np.ones((2, 2)), np.ones((3, 2)), 1, alpha=alpha)
    with pytest.raises(InputError, match="1 gallery features are zero"):
        expand_queries(np.ones((2, 2)), np.array([[1.0, 0], [0, 0]]), 1)


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_pooling_over_identity_and_camera(pooling):
    random = np.random.default_rng(3)
    identities, cameras = random.integers(0, 5, 60), random.integers(0, 3, 60)
    features = torch.from_numpy(random.standard_normal((60, 4)))
    pooled, first = pool_queries(features, identities, cameras, pooling)
    seen = list(dict.fromkeys(zip(identities.tolist(), cameras.tolist())))
    assert [(identities[i], cameras[i]) for i in first] == seen
    for row, (identity, camera) in zip(pooled, seen):
        rows = [features[i].numpy() for i in range(60) if (identities[i], cameras[i]) == (identity, camera)]
        np.testing.assert_allclose(row, np.mean(rows, 0) if pooling == "mean" else np.max(rows, 0))
    with pytest.raises(InputError, match="median.*max, mean|mean, max"):
        pool_queries(features, identities, cameras, "median")
