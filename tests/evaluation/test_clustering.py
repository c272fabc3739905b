import sys
from math import log

import numpy as np
import pytest
import torch

from reid_kit.errors import InputError
from reid_kit.evaluation import clustering
from reid_kit.evaluation.clustering import k_means, normalized_mutual_information


def nmi_by_loop(a, b):
    n = len(a)
    mutual = sum(
        (c := np.mean((a == x) & (b == y))) and c * log(c / np.mean(a == x) / np.mean(b == y))
        for x in set(a)
        for y in set(b)
    )
    entropy = [sum(-p * log(p) for p in (np.mean(v == x) for x in set(v))) for v in (a, b)]
    assert n == len(b)
    return mutual / (sum(entropy) / 2)


def clusters(noise):
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(12), 30)
    return random.standard_normal((12, 8))[labels] + noise * random.standard_normal((360, 8)), labels


@pytest.mark.parametrize("faiss", [True, False])
def test_well_apart_classes_are_found(monkeypatch, faiss):
    if not faiss:
        monkeypatch.setitem(sys.modules, "faiss", None)
    features, labels = clusters(0.01)
    assert normalized_mutual_information(features, labels) > 0.8  # random first centres merge some classes
    assert normalized_mutual_information(features, np.random.default_rng(1).permutation(labels)) < 0.4


def test_the_value_is_that_of_the_definition():
    features, labels = clusters(0.8)
    unit = (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)
    expected = nmi_by_loop(labels, k_means(unit, 12, 3))
    assert 0.3 < expected < 0.99
    assert normalized_mutual_information(features, labels, seed=3) == pytest.approx(expected)
    assert normalized_mutual_information(features, labels, seed=3) == normalized_mutual_information(
        features, labels, seed=3
    )


def test_every_row_moves_its_centre(monkeypatch):
    """Of 2,000 rows for two clusters faiss would take 512 by default: the centres are then means of a sample."""
    faiss = pytest.importorskip("faiss")
    made = []

    class Recorded(faiss.Kmeans):
        def __init__(self, *parameters, **options):
            super().__init__(*parameters, **options)
            made.append(self)

    monkeypatch.setattr(faiss, "Kmeans", Recorded)
    rows = np.random.default_rng(0).standard_normal((2000, 2)).astype(np.float32)
    rows[::2, 0] += 4
    found = k_means(rows, 2, 0)
    for cluster in (0, 1):
        mean = sum(row.astype(float) for row, of in zip(rows, found) if of == cluster) / (found == cluster).sum()
        np.testing.assert_allclose(made[0].centroids[cluster], mean, atol=1e-3)


@pytest.mark.parametrize("gpus", [0, 1])
def test_a_gpu_is_used_where_faiss_finds_one(monkeypatch, gpus):
    faiss = pytest.importorskip("faiss")
    asked = []

    class Recorded(faiss.Kmeans):
        def __init__(self, *parameters, gpu, **options):
            super().__init__(*parameters, **options)
            asked.append(gpu)

    monkeypatch.setattr(faiss, "Kmeans", Recorded)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: gpus)
    k_means(np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32), 2, 0)
    assert asked == [gpus > 0]


def test_tensors_with_a_gradient_are_taken():
    features, labels = clusters(0.8)
    leaf = torch.tensor(features, requires_grad=True)
    assert normalized_mutual_information(leaf, labels) == normalized_mutual_information(features, labels)


def test_one_process_of_several_clusters(monkeypatch):
    told = []
    monkeypatch.setattr(clustering, "rank", lambda: 1)
    monkeypatch.setattr(clustering, "k_means", None)
    monkeypatch.setattr(clustering, "from_first", lambda value: told.append(value) or 0.25)
    assert normalized_mutual_information(*clusters(0.8)) == 0.25 and told == [None]


def test_the_seed_decides():
    rows = np.random.default_rng(0).standard_normal((300, 4)).astype(np.float32)
    found = [tuple(k_means(rows, 12, seed)) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


def test_bad_features():
    features, labels = clusters(0.1)
    features[3] = np.nan
    with pytest.raises(InputError, match="1 features hold NaN"):
        normalized_mutual_information(features, labels)
    with pytest.raises(InputError, match="labels"):
        normalized_mutual_information(features[5:], labels)
