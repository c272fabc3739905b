from pathlib import Path

import pytest
import torch

from reid_kit.data.records import Protocol, Record, RetrievalDataset
from reid_kit.errors import InputError
from reid_kit.training.testing import ImageSet, TestSettings, better_queries, evaluate


def images(identities, cameras, seed=0):
    features = torch.randn(len(identities), 5, generator=torch.Generator().manual_seed(seed))
    return ImageSet([Record(Path(f"{i}.jpg"), *who) for i, who in enumerate(zip(identities, cameras))], features)


def test_queries_of_a_person_in_a_camera_become_one():
    query, gallery = images([4, 4, 7, 4], [0, 0, 0, 1]), images([4, 7, 7], [2, 2, 3], seed=1)
    dataset = RetrievalDataset("made up", [], query.records, gallery.records, Protocol())
    settings = TestSettings(8, 8, torch.device("cpu"), metric="cosine", multi_query="mean")
    pooled = better_queries(query, gallery, dataset, settings)
    assert [(r.identity, r.camera) for r in pooled.records] == [(4, 0), (7, 0), (4, 1)]
    torch.testing.assert_close(pooled.features[0], query.features[:2].mean(0))
    torch.testing.assert_close(pooled.features[1:], query.features[2:])
    result = evaluate(pooled, gallery, dataset, settings)
    assert result.queries == 3 and result.protocol.endswith(", queries pooled by mean")


def test_without_cameras_there_is_nothing_to_pool():
    query = images([1, 1], [None, None])
    dataset = RetrievalDataset("made up", [], query.records, query.records, Protocol(camera_aware=False))
    with pytest.raises(InputError, match="made up has no queries with cameras"):
        better_queries(query, query, dataset, TestSettings(8, 8, torch.device("cpu"), multi_query="max"))
