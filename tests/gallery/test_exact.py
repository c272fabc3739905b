"""Search gives the evaluator's order, ties and all."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from reid_kit import evaluate_retrieval
from reid_kit.evaluation.distances import FeatureDistances, exact_products
from reid_kit.evaluation.features import FeatureRows
from reid_kit.gallery import exact
from reid_kit.gallery.exact import nearest_rows

CPU = torch.device("cpu")


def compared(queries, gallery, cosine):
    return FeatureDistances(FeatureRows(queries, "query", CPU, cosine), FeatureRows(gallery, "gallery", CPU, cosine))


def sorted_whole(distances, count, allowed):
    """Every distance as the evaluator computes it, sorted; ties by position."""
    with exact_products() as threads:
        order = distances.order(0, distances.queries, slice(0, distances.gallery), threads).numpy().copy()
    if allowed is not None:
        order[:, ~allowed] = np.inf
    rows = order.argsort(axis=1, kind="stable")[:, :count]
    rows[~np.isfinite(np.take_along_axis(order, rows, axis=1))] = -1
    return np.pad(rows, ((0, 0), (0, max(count - rows.shape[1], 0))), constant_values=-1)


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("shape", [(3, 10, 4, 20), (70, 5000, 32, 10), (1, 9000, 64, 100), (300, 3000, 16, 5)], ids=str)
@pytest.mark.parametrize("kind", ["plain", "few different rows", "all the same", "some rows alone", "float16"])
def test_rows_are_those_of_a_sort_of_all_distances(shape, cosine, kind, monkeypatch):
    monkeypatch.setattr(exact, "ROWS", 512)  # many blocks and waves
    monkeypatch.setattr(exact, "PAIRS", 2**17)
    queries, size, width, count = shape
    generator = torch.Generator().manual_seed(0)
    gallery = F.normalize(torch.randn(size, width, generator=generator))
    asked = F.normalize(torch.randn(queries, width, generator=generator))
    if kind == "few different rows":
        gallery = gallery[torch.randint(0, max(size // 50, 2), (size,), generator=generator)]
        asked = gallery[torch.randint(0, size, (queries,), generator=generator)]
    elif kind == "all the same":
        gallery = gallery[:1].repeat(size, 1)
    elif kind == "float16":
        gallery = gallery.half().numpy()
    allowed = np.random.default_rng(0).random(size) < 0.3 if kind == "some rows alone" else None
    distances = compared(asked, gallery, cosine)
    np.testing.assert_array_equal(nearest_rows(distances, count, allowed), sorted_whole(distances, count, allowed))


def test_rows_that_come_nearer_and_nearer():
    queries = torch.tensor([[1.0, 0.0]])
    angle = torch.linspace(3.0, 0.0, 50_000)
    gallery = torch.stack([angle.cos(), angle.sin()], dim=1)
    found = nearest_rows(compared(queries, gallery, True), 5)
    assert found[0, 0] >= 49_000  # near 1, cosines of many angles are one float32
    np.testing.assert_array_equal(found, sorted_whole(compared(queries, gallery, True), 5, None))


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_ranks_are_those_of_the_evaluation(metric):
    random = np.random.default_rng(0)
    identities = random.integers(0, 30, 400)
    centres = random.normal(size=(30, 12))
    features = F.normalize(torch.from_numpy(centres[identities] + random.normal(size=(400, 12))).float())
    result = evaluate_retrieval(features[:50], features[50:], identities[:50], identities[50:], metric=metric)
    found = nearest_rows(compared(features[:50], features[50:], metric == "cosine"), 350)
    first = (identities[50:][found] == identities[:50, None]).argmax(1) + 1
    np.testing.assert_array_equal(first, result.first_match_rank)
