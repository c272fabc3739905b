"""A box without area rejects a set only where boxes are used; elsewhere it is counted and named."""

import pytest

from reid_kit.build import build_dataset
from reid_kit.config import load_config
from reid_kit.data.doctor import diagnose
from reid_kit.errors import InputError
from tests.data import trees
from tests.data.readers import test_deepfashion, test_products


def inshop(folder):
    lines, boxes = test_deepfashion.IN_SHOP, test_deepfashion.IN_SHOP_BOXES
    test_deepfashion.in_shop(folder, boxes=[boxes[0].replace(" 40 ", " 4 "), *boxes[1:]])
    trees.touch(folder, *(line.split()[0] for line in lines))


def cub200(folder):
    test_products.cub(folder)
    trees.touch(folder, "bounding_boxes.txt", content=b"1 60.0 27.0 325.0 304.0\n2 1 2 3 4\n3 5 6 7 0\n")


def csv(folder):
    rows = ["0.png,a,train,0,0,8,8", "1.png,b,query,0,0,8,8", "2.png,b,gallery,0,6,8,2"]
    trees.touch(folder, *(row.split(",")[0] for row in rows))
    trees.touch(folder, "dataset.csv", content="\n".join(["path,identity,split,x1,y1,x2,y2", *rows]).encode())


WHERE = {inshop: "list_bbox_inshop.txt:3", cub200: "bounding_boxes.txt:3", csv: "dataset.csv:4"}


@pytest.mark.parametrize("write", WHERE)
def test_a_box_without_area(tmp_path, write):
    write(tmp_path)
    name, where = write.__name__, WHERE[write]
    keys = ["DATA.NAME", name, "DATA.ROOT", str(tmp_path), "DATA.USE_BOX"]
    dataset = build_dataset(load_config(None, [*keys, "false"]))
    assert [record.source for record in dataset.boxed_nothing] == [where]
    with pytest.raises(InputError, match=f"{where}: box .* is inverted or empty, as are 0 more.*DATA.USE_BOX to false"):
        build_dataset(load_config(None, [*keys, "true"]))
    diagnosis = diagnose(name, tmp_path)
    assert any(warning.startswith(f"1 boxes are inverted or empty ({where})") for warning in diagnosis.warnings)
    assert not any("holds no pixel" in problem and where in problem for problem in diagnosis.problems)
