"""An exported file in place of a checkpoint, in the commands."""

import json

import numpy as np
import pytest
import torch

from reid_kit.build import build_model
from reid_kit.cli.main import run
from reid_kit.config import load_config
from reid_kit.model.checkpoint import save_checkpoint
from tests.end_to_end.commands import tiny


@pytest.fixture(scope="module")
def folder(demo_root, tmp_path_factory):
    """An untrained model under the demo's config, and its export, each in a folder of its own."""
    folder = tmp_path_factory.mktemp("in_place")
    config = load_config(None, tiny(demo_root, folder / "run"))
    torch.manual_seed(0)
    model = build_model(config).eval()
    for name in ("run", "exported"):
        (folder / name).mkdir()
    save_checkpoint(folder / "run/best.pt", model, config=config.dump(), dataset="demo")
    export = ["--checkpoint", str(folder / "run/best.pt"), "--output", str(folder / "exported/model.onnx")]
    assert run("export", export) == 0
    return folder


@pytest.mark.parametrize("keys", [["TEST.METRIC", "euclidean"], ["TEST.METRIC", "cosine", "TEST.FLIP", "true"]])
def test_the_numbers_of_a_test_are_the_checkpoints(folder, keys):
    found = []
    for file in ("run/best.pt", "exported/model.onnx"):
        before = set(folder.rglob("results.json"))
        for old in before:
            old.unlink()
        assert run("test", ["--checkpoint", str(folder / file), "--projector", *keys]) == 0
        (results,) = folder.rglob("results.json")
        found.append(json.loads(results.read_text()))
        assert (results.parent / "queries.parquet").is_file()
        assert (results.parent / "projector/projector_config.pbtxt").is_file()
    assert found[0]["mAP"] == pytest.approx(found[1]["mAP"], abs=5e-4) and found[0]["queries"] == found[1]["queries"]


def test_features_are_the_checkpoints(folder, demo_root, tmp_path):
    for file in ("run/best.pt", "exported/model.onnx"):
        output = str(tmp_path / f"{file[:3]}.npz")
        assert run("extract", ["--checkpoint", str(folder / file), "--data", "demo", "--output", output]) == 0
    one, other = np.load(tmp_path / "run.npz"), np.load(tmp_path / "exp.npz")
    np.testing.assert_allclose(one["features"], other["features"], atol=1e-4, rtol=1e-3)
    assert np.array_equal(one["paths"], other["paths"]) and str(one["model"]) == str(other["model"])


def test_another_feature_than_the_exported_one_is_refused(folder, capsys):
    exported = ["--checkpoint", str(folder / "exported/model.onnx")]
    for arguments, words in ((["TEST.FEATURE", "metric"], "inference feature alone"), (["--attention"], "no maps")):
        assert run("test", [*exported, *arguments]) == 2
        assert words in capsys.readouterr().err
