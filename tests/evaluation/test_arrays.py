"""Arrays as people have them, in every function that takes them, against the same numbers as plain float32."""

import warnings

import numpy as np
import pytest
import torch

from reid_kit import evaluate_retrieval, k_reciprocal_distance
from reid_kit.errors import InputError
from reid_kit.evaluation import evaluate_distances
from reid_kit.evaluation.clustering import normalized_mutual_information
from reid_kit.evaluation.expansion import expand_queries

PLAIN = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)
IDS = np.arange(30) % 6


def mapped(rows, folder):
    np.save(folder / "rows.npy", rows)
    return np.load(folder / "rows.npy", mmap_mode="r")


FORMS = {
    "reversed": lambda rows, _: rows[::-1].copy()[::-1],
    "mirrored": lambda rows, _: rows[:, ::-1].copy()[:, ::-1],
    "big-endian": lambda rows, _: rows.astype(">f4"),
    "longdouble": lambda rows, _: rows.astype(np.longdouble),
    "Fortran": lambda rows, _: np.asfortranarray(rows),
    "memory-mapped": mapped,
    "read-only": lambda rows, _: np.frombuffer(rows.tobytes(), np.float32).reshape(rows.shape),
    "with a gradient": lambda rows, _: torch.tensor(rows, requires_grad=True),
    "double": lambda rows, _: torch.tensor(rows, dtype=torch.float64),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_function_takes_it(tmp_path, form):
    given = FORMS[form](PLAIN, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for measure in (
            lambda rows: evaluate_retrieval(rows, rows, IDS, IDS, same_set=True, metric="cosine").mAP,
            lambda rows: evaluate_retrieval(rows[:9], rows[9:], IDS[:9], IDS[9:]).mAP,
            lambda rows: evaluate_distances(rows[:, :6], range(30), range(6)).mAP,
            lambda rows: normalized_mutual_information(rows, IDS),
            lambda rows: k_reciprocal_distance(rows[:9], rows[9:], k1=5, k2=2).numpy(),
            lambda rows: expand_queries(rows[:9], rows[9:], 3).numpy(),
        ):
            assert np.allclose(measure(given), measure(PLAIN), atol=1e-6)


@pytest.mark.parametrize("rows", [PLAIN.astype(complex), PLAIN.astype(str), PLAIN.astype(object)])
def test_what_is_no_real_number(rows):
    with pytest.raises(InputError, match="real numbers"):
        evaluate_retrieval(rows, rows, IDS, IDS, same_set=True)


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.uint16, ">i8", np.uint64])
def test_labels_of_any_integer_type(kind):
    expected = evaluate_retrieval(PLAIN, PLAIN, IDS, IDS, same_set=True)
    for ids in (IDS.astype(kind), torch.from_numpy(IDS.astype(np.dtype(kind).newbyteorder("=")))):
        assert evaluate_retrieval(PLAIN, PLAIN, ids, ids, same_set=True).mAP == expected.mAP


@pytest.mark.parametrize(
    "ids", [IDS / 2, IDS.astype(float), IDS > 2, IDS.astype(str), np.uint64(2**64 - 1) - IDS.astype(np.uint64)]
)
def test_labels_that_are_no_integers_of_64_bits(ids):
    with pytest.raises(InputError, match="query_ids"):
        evaluate_retrieval(PLAIN, PLAIN, ids, ids, same_set=True)


@pytest.mark.parametrize("no_match", ["skip", "zero"])
def test_a_junk_query_never_counts(no_match):
    queries, ids = PLAIN[:10], IDS[:10].copy()
    ids[[2, 5]] = -1
    gallery_ids = IDS[10:].copy()
    gallery_ids[:4] = -1
    with_junk = evaluate_retrieval(queries, PLAIN[10:], ids, gallery_ids, no_match=no_match, histogram=True)
    kept = ids != -1
    without = evaluate_retrieval(queries[kept], PLAIN[10:], ids[kept], gallery_ids, no_match=no_match, histogram=True)
    assert (with_junk.mAP, with_junk.mINP) == pytest.approx((without.mAP, without.mINP))
    assert with_junk.cmc == without.cmc
    assert with_junk.skipped == without.skipped + 2 and with_junk.queries == without.queries
    assert np.isnan(with_junk.average_precision[[2, 5]]).all() and (with_junk.first_match_rank[[2, 5]] == 0).all()
    assert with_junk.histogram.negatives.sum() == without.histogram.negatives.sum()
    with pytest.raises(InputError, match="queries that are all junk"):
        evaluate_retrieval(queries, PLAIN[10:], np.full(10, -1), np.full(20, -1), no_match=no_match)
