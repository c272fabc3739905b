"""Losses by name."""

import inspect
from collections.abc import Callable

from torch import nn

from reid_kit.errors import InputError, shortened, unknown_name

LOSSES: dict[str, type[nn.Module]] = {}


def register(name: str) -> Callable[[type], type]:
    """Class decorator: makes the loss reachable as `build_loss(name, ...)` and as `name` in a config."""

    def add(loss: type) -> type:
        LOSSES[name] = loss
        loss.name = name
        return loss

    return add


def build_loss(name: str, **options) -> nn.Module:
    """Builds a loss by its registry name: `build_loss("triplet_batch_hard", margin="soft")`.

    The loss is called as `loss(embeddings, labels)`, (B, D) float and (B,) int64, and returns a scalar.

    Raises:
        InputError: the name or an option is unknown (the message lists the choices), or a value is out of range.
    """
    if name not in LOSSES:
        raise unknown_name("loss", name, LOSSES)
    signature = inspect.signature(LOSSES[name])
    known = signature.parameters
    for option in options:
        if option not in known:
            raise unknown_name(f"option of loss {name!r}:", option, known)
    try:
        signature.bind(**options)
    except TypeError as error:
        raise InputError(f"loss {name!r}: {error}. Options: {', '.join(known)}") from error
    for option, value in options.items():
        if isinstance(known[option].default, bool) and not isinstance(value, bool):
            raise InputError(f"{option} of {name} must be true or false, got {value!r}")
    try:
        return LOSSES[name](**options)
    except (TypeError, RuntimeError, OverflowError, MemoryError) as error:  # of sizes and numbers beyond torch's
        why = str(error).split("\n")[0][:200]
        raise InputError(f"loss {name!r} cannot be built with {shortened(options)}: {why}") from error


def option_names(name: str) -> list[str]:
    """The options of a loss, in the order of its constructor.

    Raises:
        InputError: no loss has this name.
    """
    if name not in LOSSES:
        raise unknown_name("loss", name, LOSSES)
    return list(inspect.signature(LOSSES[name]).parameters)
