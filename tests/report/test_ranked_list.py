import cv2
import numpy as np
import pytest

from reid_kit.report.picture import GREEN, GREY, RED, Tile, ranked_list_picture
from reid_kit.report.ranked_list import ranked_lists, worst_and_median


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_lists_are_the_sorted_gallery_without_what_is_ignored(metric):
    random = np.random.default_rng(0)
    q, g = random.standard_normal((6, 5)), random.standard_normal((40, 5))
    qi, gi = random.integers(0, 5, 6), random.integers(-1, 5, 40)
    qc, gc = random.integers(0, 2, 6), random.integers(0, 2, 40)
    for i, ranked in enumerate(ranked_lists(q, g, qi, gi, qc, gc, length=7, metric=metric)):
        distances = ((g - q[i]) ** 2).sum(1) if metric == "euclidean" else -(g @ q[i]) / np.linalg.norm(g, axis=1)
        kept = [j for j in np.argsort(distances) if gi[j] != -1 and not (gi[j] == qi[i] and gc[j] == qc[i])]
        assert ranked.gallery.tolist() == kept[:7]
        assert ranked.correct.tolist() == [gi[j] == qi[i] for j in kept[:7]]


def test_an_entry_of_one_set_is_not_its_own_neighbour():
    g, ids = np.arange(5.0)[:, None], np.array([0, 0, 1, 1, 1])
    lists = ranked_lists(g[[1, 3]], g, ids[[1, 3]], ids, length=2, same_set=[1, 3])
    assert [sorted(ranked.gallery.tolist()) for ranked in lists] == [[0, 2], [2, 4]]


def test_short_galleries_give_short_lists():
    ranked = ranked_lists(np.zeros((1, 2)), np.ones((3, 2)), np.array([1]), np.array([1, -1, 2]), length=10)[0]
    assert sorted(ranked.gallery.tolist()) == [0, 2]


def test_worst_and_median_queries():
    precisions = np.array([0.9, np.nan, 0.1, 0.5, 0.3, 0.7, 0.2])
    assert worst_and_median(precisions, 2).tolist() == [2, 6, 4, 3]
    assert worst_and_median(np.array([0.5, np.nan]), 4).tolist() == [0]


def test_the_picture_frames_matches_green_and_errors_red():
    image = np.full((20, 10, 3), 90, np.uint8)
    rows = [("AP 50 %", [Tile(image, "7 c1"), Tile(image, "7 c2", True), Tile(image, "3 c2", False)])] * 2
    picture = cv2.imdecode(np.frombuffer(ranked_list_picture(rows, "title", 40, 20), np.uint8), cv2.IMREAD_COLOR)
    frames = [(picture == color).all(2).sum() for color in (GREY, GREEN, RED)]
    assert all(count >= 2 * (28 * 48 - 20 * 40) * 0.99 for count in frames)
    assert (picture == 90).all(2).sum() == 6 * 40 * 20
