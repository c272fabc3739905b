import pytest

from reid_kit import load_dataset
from reid_kit.errors import InputError
from tests.data import trees


def test_a_folder_an_identity(tmp_path):
    trees.touch(tmp_path, "train/ann/1.jpg", "train/ann/2.png", "train/bob/1.jpg")
    trees.touch(tmp_path, "query/cid/1.jpg", "gallery/cid/2.jpg", "gallery/dan/1.jpg")
    dataset = load_dataset("folder", tmp_path)
    assert [record.identity for record in dataset.train] == [1, 1, 2]
    assert [record.identity for record in dataset.query] == [3]
    assert [record.identity for record in dataset.gallery] == [3, 4]
    assert not dataset.protocol.camera_aware and not dataset.protocol.same_set


@pytest.mark.parametrize("name", ["gallery", "test"])
def test_without_queries_the_test_images_are_both(tmp_path, name):
    trees.touch(tmp_path, "train/a/1.jpg", f"{name}/b/1.jpg", f"{name}/b/2.jpg")
    dataset = load_dataset("folder", tmp_path)
    assert dataset.query is dataset.gallery and dataset.protocol.same_set


def test_bad_folders(tmp_path):
    trees.touch(tmp_path, "train/a/1.jpg")
    with pytest.raises(InputError, match="neither gallery/ nor test/"):
        load_dataset("folder", tmp_path)
    trees.touch(tmp_path, "gallery/1.jpg")
    with pytest.raises(InputError, match="gallery holds no folder of an identity"):
        load_dataset("folder", tmp_path)
    (tmp_path / "gallery/b").mkdir()
    with pytest.raises(InputError, match="b holds no image"):
        load_dataset("folder", tmp_path)


def test_the_parent_of_several_is_refused(tmp_path):
    for name in ("a", "b"):
        trees.touch(tmp_path / name, "train/x/1.jpg", "gallery/y/1.jpg")
    with pytest.raises(InputError, match="holds several datasets for folder: .*/a, .*/b; give one"):
        load_dataset("folder", tmp_path)
    assert load_dataset("folder", tmp_path / "b").train[0].path == tmp_path / "b/train/x/1.jpg"


def table(tmp_path, text):
    trees.touch(tmp_path, "dataset.csv", content=text.encode())
    return tmp_path


FULL = """path,identity,split,camera,x1,y1,x2,y2,domain
a.jpg,ann,train,1,0,0,4,8,shop
b.jpg,ann,train,2,,,,,consumer
c.jpg,bob,query,1,1,1,3,5,
d.jpg,bob,gallery,2,1,1,3,5,
"""


@pytest.mark.parametrize("root", ["", "dataset.csv"])
def test_a_table(tmp_path, root):
    dataset = load_dataset("csv", table(tmp_path, FULL) / root)
    one, two = dataset.train
    assert (one.path, one.identity, one.camera, one.box, one.domain) == (tmp_path / "a.jpg", 1, 1, (0, 0, 4, 8), "shop")
    assert two.box is None and two.source == "dataset.csv:3"
    assert dataset.query[0].identity == dataset.gallery[0].identity == 2
    assert dataset.protocol.camera_aware


def test_a_table_saved_by_excel(tmp_path):
    assert len(load_dataset("csv", table(tmp_path, "\ufeff" + FULL.replace("\n", "\r\n"))).train) == 2
    (tmp_path / "dataset.csv").write_bytes(FULL.replace("ann", "anné").encode("latin-1"))
    with pytest.raises(InputError, match="dataset.csv is not UTF-8"):
        load_dataset("csv", tmp_path)


def test_a_table_without_cameras_tests_one_set(tmp_path):
    text = "path,identity,split\na.jpg,1,train\nb.jpg,2,test\nc.jpg,2,test\n"
    dataset = load_dataset("csv", table(tmp_path, text))
    assert dataset.query is dataset.gallery and dataset.protocol.same_set and not dataset.protocol.camera_aware


@pytest.mark.parametrize(
    "text, words",
    [
        (FULL + "a.jpg,ann,train,1,,,,,\n", "dataset.csv:6: path a.jpg stands in dataset.csv:2 already"),
        (FULL.replace("gallery", "probe"), "dataset.csv:5: split 'probe'; expected one of train, query"),
        (FULL.replace("identity", "person"), "no column identity; the header is"),
        (FULL.replace("camera", "cam"), "unknown column 'cam'"),
        (FULL.replace("1,1,1,3,5", "1,1,,3,5"), "dataset.csv:4: a box has all of"),
        (FULL.replace("query,1", "query,"), "1 of 2 rows to test on have no camera .dataset.csv:4."),
        (FULL.replace("b.jpg,ann", "b.jpg,"), "dataset.csv:3: path and identity must not be empty"),
        (FULL.replace("d.jpg,bob,gallery,2,1,1,3,5,", "d.jpg,bob"), "dataset.csv:5: another number of fields"),
        (FULL.replace("gallery", "test"), "use either test alone"),
        ("path,identity,split\na.jpg,1,train\n", "nothing to test on"),
    ],
)
def test_bad_tables(tmp_path, text, words):
    with pytest.raises(InputError, match=words):
        load_dataset("csv", table(tmp_path, text))
