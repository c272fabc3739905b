import numpy as np
import pytest

from reid_kit import evaluate_retrieval, load_dataset
from reid_kit.build import label_map
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
        (FULL.replace("gallery", "val"), "dataset.csv:5: split 'val'; .*DATA.VALIDATION"),
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


HEAD = "path,identity,split,camera\n"


@pytest.mark.parametrize("name", ["dataset.csv", "folder"])
def test_names_stay_names(tmp_path, name):
    who = ["007", "7", "änn lee", "20240131123456789010", "f" * 64, "-1", "1e5", "2024-01-31"]
    if name == "folder":
        for person in who:
            trees.touch(tmp_path, f"train/{person}/1.jpg", f"gallery/{person}/2.jpg")
        dataset = load_dataset("folder", tmp_path)
    else:
        rows = [
            f"{split}{i}.jpg,{person},{split},door {i}" for split in ("train", "test") for i, person in enumerate(who)
        ]
        dataset = load_dataset("csv", table(tmp_path, HEAD + "\n".join(rows)))
        assert [record.camera_name for record in dataset.train] == [f"door {i}" for i in range(len(who))]
    names = {record.identity_name: record.identity for record in dataset.train}
    assert set(names) == set(who) and len(set(names.values())) == len(who)
    assert all(record.identity == names[record.identity_name] for record in dataset.gallery)


def test_a_new_identity_of_the_gallery_keeps_the_labels_of_train(tmp_path):
    rows = "a.jpg,bob,train\nb.jpg,eve,train\nc.jpg,cid,test\nd.jpg,cid,test\n"
    before = label_map(load_dataset("csv", table(tmp_path, "path,identity,split\n" + rows)).train)
    after = label_map(load_dataset("csv", table(tmp_path, "path,identity,split\n" + rows + "e.jpg,ann,test\n")).train)
    assert before == after == {"bob": 0, "eve": 1}


@pytest.mark.parametrize("delimiter", [";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_tables_as_spreadsheets_save_them(tmp_path, delimiter, encoding):
    text = FULL.replace(",", delimiter).replace("ann", " änn ").replace("\n", "\r\n")
    (tmp_path / "dataset.csv").write_bytes(text.encode(encoding))
    dataset = load_dataset("csv", tmp_path)
    assert dataset.train[0].identity_name == "änn" and dataset.train[0].box == (0, 0, 4, 8)


def test_a_quoted_field_may_hold_the_delimiter(tmp_path):
    dataset = load_dataset("csv", table(tmp_path, HEAD + '"a, b.jpg","lee, ann",test,1\nc.jpg,"lee, ann",test,2\n'))
    assert dataset.gallery[0].path == tmp_path / "a, b.jpg" and dataset.gallery[1].identity_name == "lee, ann"


def test_a_path_from_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    dataset = load_dataset("csv", table(tmp_path, HEAD + "~/a.jpg,x,test,1\nb.jpg,x,test,2\n"))
    assert dataset.gallery[0].path == tmp_path / "home/a.jpg"


def test_cameras_hold_for_rows_of_test_too(tmp_path):
    dataset = load_dataset("csv", table(tmp_path, HEAD + "a.jpg,x,test,1\nb.jpg,x,test,2\n"))
    assert dataset.protocol.camera_aware and dataset.protocol.same_set


def test_an_image_is_a_path_and_its_box(tmp_path):
    head = "path,identity,split,camera,x1,y1,x2,y2\n"
    rows = "a.jpg,ann,train,1,0,0,9,9\na.jpg,bob,train,1,9,0,18,9\nb.jpg,cid,query,1,0,0,9,9\n"
    rows += "c.jpg,cid,gallery,2,0,0,9,9\nc.jpg,dan,gallery,2,9,0,18,9\n"
    dataset = load_dataset("csv", table(tmp_path, head + rows))
    assert [(r.identity_name, r.box) for r in dataset.train] == [("ann", (0, 0, 9, 9)), ("bob", (9, 0, 18, 9))]
    for again in ("./a.jpg,ann,train,1,0,0,9,9", "d/../a.jpg,ann,gallery,1,0,0,9,9", "a.jpg,ann,train,1,,,,"):
        with pytest.raises(InputError, match=r"dataset.csv:7: path a.jpg stands in dataset.csv:2 already"):
            load_dataset("csv", table(tmp_path, head + rows + again))


def test_a_query_in_the_gallery_does_not_find_itself(tmp_path):
    head = "path,identity,split\n"
    rows = "t.jpg,x,train\na.jpg,ann,query\na.jpg,ann,gallery\nb.jpg,ann,gallery\nc.jpg,bob,gallery\n"
    dataset = load_dataset("csv", table(tmp_path, head + rows))
    features = {"a.jpg": [1.0, 0.0], "b.jpg": [0.0, 1.0], "c.jpg": [0.6, 0.8]}
    query, gallery = (
        np.array([features[record.path.name] for record in side], np.float32)
        for side in (dataset.query, dataset.gallery)
    )
    ids, cameras = ([[getattr(r, key) for r in side] for side in (dataset.query, dataset.gallery)]
                    for key in ("identity", "camera"))  # fmt: skip
    assert dataset.protocol.camera_aware and not dataset.query[0].camera_name
    assert evaluate_retrieval(query, gallery, *ids, *cameras).first_match_rank.tolist() == [2]  # bob, then b.jpg
    with pytest.raises(InputError, match="a.jpg is of 'bob'.*here, of 'ann'"):
        load_dataset("csv", table(tmp_path, head + rows.replace("a.jpg,ann,gallery", "a.jpg,bob,gallery")))


@pytest.mark.parametrize(
    "rows, words",
    [
        ("a.jpg,x,test,2\nb.jpg,x,test,2.0\n", "camera '2.0' .dataset.csv:3. and '2' .dataset.csv:2."),
        ("a.jpg,7,test,1\nb.jpg,7.0,test,2\n", "identity '7.0' .* and '7'"),
        ("a.jpg,x,test,1\nb.jpg,x,test,\n", "1 of 2 rows to test on have no camera .dataset.csv:3."),
        ("a\0.jpg,x,test,1\n", "zero byte in line 2"),
        ('"a.jpg,x,test,1\n', "dataset.csv"),
        (f"a.jpg,{'x' * 200_000},test,1\n", "field larger than field limit"),
    ],
)
def test_tables_that_could_mean_two_things(tmp_path, rows, words):
    with pytest.raises(InputError, match=words):
        load_dataset("csv", table(tmp_path, HEAD + rows))


def test_a_table_that_is_a_folder(tmp_path):
    (tmp_path / "dataset.csv").mkdir()
    with pytest.raises(InputError, match="dataset.csv.*it is a folder"):
        load_dataset("csv", tmp_path)


def test_images_of_every_suffix_and_in_folders_below(tmp_path):
    trees.touch(tmp_path, "train/ann/1.webp", "train/ann/day/2.tif", "train/ann/._1.webp", "train/ann/3.heic")
    trees.touch(tmp_path, "gallery/bob/1.JPG")
    dataset = load_dataset("folder", tmp_path)
    assert [record.path.name for record in dataset.train] == ["1.webp", "2.tif"]
    assert len(dataset.left_out) == 1 and "heic" in dataset.left_out[0]


def photos_of(root, identities):
    for identity, count in identities.items():
        (root / identity).mkdir(parents=True)
        for number in range(count):
            (root / identity / f"{number}.jpg").write_bytes(b"")


def test_a_split_is_drawn_by_identity(tmp_path):
    names = {f"person {number}": 1 + number % 3 for number in range(20)}
    photos_of(tmp_path, names)
    lines = ["path,identity,camera"] + [f"{n}/{k}.jpg,{n},c{k}" for n, count in names.items() for k in range(count)]
    (tmp_path / "dataset.csv").write_text("\n".join(lines))
    found = [load_dataset(reader, tmp_path, split=0.3) for reader in ("folder", "csv")]
    for dataset in found:
        train, test = ({record.identity_name for record in part} for part in (dataset.train, dataset.gallery))
        assert len(test) == 6 and train | test == set(names) and not train & test
        assert dataset.query is dataset.gallery and dataset.protocol.same_set
        assert len(dataset.train) + len(dataset.gallery) == sum(names.values())
        assert dataset.drawn == "drawn to test with: 6 of 20 identities (split 0.3, seed 0)"
    assert {r.path for r in found[0].gallery} == {r.path for r in found[1].gallery}  # of the names and the seed alone
    assert found[1].protocol.camera_aware and not found[0].protocol.camera_aware
    other = load_dataset("folder", tmp_path, split=0.3, seed=1)
    assert {r.path for r in other.gallery} != {r.path for r in found[0].gallery}


@pytest.mark.parametrize(
    "split, header, words",
    [
        (1.5, "path,identity", "a share between 0 and 1"),
        (0.3, "path,identity,split", "has a column split"),
        (0.0, "path,identity", "no column split; add it, or let one be drawn: --split 0.3"),
    ],
)
def test_splits_that_cannot_be_drawn(tmp_path, split, header, words):
    fields = {"path": "{0}.jpg", "identity": "{0}", "split": "train"}
    rows = [",".join(fields[name] for name in header.split(",")).format(n) for n in range(4)]
    (tmp_path / "dataset.csv").write_text("\n".join([header, *rows]))
    with pytest.raises(InputError, match=words):
        load_dataset("csv", tmp_path, split=split)


def test_a_folder_that_is_split_already(tmp_path):
    photos_of(tmp_path / "train", {"a": 2})
    with pytest.raises(InputError, match="has train/, so it is split already"):
        load_dataset("folder", tmp_path, split=0.3)
