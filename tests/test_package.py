"""What is installed: versions, names, configs."""

import configparser
import subprocess
import sys
from pathlib import Path

import pytest

import reid_kit
from reid_kit.config import load_config
from reid_kit.config_files import CONFIGS
from reid_kit.errors import InputError

REPOSITORY = Path(__file__).parents[1]


def test_the_floors_that_are_tried_are_those_that_are_asked_for():
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    lines = (line.split("#")[0].split(";")[0].strip() for line in setup["options"]["install_requires"].splitlines())
    asked = dict(line.split(",")[0].split(">=") for line in lines if line)
    tried = dict(
        line.split("==") for line in (REPOSITORY / "tests/floors.txt").read_text().splitlines() if line[:1] not in "#"
    )
    installation = (REPOSITORY / "README.md").read_text().split("## Installation")[1].split("##")[0]
    assert all(name in installation for name in asked.keys() - {"faiss-gpu", "numpy"})  # those that others bring
    apart = {"torch", "torchvision", "faiss-gpu", "faiss-cpu"}
    assert asked.keys() - apart == tried.keys()
    for name, version in tried.items():
        assert f"{version}.".startswith(f"{asked[name]}."), name


def test_public_names_are_seen_before_they_are_used():
    check = (
        "import reid_kit; assert set(reid_kit.__all__) <= set(dir(reid_kit)); assert 'build_loss' not in vars(reid_kit)"
    )
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0
    assert set(reid_kit.__all__) == set(reid_kit._HOME)
    assert all(getattr(reid_kit, name).__module__.startswith("reid_kit") for name in reid_kit.__all__)
    assert (Path(reid_kit.__file__).parent / "py.typed").exists()


def test_every_config_is_found_by_its_name_and_loads(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    names = [file.stem for file in CONFIGS.rglob("*.yaml") if file.parent.name != "base"]
    assert len(names) == len(set(names)) > 100
    for name in ("market_best", "cuhk03np_best", "duke_best", "msmt17_best", "demo_srt", "cars_raw"):
        assert load_config(name) == load_config(next(CONFIGS.rglob(f"{name}.yaml")))
    assert load_config("market_srt.yaml").TRAIN.OUTPUT == str(Path("runs/market_srt"))
    best = load_config("market_best")
    assert [term["name"] for term in best.LOSS.TERMS] == ["soft_ranking_threshold", "softmax"]
    assert (best.MODEL.NECK, best.MODEL.LAST_STRIDE, best.MODEL.POOLING) == ("bnneck", 1, "gem")


def test_a_file_goes_before_a_config_of_the_toolkit(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "market_srt").write_text("TRAIN: {EPOCHS: 7}")
    assert load_config("market_srt").TRAIN.EPOCHS == 7


@pytest.mark.parametrize(
    "config, overrides, words",
    [
        ("market_sr", [], "no config file market_sr. Did you mean market_srt?"),
        ("configs/market_sr.yaml", [], "Did you mean market_srt?"),
        ("elsewhere/market_srt.yaml", [], "Did you mean market_srt?"),
        ("market_srt", ["model.backbone", "resnet18"], "Did you mean 'MODEL'?"),
        ("market_srt", ["MODEL.backbone", "resnet18"], "Did you mean 'MODEL.BACKBONE'?"),
        ("market_srt", ["TRAIN.EPOCHS=5"], "write TRAIN.EPOCHS 5 in place of TRAIN.EPOCHS=5"),
    ],
)
def test_near_names(config, overrides, words):
    with pytest.raises(InputError) as error:
        load_config(config, overrides)
    assert words in str(error.value)


def test_an_abbreviation_of_a_loss():
    with pytest.raises(InputError, match="unknown loss 'SRT'. Did you mean 'soft_ranking_threshold'"):
        reid_kit.build_loss("SRT")
