"""The Python of docs/export.md and docs/errors.md, on a small model and table."""

import re
import sys
import types

import cv2
import numpy as np
import pytest
import torch

from reid_kit.export.files import export_onnx
from reid_kit.model.checkpoint import save_checkpoint
from reid_kit.model.embedder import Embedder
from tests.end_to_end.commands import REPOSITORY


def blocks(document):
    return re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / document).read_text(), re.DOTALL)


def test_the_lines_of_export(tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = Embedder("test_resnet", "none", height=64, width=32).eval()
    for seed, name in enumerate("ab"):
        picture = np.random.default_rng(seed).integers(0, 256, (90, 70, 3), dtype=np.uint8)
        cv2.imwrite(f"{name}.jpg", picture)
    (tmp_path / "runs/market_srt").mkdir(parents=True)
    save_checkpoint("runs/market_srt/best.pt", model)
    export_onnx(model, "market.onnx")
    for block in blocks("export.md"):
        exec(block, {"reid_kit": __import__("reid_kit")})
    one, other = model.embed(["a.jpg", "b.jpg"])
    assert float(capsys.readouterr().out.split("distance:")[1]) == pytest.approx(float(1 - one @ other), abs=1e-4)


def test_the_lines_of_errors(tmp_path, monkeypatch, capsys):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(
        {
            "path": ["a.jpg", "b.jpg", "c.jpg"],
            "identity": ["7", "8", "8"],
            "camera": ["1", None, "2"],
            "average_precision": [0.5, None, 0.25],
            "first_match_rank": pandas.array([2, None, 3], "Int64"),
            "nearest_wrong_path": ["d.jpg", "e.jpg", None],
            "nearest_wrong_identity": ["9", "9", None],
            "nearest_wrong_distance": [0.1, 0.2, None],
        }
    )
    (tmp_path / "runs/market_srt/test_market1501").mkdir(parents=True)
    table.to_parquet(tmp_path / "runs/market_srt/test_market1501/queries.parquet")
    monkeypatch.chdir(tmp_path)
    samples, names = [], {}
    shown = types.SimpleNamespace(wait=lambda: None)
    fiftyone = types.ModuleType("fiftyone")  # what the lines use of it
    fiftyone.Sample, fiftyone.Classification = (lambda **fields: dict(fields)), (lambda label: label)
    fiftyone.Dataset = lambda name, overwrite: types.SimpleNamespace(add_samples=samples.extend)
    fiftyone.launch_app = lambda dataset: shown
    monkeypatch.setitem(sys.modules, "fiftyone", fiftyone)
    for block in blocks("errors.md"):
        exec(block, names)
    assert [sample["filepath"] for sample in samples] == ["c.jpg", "a.jpg", "b.jpg"]
    assert "c.jpg" in capsys.readouterr().out
