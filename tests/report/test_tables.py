import json

import numpy as np
import pytest

from reid_kit import evaluate_retrieval
from reid_kit.data.readers.deepfashion import CONSUMER_TO_SHOP, IN_SHOP
from reid_kit.data.readers.products import CLASSES, PRODUCTS
from reid_kit.data.records import Protocol
from reid_kit.report.tables import box_table, measured, result_json, result_table


def results():
    one = evaluate_retrieval(np.eye(3)[[0, 1]], np.eye(3), [0, 1], [0, 1, 2], ranks=(1, 5))
    two = evaluate_retrieval(np.eye(3)[[0, 1]], np.eye(3), [0, 9], [2, 1, 0], ranks=(1, 20))
    return one, two


def test_the_table_sets_results_side_by_side():
    one, two = results()
    lines = result_table({"one": one, "two": two}).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[:4]]
    assert cells[0] == ["", "mAP", "CMC@1", "CMC@5", "CMC@20", "mINP"]
    assert cells[2] == ["one", "100.0", "100.0", "100.0", "-", "100.0"]
    assert cells[3] == ["two", "33.3", "0.0", "-", "100.0", "33.3"]
    assert lines[5] == f"one: {one.protocol}" and "skipped 1" in lines[6]


def test_nmi_is_a_column_where_there_is_one():
    one, two = results()
    lines = result_table({"one": one, "two": two}, "Recall", {"one": 0.5, "two": None}).splitlines()
    assert "Recall@1" in lines[0] and lines[0].split("|")[-2].strip() == "NMI"
    assert lines[2].split("|")[-2].strip() == "50.0" and lines[3].split("|")[-2].strip() == "-"
    assert "NMI" not in result_table({"one": one}, "Recall", {"one": None})


@pytest.mark.parametrize("name", ["sop", "cub200", "inshop", "consumer_to_shop", "market1501"])
def test_a_set_is_measured_as_its_tables_print_it(name):
    protocols = {"sop": PRODUCTS, "cub200": CLASSES, "inshop": IN_SHOP, "consumer_to_shop": CONSUMER_TO_SHOP}
    protocol = protocols.get(name, Protocol())
    features, labels = np.random.default_rng(0).normal(size=(40, 4)), np.arange(40) % 7
    result = evaluate_retrieval(features[:9], features, labels[:9], labels, ranks=protocol.ranks)
    found = measured(result, 0.25, protocol.measures)
    expected = {
        "sop": "Recall@1 Recall@10 Recall@100 Recall@1000 NMI",
        "cub200": "Recall@1 Recall@2 Recall@4 Recall@8 Recall@16 Recall@32 NMI",
        "inshop": "mAP CMC@1 CMC@10 CMC@20 CMC@30 CMC@40 CMC@50",
        "consumer_to_shop": "mAP CMC@20",
        "market1501": "mAP CMC@1 mINP",
    }
    assert " ".join(found) == expected[name]
    for measure, value in found.items():
        kind, _, k = measure.partition("@")
        right = {"mAP": result.mAP, "mINP": result.mINP, "NMI": 0.25}.get(kind) if not k else result.cmc[int(k)]
        assert value == right


def test_json_holds_each_query():
    content = json.loads(json.dumps(result_json(results()[1])))
    assert content["average_precision"] == [1 / 3, None] and content["first_match_rank"] == [3, 0]
    assert content["cmc"] == {"1": 0.0, "20": 1.0} and content["queries"] == 1 and content["skipped"] == 1


def test_with_and_without_the_box_side_by_side():
    one, two = results()
    cells = {("srt", "inshop", True): one, ("srt", "inshop", False): two, ("softmax", "shop", True): two}
    lines = box_table(cells, {"shop": 20, "inshop": 1}).splitlines()
    heads, srt, softmax = ([cell.strip() for cell in lines[i].split("|")[2:-1]] for i in (0, 2, 3))
    assert heads == [
        "shop w/o box, mAP", "shop w/o box, CMC@20", "shop w/ box, mAP", "shop w/ box, CMC@20",
        "inshop w/o box, mAP", "inshop w/o box, CMC@1", "inshop w/ box, mAP", "inshop w/ box, CMC@1",
    ]  # fmt: skip
    assert srt == ["-", "-", "-", "-", "33.3", "0.0", "100.0", "100.0"]
    assert softmax == ["-", "-", "33.3", "100.0", "-", "-", "-", "-"]
    assert lines[5:] == ["srt on inshop: the box is worth +66.7 points of mAP"]
