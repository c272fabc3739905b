"""Features in a file give the numbers of the model that made them."""

import json

import numpy as np
import pytest
import scipy.io

from reid_kit.cli import extract
from reid_kit.cli.main import run
from tests.end_to_end.commands import REPOSITORY, tiny


@pytest.fixture(scope="module")
def trained(demo_root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("extract") / "run"
    keys = tiny(demo_root, folder, TRAIN__EPOCHS="1", TEST__METRIC="cosine")
    assert run("train", ["--config", str(REPOSITORY / "configs/market_srt.yaml"), *keys]) == 0
    return folder


def test_features_of_a_dataset(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(extract, "PART", 50)
    output = tmp_path / "demo.npz"
    assert run("extract", ["--checkpoint", str(trained / "best.pt"), "--data", "demo", "--output", str(output)]) == 0
    assert not output.with_suffix(".parts").exists()
    expected = json.loads((trained / "results.json").read_text())
    arrays = dict(np.load(output))
    assert (arrays["split"] == "query").sum() == expected["queries"] and str(arrays["model"]) == "test_resnet"
    capsys.readouterr()
    assert run("test", ["--features", str(output), "TEST.METRIC", "cosine"]) == 0
    assert f"{100 * expected['mAP']:.1f}" in capsys.readouterr().out
    query, gallery = (arrays["split"] == name for name in ("query", "gallery"))
    mat = {}
    for name, rows in (("query", query), ("gallery", gallery)):
        mat |= {
            f"{name}_f": arrays["features"][rows],
            f"{name}_label": arrays["identities"][rows],
            f"{name}_cam": arrays["cameras"][rows],
        }
    scipy.io.savemat(tmp_path / "demo.mat", mat)
    assert run("test", ["--features", str(tmp_path / "demo.mat"), "TEST.METRIC", "cosine"]) == 0
    assert f"{100 * expected['mAP']:.1f}" in capsys.readouterr().out


def test_an_extraction_goes_on_after_its_last_part(trained, demo_root, tmp_path, monkeypatch):
    monkeypatch.setattr(extract, "PART", 50)
    arguments = ["--checkpoint", str(trained / "best.pt"), "--images", str(demo_root / "people/query")]
    assert run("extract", [*arguments, "--output", str(tmp_path / "whole.npz")]) == 0
    calls = []
    embed = extract.embed_records

    def broken(*parameters):
        calls.append(parameters)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return embed(*parameters)

    monkeypatch.setattr(extract, "PART", 10)
    monkeypatch.setattr(extract, "embed_records", broken)
    assert run("extract", [*arguments, "--output", str(tmp_path / "again.npz")]) == 130
    assert run("extract", [*arguments, "--output", str(tmp_path / "again.npz")]) == 0
    whole, again = (np.load(tmp_path / f"{name}.npz") for name in ("whole", "again"))
    assert len(calls) == 1 + -(-len(whole["paths"]) // 10)
    np.testing.assert_allclose(whole["features"], again["features"], rtol=1e-4, atol=1e-5)


def test_files_that_cannot_be_used(trained, tmp_path, capsys):
    np.savez(tmp_path / "bare.npz", features=np.ones((3, 2)))
    for arguments, words in (
        (["test", "--features", str(tmp_path / "bare.npz")], "no array 'split'"),
        (["test", "--features", str(tmp_path / "none.mat")], "cannot be read"),
        (["test", "--features", "features.csv"], ".npz or .mat"),
        (["extract", "--checkpoint", str(trained / "best.pt"), "--output", "x.npz"], "either --data NAME or --images"),
        (
            ["extract", "--checkpoint", "a.pt", "--images", ".", "--output", str(tmp_path / "bare.npz")],
            "must be a new file",
        ),
        (
            [
                "extract",
                "--checkpoint",
                str(trained / "best.pt"),
                "--images",
                str(tmp_path),
                "--output",
                str(tmp_path / "x.npz"),
            ],
            "no images below",
        ),
    ):
        assert run(arguments[0], arguments[1:]) == 2
        assert words in capsys.readouterr().err
