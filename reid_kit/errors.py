"""The errors a user can cause; each message says what was wrong, what was expected and how to mend it."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad input. The command line prints its message alone, without a traceback, and exits with 2."""


class NonFiniteError(InputError):
    """NaN or infinity where numbers were expected."""


def unknown_name(kind: str, name: str, choices: Iterable[str]) -> InputError:
    """The error for a name that is not among `choices`: it gives the nearest one and the whole list."""
    choices = sorted(choices)
    near = difflib.get_close_matches(str(name), choices, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return InputError(f"unknown {kind} {name!r}.{hint} Choices: {', '.join(choices)}")
