"""How a YAML file becomes a checked config; the keys stand in config_keys.py.

A config file holds only what differs from the defaults below. `_BASE_` names the file or the list of files, relative
to it, that it inherits from; later ones win. `KEY VALUE` pairs from the command line come last.
"""

import copy
import math
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import yaml
from yacs.config import CfgNode

from reid_kit.config_files import find_config
from reid_kit.config_keys import KEYS
from reid_kit.errors import InputError, printable, shortened, unknown_name
from reid_kit.reading import PARSER_ERRORS, is_file, read_text

LIMIT = 2**18  # characters of a config: what is larger is no config
NODES = 20_000  # of a config, with what its aliases stand for
DEPTH = 50  # files that inherit one from another
PATHS = ("DATA.ROOT", "TRAIN.OUTPUT", "MODEL.WEIGHTS")


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
        for source, tree in reversed(_with_bases(Path(path), (), set())):
            _merge(config, tree, source)
    config = _overridden(config, overrides)
    if path is not None and not config.TRAIN.OUTPUT.strip():
        config.defrost()
        config.TRAIN.OUTPUT = str(Path("runs") / Path(path).stem)
        config.freeze()
    return config


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
        meant_as_text = isinstance(getattr(KEYS.get(key), "default", None), str)
        value = _text(text) if meant_as_text else _parse(text, f"value of {key}")
        _merge(config, _nested(key.split("."), value), "command line")
    if config.TRAIN.FREEZE_EPOCHS > config.TRAIN.EPOCHS:
        raise InputError(
            f"TRAIN.FREEZE_EPOCHS {config.TRAIN.FREEZE_EPOCHS} is longer than the run of TRAIN.EPOCHS "
            f"{config.TRAIN.EPOCHS}"
        )
    config.freeze()
    return config


def _text(typed: str) -> str:
    """What was typed, less the quotes of YAML around it; numbers, dates and comments are text like any other."""
    with suppress(*PARSER_ERRORS, yaml.YAMLError):
        found = yaml.load(typed[:LIMIT], yaml.BaseLoader)
        if isinstance(found, str) and "#" not in typed:
            return found
    return typed


def _with_bases(path: Path, below: tuple[Path, ...], seen: set[Path]) -> list[tuple[str, dict]]:
    """(file, content) of `path` and of everything that it inherits, each file once, where it counts: the last first."""
    if not is_file(path):
        asked = f" (the _BASE_ of {below[-1]})" if below else ""
        raise InputError(
            f"no config file {shortened(printable(str(path)))[1:-1]}{asked}; the ones that come with the toolkit are "
            f"in configs/"
        )
    place = path.resolve()
    if place in below:
        raise InputError(f"{path}: its _BASE_ leads back to itself")
    if len(below) > DEPTH:
        raise InputError(f"{path} is the _BASE_ of a _BASE_ more than {DEPTH} times; write the keys into fewer files")
    if place in seen:
        return []
    seen.add(place)
    try:
        text = read_text(path, str(path))
    except InputError as error:
        raise InputError(
            f"{path} is no YAML text ({error}); a checkpoint goes to tools/test.py --checkpoint"
        ) from error
    tree = _parse_file(text, str(path))
    bases = tree.pop("_BASE_", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise InputError(f"{path}: _BASE_ must be a file name or a list of them, got {shortened(bases)}")
    found = [(str(path), tree)]
    for base in reversed(bases):
        found += _with_bases(path.parent / base, (*below, place), seen)
    return found


class _Loader(yaml.SafeLoader):
    """YAML in which a key given twice is an error (by itself it would keep the last), and what is meant as text is."""

    def construct_mapping(self, node, deep=False):
        given = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in given:
                    problem = f"{key.value} is given twice"
                    raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key.start_mark)
                given.add(key.value)
        return super().construct_mapping(node, deep)

    def get_single_node(self):
        node = super().get_single_node()
        if self.size(node, {}) > NODES:
            raise yaml.YAMLError(f"its aliases stand for more than {NODES:,} values")
        for section, keys in node.value if isinstance(node, yaml.MappingNode) else ():
            for key, value in keys.value if isinstance(keys, yaml.MappingNode) else ():
                default = getattr(KEYS.get(f"{section.value}.{key.value}"), "default", None)
                if isinstance(default, str) and isinstance(value, yaml.ScalarNode) and value.style is None:
                    value.tag = "tag:yaml.org,2002:str"  # a run may be called after a date
        return node

    def size(self, node, known: dict) -> float:
        """How many values a node holds, with all that its aliases stand for."""
        if not isinstance(node, yaml.CollectionNode):
            return 1
        if node not in known:
            known[node] = math.inf  # of a node that holds itself
            inner = [part for pair in node.value for part in (pair if isinstance(pair, tuple) else (pair,))]
            known[node] = 1 + sum(self.size(part, known) for part in inner)
        return known[node]


def _parse(text: str, source: str):
    if len(text) > LIMIT:
        raise InputError(f"{source} has {len(text):,} characters, a config has at most {LIMIT:,}")
    try:
        return yaml.load(text, _Loader)
    except (*PARSER_ERRORS, yaml.YAMLError) as error:
        why = "it is nested too deep" if isinstance(error, RecursionError) else str(error)[:1000]
        raise InputError(f"{source} is not valid YAML: {why or type(error).__name__}") from error


def _parse_file(text: str, source: str) -> dict:
    tree = _parse(text, source)
    if tree is None:
        tree = {}
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
        if not isinstance(key, str):
            raise InputError(f"{source}: the keys of {prefix[:-1] or 'a config'} must be names, got {shortened(key)}")
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
    _check_plain(name, value, source)
    if default is None:
        return value
    if isinstance(default, float) and not isinstance(value, bool):
        with suppress(TypeError, ValueError, OverflowError):
            value = float(value)  # YAML reads 3e-4 as text and 1 as an integer
    if type(value) is not type(default):
        expected = {"bool": "true or false", "str": "text"}.get(type(default).__name__, type(default).__name__)
        raise InputError(f"{source}: {name} must be {expected}, got {shortened(value)}; the default is {default!r}")
    key = KEYS[name]
    if key.choices and value not in key.choices:
        raise unknown_name(f"value of {name} in {source}:", value, map(str, key.choices))
    if key.numbers:
        fits = not value or key.length in (None, len(value))
        if not fits or not all(type(number) in (int, float) for number in value):
            count = f"{key.length} " if key.length else ""
            raise InputError(f"{source}: {name} must be a list of {count}numbers, got {shortened(value)}")
    numbers = value if key.numbers else [value]
    if key.least is not None and not all(key.least <= number <= key.most for number in numbers):
        raise InputError(
            f"{source}: {name} must be at least {key.least} and at most {key.most:,}, got {shortened(value)}"
        )
    if name in PATHS and value.startswith("~"):
        value = os.path.expanduser(value)
    return value


def _check_plain(name: str, value, source: str) -> None:
    """Raises InputError for what a config cannot keep, or what is not text where text is meant."""
    if isinstance(value, str) and ("\0" in value or printable(value) != value):
        raise InputError(
            f"{source}: {name} holds a character that no name or path can hold in UTF-8: {printable(value)!r:.200}; "
            f"rename what it stands for"
        )
    parts = value if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else []
    if isinstance(value, dict) and not all(isinstance(key, str) for key in value):
        raise InputError(f"{source}: the keys of {name} must be names, got {shortened(value)}")
    if not isinstance(value, (str, int, float, list, dict, type(None))):
        raise InputError(f"{source}: {name} must be made of text and numbers, got {shortened(value)}")
    for part in parts:
        _check_plain(name, part, source)
