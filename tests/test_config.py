from pathlib import Path

import pytest
import yaml

from reid_kit.config import DEFAULTS, config_from_text, load_config
from reid_kit.config_keys import KEYS
from reid_kit.errors import InputError

FOLDER = Path(__file__).parents[1] / "configs"
CONFIGS = sorted([*FOLDER.glob("*.yaml"), *FOLDER.glob("metric_learning/*.yaml")])


def write(folder, name, text):
    path = folder / name
    path.write_text(text)
    return path


def test_defaults_without_a_file():
    config = load_config()
    assert config.MODEL.BACKBONE == "resnet50"
    assert (config.DATA.HEIGHT, config.DATA.WIDTH) == (256, 128)
    with pytest.raises(AttributeError):
        config.TRAIN.EPOCHS = 1


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_loads(path):
    config = load_config(path)
    assert f"runs/{path.stem}" == config.TRAIN.OUTPUT
    assert all("name" in term for term in config.LOSS.TERMS)


def test_bases_in_order_then_file_then_overrides(tmp_path):
    write(tmp_path, "one.yaml", "TRAIN: {EPOCHS: 1, SEED: 1}\nSAMPLER: {P: 5}")
    (tmp_path / "sub").mkdir()
    write(tmp_path / "sub", "two.yaml", "_BASE_: ../one.yaml\nTRAIN: {EPOCHS: 2}")
    path = write(tmp_path, "leaf.yaml", "_BASE_: [sub/two.yaml]\nSAMPLER: {K: 3}")
    config = load_config(path, ["SAMPLER.K", "7", "OPTIMIZER.LR", "1e-3", "LOSS.TERMS", "[{name: softmax}]"])
    assert (config.TRAIN.EPOCHS, config.TRAIN.SEED, config.SAMPLER.P, config.SAMPLER.K) == (2, 1, 5, 7)
    assert config.OPTIMIZER.LR == 1e-3
    assert config.LOSS.TERMS == [{"name": "softmax"}]


def test_numbers_as_yaml_writes_them(tmp_path):
    config = load_config(write(tmp_path, "a.yaml", "OPTIMIZER: {LR: 3e-4, CLIP_NORM: 1}"))
    assert config.OPTIMIZER.LR == 3e-4
    assert config.OPTIMIZER.CLIP_NORM == 1.0 and isinstance(config.OPTIMIZER.CLIP_NORM, float)


def test_reader_options_are_free(tmp_path):
    config = load_config(write(tmp_path, "a.yaml", "DATA: {OPTIONS: {boxes: labeled}}"))
    assert dict(config.DATA.OPTIONS) == {"boxes": "labeled"}


def test_a_dump_gives_the_same_config(tmp_path):
    path = write(tmp_path, "a.yaml", "DATA: {OPTIONS: {boxes: labeled}}\nMODEL: {LEVELS: [low, high]}")
    config = load_config(path)
    assert config_from_text(config.dump()) == config


def test_options_stay_with_their_dataset():
    text = load_config(None, ["DATA.NAME", "cuhk03_np", "DATA.OPTIONS", "{boxes: labeled}"]).dump()
    for name in (None, "cuhk03_np"):
        assert dict(config_from_text(text, (), name, "elsewhere").DATA.OPTIONS) == {"boxes": "labeled"}
    other = config_from_text(text, ["TEST.FLIP", "true"], "market1501", "elsewhere")
    assert (other.DATA.NAME, other.DATA.ROOT, dict(other.DATA.OPTIONS)) == ("market1501", "elsewhere", {})
    assert other.TEST.FLIP and config_from_text(text).DATA.ROOT == load_config().DATA.ROOT


@pytest.mark.parametrize(
    "text, words",
    [
        ("MODEL: {BACKBON: resnet50}", ["MODEL.BACKBON", "MODEL.BACKBONE", "a.yaml"]),
        ("MODLE: {BACKBONE: resnet50}", ["MODLE", "MODEL", "a.yaml"]),
        ("MODEL: {POOLING: gen}", ["MODEL.POOLING", "gem", "a.yaml"]),
        ("MODEL: {LAST_STRIDE: 3}", ["MODEL.LAST_STRIDE", "1, 2"]),
        ("TEST: {FLIP: 'yes'}", ["TEST.FLIP", "true or false", "'yes'"]),
        ("TRAIN: {EPOCHS: many}", ["TRAIN.EPOCHS", "int", "'many'"]),
        ("SAMPLER: {K: 0}", ["SAMPLER.K", "at least 1"]),
        ("OPTIMIZER: {LR: fast}", ["OPTIMIZER.LR", "float"]),
        ("MODEL: resnet50", ["MODEL", "section"]),
        ("- MODEL", ["a.yaml", "keys and values"]),
        ("MODEL: {", ["a.yaml", "not valid YAML"]),
        ("TRAIN: {EPOCHS: 1}\nTRAIN: {SEED: 1}", ["a.yaml", "TRAIN is given twice", "line 2"]),
        ("_BASE_: b.yaml", ["b.yaml", "a.yaml"]),
        ("_BASE_: 3", ["a.yaml", "_BASE_ must be a file name", "3"]),
        ("_BASE_:", ["a.yaml", "_BASE_ must be a file name", "None"]),
        ("TRAIN: {EPOCHS: 0}", ["TRAIN.EPOCHS", "at least 1"]),
        ("TRAIN: {SEED: -1}", ["TRAIN.SEED", "at least 0"]),
        ("TRAIN: {EMA: 1.5}", ["TRAIN.EMA", "at most 1", "1.5"]),
        ("AUGMENT: {ERASING: 2}", ["AUGMENT.ERASING", "at most 1"]),
        ("OPTIMIZER: {LR: .nan}", ["OPTIMIZER.LR", "nan"]),
        ("OPTIMIZER: {WEIGHT_DECAY: -1}", ["OPTIMIZER.WEIGHT_DECAY", "at least 0"]),
        ("SCHEDULE: {STEPS: [a]}", ["SCHEDULE.STEPS", "list of numbers", "'a'"]),
        ("MODEL: {MEAN: [0.1, 0.2]}", ["MODEL.MEAN", "list of 3 numbers"]),
        ("_BASE_: a.yaml", ["a.yaml", "back to itself"]),
    ],
)
def test_bad_files(tmp_path, text, words):
    path = write(tmp_path, "a.yaml", text)
    with pytest.raises(InputError) as error:
        load_config(path)
    assert all(word in str(error.value) for word in words), error.value


def test_bad_overrides():
    with pytest.raises(InputError, match="no value"):
        load_config(None, ["TRAIN.EPOCHS"])
    with pytest.raises(InputError, match="command line"):
        load_config(None, ["TRAIN.EPOHCS", "3"])


def test_a_checkpoint_in_place_of_a_config(tmp_path):
    (tmp_path / "best.pt").write_bytes(b"PK\x03\x04\xff\xfe")
    with pytest.raises(InputError, match="best.pt is no YAML text.*--checkpoint"):
        load_config(tmp_path / "best.pt")


def test_missing_file():
    with pytest.raises(InputError, match="no config file nowhere.yaml"):
        load_config("nowhere.yaml")


@pytest.mark.parametrize("name", KEYS)
def test_defaults_pass_their_own_checks(name):
    key = KEYS[name]
    section, word = name.split(".")
    assert DEFAULTS[section][word] == key.default and key.meaning
    config = load_config(None, [name, yaml.safe_dump(key.default)])
    assert config[section][word] == key.default
