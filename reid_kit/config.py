"""How a YAML file becomes a checked config; the keys stand in config_keys.py.

A config file holds only what differs from the defaults below. `_BASE_` names the file or the list of files, relative
to it, that it inherits from; later ones win. `KEY VALUE` pairs from the command line come last.
"""

import copy
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import yaml
from yacs.config import CfgNode

from reid_kit.config_files import find_config
from reid_kit.config_keys import KEYS
from reid_kit.errors import InputError, unknown_name


def defaults() -> CfgNode:
    """A config of the defaults of KEYS."""
    config = CfgNode()
    for name, key in KEYS.items():
        section, word = name.split(".")
        value = CfgNode(new_allowed=True) if key.default == {} else copy.deepcopy(key.default)
        config.setdefault(section, CfgNode())[word] = value
    return config


DEFAULTS = defaults()


def load_config(path: str | Path | None = None, overrides: Sequence[str] = ()) -> CfgNode:
    """The frozen config of a YAML file (None: the defaults) with `KEY VALUE` overrides.

    Args:
        path: a file, or the name of a config that comes with the toolkit, as market_srt.

    Raises:
        InputError: a missing or malformed file, an unknown key, a value of the wrong type or outside its choices; the
            message names the key, the file and the nearest valid name.
    """
    config = DEFAULTS.clone()
    if path is not None:
        path = find_config(path)
        for source, tree in _with_bases(Path(path), ()):
            _merge(config, tree, source)
        config.TRAIN.OUTPUT = config.TRAIN.OUTPUT or str(Path("runs") / Path(path).stem)
    return _overridden(config, overrides)


def config_from_text(
    text: str, overrides: Sequence[str] = (), dataset: str | None = None, root: str | None = None
) -> CfgNode:
    """The frozen config of a dump, as checkpoints and run folders hold it, with `KEY VALUE` overrides.

    Args:
        dataset, root: another dataset, which does not inherit the options of the dump's, and where the datasets are.
    """
    config = DEFAULTS.clone()
    _merge(config, _parse_file(text, "saved config"), "saved config")
    if dataset not in (None, config.DATA.NAME):
        config.DATA.NAME = dataset
        config.DATA.OPTIONS.clear()
    config.DATA.ROOT = root or config.DATA.ROOT
    return _overridden(config, overrides)


def _overridden(config: CfgNode, overrides: Sequence[str]) -> CfgNode:
    for text in overrides[::2]:
        key, equals, value = text.partition("=")
        if equals:
            raise InputError(f"overrides are pairs KEY VALUE: write {key} {value} in place of {text}")
    if len(overrides) % 2:
        raise InputError(f"overrides come in pairs KEY VALUE; {overrides[-1]!r} has no value")
    for key, text in zip(overrides[::2], overrides[1::2]):
        _merge(config, _nested(key.split("."), _parse(text, f"value of {key}")), "command line")
    config.freeze()
    return config


def _with_bases(path: Path, below: tuple[Path, ...]) -> list[tuple[str, dict]]:
    """(file, content) of everything that `path` inherits, in the order of merging, `path` itself last."""
    if not path.is_file():
        asked = f" (the _BASE_ of {below[-1]})" if below else ""
        raise InputError(f"no config file {path}{asked}; the ones that come with the toolkit are in configs/")
    if path.resolve() in below:
        raise InputError(f"{path}: its _BASE_ leads back to itself")
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} is no YAML text ({error}); a checkpoint goes to tools/test.py --checkpoint"
        ) from error
    tree = _parse_file(text, str(path))
    bases = tree.pop("_BASE_", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise InputError(f"{path}: _BASE_ must be a file name or a list of them, got {bases!r}")
    below = (*below, path.resolve())
    found = []
    for base in bases:
        found += _with_bases(path.parent / base, below)
    return [*found, (str(path), tree)]


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML in which a key given twice is an error; by itself it would keep the last."""

    def construct_mapping(self, node, deep=False):
        given = []
        for key, _ in node.value:
            if key.value in given:
                problem = f"{key.value} is given twice"
                raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key.start_mark)
            given.append(key.value)
        return super().construct_mapping(node, deep)


def _parse(text: str, source: str):
    try:
        return yaml.load(text, _UniqueKeyLoader)
    except yaml.YAMLError as error:
        raise InputError(f"{source} is not valid YAML: {error}") from error


def _parse_file(text: str, source: str) -> dict:
    tree = _parse(text, source) or {}
    if not isinstance(tree, dict):
        raise InputError(f"{source} must hold keys and values, as configs/demo_srt.yaml does")
    return tree


def _nested(keys: list[str], value) -> dict:
    for key in reversed(keys):
        value = {key: value}
    return value


def _merge(config: CfgNode, tree: dict, source: str, prefix: str = "") -> None:
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if key not in config and not config.is_new_allowed():
            raise unknown_name(f"config key in {source}:", name, [f"{prefix}{known}" for known in config])
        default = config.get(key)
        if isinstance(default, CfgNode):
            if not isinstance(value, dict):
                raise InputError(f"{source}: {name} is a section; its keys are {', '.join(default) or 'free'}")
            _merge(default, value, source, f"{name}.")
        else:
            config[key] = _checked(name, value, default, source)


def _checked(name: str, value, default, source: str):
    if default is None:
        return value
    if isinstance(default, float) and not isinstance(value, bool):
        with suppress(TypeError, ValueError):
            value = float(value)  # YAML reads 3e-4 as text and 1 as an integer
    if type(value) is not type(default):
        expected = {"bool": "true or false", "str": "text"}.get(type(default).__name__, type(default).__name__)
        raise InputError(f"{source}: {name} must be {expected}, got {value!r}; the default is {default!r}")
    key = KEYS[name]
    if key.choices and value not in key.choices:
        raise unknown_name(f"value of {name} in {source}:", value, map(str, key.choices))
    if key.least is not None and not key.least <= value <= key.most:
        raise InputError(f"{source}: {name} must be at least {key.least} and at most {key.most:,}, got {value}")
    if key.numbers:
        fits = not value or key.length in (None, len(value))
        if not fits or not all(type(number) in (int, float) for number in value):
            count = f"{key.length} " if key.length else ""
            raise InputError(f"{source}: {name} must be a list of {count}numbers, got {value!r}")
    return value
