from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from reid_kit.data.records import Protocol, Record, RetrievalDataset
from reid_kit.errors import InputError
from reid_kit.evaluation import k_reciprocal_distance
from reid_kit.image import read_image, resize
from reid_kit.inference.testing import TestSettings, better_queries, embed_records, image_set, measure
from reid_kit.model.embedder import Embedder


def images(identities, cameras, seed=0):
    features = torch.randn(len(identities), 5, generator=torch.Generator().manual_seed(seed))
    return image_set([Record(Path(f"{i}.jpg"), *who) for i, who in enumerate(zip(identities, cameras))], features)


def settings(**changes):
    return TestSettings(8, 8, torch.device("cpu"), **{"metric": "cosine", **changes})


def dataset(**protocol):
    return RetrievalDataset("toy", [], [], [], Protocol(**protocol))


def test_queries_of_a_person_in_a_camera_become_one():
    query, gallery = images([4, 4, 7, 4], [0, 0, 0, 1]), images([4, 7, 7], [2, 2, 3], seed=1)
    pooled, changes = better_queries(query, gallery, Protocol(), settings(multi_query="mean"))
    assert changes == ["queries pooled by mean"]
    assert [(r.identity, r.camera) for r in pooled.records] == [(4, 0), (7, 0), (4, 1)]
    assert pooled.identities.tolist() == [4, 7, 4] and pooled.cameras.tolist() == [0, 0, 1]
    torch.testing.assert_close(pooled.features[0], query.features[:2].mean(0))
    torch.testing.assert_close(pooled.features[1:], query.features[2:])
    tested = measure(query, gallery, dataset(), settings(multi_query="mean"), "toy features")
    assert tested.result.queries == 3 and tested.result.protocol.endswith(", queries pooled by mean, toy features")


@pytest.mark.parametrize(
    "protocol, change",
    [
        ({}, {}),
        ({}, {"metric": "euclidean"}),
        ({}, {"multi_query": "max"}),
        ({}, {"expand": 5, "alpha": 1.0}),
        ({}, {"rerank": True}),
        ({}, {"rerank": True, "multi_query": "mean", "expand": 3}),
        ({"camera_aware": False, "same_set": True}, {}),
        ({"camera_aware": False, "same_set": True}, {"rerank": True, "k1": 6, "k2": 2}),
        ({"camera_aware": False, "same_set": True}, {"expand": 4}),
    ],
    ids=str,
)
def test_the_ranking_that_is_drawn_is_the_one_that_was_measured(protocol, change):
    """Every list's average precision and first match, computed from the whole list, are those of the result."""
    random = np.random.default_rng(0)
    same_set = protocol.get("same_set", False)
    gallery = images(random.integers(0 if same_set else -1, 6, 60), random.integers(0, 3, 60).tolist())
    query = images(random.integers(0, 6, 40), random.integers(0, 3, 40).tolist(), seed=1)
    query = gallery if same_set else query
    tested = measure(query, gallery, dataset(**protocol), settings(**change), "")
    chosen = random.permutation(len(tested.query))
    for position, ranked in zip(chosen, tested.ranked_lists(chosen, length=1000)):
        places = 1 + np.flatnonzero(ranked.correct)
        if not len(places):
            assert tested.result.first_match_rank[position] == 0
            continue
        assert places[0] == tested.result.first_match_rank[position]
        precision = (np.arange(1, len(places) + 1) / places).mean()
        assert precision == pytest.approx(tested.result.average_precision[position])
        assert (np.diff(ranked.distance) >= -1e-6).all()
        if same_set:
            assert position not in ranked.gallery
    head = tested.ranked_lists(chosen[:3], length=4)
    assert all(len(ranked.gallery) == 4 for ranked in head)


def test_a_small_set_takes_the_neighbours_it_has_and_says_so():
    query, gallery = images([1, 2, 1, 2], [0] * 4), images([1, 2] * 4, [1] * 8, seed=1)
    line = measure(query, gallery, dataset(), settings(rerank=True), "").result.protocol
    assert "k-reciprocal re-ranked distance (k1 11, k2 6, lambda 0.3)" in line
    line = measure(query, gallery, dataset(), settings(rerank=True, k1=4, k2=2, lambda_value=0.0), "").result.protocol
    assert "(k1 4, k2 2, lambda 0)" in line
    with pytest.raises(InputError, match="k1 must lie in 1 .. 11, for 12 images"):
        measure(query, gallery, dataset(), settings(rerank=True, k1=20), "")


def test_a_set_that_is_its_own_gallery_is_re_ranked_once():
    """Not with each image twice, where the nearest neighbour of each is its own copy."""
    both = images(np.arange(30) % 5, [None] * 30)
    tested = measure(both, both, dataset(camera_aware=False, same_set=True), settings(rerank=True, k1=7, k2=3), "")
    rows = torch.nn.functional.normalize(both.features)
    expected = k_reciprocal_distance(rows, rows, 7, 3, same_set=True)
    torch.testing.assert_close(tested.distances, expected)
    with pytest.raises(InputError, match="either --rerank or --expand"):
        better_queries(both, both, tested.dataset.protocol, settings(rerank=True, expand=2))


def test_ranks_and_clusters_that_the_dataset_does_not_ask_for():
    both = images(np.arange(30) % 5, [None] * 30)
    same_set = dataset(camera_aware=False, same_set=True)
    plain = measure(both, both, same_set, settings(), "")
    assert plain.nmi is None and set(plain.result.cmc) == {1, 5, 10}
    asked = measure(both, both, same_set, settings(ranks=(1, 2, 4), nmi=True), "")
    assert 0 <= asked.nmi <= 1 and set(asked.result.cmc) == {1, 2, 4} and asked.result.mAP == plain.result.mAP


def test_the_protocol_says_what_the_features_depend_on():
    both = TestSettings(32, 24, torch.device("cpu"), enlarge=1.5, use_box=True, feature="metric", flip=True)
    size = "32 x 24 pixels cut from 1.5 times as many"
    assert both.of_features() == (
        f"metric feature, {size}, box cut out, mean with the mirror image, network in float32"
    )


def test_without_cameras_there_is_nothing_to_pool():
    query = images([1, 1], [None, None])
    with pytest.raises(InputError, match="no queries with cameras"):
        better_queries(query, query, Protocol(), settings(multi_query="max"))


def test_the_centre_of_a_larger_image_is_tested(tmp_path):
    """227 pixels cut from 256, as metric learning tests, in a run's tests and in `embed`."""
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8))
    model = Embedder("test_resnet", weights="none", height=32, width=24, enlarge=1.5).eval()
    centre = resize(read_image(path), 48, 36)[8:40, 6:30]
    with torch.no_grad():
        expected = model(torch.from_numpy(centre).permute(2, 0, 1)[None]).inference
    larger = TestSettings(32, 24, torch.device("cpu"), enlarge=1.5)
    found = embed_records(model, [Record(path, 1)], larger, "one").features
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(model.embed([path]), torch.nn.functional.normalize(expected))


def test_a_size_that_the_model_does_not_take_is_one_error(tmp_path):
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.zeros((32, 24, 3), np.uint8))
    other = TestSettings(40, 24, torch.device("cpu"))
    model = Embedder("test_vit", weights="none", height=32, width=32)
    with pytest.raises(InputError, match="trained on 32 x 32 pixels and cannot take 40 x 24.*DATA.HEIGHT"):
        embed_records(model, [Record(path, 1)], other, "one")
    model = Embedder("test_resnet", weights="none", height=32, width=32)
    assert len(embed_records(model, [Record(path, 1)], other, "one").features) == 1
