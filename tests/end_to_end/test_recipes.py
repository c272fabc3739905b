"""The recipes of the strongest systems, from their own config files, on networks of seconds."""

import re
import warnings
from pathlib import Path

import pytest
import torch

from reid_kit.cli.main import run
from reid_kit.model.backbone import Backbone
from reid_kit.model.checkpoint import load_checkpoint
from tests.end_to_end.commands import REPOSITORY

SMALL = {
    "DATA.NAME": "demo",
    "DATA.HEIGHT": 64,
    "DATA.WIDTH": 32,
    "DATA.WORKERS": 0,
    "SAMPLER.P": 6,
    "SAMPLER.K": 4,
    "SAMPLER.BATCHES_PER_EPOCH": 2,
    "MODEL.WEIGHTS": "none",
    "TRAIN.EPOCHS": 2,
    "TRAIN.EVAL_EVERY": 2,
}
CONVOLUTIONS = ("market_sbs", "market_mgn", "msmt17_mgn", "cuhk03np_parts")
TRANSFORMERS = ("market_vit", "market_vit_sie", "market_vits_person", "inshop_vits")


def pairs(config, root, output):
    keys = {**SMALL, "DATA.ROOT": root, "TRAIN.OUTPUT": output}
    keys["MODEL.BACKBONE"] = "test_resnet" if config in CONVOLUTIONS else "test_vit"
    if config == "cuhk03np_parts":  # whose reader takes options that the demo's does not, and the same folders
        keys |= {"DATA.NAME": "cuhk03_np", "DATA.ROOT": root / "people"}
    if config in CONVOLUTIONS:
        keys |= {"DATA.HEIGHT": 96, "TRAIN.FREEZE_EPOCHS": 1}  # six rows, for two and three stripes
    return [str(text) for pair in keys.items() for text in pair]


@pytest.mark.parametrize("config", [*CONVOLUTIONS, *TRANSFORMERS])
def test_trains_tests_and_shows_what_it_looks_at(demo_root, tmp_path, capsys, config):
    file, output = str(REPOSITORY / f"configs/{config}.yaml"), tmp_path / "run"
    changes = pairs(config, demo_root, output)
    assert run("train", ["--config", file, "--dry-run", *changes]) == 0
    assert re.search("2 epochs of 2 batches: 4 iterations", capsys.readouterr().out)
    if config == "msmt17_mgn":  # market_mgn's model and losses
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # of cameras, above all
        assert run("train", ["--config", file, *changes]) == 0
    assert load_checkpoint(output / "best.pt")["embedder"]["cameras"] == (
        list(range(1, 7)) if config == "market_vit_sie" else []
    )
    if config in ("market_mgn", "market_vit_sie"):
        assert run("test", ["--checkpoint", str(output / "best.pt"), "--attention"]) == 0
        assert (output / "test_demo/attention.png").stat().st_size > 10_000


def test_each_of_them_says_what_it_is_to_be_checked_against():
    for config in (*CONVOLUTIONS, *TRANSFORMERS):
        text = Path(REPOSITORY / f"configs/{config}.yaml").read_text()
        assert re.search(r"checked against (.|\n)*\d\d\.\d", text), config


def test_weights_that_are_loaded_are_named(demo_root, tmp_path, capsys):
    state = Backbone("test_vit", "none", 2, (), 64, 32).network.state_dict()
    torch.save({"teacher": {f"backbone.{key}": value for key, value in state.items()}}, tmp_path / "dino.pth")
    changes = pairs("market_vits_person", demo_root, tmp_path / "run")
    changes += ["MODEL.WEIGHTS", str(tmp_path / "dino.pth"), "TRAIN.EPOCHS", "1"]
    assert run("train", ["--config", str(REPOSITORY / "configs/market_vits_person.yaml"), *changes]) == 0
    assert "tensors taken, of 'teacher', of 'backbone.'; left out 0" in capsys.readouterr().out


def test_a_freeze_longer_than_the_run(demo_root, tmp_path, capsys):
    changes = [*pairs("market_sbs", demo_root, tmp_path / "run"), "TRAIN.FREEZE_EPOCHS", "3"]
    assert run("train", ["--config", str(REPOSITORY / "configs/market_sbs.yaml"), *changes]) == 2
    assert "TRAIN.FREEZE_EPOCHS 3 is longer than the run of TRAIN.EPOCHS 2" in capsys.readouterr().err
