import pytest

from reid_kit import load_dataset
from reid_kit.cli.tables import dataset_table
from reid_kit.data.doctor import diagnose
from reid_kit.errors import InputError
from tests.data import trees

LINES = {
    "train": ["0000/0000_000_01_0303morning_0008_0.jpg 0", "0000/0000_001_05_0303morning_0009_0.jpg 0"],
    "val": ["0001/0001_000_15_0303noon_0008_0.jpg 1"],
    "query": ["0000/0000_000_02_0303morning_0008_0.jpg 0"],
    "gallery": ["0000/0000_000_03_0303morning_0008_0.jpg 0", "0002/0002_000_03_0303morning_0008_0.jpg 2"],
}


@pytest.fixture(params=[("MSMT17_V1", "train", "test"), ("MSMT17_V2", "mask_train_v2", "mask_test_v2")])
def tree(request, tmp_path):
    name, train, test = request.param
    return write(tmp_path / name, train, test)


def write(folder, train, test):
    for split, lines in LINES.items():
        trees.touch(folder, f"list_{split}.txt", content="\n".join([*lines, ""]).encode())
        images = train if split in ("train", "val") else test
        trees.touch(folder / images, *(line.split()[0] for line in lines))
    return folder


def test_records_of_a_tree(tree):
    dataset = load_dataset("msmt17", tree.parent)
    assert [(r.identity, r.camera) for r in dataset.train] == [(0, 1), (0, 5), (1, 15)]
    assert [(r.identity, r.camera) for r in dataset.query] == [(0, 2)]
    assert [(r.identity, r.camera) for r in dataset.gallery] == [(0, 3), (2, 3)]
    assert all(record.path.exists() for record in dataset.train + dataset.query + dataset.gallery)


def test_a_bad_line_is_named(tree):
    trees.touch(tree, "list_query.txt", content=b"0000/0000_000_02_x_1_0.jpg 0\n0000/wrong.jpg 1\n")
    with pytest.raises(InputError, match="list_query.txt:2.*wrong.jpg"):
        load_dataset("msmt17", tree)


def test_missing_parts_are_named(tree, tmp_path):
    (tree / "list_val.txt").unlink()
    with pytest.raises(InputError, match="no list .*list_val.txt"):
        load_dataset("msmt17", tree)
    trees.touch(tmp_path / "other", "list_train.txt")
    with pytest.raises(InputError, match=r"neither train/ \(V1\) nor mask_train_v2"):
        load_dataset("msmt17", tmp_path / "other")


def test_train_and_test_count_their_people_from_zero_each(tree):
    found = diagnose("msmt17", tree)
    assert found.problems == []
    assert "officially" in found.warnings[0] and "of 2 identities" in found.warnings[0]
    gallery = dataset_table(found.dataset).splitlines()[3].split()
    assert gallery[1:3] == ["2", "2"] and gallery[-1] == "0"  # identity 0 is a person


@pytest.mark.parametrize("number", ["9" * 20, "²", "1.0", "-1"])
def test_what_is_no_number_of_a_person(tree, number):
    trees.touch(tree, "list_query.txt", content=f"0000/0000_000_02_0303morning_0008_0.jpg {number}\n".encode())
    with pytest.raises(InputError, match="list_query.txt:1: identity"):
        load_dataset("msmt17", tree)
