"""The table of all queries and the projector's files, against plain loops."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from reid_kit import load_dataset
from reid_kit.data.records import JUNK
from reid_kit.inference.error_files import by_identities, write_projector, write_query_table
from reid_kit.inference.testing import TestSettings, test_retrieval
from reid_kit.model.embedder import Embedder

pyarrow = pytest.importorskip("pyarrow.parquet")
SETTINGS = TestSettings(64, 32, torch.device("cpu"))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Embedder("test_resnet", "none", height=64, width=32).eval()


@pytest.fixture(scope="module")
def tested(model, demo_root):
    return test_retrieval(model, load_dataset("demo", demo_root), SETTINGS)


def distances(tested):
    query, gallery = (torch.as_tensor(side.features).double() for side in (tested.query, tested.gallery))
    if tested.settings.metric == "cosine":
        query, gallery = (torch.nn.functional.normalize(rows) for rows in (query, gallery))
        return (1 - query @ gallery.T).numpy()
    return torch.cdist(query, gallery).numpy()


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_the_table_of_queries(model, demo_root, tmp_path, metric):
    tested = test_retrieval(model, load_dataset("demo", demo_root), replace(SETTINGS, metric=metric))
    write_query_table(tmp_path / "queries.parquet", tested)
    table = pyarrow.read_table(tmp_path / "queries.parquet")
    rows = table.to_pylist()
    assert len(rows) == len(tested.query.records)
    assert table.schema.metadata[b"dataset"] == b"demo" and table.schema.metadata[b"protocol"]
    for place, (row, record) in enumerate(zip(rows, tested.query.records)):
        assert row["path"] == str(record.path) and row["average_precision"] == tested.result.average_precision[place]
        assert row["first_match_rank"] == tested.result.first_match_rank[place]
        wrong = [
            (distance, str(entry.path))
            for distance, entry in zip(distances(tested)[place], tested.gallery.records)
            if entry.identity not in (record.identity, JUNK)
        ]
        assert row["nearest_wrong_path"] == min(wrong)[1]
        assert row["nearest_wrong_distance"] == pytest.approx(min(wrong)[0], rel=1e-3, abs=1e-5)


def test_blocks_of_queries_make_no_difference(tested, tmp_path, monkeypatch):
    write_query_table(tmp_path / "whole.parquet", tested)
    monkeypatch.setattr("reid_kit.inference.error_files.BLOCK_MEMORY", 4 * 3 * len(tested.gallery.records))
    write_query_table(tmp_path / "blocks.parquet", tested)
    whole, blocks = (pyarrow.read_table(tmp_path / f"{name}.parquet") for name in ("whole", "blocks"))
    assert whole["nearest_wrong_path"] == blocks["nearest_wrong_path"]


def test_what_is_not_known_is_null(tested, tmp_path):
    """A skipped query has no precision, a gallery of one identity nothing wrong for its own queries."""
    identity = tested.query.records[0].identity
    precision, rank = tested.result.average_precision.copy(), tested.result.first_match_rank.copy()
    precision[1], rank[1] = np.nan, 0
    kept = [i for i, record in enumerate(tested.gallery.records) if record.identity in (identity, JUNK)]
    gallery = tested.gallery.with_features(tested.gallery.features[kept], kept)
    result = replace(tested.result, average_precision=precision, first_match_rank=rank)
    write_query_table(tmp_path / "queries.parquet", replace(tested, gallery=gallery, result=result))
    rows = pyarrow.read_table(tmp_path / "queries.parquet").to_pylist()
    assert rows[1]["average_precision"] is None and rows[1]["first_match_rank"] is None
    for row, record in zip(rows, tested.query.records):
        nothing = record.identity == identity
        assert (row["nearest_wrong_path"] is None) == (row["nearest_wrong_distance"] is None) == nothing


def test_the_projector(tested, tmp_path, capfd):
    everything = sum(len(side.records) for side in (tested.query, tested.gallery))
    junk = sum(record.identity == JUNK for record in tested.gallery.records)
    for _ in range(2):  # the same test again writes over its own files
        assert write_projector(tmp_path, tested) == everything - junk
    assert "warning" not in capfd.readouterr().out
    assert (tmp_path / "projector_config.pbtxt").read_text().count("embeddings {") == 1
    (tensors,), (names,), (sprite,) = (
        list(tmp_path.rglob(name)) for name in ("tensors.tsv", "metadata.tsv", "sprite.png")
    )
    lines = names.read_text().splitlines()
    assert len(lines) == 1 + everything - junk and lines[0].split("\t")[:3] == ["identity", "camera", "split"]
    first = np.loadtxt(tensors)[0]
    np.testing.assert_allclose(first, np.asarray(tested.query.features[0]), rtol=1e-3)
    assert str(tested.query.records[0].path) in lines[1]
    picture = cv2.imread(str(sprite))
    side = int(np.ceil(np.sqrt(everything - junk)))
    assert picture.shape == (64 * side, 64 * side, 3)


def test_some_identities_of_many_are_projected():
    identities = np.repeat([5, JUNK, 7, 9, 2], [4, 50, 3, 6, 2])
    assert len(by_identities(identities, 100)) == 15
    for most in (1, 6, 11):
        kept = by_identities(identities, most)
        assert len(kept) == most and JUNK not in identities[kept]
        cut = [name for name in set(identities[kept]) if (identities[kept] == name).sum() < (identities == name).sum()]
        assert len(cut) <= 1
        assert np.array_equal(kept, by_identities(identities, most))
