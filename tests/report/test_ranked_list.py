import cv2
import numpy as np
import pytest
import torch

from reid_kit.evaluation.distances import FeatureDistances, GivenDistances
from reid_kit.evaluation.features import FeatureRows
from reid_kit.report.picture import FRAME, GAP, GREEN, GREY, HEADER, INK, LINE, RED, Tile, ranked_list_picture
from reid_kit.report.ranked_list import ranked_lists, worst_and_median


def features(side, name="gallery", cosine=False):
    return FeatureRows(side, name, torch.device("cpu"), cosine)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_lists_are_the_sorted_gallery_without_what_is_ignored(metric):
    random = np.random.default_rng(0)
    q, g = random.standard_normal((6, 5)), random.standard_normal((40, 5))
    qi, gi = random.integers(0, 5, 6), random.integers(-1, 5, 40)
    qc, gc = random.integers(0, 2, 6), random.integers(0, 2, 40)
    chosen = np.array([4, 0, 5, 1])
    given = FeatureDistances(*(features(side, cosine=metric == "cosine") for side in (q[chosen], g)))
    for i, ranked in zip(chosen, ranked_lists(given, chosen, qi, gi, qc, gc, length=7)):
        cosine = 1 - (g @ q[i]) / np.linalg.norm(g, axis=1) / np.linalg.norm(q[i])
        distances = np.linalg.norm(g - q[i], axis=1) if metric == "euclidean" else cosine
        kept = [j for j in np.argsort(distances) if gi[j] != -1 and not (gi[j] == qi[i] and gc[j] == qc[i])]
        assert ranked.gallery.tolist() == kept[:7]
        assert ranked.correct.tolist() == [gi[j] == qi[i] for j in kept[:7]]
        np.testing.assert_allclose(ranked.distance, distances[kept[:7]], atol=1e-5)


def test_an_entry_of_one_set_is_not_its_own_neighbour():
    g, ids, chosen = np.arange(5.0)[:, None], np.array([0, 0, 1, 1, 1]), np.array([1, 3])
    given = GivenDistances(np.abs(g[chosen] - g.T), "given")
    lists = ranked_lists(given, chosen, ids, ids, length=2, same_set=True)
    assert [sorted(ranked.gallery.tolist()) for ranked in lists] == [[0, 2], [2, 4]]


def test_short_galleries_give_short_lists_and_ties_count_against_the_query():
    given, ids = GivenDistances(np.ones((1, 4)), "given"), np.array([1, 2, -1, 3])
    ranked = ranked_lists(given, np.array([0]), np.array([1]), ids, length=10)[0]
    assert ranked.gallery.tolist() == [1, 3, 0]


def test_worst_and_median_queries():
    precisions = np.array([0.9, np.nan, 0.1, 0.5, 0.3, 0.7, 0.2])
    assert [part.tolist() for part in worst_and_median(precisions, 2)] == [[2, 6], [4, 3]]
    assert [part.tolist() for part in worst_and_median(np.array([0.5, np.nan]), 4)] == [[0], []]
    one_class_after_the_other = np.repeat([0.0, 0.5, 1.0], 100)
    assert len(set(worst_and_median(one_class_after_the_other, 4)[1] // 10)) > 1  # not neighbours in the list


def draw(rows, *arguments):
    return cv2.imdecode(np.frombuffer(ranked_list_picture(rows, *arguments), np.uint8), cv2.IMREAD_COLOR)


def test_a_line_parts_the_rows_and_marks_tell_what_colours_tell():
    image = np.full((20, 10, 3), 90, np.uint8)
    rows = [("", [Tile(image, ""), Tile(image, "", True), Tile(image, "", False)])] * 3
    plain, lined = draw(rows, "", 40, 20), draw(rows, "", 40, 20, 2)
    differing = np.flatnonzero((plain != lined).any((1, 2)))
    assert len(differing) == 1 and (lined[differing[0]] == INK).all()
    unmarked = draw([("", [tile._replace(correct=None) for tile in tiles]) for _, tiles in rows], "", 40, 20)
    caption = slice(HEADER + LINE + 40 + 2 * FRAME, HEADER + LINE + 40 + 2 * FRAME + LINE)
    assert (plain[caption] != unmarked[caption]).any()


def test_captions_of_any_text_stay_in_their_place():
    image = np.full((20, 10, 3), 90, np.uint8)
    names = ["Ольга Ñandú", "x" * 100_000, "two\nlines\nthree", "\x00\t$a_b$", ""]
    picture = draw([("a heading " * 100, [Tile(image, name, True) for name in names])], "title " * 200, 40, 20)
    assert picture.shape == (HEADER + 40 + 2 * FRAME + 3 * LINE + GAP, 640, 3)
    assert (picture[:, -GAP:] == 255).all()


def test_the_picture_frames_matches_green_and_errors_red():
    image = np.full((20, 10, 3), 90, np.uint8)
    rows = [("AP 50 %", [Tile(image, "7 c1"), Tile(image, "7 c2", True), Tile(image, "3 c2", False)])] * 2
    picture = draw(rows, "title", 40, 20)
    frames = [(picture == color).all(2).sum() for color in (GREY, GREEN, RED)]
    assert all(count >= 2 * (28 * 48 - 20 * 40) * 0.99 for count in frames)
    assert (picture == 90).all(2).sum() == 6 * 40 * 20
