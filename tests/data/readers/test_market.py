import csv
from pathlib import Path

import pytest

from reid_kit import load_dataset
from reid_kit.errors import InputError
from tests.data import trees

LISTS = Path(__file__).parents[4] / "shared/data/lists/market1501"
needs_lists = pytest.mark.skipif(not LISTS.exists(), reason="the official lists are not here")


@pytest.mark.parametrize("root", ["", "Market-1501-v15.09.15"])
def test_records_of_a_tree(tmp_path, root):
    folder = trees.market(tmp_path / "Market-1501-v15.09.15")
    dataset = load_dataset("market1501", tmp_path / root)
    assert [(r.identity, r.camera) for r in dataset.train] == [(i, c) for i in (2, 7) for c in (1, 1, 2, 2)]
    assert [(r.identity, r.camera) for r in dataset.query] == [(1, 1), (3, 3)]
    assert [(r.identity, r.camera) for r in dataset.gallery] == [(-1, 5), (0, 4), (1, 1), (1, 2), (3, 6)]
    assert dataset.query[0].path == folder / "query/0001_c1s1_001_00.jpg"
    assert dataset.protocol.camera_aware and dataset.protocol.ranks == (1, 5, 10)


def test_the_500k_distractors_join_on_demand(tmp_path):
    trees.market(tmp_path)
    trees.touch(tmp_path / "distractors_500k", "1.jpg", "2.jpg")
    assert len(load_dataset("market1501", tmp_path).gallery) == 5
    dataset = load_dataset("market1501", tmp_path, distractors_500k=True)
    assert [record.identity for record in dataset.gallery[5:]] == [0, 0]


def test_more_images_of_the_queries_join_on_demand(tmp_path):
    folder = trees.market(tmp_path)
    more = [
        "0001_c1s1_001_00.jpg",
        "0001_c1s1_009_00.jpg",
        "0001_c2s1_002_00.jpg",
        "0003_c3s1_004_00.jpg",
        "0002_c1_1.jpg",
    ]
    trees.touch(folder / "gt_bbox", *more)
    assert len(load_dataset("market1501", tmp_path).query) == 2
    query = load_dataset("market1501", tmp_path, multi_query=True).query
    assert [(r.path.name, r.identity, r.camera) for r in query[2:]] == [(more[1], 1, 1), (more[3], 3, 3)]


def test_duke_has_the_same_layout(tmp_path):
    trees.market(tmp_path / "DukeMTMC-reID")
    trees.touch(tmp_path / "DukeMTMC-reID/bounding_box_train", "0021_c8_f0046182.jpg")
    assert load_dataset("dukemtmc_reid", tmp_path).train[-1].camera == 8


def test_cuhk03_takes_detected_or_labeled(tmp_path):
    trees.market(tmp_path / "cuhk03-np/detected")
    for root in ("", "cuhk03-np", "cuhk03-np/detected"):
        assert len(load_dataset("cuhk03_np", tmp_path / root).train) == 8
    with pytest.raises(InputError, match="no labeled boxes.*prepare_cuhk03"):
        load_dataset("cuhk03_np", tmp_path, boxes="labeled")
    with pytest.raises(InputError, match="detected, labeled"):
        load_dataset("cuhk03_np", tmp_path, boxes="drawn")


def test_bad_folders(tmp_path):
    with pytest.raises(
        InputError, match="(?s)does not exist.*Market-1501-v15.09.15/bounding_box_train.*authors.*--root"
    ):
        load_dataset("market1501", tmp_path / "nowhere")
    with pytest.raises(InputError, match="does not hold it"):
        load_dataset("market1501", tmp_path)
    folder = trees.market(tmp_path / "market1501")
    with pytest.raises(InputError, match=f"one level too deep.*{folder}"):
        load_dataset("market1501", folder / "bounding_box_train")
    trees.touch(folder / "query", "person.jpg")
    with pytest.raises(InputError, match="person.jpg.*expected IDENTITY_cCAMERA"):
        load_dataset("market1501", folder)
    for path in (folder / "query").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="query holds no image"):
        load_dataset("market1501", folder)
    (folder / "query").rmdir()
    with pytest.raises(InputError, match="no folder .*query"):
        load_dataset("market1501", folder)


def test_bad_names():
    with pytest.raises(InputError, match="unknown dataset 'market'.*market1501"):
        load_dataset("market", ".")
    with pytest.raises(InputError, match="option of dataset 'market1501'.*distractors_500k"):
        load_dataset("market1501", ".", distractors=True)


@needs_lists
def test_the_official_counts(tmp_path):
    for split, folder in (("train", "bounding_box_train"), ("query", "query"), ("test", "bounding_box_test")):
        with open(LISTS / f"market1501_{split}.csv") as file:
            names = [Path(field).name for row in csv.reader(file) for field in row if field.endswith(".jpg")]
        trees.touch(tmp_path / folder, *names, content=b"")
    dataset = load_dataset("market1501", tmp_path)
    assert len(dataset.train) == 12936 and len({r.identity for r in dataset.train}) == 751
    assert len(dataset.query) == 3368 and len({r.identity for r in dataset.query}) == 750
    gallery = [record.identity for record in dataset.gallery]
    assert len(gallery) == 19732 and gallery.count(-1) == 3819 and gallery.count(0) == 2798
    assert {record.camera for record in dataset.gallery} == set(range(1, 7))


def test_identities_and_cameras_keep_their_names(tmp_path):
    trees.market(tmp_path)
    gallery = load_dataset("market1501", tmp_path).gallery
    assert [(r.identity_name, r.camera_name) for r in gallery[:3]] == [("-1", "c5"), ("0000", "c4"), ("0001", "c1")]


def test_identities_of_twenty_digits(tmp_path):
    stamps = [str(20240131123456789010 + i) for i in range(3)]
    trees.touch(tmp_path / "bounding_box_train", f"{stamps[0]}_c1s1_1.jpg", "0000_c1s1_1.jpg")
    trees.touch(tmp_path / "query", f"{stamps[1]}_c1s1_1.jpg")
    trees.touch(tmp_path / "bounding_box_test", f"{stamps[1]}_c2s1_1.jpg", f"{stamps[2]}_c2s1_1.jpg", "-1_c2s1_1.jpg")
    dataset = load_dataset("market1501", tmp_path)
    query, gallery = dataset.query[0], dataset.gallery
    assert query.identity == next(r.identity for r in gallery if r.identity_name == stamps[1])
    assert len({r.identity for r in gallery}) == 3 and {r.identity for r in gallery if r.identity < 1} == {-1}
    assert all(abs(record.identity) < 2**62 for record in gallery)


@pytest.mark.parametrize("options", [{"boxes": ["detected"]}, {"boxes": 1}])
def test_options_of_another_type(tmp_path, options):
    with pytest.raises(InputError, match="option boxes of dataset 'cuhk03_np' must be str"):
        load_dataset("cuhk03_np", tmp_path, **options)


def test_an_archive_unpacked_into_a_folder_of_its_own_name(tmp_path):
    """datasets/Market-1501-v15.09.15/Market-1501-v15.09.15/, as `unzip -d` and most desktops leave it."""
    inner = trees.market(tmp_path / "Market-1501-v15.09.15")
    if inner.name != "Market-1501-v15.09.15":
        inner = inner.rename(inner.with_name("Market-1501-v15.09.15"))
    for root in (tmp_path, tmp_path / "Market-1501-v15.09.15"):
        assert load_dataset("market1501", root).train[0].path.parent.parent == inner
