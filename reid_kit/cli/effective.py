"""Keys and options that a command would take without effect are refused."""

from collections.abc import Mapping, Sequence

from reid_kit.config_keys import KEYS
from reid_kit.errors import InputError

OF_SHARDS = (
    *("DATA.HEIGHT", "DATA.WIDTH", "DATA.WORKERS", "DATA.ON_BAD_IMAGE", "AUGMENT.ENLARGE", "TRAIN.DEVICE"),
    *("TEST.BATCH_SIZE", "TEST.AMP", "TEST.METRIC", "TEST.FEATURE", "TEST.LEVELS", "TEST.FLIP"),
)
OF_THE_CACHE = ("DATA.CACHE", "DATA.CACHE_GB", "DATA.CACHE_FOLDER")
OF_THE_RANKING = ("TEST.METRIC", "TEST.AVERAGE_PRECISION", "TEST.RANKS", "TEST.NMI", "TRAIN.DEVICE")
OF_IMAGES = tuple(  # what a test or an extraction depends on
    key
    for key in KEYS
    if key.startswith(("DATA.", "TEST.", "AUGMENT.ENLARGE", "TRAIN.DEVICE")) and not key.startswith("DATA.VALIDATION")
)


def refuse_keys(overrides: Sequence[str], effective: tuple[str, ...], why: str) -> None:
    """
    Args:
        overrides: KEY VALUE pairs. effective: what the keys that matter here begin with. why: the others do not.

    Raises:
        InputError: another key of a config is among them.
    """
    idle = [key for key in overrides[::2] if key in KEYS and not key.startswith(effective)]
    if idle:
        known = ", ".join(key for key in KEYS if key.startswith(effective))
        raise InputError(f"{', '.join(idle)} would have no effect: {why}. Keys that have one: {known}")
    if ("DATA.CACHE", "ram") in zip(overrides[::2], overrides[1::2]):
        raise InputError("DATA.CACHE ram would have no effect: it is for the next epoch of a training. Give it disk")


def refuse_options(given: Mapping[str, object], why: str) -> None:
    """
    Args:
        given: options by name; None, False or an empty list: not given. why: they do not matter here.

    Raises:
        InputError: one was given.
    """
    idle = [name for name, value in given.items() if value not in (None, []) and value is not False]
    if idle:
        raise InputError(f"{', '.join(idle)} would have no effect: {why}")
