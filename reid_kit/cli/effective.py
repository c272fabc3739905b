"""Keys and options that a command would take without effect are refused."""

from collections.abc import Mapping, Sequence

from reid_kit.config_keys import KEYS
from reid_kit.errors import InputError

OF_IMAGES = ("DATA.", "TEST.", "AUGMENT.ENLARGE", "TRAIN.AMP", "TRAIN.DEVICE")  # sections and keys
OF_THE_CACHE = ("DATA.CACHE", "DATA.CACHE_GB", "DATA.CACHE_FOLDER")
OF_THE_RANKING = ("TEST.METRIC", "TEST.AVERAGE_PRECISION", "TEST.RANKS", "TEST.NMI", "TRAIN.DEVICE")


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
