"""tools/test.py: other ways to query and to rank, and what a test leaves behind."""

import json

import cv2
import numpy as np
import pytest
import scipy.io

from tests.end_to_end.commands import REPOSITORY, run, tiny


@pytest.fixture(scope="module")
def trained(demo_root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    changes = tiny(demo_root, folder, **{"TEST.METRIC": "cosine", "TRAIN.EPOCHS": 1})
    done = run("train", "--config", REPOSITORY / "configs/market_srt.yaml", *changes)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_report_with_pictures(trained):
    results = json.loads((trained / "results.json").read_text())
    points = results["verification"]
    assert points and all(point["false_match_rate"] <= point["asked"] for point in points)
    assert all(point["asked"] * point["pairs"] >= 1 for point in points)  # none for less than one pair
    assert sorted(points, key=lambda point: point["asked"]) == sorted(points, key=lambda point: point["threshold"])
    assert len(results["average_precision"]) == results["queries"] + results["skipped"]
    table = (trained / "results.md").read_text()
    assert "| threshold (measured distance) |" in table and " false-match rate |" in table
    curves, worst = (cv2.imread(str(trained / name)) for name in ("result_curves.png", "worst_queries.png"))
    assert curves.shape[1] == 1210 and curves.std() > 10
    shown = min(10, results["queries"])
    assert shown * 128 < worst.shape[0] < 2100


@pytest.mark.parametrize(
    "flags, folder, protocol",
    [
        (["--rerank"], "test_demo_rerank", "k-reciprocal re-ranked distance"),
        (["--expand", "3"], "test_demo_expand_3", "queries expanded by 3 neighbours, alpha 0"),
        (["--expand", "3", "--alpha", "3"], "test_demo_expand_3_alpha_3.0", "neighbours, alpha 3"),
    ],
)
def test_other_queries_and_rankings(trained, flags, folder, protocol):
    done = run("test", "--checkpoint", trained / "best.pt", *flags)
    assert done.returncode == 0, done.stderr
    assert protocol in done.stdout
    plain, found = (json.loads((at / "results.json").read_text()) for at in (trained, trained / folder))
    assert found["queries"] == plain["queries"] and found["average_precision"] != plain["average_precision"]


def test_flags_that_do_not_fit(trained):
    done = run("test", "--checkpoint", trained / "best.pt", "--expand", "3", "TEST.METRIC", "euclidean")
    assert done.returncode != 0 and "set TEST.METRIC cosine" in done.stderr and "Traceback" not in done.stderr
    done = run("test", "--checkpoint", trained / "best.pt", "--expand", "9999")
    assert done.returncode != 0 and "the size of the gallery; got 9999" in done.stderr
    done = run("test", "--checkpoint", trained / "best.pt", "--multi-query", "mean")
    assert done.returncode != 0 and "one query of an identity in a camera, nothing to pool" in done.stderr


def test_features_from_elsewhere_are_ranked_in_every_way(tmp_path):
    random = np.random.default_rng(0)
    centres = random.standard_normal((6, 8))
    sides = {}
    for side, count in (("query", 20), ("gallery", 60)):
        labels, cameras = random.integers(0, 6, count), random.integers(0, 2, count)
        sides |= {f"{side}_f": centres[labels] + 0.6 * random.standard_normal((count, 8)), f"{side}_label": labels}
        sides[f"{side}_cam"] = cameras
    scipy.io.savemat(tmp_path / "theirs.mat", sides)
    printed = []
    for flags in ([], ["--rerank"], ["--expand", "4"], ["--multi-query", "mean"]):
        done = run("test", "--features", tmp_path / "theirs.mat", *flags, "TEST.METRIC", "cosine")
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
    assert "re-ranked" in printed[1] and "expanded by 4" in printed[2] and "queries pooled by mean" in printed[3]
    assert "queries 20," in printed[0] and "queries 20," not in printed[3]
