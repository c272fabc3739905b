"""Features of others: names become numbers, and what is no feature or label is refused with the file's name."""

import numpy as np
import pytest
import safetensors.numpy
import scipy.io

from reid_kit.errors import InputError
from reid_kit.evaluation.feature_files import read_feature_file, write_feature_file

SPLIT = np.array(["query", "gallery", "gallery", "gallery"])


def arrays(**changes):
    features = np.arange(12, dtype=np.float32).reshape(4, 3)
    labels = {"identities": np.array([7, 7, -1, 9]), "cameras": np.array([1, 2, 2, 3])}
    return {"features": features, "split": SPLIT, **labels, **changes}


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_names_in_any_text(tmp_path, suffix):
    names = {"identities": np.array(["änn", "änn", "-1", "007"]), "cameras": np.array(["door", "hall", "hall", "7"])}
    write_feature_file(tmp_path / f"a{suffix}", arrays(**names))
    query, gallery = read_feature_file(tmp_path / f"a{suffix}")[:2]
    assert query.identities[0] == gallery.identities[0] != gallery.identities[2]
    assert gallery.identities[1] == -1
    assert len({*query.cameras.tolist(), *gallery.cameras.tolist()}) == 3


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint64, np.float64, ">i4"])
def test_integers_of_any_type(tmp_path, kind):
    labels = np.array([7, 7, 0, 9]).astype(kind)
    np.savez(tmp_path / "a.npz", **arrays(identities=labels))
    query, gallery = read_feature_file(tmp_path / "a.npz")[:2]
    assert (query.identities.tolist(), gallery.identities.tolist()) == ([7], [7, 0, 9])


def test_hashes_of_64_bits_are_names(tmp_path):
    np.savez(tmp_path / "a.npz", **arrays(identities=np.array([2**64 - 1, 2**64 - 1, 5, 2**63], np.uint64)))
    query, gallery = read_feature_file(tmp_path / "a.npz")[:2]
    assert query.identities[0] == gallery.identities[0] > 0 and len(set(gallery.identities.tolist())) == 3


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"features": np.full((4, 3), np.nan)}, "features hold NaN or infinity, first in row 0"),
        ({"features": np.ones((4, 3), complex)}, "features must be .N, D. numbers"),
        ({"features": np.float32(1)}, "1 rows of features"),
        ({"features": np.array([["a"] * 3] * 4)}, "features must be"),
        ({"features": np.ones((5, 3))}, "5 rows of features, 4 rows of split, 4 rows of identities"),
        ({"identities": np.array([0.5, 1, 2, 3])}, "identities must be whole numbers or names; row .0. is not"),
        ({"identities": np.array([1, np.inf, 2, 3])}, "identities must be whole numbers"),
        ({"identities": np.array([True] * 4)}, "identities of shape"),
        ({"identities": np.zeros((4, 2), int)}, "identities of shape .4, 2."),
        ({"identities": np.array(["2024-01-01"] * 4, "M8[D]")}, "identities of shape"),
        ({"cameras": np.array([1, -1, 2, 3])}, r"1 of 4 rows have no camera.*first rows \[1\]"),
        ({"cameras": np.array(["a", "", "b", "c"])}, r"1 of 4 rows have no camera.*first rows \[1\]"),
        ({"split": np.array(["query"] * 4)}, "split holds no gallery"),
        ({"split": np.array(["probe", *SPLIT[1:]])}, "split holds .'probe'."),
        ({"split": np.array([SPLIT] * 4)}, "split of shape .4, 4."),
        ({"split": np.arange(4)}, "split of shape .4,. and type int64"),
    ],
)
def test_what_no_features_and_labels_can_be(tmp_path, changes, words):
    np.savez(tmp_path / "theirs.npz", **arrays(**changes))
    with pytest.raises(InputError, match=f"theirs.npz.*{words}"):
        read_feature_file(tmp_path / "theirs.npz")


def test_no_camera_anywhere_is_the_one_case_without(tmp_path):
    np.savez(tmp_path / "a.npz", **arrays(cameras=np.full(4, -1)))
    assert [side.cameras for side in read_feature_file(tmp_path / "a.npz")[:2]] == [None, None]


def test_an_array_that_nobody_asks_for_is_not_read(tmp_path):
    np.savez(tmp_path / "a.npz", **arrays(), model=np.array([{"any": "object"}]))
    assert len(read_feature_file(tmp_path / "a.npz")[1].features) == 3


def test_labels_of_a_mat_file(tmp_path):
    content = {"gallery_f": np.ones((3, 2)), "query_f": np.ones((1, 2)), "query_label": [[1.0]], "query_cam": [[2]]}
    content |= {"gallery_label": [[1.0, 2.0, 2.0]], "gallery_cam": [[1], [2], [3]]}
    scipy.io.savemat(tmp_path / "a.mat", content)
    query, gallery = read_feature_file(tmp_path / "a.mat")[:2]
    assert (query.identities.tolist(), gallery.identities.tolist(), gallery.cameras.tolist()) == (
        [1],
        [1, 2, 2],
        [1, 2, 3],
    )
    for wrong, words in (([[0.5, 1, 2]], "whole numbers"), ([["a", "b", "c"]], "must be numbers"), ([[1, 2]], "shape")):
        scipy.io.savemat(tmp_path / "a.mat", {**content, "gallery_label": wrong})
        with pytest.raises(InputError, match=f"a.mat.*gallery_label.*{words}"):
            read_feature_file(tmp_path / "a.mat")


def test_one_flipped_bit_is_not_taken(tmp_path):
    random = np.random.default_rng(0)
    for suffix in (".npz", ".safetensors"):
        path = tmp_path / f"a{suffix}"
        write_feature_file(path, arrays(features=random.normal(size=(4, 200)).astype(np.float32)))
        whole, gallery = path.read_bytes(), read_feature_file(path)[1]
        for _ in range(40):
            damaged = bytearray(whole)
            damaged[random.integers(len(whole) - 3200, len(whole) - 700)] ^= 1 << random.integers(8)
            path.write_bytes(damaged)
            try:
                assert np.array_equal(read_feature_file(path)[1].features, gallery.features)
            except InputError as error:
                assert str(path) in str(error)


def test_metadata_that_is_no_list_of_text(tmp_path):
    path, numbers = tmp_path / "a.safetensors", {k: v for k, v in arrays().items() if k != "split"}
    for text in ("{", "3", "[1]", "[" * 100_000):
        safetensors.numpy.save_file(numbers, path, {"split": text})
        with pytest.raises(InputError, match="a.safetensors"):
            read_feature_file(path)
