from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import scipy.io

from reid_kit import load_dataset
from reid_kit.data.cuhk03 import prepare_cuhk03, read_lists
from reid_kit.errors import InputError

REAL = Path(__file__).parents[3] / "shared/data/lists/cuhk03_np"
FILES = ["1_001_1_01.png", "1_001_2_06.png", "1_002_1_02.png", "1_002_2_07.png", "2_001_1_01.png", "2_001_2_10.png"]


def picture(pair, identity, image):
    return np.random.default_rng((pair, identity, image)).integers(0, 256, (6, 4, 3), dtype=np.uint8)


@pytest.fixture
def raw(tmp_path):
    """Two identities in each of five camera pairs, nested and transposed as MATLAB writes them."""
    path = tmp_path / "cuhk-03.mat"
    with h5py.File(path, "w") as file:
        pairs = file.create_dataset("detected", (1, 5), dtype=h5py.ref_dtype)
        for pair in range(5):
            cells = file.create_dataset(f"#refs#/p{pair}", (10, 2), dtype=h5py.ref_dtype)
            for image in range(10):
                for identity in range(2):
                    pixels = picture(pair, identity, image).T
                    cells[image, identity] = file.create_dataset(f"#refs#/{pair}_{identity}_{image}", data=pixels).ref
            pairs[0, pair] = cells.ref
    return path


def write_lists(path, files):
    cells = np.empty((6, 1), object)
    cells[:, 0] = [np.array([name]) for name in files]
    content = {"labels": [1, 1, 2, 2, 3, 3], "camId": [1, 2, 1, 2, 1, 2], "train_idx": [1, 2, 3, 4]}
    scipy.io.savemat(path, {"filelist": cells, **content, "query_idx": [5], "gallery_idx": [6]})
    return path


@pytest.fixture
def lists(tmp_path):
    return write_lists(tmp_path / "lists.mat", FILES)


def test_each_image_lands_under_its_name(raw, lists, tmp_path):
    counts = prepare_cuhk03(raw, lists, tmp_path / "cuhk03-np", "detected")
    assert counts == {"bounding_box_train": 4, "query": 1, "bounding_box_test": 1}
    found = cv2.imread(str(tmp_path / "cuhk03-np/detected/bounding_box_test/0003_c2_2_001_2_10.png"))[..., ::-1]
    assert np.array_equal(found, picture(1, 0, 9))
    dataset = load_dataset("cuhk03_np", tmp_path)
    assert [(r.identity, r.camera) for r in dataset.train] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    with pytest.raises(InputError, match="exists; remove it"):
        prepare_cuhk03(raw, lists, tmp_path / "cuhk03-np", "detected")


def test_a_failure_leaves_nothing(raw, tmp_path):
    lists = write_lists(tmp_path / "lists.mat", [*FILES[:-1], "2_009_2_10.png"])
    with pytest.raises(InputError, match="no image 10 of identity 9, pair 2"):
        prepare_cuhk03(raw, lists, tmp_path / "out", "detected")
    assert list((tmp_path / "out").iterdir()) == []


def test_wrong_files_are_named(raw, lists, tmp_path):
    with pytest.raises(InputError, match="lists.mat cannot be read as cuhk-03.mat"):
        prepare_cuhk03(lists, lists, tmp_path / "out", "detected")
    with pytest.raises(InputError, match="cuhk-03.mat is not a list"):
        prepare_cuhk03(raw, raw, tmp_path / "out", "detected")
    with pytest.raises(InputError, match="no cell 'labeled'"):
        prepare_cuhk03(raw, lists, tmp_path / "out", "labeled")


@pytest.mark.skipif(not REAL.exists(), reason="the official lists are not here")
@pytest.mark.parametrize("boxes, counts", [("detected", (7365, 1400, 5332)), ("labeled", (7368, 1400, 5328))])
def test_the_official_lists(boxes, counts):
    names = read_lists(REAL / f"cuhk03_new_protocol_config_{boxes}.mat")
    folders = [folder for folder, _, _ in names]
    assert tuple(folders.count(folder) for folder in ("bounding_box_train", "query", "bounding_box_test")) == counts
    train = {name[:4] for folder, name, _ in names if folder == "bounding_box_train"}
    query = {name[:4] for folder, name, _ in names if folder == "query"}
    assert (len(train), len(query)) == (767, 700) and not train & query
    places = [place for _, _, place in names]
    assert max(pair for pair, _, _ in places) == 4 and max(image for _, _, image in places) == 9
