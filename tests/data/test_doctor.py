import re

import pytest

from reid_kit.data.doctor import diagnose
from reid_kit.data.readers import READERS
from tests.data import trees
from tests.data.readers import test_deepfashion, test_msmt17, test_products


@pytest.fixture
def folder(tmp_path):
    return trees.market(tmp_path)


def test_a_small_tree_differs_from_the_official_counts_alone(folder):
    diagnosis = diagnose("market1501", folder)
    assert diagnosis.problems == []
    assert len(diagnosis.warnings) == 3
    assert any("train has 8 images of 2 identities, officially 12,936 of 751" in w for w in diagnosis.warnings)


def test_identities_on_both_sides(folder):
    trees.touch(folder / "bounding_box_train", "0001_c1s1_009_00.jpg")
    diagnosis = diagnose("market1501", folder)
    assert any("1 identities are in train and in test, as [0001]" in problem for problem in diagnosis.problems)
    assert any("1 training identities have one image, as [0001]" in warning for warning in diagnosis.warnings)


def test_a_closed_set_is_fit_with_a_word(tmp_path):
    """All that is tested is trained on, as in a shop; a part of it is an error."""
    own_table(tmp_path, TABLE.replace("bob", "ann"))
    diagnosis = diagnose("csv", tmp_path)
    assert diagnosis.problems == []
    assert any("a closed set: all 1 identities of the test are in train" in found for found in diagnosis.warnings)


def test_cameras_that_are_parsed_wrongly(folder):
    for split in ("query", "bounding_box_test"):
        for path in list((folder / split).iterdir()):
            path.rename(path.with_name(path.name.replace("_c", "_c9x", 1)))
    diagnosis = diagnose("market1501", folder)
    assert any("2 of 2 queries have no match in another camera" in problem for problem in diagnosis.problems)
    assert any("3 cameras (1, 2, 9), officially 6" in warning for warning in diagnosis.warnings)


def test_one_query_without_a_second_camera(folder):
    (folder / "bounding_box_test/0003_c6s2_002_00.jpg").unlink()
    assert any("1 of 2 queries have no match" in warning for warning in diagnose("market1501", folder).warnings)


def test_unreadable_images_are_listed(folder):
    trees.touch(folder / "query", "0001_c1s1_001_00.jpg", content=b"")
    trees.touch(folder / "query", "0003_c3s1_001_00.jpg", content=trees.STUB[:30])
    problems = diagnose("market1501", folder).problems
    assert len(problems) == 2 and "is empty" in problems[0] and "is truncated" in problems[1]
    assert diagnose("market1501", folder, check_images=False).problems == []


def test_progress_sees_every_image_once(folder):
    seen = []
    diagnose("market1501", folder, progress=lambda records: seen.extend(records) or records)
    assert len(seen) == 15


TABLE = """path,identity,split,camera,x1,y1,x2,y2,domain
a.png,ann,train,1,0,0,4,8,shop
b.png,ann,train,2,1,1,3,5,consumer
c.png,bob,query,1,1,1,3,5,
d.png,bob,gallery,2,1,1,3,5,
"""


def in_shop(folder):
    boxes = [f"{line.split()[0]} 1 1 0 1 3 7" for line in test_deepfashion.IN_SHOP]
    test_deepfashion.in_shop(folder, boxes=boxes)
    trees.touch(folder, *(line.split()[0] for line in test_deepfashion.IN_SHOP))


def sop(folder):
    trees.touch(test_products.sop(folder), "a/1.JPG", "a/2.JPG", "b/3.JPG", "b/4.JPG", "b/5.JPG")


def cub(folder):
    boxes = "".join(f"{number} 0 1 3 6\n" for number in (1, 2, 3))
    trees.touch(test_products.cub(folder), "bounding_boxes.txt", content=boxes.encode())
    names = {"images.txt": "4 101.C/4.jpg\n", "image_class_labels.txt": "4 101\n"}
    for name, line in names.items():
        (folder / name).write_text((folder / name).read_text() + line)
    trees.touch(folder, "images/101.C/4.jpg")


def own_folder(folder):
    trees.touch(folder, *(f"{place}/{n}.png" for place in ("train/ann", "query/bob", "gallery/bob") for n in (1, 2)))


def own_table(folder, text=TABLE):
    trees.touch(folder, "a.png", "b.png", "c.png", "d.png")
    trees.touch(folder, "dataset.csv", content=text.encode())


# reader -> what its folder is called under the root, and a small tree of its layout
LAYOUTS = {
    "market1501": ("Market-1501-v15.09.15", trees.market),
    "dukemtmc_reid": ("DukeMTMC-reID", trees.market),
    "cuhk03_np": ("cuhk03-np", lambda folder: trees.market(folder / "detected")),
    "msmt17": ("MSMT17_V1", lambda folder: test_msmt17.write(folder, "train", "test")),
    "inshop": ("In-shop", in_shop),
    "consumer_to_shop": ("Consumer-to-shop", test_deepfashion.consumer_to_shop),
    "sop": ("Stanford_Online_Products", sop),
    "cub200": ("CUB_200_2011", cub),
    "cars196": ("Cars196", test_products.cars),
    "folder": ("photos", own_folder),
    "csv": ("table", own_table),
}


def test_every_layout_is_here():
    assert LAYOUTS.keys() == {name for name in READERS if not name.startswith("demo")}


@pytest.mark.parametrize("parent", [False, True])
@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_every_layout_from_its_folder_and_from_the_parent(tmp_path, name, parent):
    called, build = LAYOUTS[name]
    build(tmp_path / called)
    diagnosis = diagnose(name, tmp_path if parent else tmp_path / called)
    if name == "cars196":  # one test image, which has no match
        assert [problem[:24] for problem in diagnosis.problems] == ["1 of 1 queries have no m"]
    else:
        assert diagnosis.problems == []
    dataset = diagnosis.dataset
    assert all(record.path.is_file() for record in dataset.train + dataset.query + dataset.gallery)


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_every_layout_without_an_image(tmp_path, name):
    called, build = LAYOUTS[name]
    build(tmp_path / called)
    record = diagnose(name, tmp_path).dataset.gallery[-1]
    record.path.write_bytes(b"")
    assert any(f"image {record.path} is empty" in problem for problem in diagnose(name, tmp_path).problems)
    if record.source and len(diagnose(name, tmp_path).dataset.gallery) > 1:  # of the first, the reader itself speaks
        record.path.unlink()
        problems = diagnose(name, tmp_path).problems
        assert any(f"image {record.path}, which {record.source} names" in problem for problem in problems)


@pytest.mark.parametrize(
    "line, changed, words",
    [
        ("a.png,ann,train,1,0,0,4,8", "a.png,ann,train,1,4,8,9,9", r"a.png \(dataset.csv:2\): box .* holds no pixel"),
        ("d.png,bob", "d.png,ann", r"1 identities are in train and in test.*dataset.csv:3 and dataset.csv:5"),
        ("b.png,ann,train", "b.png,cid,train", r"2 training identities have one image.*dataset.csv:2"),
        ("5,consumer", "5,shop\ne.png,cid,train,1,0,0,1,1,consumer", r"2 training identities lack one .*dataset.csv:2"),
    ],
)
def test_the_lines_of_a_table_are_named(tmp_path, line, changed, words):
    own_table(tmp_path, TABLE.replace(line, changed))
    diagnosis = diagnose("csv", tmp_path)
    assert any(re.search(words, found) for found in diagnosis.problems + diagnosis.warnings)
