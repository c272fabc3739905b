"""The recipe for Ray Data in docs/scale.md, on a cluster of two workers on this machine."""

import re

import numpy as np
import pyarrow.parquet
import pytest

from reid_kit.cli.main import run
from reid_kit.config import load_config
from reid_kit.data.readers import load_dataset
from reid_kit.model.checkpoint import save_checkpoint
from reid_kit.model.embedder import Embedder
from reid_kit.shards import ShardFolder
from tests.end_to_end.commands import REPOSITORY, tiny


def test_ray_data_gives_the_features_of_extract(demo_root, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'reid_kit[ray]'")
    (recipe,) = re.findall(r"```python\n(import numpy.*?)```", (REPOSITORY / "docs/scale.md").read_text(), re.DOTALL)
    (tmp_path / "recipe.py").write_text(recipe)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    model = Embedder("test_resnet", "none", embedding_size=8, height=64, width=32)
    config = load_config(None, [*tiny(demo_root, tmp_path), "MODEL.EMBEDDING_SIZE", "8", "TEST.METRIC", "cosine"])
    save_checkpoint(tmp_path / "model.pt", model, config=config.dump(), dataset="demo")
    paths = [str(record.path) for record in load_dataset("demo", demo_root).query]
    (tmp_path / "photos.csv").write_text("\n".join(["path", *paths]) + "\n")
    given = ["--checkpoint", str(tmp_path / "model.pt"), "--table", str(tmp_path / "photos.csv")]
    assert run("extract", [*given, "--shards", str(tmp_path / "shards"), "--shard-size", "10"]) == 0
    expected = {e.path: row for shard in ShardFolder(tmp_path / "shards") for e, row in zip(*shard)}

    import recipe as module

    ray.init("local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    try:
        module.embed_table(str(tmp_path / "photos.csv"), given[1], str(tmp_path / "features"), workers=2)
    finally:
        ray.shutdown()
    rows = pyarrow.parquet.read_table(tmp_path / "features").to_pylist()
    assert sorted(row["path"] for row in rows) == sorted(expected)
    for row in rows:
        np.testing.assert_allclose(row["feature"], expected[row["path"]], rtol=1e-5, atol=1e-6)
