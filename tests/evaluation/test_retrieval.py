from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_kit import evaluate_retrieval
from reid_kit.errors import InputError, NonFiniteError
from reid_kit.evaluation import distances as distances_module
from reid_kit.evaluation import evaluate_distances
from reid_kit.evaluation import ranks as ranks_module
from tests.evaluation import oracles


def integers(random, rows, width):
    """Features whose distances are exact in float32, with many ties."""
    return random.integers(0, 4, (rows, width)).astype(np.float32)


def compare(result, ranks, kind="step", no_match="skip"):
    counted = [r for r in ranks if r]
    queries = len(counted) if no_match == "skip" else len(ranks)
    precisions = [oracles.average_precision(r, kind) for r in ranks]
    assert result.mAP == pytest.approx(np.nansum(precisions) / queries)
    assert result.mINP == pytest.approx(sum(len(r) / r[-1] for r in counted) / queries)
    for k, value in result.cmc.items():
        assert value == pytest.approx(sum(r[0] <= k for r in counted) / queries)
    assert result.first_match_rank.tolist() == [r[0] if r else 0 for r in ranks]
    expected = np.array(precisions) if no_match == "skip" else np.nan_to_num(precisions)
    np.testing.assert_allclose(result.average_precision, expected)
    assert (result.queries, result.skipped) == (queries, len(ranks) - queries)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 20),
    st.integers(1, 40),
    st.sampled_from(["step", "trapezoid"]),
    st.booleans(),
    st.sampled_from(["skip", "zero"]),
)
def test_equal_to_the_sorting_loop(seed, queries, gallery, kind, cameras, no_match):
    random = np.random.default_rng(seed)
    q, g = integers(random, queries, 3), integers(random, gallery, 3)
    qi, gi = random.integers(0, 6, queries), random.integers(-1, 6, gallery)
    qc, gc = (random.integers(0, 3, n) if cameras else None for n in (queries, gallery))
    expected = oracles.evaluate(q, g, qi, gi, qc, gc)
    if not any(expected) and no_match == "skip":
        with pytest.raises(InputError, match="none of the .* queries has a match"):
            evaluate_retrieval(q, g, qi, gi, qc, gc)
        return
    result = evaluate_retrieval(q, g, qi, gi, qc, gc, average_precision=kind, no_match=no_match)
    compare(result, expected, kind, no_match)
    assert result.gallery == (gi != -1).sum()


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("same_set", [False, True])
def test_random_features(metric, same_set):
    random = np.random.default_rng(0)
    g, gi = random.standard_normal((150, 9)), random.integers(0, 20, 150)
    q, qi = (g, gi) if same_set else (random.standard_normal((60, 9)), random.integers(0, 20, 60))
    result = evaluate_retrieval(q, g, qi, gi, metric=metric, same_set=same_set, ranks=(1, 2, 4))
    compare(result, oracles.evaluate(q, g, qi, gi, metric=metric, same_set=same_set))
    assert list(result.cmc) == [1, 2, 4] and metric in result.protocol


def large(random):
    """Clusters in one camera or another, junk and distractors among them."""
    g, gi = random.standard_normal((2000, 16)).astype(np.float32), random.integers(-1, 60, 2000)
    q, qi = random.standard_normal((130, 16)).astype(np.float32), random.integers(1, 60, 130)
    return q, g, qi, gi, random.integers(0, 4, 130), random.integers(0, 4, 2000)


@pytest.mark.parametrize("distinct", [2000, 40])
def test_block_sizes_and_threads_change_nothing(distinct, monkeypatch):
    q, g, *labels = large(np.random.default_rng(1))
    sides = q, g[np.random.default_rng(2).integers(0, distinct, len(g))], *labels  # with 40, every rank has ties
    expected = evaluate_retrieval(*sides)
    for rows, block, threads in ((4 * 2000 * 70, 64, 1), (4 * 2000 * 200, 704, 2), (1, 2048, 3)):
        monkeypatch.setattr(ranks_module, "ROWS_MEMORY", rows)
        monkeypatch.setattr(distances_module, "GALLERY_BLOCK", block)
        monkeypatch.setattr(distances_module, "CORE_BLOCK", block)
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        result = evaluate_retrieval(*sides)
        converted = evaluate_retrieval(sides[0], sides[1].astype(np.float64), *labels)
        torch.set_num_threads(before)
        assert np.array_equal(result.first_match_rank, expected.first_match_rank)
        assert np.array_equal(result.average_precision, expected.average_precision, equal_nan=True)
        assert np.array_equal(converted.average_precision, expected.average_precision, equal_nan=True)


def test_torch_uses_as_many_cores_afterwards():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    evaluate_retrieval(*large(np.random.default_rng(1)))
    with ThreadPoolExecutor(1) as later:
        found = torch.get_num_threads(), later.submit(torch.get_num_threads).result()
    torch.set_num_threads(before)
    assert found == (3, 3)


def test_the_order_of_the_gallery_changes_nothing():
    q, g, qi, gi, qc, gc = large(np.random.default_rng(2))
    expected = evaluate_retrieval(q, g, qi, gi, qc, gc)
    order = np.random.default_rng(3).permutation(len(g))
    result = evaluate_retrieval(q, g[order], qi, gi[order], qc, gc[order])
    assert np.array_equal(result.average_precision, expected.average_precision, equal_nan=True)


def test_duplicates_of_a_match_stand_before_it():
    """Negatives with the very features of the match tie with it wherever they stand, for any width."""
    random = np.random.default_rng(4)
    for width in (3, 64, 333):
        for gallery in (5, 100, 5000):
            g = random.standard_normal((gallery, width)).astype(np.float32)
            copies = random.choice(gallery, 4, replace=False)
            g[copies] = g[copies[0]]
            gi = np.ones(gallery, int)
            gi[copies[0]] = 7
            q = g[copies[:1]] + random.standard_normal((1, width)).astype(np.float32) * 1e-3
            assert evaluate_retrieval(q, g, [7], gi).first_match_rank.tolist() == [4]


def test_a_collapsed_model_scores_nothing():
    result = evaluate_retrieval(np.ones((4, 8)), np.ones((40, 8)), [0, 1, 2, 3], np.arange(40) % 4)
    assert result.cmc[1] == 0 and result.mAP < 0.2


def test_features_of_any_kind(tmp_path):
    q, g, *rest = large(np.random.default_rng(5))
    q, g = q.astype(np.float16), g.astype(np.float16)
    expected = evaluate_retrieval(q.astype(np.float32), g.astype(np.float32), *rest)
    file = np.memmap(tmp_path / "g", np.float16, "w+", shape=g.shape)
    file[:] = g
    for mine, theirs in (
        (q, file),
        (torch.from_numpy(q), g),
        (torch.from_numpy(q).double(), torch.from_numpy(g).bfloat16().double()),
    ):
        result = evaluate_retrieval(mine, theirs, *rest)
        if theirs is not file and not isinstance(theirs, np.ndarray):
            assert result.queries == expected.queries  # bfloat16 has other distances
        else:
            assert result.mAP == expected.mAP
    assert (
        evaluate_retrieval(torch.from_numpy(q), torch.from_numpy(g), *map(torch.from_numpy, rest)).mAP == expected.mAP
    )


def test_the_precision_of_training_is_left_as_it_was():
    q, g, *rest = large(np.random.default_rng(6))
    torch.set_float32_matmul_precision("medium")
    evaluate_retrieval(q, g, *rest)
    assert torch.get_float32_matmul_precision() == "medium"
    torch.set_float32_matmul_precision("highest")


def test_the_protocol_line():
    q, g, qi, gi, qc, gc = large(np.random.default_rng(7))
    protocol = evaluate_retrieval(q, g, qi, gi, qc, gc).protocol
    for words in ("euclidean", "step AP", "same camera ignored", "queries 130, skipped 0", f"junk {(gi == -1).sum()}"):
        assert words in protocol


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_the_gpu_gives_the_cpu_s_numbers(metric):
    sides = large(np.random.default_rng(8))
    cpu = evaluate_retrieval(*sides, metric=metric)
    gpu = evaluate_retrieval(*sides, metric=metric, device="cuda")
    assert gpu.mAP == pytest.approx(cpu.mAP, abs=1e-6)
    exact = [integers(np.random.default_rng(9), n, 4) for n in (130, 2000)]
    cpu, gpu = (evaluate_retrieval(*exact, *sides[2:], device=device) for device in ("cpu", "cuda"))
    assert np.array_equal(cpu.average_precision, gpu.average_precision, equal_nan=True)


BAD = np.ones((5, 3))
BAD[[1, 4]] = np.nan


@pytest.mark.parametrize(
    "sides, options, error, words",
    [
        ((BAD, np.ones((4, 3)), range(5), range(4)), {}, NonFiniteError, r"2 query features.*\[1, 4\]"),
        ((np.ones((4, 3)), BAD, range(4), range(5)), {}, NonFiniteError, r"2 gallery features.*\[1, 4\]"),
        ((np.ones((4, 3)), np.ones((4, 2)), range(4), range(4)), {}, InputError, "3 wide.*2"),
        ((np.ones((0, 3)), np.ones((4, 3)), [], range(4)), {}, InputError, "query features.*at least one row"),
        ((np.ones((4, 3)), np.ones((0, 3)), range(4), []), {}, InputError, "gallery features.*at least one row"),
        ((np.ones(3), np.ones((4, 3)), [1], range(4)), {}, InputError, r"\(N, D\)"),
        ((np.ones((4, 3)), np.ones((4, 3)), range(3), range(4)), {}, InputError, "query_ids.*4 features"),
        ((np.ones((4, 3)), np.ones((4, 3)), range(4), np.arange(4.0)), {}, InputError, "gallery_ids must be integers"),
        ((np.ones((4, 3)), np.ones((4, 3)), range(4), range(4), range(4)), {}, InputError, "one side only"),
        ((np.ones((4, 3)), np.ones((4, 3)), range(4), range(4), [1], [1] * 4), {}, InputError, "query_cameras"),
        ((np.ones((4, 3)), np.ones((4, 3)), range(4), range(4, 8)), {}, InputError, "none of the 4 queries"),
        ((np.ones((4, 3)), np.zeros((4, 3)), range(4), range(4)), {"metric": "cosine"}, InputError, "4 gallery.*zero"),
        ((np.ones((4, 3)), np.ones((4, 3)), range(4), range(4)), {"metric": "l1"}, InputError, "cosine, euclidean"),
        ((np.ones((4, 3)), np.ones((4, 3)), range(4), range(4)), {"average_precision": "x"}, InputError, "trapezoid"),
        ((np.ones((4, 3)), np.ones((4, 3)), range(4), range(4)), {"no_match": "x"}, InputError, "skip, zero"),
        ((np.ones((4, 3)), np.ones((5, 3)), range(4), range(5)), {"same_set": True}, InputError, "one set"),
        ((np.ones((4, 3)), np.ones((4, 3)), range(4), range(4)), {"device": "cuda:77"}, InputError, "cuda:77"),
    ],
)
def test_bad_input(sides, options, error, words):
    with pytest.raises(error, match=words):
        evaluate_retrieval(*(list(side) if isinstance(side, range) else side for side in sides), **options)


@pytest.mark.parametrize("kind", ["step", "trapezoid"])
def test_given_distances_are_ranked_the_same_way(kind):
    q, g, qi, gi, qc, gc = large(np.random.default_rng(10))
    distances = ((q[:, None].astype(np.float64) - g[None]) ** 2).sum(2)
    one = evaluate_distances(distances, qi, gi, qc, gc, average_precision=kind)
    two = evaluate_retrieval(q, g, qi, gi, qc, gc, average_precision=kind)
    assert np.array_equal(one.first_match_rank, two.first_match_rank)
    np.testing.assert_allclose(one.average_precision, two.average_precision)
    assert one.protocol.startswith("given distances")
    with pytest.raises(NonFiniteError, match="1 distances"):
        evaluate_distances(np.where(np.arange(2000) == 5, np.nan, distances)[:1], qi[:1], gi)
