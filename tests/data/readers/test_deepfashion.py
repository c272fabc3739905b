from pathlib import Path

import pytest

from reid_kit import load_dataset
from reid_kit.errors import InputError
from tests.data import trees

LISTS = Path(__file__).parents[4] / "shared/data/lists/inshop"
IN_SHOP = [
    "img/A/id_00000001/01.jpg id_00000001 train",
    "img/A/id_00000002/01.jpg id_00000002 query",
    "img/A/id_00000002/02.jpg id_00000002 gallery",
]
IN_SHOP_BOXES = [f"{line.split()[0]} 1 1 {10 + n} 5 40 60" for n, line in enumerate(IN_SHOP)]
PAIRS = [
    "img/id_00000001/comsumer_01.jpg img/id_00000001/shop_01.jpg id_00000001 train",
    "img/id_00000001/comsumer_02.jpg img/id_00000001/shop_01.jpg id_00000001 train",
    "img/id_00000005/comsumer_01.jpg img/id_00000005/shop_01.jpg id_00000005 val",
    "img/id_00000007/comsumer_01.jpg img/id_00000007/shop_01.jpg id_00000007 test",
    "img/id_00000007/comsumer_01.jpg img/id_00000007/shop_02.jpg id_00000007 test",
]


def write(folder, file, columns, lines, count=None):
    text = "\n".join([str(len(lines) if count is None else count), columns, *lines]) + "\n"
    trees.touch(folder, file, content=text.encode())


def in_shop(folder, lines=IN_SHOP, boxes=IN_SHOP_BOXES, images="", **changes):
    write(folder, "Eval/list_eval_partition.txt", "image_name item_id evaluation_status", lines, **changes)
    write(folder, "Anno/list_bbox_inshop.txt", "image_name clothes_type pose_type x_1 y_1 x_2 y_2", boxes)
    trees.touch(folder / images, *(line.split()[0] for line in lines[:1]))
    return folder


def consumer_to_shop(folder, lines=PAIRS):
    columns = "image_pair_name_1 image_pair_name_2 item_id evaluation_status"
    write(folder, "Eval/list_eval_partition.txt", columns, lines)
    names = sorted({name for line in lines for name in line.split()[:2]})
    boxes = [f"{name} 1 {1 if 'shop_' in name else 2} 1 2 30 40" for name in names]
    write(folder, "Anno/list_bbox_consumer2shop.txt", "image_name clothes_type source_type x_1 y_1 x_2 y_2", boxes)
    trees.touch(folder, *names)
    return folder


@pytest.mark.parametrize("images", ["", "Img"])
def test_in_shop(tmp_path, images):
    folder = in_shop(tmp_path / "In-shop", images=images)
    dataset = load_dataset("inshop", tmp_path)
    assert [record.identity for record in (*dataset.train, *dataset.query, *dataset.gallery)] == [1, 2, 2]
    assert dataset.train[0].path == folder / images / "img/A/id_00000001/01.jpg"
    assert dataset.gallery[0].box == (12, 5, 40, 60) and dataset.gallery[0].source == "list_bbox_inshop.txt:5"
    assert not dataset.protocol.camera_aware and dataset.protocol.ranks == (1, 10, 20, 30, 40, 50)


def test_consumer_to_shop_lists_each_image_once(tmp_path):
    dataset = load_dataset("consumer_to_shop", consumer_to_shop(tmp_path))
    assert [(record.path.name, record.domain) for record in dataset.train] == [
        ("comsumer_01.jpg", "consumer"), ("comsumer_02.jpg", "consumer"), ("shop_01.jpg", "shop")
    ]  # fmt: skip
    assert [(record.identity, record.path.name) for record in dataset.query] == [(7, "comsumer_01.jpg")]
    assert [(record.identity, record.path.name) for record in dataset.gallery] == [
        (7, "shop_01.jpg"),
        (7, "shop_02.jpg"),
    ]
    assert all(record.box == (1, 2, 30, 40) for record in dataset.train)


def test_the_gallery_of_consumer_to_shop_is_an_option(tmp_path):
    lines = [*PAIRS, PAIRS[3].replace("test", "val")]  # a shop image of test and of val is in the gallery once
    dataset = load_dataset("consumer_to_shop", consumer_to_shop(tmp_path, lines), gallery="val+test")
    names = [f"{record.identity}/{record.path.name}" for record in dataset.gallery]
    assert sorted(names) == ["5/shop_01.jpg", "7/shop_01.jpg", "7/shop_02.jpg"]
    assert [record.identity for record in dataset.query] == [7] and {r.identity for r in dataset.train} == {1}
    with pytest.raises(InputError, match="gallery of consumer-to-shop: 'vla.test'. Did you mean 'val.test'"):
        load_dataset("consumer_to_shop", tmp_path, gallery="vla+test")
    consumer_to_shop(tmp_path, [*PAIRS, PAIRS[0].replace("train", "val")])  # an item of train
    assert len(load_dataset("consumer_to_shop", tmp_path).gallery) == 2
    with pytest.raises(InputError, match="partition.txt:8: id_00000001 is in test here, and in train"):
        load_dataset("consumer_to_shop", tmp_path, gallery="val+test")


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"count": 7}, "list_eval_partition.txt: line 1 promises 7 lines, there are 3"),
        ({"lines": [*IN_SHOP, "img/2.jpg id_00000001 gallery"]}, "partition.txt:6: id_00000001 is in test here, and"),
        ({"lines": [*IN_SHOP, IN_SHOP[1]]}, "partition.txt:6: img/A/id_00000002/01.jpg stands in .*partition.txt:4"),
        ({"lines": [IN_SHOP[0], "img/x.jpg id_00000002 probe"]}, "partition.txt:4: evaluation_status .probe."),
        ({"lines": [IN_SHOP[0], "img/x.jpg id_00000002"]}, "list_eval_partition.txt:4: 2 fields, expected 3"),
        ({"lines": ["img/x.jpg item2 train"]}, "list_eval_partition.txt:3: item_id 'item2'"),
        ({"boxes": [IN_SHOP_BOXES[0].replace(" 40 ", " wide ")]}, "list_bbox_inshop.txt:3: box"),
    ],
    ids=str,
)  # fmt: skip
def test_bad_lists(tmp_path, changes, words):
    with pytest.raises(InputError, match=words):
        load_dataset("inshop", in_shop(tmp_path, **changes))


def test_an_image_of_two_items_and_an_item_on_both_sides(tmp_path):
    consumer_to_shop(tmp_path, [*PAIRS, PAIRS[3].replace("id_00000007 test", "id_00000008 test")])
    with pytest.raises(InputError, match="partition.txt:8: img/.*is an image of id_00000008 here, of id_00000007"):
        load_dataset("consumer_to_shop", tmp_path)
    consumer_to_shop(tmp_path, [*PAIRS, PAIRS[0].replace("train", "test")])
    with pytest.raises(InputError, match="partition.txt:8: id_00000001 is in test here, and in train in .*:4"):
        load_dataset("consumer_to_shop", tmp_path)


def test_missing_columns_images_and_lists(tmp_path):
    folder = in_shop(tmp_path / "a")
    write(folder, "Eval/list_eval_partition.txt", "image_name item_id status", IN_SHOP)
    with pytest.raises(InputError, match="no column evaluation_status; line 2 must name image_name item_id"):
        load_dataset("inshop", folder)
    folder = in_shop(tmp_path / "b")
    (folder / "img/A/id_00000001/01.jpg").unlink()
    with pytest.raises(InputError, match="no image .*01.jpg, the first of.*unpack img.zip"):
        load_dataset("inshop", folder)
    (folder / "Anno/list_bbox_inshop.txt").unlink()
    in_shop(folder)
    (folder / "Anno/list_bbox_inshop.txt").unlink()
    assert load_dataset("inshop", folder).train[0].box is None
    with pytest.raises(InputError, match="no consumer_to_shop in .*nowhere"):
        load_dataset("consumer_to_shop", tmp_path / "nowhere")


def test_the_demo_is_in_both_layouts(demo_root):
    shop, street = load_dataset("demo_inshop", demo_root), load_dataset("demo_consumer_to_shop", demo_root)
    assert {record.identity for record in shop.query} == {record.identity for record in shop.gallery}
    assert {record.domain for record in street.query} == {"consumer"} and {r.domain for r in street.gallery} == {"shop"}


@pytest.mark.skipif(not LISTS.exists(), reason="the official lists are not here")
def test_the_official_counts(tmp_path):
    content = (LISTS / "list_eval_partition.txt").read_bytes()
    trees.touch(tmp_path, "Eval/list_eval_partition.txt", content=content)
    trees.touch(tmp_path, content.split(b"\n")[2].split()[0].decode())
    dataset = load_dataset("inshop", tmp_path)
    found = [
        (len(split), len({r.identity for r in split})) for split in (dataset.train, dataset.query, dataset.gallery)
    ]
    assert found == [(25882, 3997), (14218, 3985), (12612, 3985)]
