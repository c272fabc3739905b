from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from reid_kit.data.records import Protocol, Record
from reid_kit.errors import InputError
from reid_kit.image import read_image, resize
from reid_kit.inference.testing import ImageSet, TestSettings, better_queries, embed_records, evaluate
from reid_kit.model.embedder import Embedder


def images(identities, cameras, seed=0):
    features = torch.randn(len(identities), 5, generator=torch.Generator().manual_seed(seed))
    return ImageSet([Record(Path(f"{i}.jpg"), *who) for i, who in enumerate(zip(identities, cameras))], features)


def test_queries_of_a_person_in_a_camera_become_one():
    query, gallery = images([4, 4, 7, 4], [0, 0, 0, 1]), images([4, 7, 7], [2, 2, 3], seed=1)
    settings = TestSettings(8, 8, torch.device("cpu"), metric="cosine", multi_query="mean")
    pooled = better_queries(query, gallery, Protocol(), settings)
    assert [(r.identity, r.camera) for r in pooled.records] == [(4, 0), (7, 0), (4, 1)]
    torch.testing.assert_close(pooled.features[0], query.features[:2].mean(0))
    torch.testing.assert_close(pooled.features[1:], query.features[2:])
    result = evaluate(pooled, gallery, Protocol(), settings)
    assert result.queries == 3 and result.protocol.endswith(", queries pooled by mean")


def test_without_cameras_there_is_nothing_to_pool():
    query = images([1, 1], [None, None])
    with pytest.raises(InputError, match="no queries with cameras"):
        better_queries(query, query, Protocol(), TestSettings(8, 8, torch.device("cpu"), multi_query="max"))


def test_the_centre_of_a_larger_image_is_tested(tmp_path):
    """227 pixels cut from 256, as metric learning tests, in a run's tests and in `embed`."""
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8))
    model = Embedder("test_resnet", weights="none", height=32, width=24, enlarge=1.5).eval()
    centre = resize(read_image(path), 48, 36)[8:40, 6:30]
    with torch.no_grad():
        expected = model(torch.from_numpy(centre).permute(2, 0, 1)[None]).inference
    settings = TestSettings(32, 24, torch.device("cpu"), enlarge=1.5)
    found = embed_records(model, [Record(path, 1)], settings, "one").features
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(model.embed([path]), torch.nn.functional.normalize(expected))
