"""Every key of a run: its default, its meaning, its choices; and how a YAML file becomes a checked config.

A config file holds only what differs from the defaults below. `_BASE_` names the file or the list of files, relative
to it, that it inherits from; later ones win. `KEY VALUE` pairs from the command line come last.
"""

from collections.abc import Sequence
from contextlib import suppress
from math import inf
from pathlib import Path

import yaml
from yacs.config import CfgNode

from reid_kit.errors import InputError, unknown_name

DEFAULTS = CfgNode()

DEFAULTS.DATA = CfgNode()
DEFAULTS.DATA.NAME = "market1501"  # a reader's name: see `reid-kit doctor --help`
DEFAULTS.DATA.ROOT = "datasets"  # the dataset's own folder or its parent
DEFAULTS.DATA.OPTIONS = CfgNode(new_allowed=True)  # what the reader takes beside the root, for example {boxes: labeled}
DEFAULTS.DATA.HEIGHT = 256  # pixels
DEFAULTS.DATA.WIDTH = 128  # pixels
DEFAULTS.DATA.USE_BOX = False  # crop the annotated box in training, query and gallery alike
DEFAULTS.DATA.WORKERS = 4  # processes that read images; 0 reads in the main one
DEFAULTS.DATA.ON_BAD_IMAGE = "error"  # error | skip: what an unreadable image does

DEFAULTS.AUGMENT = CfgNode()
DEFAULTS.AUGMENT.FLIP = 0.5  # probability of a horizontal flip
DEFAULTS.AUGMENT.PAD = 10  # pixels added on each side before the random crop
DEFAULTS.AUGMENT.ENLARGE = 1.0  # factor on height and width before the random crop
DEFAULTS.AUGMENT.ERASING = 0.0  # probability of random erasing
DEFAULTS.AUGMENT.COLOR_JITTER = 0.0  # strength of brightness, contrast and saturation changes

DEFAULTS.SAMPLER = CfgNode()
DEFAULTS.SAMPLER.NAME = "identity"  # identity: P x K batches | shuffled: images in random order
DEFAULTS.SAMPLER.P = 18  # identities a batch
DEFAULTS.SAMPLER.K = 4  # images an identity
DEFAULTS.SAMPLER.BATCHES_PER_EPOCH = 0  # 0: as many as one pass over the images takes
DEFAULTS.SAMPLER.HARD_IDENTITY_POOL = 0  # size of each identity's pool of confusing identities; 0: no pool
DEFAULTS.SAMPLER.DOMAINS = "any"  # any | mixed: an identity's K images come from both of its domains

DEFAULTS.MODEL = CfgNode()
DEFAULTS.MODEL.BACKBONE = "resnet50"  # any timm name, or bn_inception
DEFAULTS.MODEL.WEIGHTS = "imagenet"  # imagenet (timm's) | none | path of a local file
DEFAULTS.MODEL.MEAN = []  # of the red, green and blue of images in 0 .. 1; []: what timm's weights expect
DEFAULTS.MODEL.STD = []
DEFAULTS.MODEL.LAST_STRIDE = 2  # stride of the backbone's last stage: 2, or 1 for a finer map
DEFAULTS.MODEL.POOLING = "average"  # average | max | gem
DEFAULTS.MODEL.EMBEDDING_SIZE = 0  # width of a linear layer after the pooling; 0: no layer
DEFAULTS.MODEL.NECK = "none"  # none | bnneck
DEFAULTS.MODEL.LEVELS = []  # for example [low, middle, high]: an embedding after each of several stages

DEFAULTS.LOSS = CfgNode()
DEFAULTS.LOSS.TERMS = [{"name": "soft_ranking_threshold", "thresholds": "hard", "margin": "soft"}]
# A weighted sum. Each term: `name`, `weight` (1.0), `feature` (metric | inference; the loss knows its own), `memory`
# (size of a cross-batch memory; 0), and the loss's options.

DEFAULTS.OPTIMIZER = CfgNode()
DEFAULTS.OPTIMIZER.NAME = "adam"  # adam | adamw | sgd
DEFAULTS.OPTIMIZER.LR = 3e-4
DEFAULTS.OPTIMIZER.WEIGHT_DECAY = 5e-4  # of every parameter, norms, biases and the losses' own too; decoupled in adamw
DEFAULTS.OPTIMIZER.MOMENTUM = 0.9  # sgd only
DEFAULTS.OPTIMIZER.HEAD_LR_FACTOR = 1.0  # on LR, for the layers after the backbone
DEFAULTS.OPTIMIZER.LOSS_LR_FACTOR = 1.0  # on LR, for what the losses own: class weights, proxies, boundaries
DEFAULTS.OPTIMIZER.CLIP_NORM = 0.0  # largest norm of the gradient; 0: no clipping

DEFAULTS.SCHEDULE = CfgNode()
DEFAULTS.SCHEDULE.NAME = "constant"  # constant | step | cosine | exponential; stepped every iteration
DEFAULTS.SCHEDULE.WARMUP_EPOCHS = 0.0  # linear from LR / 100
DEFAULTS.SCHEDULE.STEPS = []  # step: epochs at which LR is multiplied by GAMMA
DEFAULTS.SCHEDULE.GAMMA = 0.1
DEFAULTS.SCHEDULE.DECAY_START = 0.0  # exponential: epoch at which the decay begins
DEFAULTS.SCHEDULE.END_FACTOR = 0.001  # cosine, exponential: LR at the end, as a share of LR

DEFAULTS.TRAIN = CfgNode()
DEFAULTS.TRAIN.OUTPUT = ""  # the run folder; "": runs/ and the config file's name
DEFAULTS.TRAIN.EPOCHS = 60
DEFAULTS.TRAIN.SEED = 0
DEFAULTS.TRAIN.DEVICE = "auto"  # auto: cuda where there is one | cpu | cuda | cuda:1
DEFAULTS.TRAIN.AMP = True  # bfloat16 autocast on GPUs that have it
DEFAULTS.TRAIN.COMPILE = False  # torch.compile of the backbone
DEFAULTS.TRAIN.EMA = 0.0  # decay of the averaged weights that are tested and kept; 0: none
DEFAULTS.TRAIN.EVAL_EVERY = 10  # epochs; the last epoch is always tested
DEFAULTS.TRAIN.CHECKPOINT_EVERY = 0  # iterations; 0: at the end of each epoch

DEFAULTS.TEST = CfgNode()
DEFAULTS.TEST.BATCH_SIZE = 128
DEFAULTS.TEST.METRIC = "euclidean"  # euclidean | cosine
DEFAULTS.TEST.FEATURE = "inference"  # inference (after the neck) | metric (before it)
DEFAULTS.TEST.FLIP = False  # average the features of an image and its mirror image
DEFAULTS.TEST.AVERAGE_PRECISION = "step"  # step | trapezoid

CHOICES = {
    "DATA.ON_BAD_IMAGE": ("error", "skip"),
    "SAMPLER.NAME": ("identity", "shuffled"),
    "SAMPLER.DOMAINS": ("any", "mixed"),
    "MODEL.LAST_STRIDE": (1, 2),
    "MODEL.POOLING": ("average", "max", "gem"),
    "MODEL.NECK": ("none", "bnneck"),
    "OPTIMIZER.NAME": ("adam", "adamw", "sgd"),
    "SCHEDULE.NAME": ("constant", "step", "cosine", "exponential"),
    "TEST.METRIC": ("euclidean", "cosine"),
    "TEST.FEATURE": ("inference", "metric"),
    "TEST.AVERAGE_PRECISION": ("step", "trapezoid"),
}
RANGES = {  # least and largest value
    "DATA.HEIGHT": (1, inf),
    "DATA.WIDTH": (1, inf),
    "DATA.WORKERS": (0, inf),
    "AUGMENT.FLIP": (0, 1),
    "AUGMENT.PAD": (0, inf),
    "AUGMENT.ENLARGE": (1, inf),
    "AUGMENT.ERASING": (0, 1),
    "AUGMENT.COLOR_JITTER": (0, 1),
    "SAMPLER.P": (1, inf),
    "SAMPLER.K": (1, inf),
    "SAMPLER.BATCHES_PER_EPOCH": (0, inf),
    "SAMPLER.HARD_IDENTITY_POOL": (0, inf),
    "MODEL.EMBEDDING_SIZE": (0, inf),
    "OPTIMIZER.LR": (0, inf),
    "OPTIMIZER.WEIGHT_DECAY": (0, inf),
    "OPTIMIZER.MOMENTUM": (0, 1),
    "OPTIMIZER.HEAD_LR_FACTOR": (0, inf),
    "OPTIMIZER.LOSS_LR_FACTOR": (0, inf),
    "OPTIMIZER.CLIP_NORM": (0, inf),
    "SCHEDULE.WARMUP_EPOCHS": (0, inf),
    "SCHEDULE.GAMMA": (0, 1),
    "SCHEDULE.DECAY_START": (0, inf),
    "SCHEDULE.END_FACTOR": (0, 1),
    "TRAIN.EPOCHS": (1, inf),
    "TRAIN.SEED": (0, inf),
    "TRAIN.EMA": (0, 1),
    "TRAIN.EVAL_EVERY": (1, inf),
    "TRAIN.CHECKPOINT_EVERY": (0, inf),
    "TEST.BATCH_SIZE": (1, inf),
}
NUMBERS = {"MODEL.MEAN": (0, 3), "MODEL.STD": (0, 3), "SCHEDULE.STEPS": None}  # lists of numbers, and their lengths


def load_config(path: str | Path | None = None, overrides: Sequence[str] = ()) -> CfgNode:
    """The frozen config of a YAML file (None: the defaults) with `KEY VALUE` overrides.

    Raises:
        InputError: a missing or malformed file, an unknown key, a value of the wrong type or outside its choices; the
            message names the key, the file and the nearest valid name.
    """
    config = DEFAULTS.clone()
    if path is not None:
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
    if name in CHOICES and value not in CHOICES[name]:
        raise unknown_name(f"value of {name} in {source}:", value, map(str, CHOICES[name]))
    least, largest = RANGES.get(name, (value, value))
    if name in RANGES and not least <= value <= largest:
        above = "" if largest == inf else f" and at most {largest}"
        raise InputError(f"{source}: {name} must be at least {least}{above}, got {value}")
    if name in NUMBERS:
        lengths = NUMBERS[name] or (len(value),)
        if len(value) not in lengths or not all(type(number) in (int, float) for number in value):
            count = f"{lengths[-1]} " if NUMBERS[name] else ""
            raise InputError(f"{source}: {name} must be a list of {count}numbers, got {value!r}")
    return value
