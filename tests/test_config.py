from pathlib import Path

import pytest
import yaml

from reid_kit.config import DEFAULTS, config_from_text, load_config
from reid_kit.config_keys import KEYS
from reid_kit.errors import InputError

FOLDER = Path(__file__).parents[1] / "configs"
CONFIGS = sorted([*FOLDER.glob("*.yaml"), *FOLDER.glob("metric_learning/*.yaml"), *FOLDER.glob("ladder/*.yaml")])


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


@pytest.mark.parametrize("name", ["20240131", "2024-01-31", "2026-11-31", "12:30:45", "007", "1e5", "true", "run #2"])
def test_text_stays_text(tmp_path, name):
    assert load_config(None, ["TRAIN.OUTPUT", name]).TRAIN.OUTPUT == name
    if "#" not in name:
        assert load_config(write(tmp_path, "a.yaml", f"TRAIN: {{OUTPUT: {name}}}")).TRAIN.OUTPUT == name


def test_quotes_that_the_shell_left_are_taken_off(monkeypatch):
    assert load_config(None, ["DATA.ROOT", "'my photos'"]).DATA.ROOT == "my photos"
    monkeypatch.setenv("HOME", "/home/ann")
    assert load_config(None, ["DATA.ROOT", "~/photos"]).DATA.ROOT == "/home/ann/photos"


@pytest.mark.parametrize(
    "text, words",
    [
        ("TRAIN: {SEED: 2026-11-31}", ["a.yaml", "not valid YAML"]),
        ("TRAIN: {SEED: 2024-01-01 99:99:99}", ["a.yaml", "not valid YAML"]),
        ("TRAIN: {SEED: !!int abc}", ["a.yaml", "not valid YAML"]),
        ("TEST: {FLIP: !!bool maybe}", ["a.yaml", "not valid YAML"]),
        ("DATA: {OPTIONS: !!map 3}", ["a.yaml", "not valid YAML"]),
        ("TRAIN: {SEED: !!python/name:os.system x}", ["a.yaml", "not valid YAML"]),
        ("TRAIN: " + "[" * 3000, ["a.yaml", "nested too deep"]),
        (f"OPTIMIZER: {{LR: {'9' * 400}}}", ["OPTIMIZER.LR"]),
        (f"TRAIN: {{SEED: {'9' * 6000}}}", ["a.yaml", "not valid YAML"]),
        ("TRAIN: {SEED: 99999999999999999999}", ["TRAIN.SEED", "at most"]),
        ("DATA: {OPTIONS: {1: x}}", ["DATA.OPTIONS", "names"]),
        ("DATA: {OPTIONS: {a: 2024-01-31}}", ["DATA.OPTIONS", "text and numbers"]),
        ("DATA: {OPTIONS: {a: !!binary aGFsbG8=}}", ["DATA.OPTIONS", "text and numbers"]),
        ("LOSS: {TERMS: [{name: triplet, 1: 2}]}", ["LOSS.TERMS", "names"]),
        ("? [a, b]\n: 1", ["a.yaml", "not valid YAML"]),
        ('TRAIN: {OUTPUT: "a\\0b"}', ["TRAIN.OUTPUT", "character"]),
        ('DATA: {ROOT: "a\\ud800b"}', ["a.yaml"]),
        ("MODEL: {STD: [0, 1, 1]}", ["MODEL.STD", "at least"]),
        ("MODEL: {MEAN: [.nan, 0, 0]}", ["MODEL.MEAN", "at least"]),
        ("SCHEDULE: {STEPS: [-.inf]}", ["SCHEDULE.STEPS", "at least"]),
        ("AUGMENT: {ENLARGE: .inf}", ["AUGMENT.ENLARGE", "at most"]),
        (f"DATA: {{NAME: {'x' * 10**5}, ROOTS: 1}}", ["DATA.ROOTS"]),
        ("&a [*a]", ["a.yaml"]),
    ],
    ids=lambda value: str(value)[:40],
)
def test_values_that_a_parser_chokes_on(tmp_path, text, words):
    with pytest.raises(InputError) as error:
        load_config(write(tmp_path, "a.yaml", text))
    assert all(word in str(error.value) for word in words), error.value
    assert len(str(error.value)) < 2000 and str(error.value).encode()


def test_configs_that_would_take_for_ever(tmp_path):
    bomb = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    bomb += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    for text, words in (
        ("\n".join(bomb), "aliases stand for more"),
        ("\n".join(f"k{n}: 1" for n in range(300_000)), "characters"),
        ("\n".join(f"k{n}: 1" for n in range(4_000)), "unknown config key.*k0"),
        (f"DATA: {{NAME: {'x' * 2_000_000}}}", "characters"),
    ):
        with pytest.raises(InputError, match=words) as error:
            load_config(write(tmp_path, "a.yaml", text))
        assert len(str(error.value)) < 2000


def test_each_base_is_read_once_and_the_last_one_wins(tmp_path):
    write(tmp_path, "0.yaml", "TRAIN: {SEED: 0, EPOCHS: 5}")
    for number in range(1, 30):  # 2 ** 29 ways
        write(tmp_path, f"{number}.yaml", f"_BASE_: [{number - 1}.yaml, {number - 1}.yaml]\nTRAIN: {{SEED: {number}}}")
    config = load_config(tmp_path / "29.yaml")
    assert (config.TRAIN.SEED, config.TRAIN.EPOCHS) == (29, 5)
    write(tmp_path, "x.yaml", "_BASE_: 0.yaml\nTRAIN: {SEED: 7}")
    for bases, seed in (("x.yaml, 0.yaml", 0), ("0.yaml, x.yaml", 7)):
        assert load_config(write(tmp_path, "y.yaml", f"_BASE_: [{bases}]")).TRAIN.SEED == seed
    for number in range(30, 90):
        write(tmp_path, f"{number}.yaml", f"_BASE_: {number - 1}.yaml")
    with pytest.raises(InputError, match="more than 50 times"):
        load_config(tmp_path / "89.yaml")


@pytest.mark.parametrize("name", ["n" * 300, "a\0b", "a\ud800b", "below/a.yaml/x"])
def test_files_that_no_file_can_be(tmp_path, name):
    write(tmp_path, "a.yaml", "")
    with pytest.raises(InputError, match="no config file") as error:
        load_config(tmp_path / name)
    assert str(error.value).encode()
