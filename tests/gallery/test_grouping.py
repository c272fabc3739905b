"""Groups of what looks alike: their sparse distances against the dense ones, and their agreement with labels."""

from itertools import combinations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from reid_kit import k_reciprocal_distance
from reid_kit.errors import InputError
from reid_kit.evaluation.features import FeatureRows
from reid_kit.gallery.grouping import UNGROUPED, agreement, by_size, group_vectors, jaccard_neighbours


def clustered(sizes, noise, seed=0, width=16):
    """Vectors around as many centres as there are sizes, shuffled, and the number of each one's centre."""
    generator = torch.Generator().manual_seed(seed)
    owner = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    centres = F.normalize(torch.randn(len(sizes), width, generator=generator))
    return F.normalize(centres[owner] + noise * torch.randn(len(owner), width, generator=generator)), owner


@pytest.mark.parametrize("distance", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("k1, k2", [(20, 6), (7, 1), (3, 3)])
@pytest.mark.parametrize("kind", ["ragged", "equal rows", "no order"])
def test_sparse_neighbours_are_those_of_the_dense_distances(distance, k1, k2, kind):
    vectors, _ = clustered([1, 2, 3, 9, 25, 30], 5.0 if kind == "no order" else 0.15)
    if kind == "equal rows":
        vectors[10:14] = vectors[10]
    dense = k_reciprocal_distance(vectors, vectors, k1, k2, lambda_value=0, same_set=True).numpy()
    np.fill_diagonal(dense, 0)
    near = jaccard_neighbours(FeatureRows(vectors, "gallery", torch.device("cpu")), distance, k1, k2)
    given = np.full(dense.shape, np.inf)
    for row in range(len(dense)):  # 0 is a distance too, so that a sparse matrix is read by what it stores
        part = slice(near.indptr[row], near.indptr[row + 1])
        given[row, near.indices[part]] = near.data[part]
    sure = np.abs(dense - distance) > 1e-5
    np.testing.assert_array_equal(np.isfinite(given)[sure], (dense <= distance)[sure])
    there = np.isfinite(given)
    assert there.sum() > len(dense) or kind == "no order" or distance < 0.5
    np.testing.assert_allclose(given[there], dense[there], atol=1e-5)


def test_groups_are_found_and_numbered_by_size():
    vectors, owner = clustered([9, 11, 13, 16], 0.02)
    groups = group_vectors(vectors)
    assert sorted(set(groups)) == [0, 1, 2, 3]
    assert [set(owner[groups == group]) for group in range(4)] == [{3}, {2}, {1}, {0}]


def test_groups_of_one_size_keep_their_order():
    np.testing.assert_array_equal(by_size(np.array([2, 0, UNGROUPED, 1, 0, 2])), [1, 0, UNGROUPED, 2, 0, 1])
    np.testing.assert_array_equal(by_size(np.array([UNGROUPED] * 3)), [UNGROUPED] * 3)


@pytest.mark.parametrize("seed", range(6))
def test_agreement_is_that_of_all_pairs(seed):
    random = np.random.default_rng(seed)
    groups, identities = random.integers(UNGROUPED, 5, 40), random.integers(0, 6, 40).astype(str)
    if seed == 0:
        groups[:] = UNGROUPED  # no pair is together
    if seed == 1:
        identities = np.arange(40).astype(str)  # no pair belongs together
    together = [g == h != UNGROUPED for g, h in combinations(groups, 2)]
    same = [a == b for a, b in combinations(identities, 2)]
    both = sum(t and s for t, s in zip(together, same))
    precision, recall = [], []
    for place in range(40):
        own = [n for n in range(40) if n == place or groups[n] == groups[place] != UNGROUPED]
        mine = [n for n in range(40) if identities[n] == identities[place]]
        shared = len(set(own) & set(mine))
        precision.append(shared / len(own))
        recall.append(shared / len(mine))
    found = agreement(groups, list(identities))
    assert found.pair_precision == pytest.approx(both / sum(together) if any(together) else 1)
    assert found.pair_recall == pytest.approx(both / sum(same) if any(same) else 1)
    assert found.bcubed_precision == pytest.approx(np.mean(precision))
    assert found.bcubed_recall == pytest.approx(np.mean(recall))


def test_what_cannot_be_grouped():
    vectors, _ = clustered([5, 5], 0.1)
    for given, options, words in (
        (vectors[:2], {}, "2 images are too few"),
        (vectors, {"distance": 0.0}, "must lie between 0 and 1"),
        (vectors, {"distance": float("nan")}, "must lie between 0 and 1"),
        (vectors, {"least": 1}, "least be at least 2"),
        (vectors, {"k1": 0}, "neighbours k1 must be at least 1"),
    ):
        with pytest.raises(InputError, match=words):
            group_vectors(given, **options)
