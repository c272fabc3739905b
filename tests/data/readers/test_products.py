import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from reid_kit import load_dataset
from reid_kit.errors import InputError
from tests.data import trees

LISTS = Path(__file__).parents[4] / "shared/data/lists"
needs_lists = pytest.mark.skipif(not LISTS.exists(), reason="the official lists are not here")


def sop(folder):
    header = b"image_id class_id super_class_id path\n"
    trees.touch(folder, "Ebay_train.txt", content=header + b"1 1 1 a/1.JPG\n2 1 1 a/2.JPG\n")
    trees.touch(folder, "Ebay_test.txt", content=header + b"3 2 1 b/3.JPG\n4 3 1 b/4.JPG\n5 3 1 b/5.JPG\n")
    trees.touch(folder, "a/1.JPG", "b/3.JPG")
    return folder


def cars(folder):
    kinds = [("relative_im_path", object), ("class", int)]
    kinds += [(f"bbox_{corner}", int) for corner in ("x1", "y1", "x2", "y2")]
    rows = [("car_ims/1.jpg", 1, 1, 1, 4, 8), ("car_ims/2.jpg", 98, 2, 1, 3, 7), ("car_ims/3.jpg", 99, 1, 2, 3, 4)]
    folder.mkdir(parents=True)
    scipy.io.savemat(folder / "cars_annos.mat", {"annotations": np.array(rows, dtype=kinds)})
    trees.touch(folder, *(row[0] for row in rows))
    return folder


def cub(folder):
    paths = {1: "001.A/1.jpg", 2: "100.B/2.jpg", 3: "101.C/3.jpg"}
    trees.touch(folder, "images.txt", content="".join(f"{n} {path}\n" for n, path in paths.items()).encode())
    trees.touch(folder, "image_class_labels.txt", content=b"1 1\n2 100\n3 101\n")
    trees.touch(folder, "bounding_boxes.txt", content=b"1 60.0 27.0 325.0 304.0\n2 1 2 3 4\n3 5 6 7 8\n")
    trees.touch(folder / "images", *paths.values())
    return folder


def test_sop(tmp_path):
    sop(tmp_path / "Stanford_Online_Products")
    dataset = load_dataset("sop", tmp_path)
    assert [record.identity for record in dataset.train] == [1, 1]
    assert [record.identity for record in dataset.gallery] == [2, 3, 3] and dataset.query is dataset.gallery
    assert dataset.protocol.same_set and dataset.protocol.nmi and dataset.protocol.ranks == (1, 10, 100, 1000)


def test_cub_splits_after_the_hundredth_class(tmp_path):
    dataset = load_dataset("cub200", cub(tmp_path))
    assert [record.identity for record in dataset.train] == [1, 100]
    assert [record.identity for record in dataset.query] == [101]
    assert dataset.train[0].box == (60, 27, 385, 331) and dataset.train[0].source == "bounding_boxes.txt:1"


def test_bad_lists(tmp_path):
    folder = cub(tmp_path / "cub")
    trees.touch(folder, "image_class_labels.txt", content=b"1 1\n3 101\n")
    with pytest.raises(InputError, match="image_class_labels.txt has no class of image 2"):
        load_dataset("cub200", folder)
    trees.touch(folder, "images.txt", content=b"1 a.jpg b.jpg\n")
    with pytest.raises(InputError, match="images.txt:1.*expected an image id and 1 more"):
        load_dataset("cub200", folder)
    folder = sop(tmp_path / "sop")
    trees.touch(folder, "Ebay_test.txt", content=b"image_id class_id path\n3 2 b/3.JPG\n")
    with pytest.raises(InputError, match="Ebay_test.txt: no column super_class_id"):
        load_dataset("sop", folder)
    folder = sop(tmp_path / "empty")
    (folder / "b/3.JPG").unlink()
    with pytest.raises(InputError, match="no image .*3.JPG, the first of its list"):
        load_dataset("sop", folder)
    trees.touch(tmp_path / "cars", "cars_annos.mat")
    with pytest.raises(InputError, match="cars_annos.mat cannot be read"):
        load_dataset("cars196", tmp_path / "cars")


@pytest.mark.parametrize(
    "file, content, words",
    [
        ("image_class_labels.txt", "1 1\n2 100\n3 crow\n", "labels.txt:3: class 'crow'; expected a whole number"),
        ("bounding_boxes.txt", "1 1 2 3 4\n3 5 6 wide 8\n", "boxes.txt:2: box 5 6 wide 8; expected four numbers"),
        ("images.txt", "1 a.jpg\n1 b.jpg\n", "images.txt:2: image 1 stands in images.txt:1 already"),
    ],
)
def test_bad_lines_of_cub(tmp_path, file, content, words):
    cub(tmp_path)
    trees.touch(tmp_path, file, content=content.encode())
    with pytest.raises(InputError, match=words):
        load_dataset("cub200", tmp_path)


@pytest.mark.parametrize(
    "line, words",
    [
        ("6 two 1 b/3.JPG", "Ebay_test.txt:5: class_id 'two'; expected a whole number"),
        ("6 1 1 b/3.JPG", "Ebay_test.txt:5: class 1 is in train too, in Ebay_train.txt:3"),
        ("6 4", "Ebay_test.txt:5: 2 fields, expected 4"),
    ],
)
def test_bad_lines_of_sop(tmp_path, line, words):
    file = sop(tmp_path) / "Ebay_test.txt"
    file.write_text(f"{file.read_text()}{line}\n")
    with pytest.raises(InputError, match=words):
        load_dataset("sop", tmp_path)


@pytest.mark.parametrize("root", ["", "Cars196"])
def test_cars_split_after_class_98(tmp_path, root):
    cars(tmp_path / "Cars196")
    dataset = load_dataset("cars196", tmp_path / root)
    assert [(record.identity, record.box) for record in dataset.train] == [(1, (0, 0, 4, 8)), (98, (1, 0, 3, 7))]
    assert [(record.identity, record.path.name) for record in dataset.query] == [(99, "3.jpg")]


def counts(dataset):
    return [(len(split), len({r.identity for r in split})) for split in (dataset.train, dataset.gallery)]


@needs_lists
def test_the_official_counts_of_sop(tmp_path):
    for split in ("train", "test"):
        shutil.copy(LISTS / f"sop/Ebay_{split}.txt", tmp_path)
        trees.touch(tmp_path, (LISTS / f"sop/Ebay_{split}.txt").read_text().split("\n")[1].split()[3])
    assert counts(load_dataset("sop", tmp_path)) == [(59551, 11318), (60502, 11316)]


@needs_lists
def test_the_official_counts_of_cub(tmp_path):
    for name in ("images.txt", "bounding_boxes.txt"):
        shutil.copy(LISTS / "cub200" / name, tmp_path)
    paths = dict(line.split() for line in (tmp_path / "images.txt").read_text().split("\n") if line)
    labels = "".join(f"{number} {int(path[:3])}\n" for number, path in paths.items())
    trees.touch(tmp_path, "image_class_labels.txt", content=labels.encode())
    trees.touch(tmp_path / "images", *paths.values(), content=b"")
    assert counts(load_dataset("cub200", tmp_path)) == [(5864, 100), (5924, 100)]


@needs_lists
def test_the_official_counts_of_cars(tmp_path):
    shutil.copy(LISTS / "cars196/cars_annos.mat", tmp_path)
    trees.touch(tmp_path, "car_ims/000001.jpg", *(f"car_ims/{n:06}.jpg" for n in range(8000, 8100)))
    dataset = load_dataset("cars196", tmp_path)
    assert counts(dataset) == [(8054, 98), (8131, 98)]
    assert dataset.train[0].box == (111, 6, 853, 717)
