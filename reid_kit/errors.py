"""The errors a user can cause; each message says what was wrong, what was expected and how to mend it."""

import difflib
import reprlib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad input. The command line prints its message alone, without a traceback, and exits with 2."""


class NonFiniteError(InputError):
    """NaN or infinity where numbers were expected."""


def unknown_name(kind: str, name: str, choices: Iterable[str]) -> InputError:
    """The error for a name that is not among `choices`: it gives the nearest one and the whole list."""
    choices = sorted(choices)
    near = difflib.get_close_matches(name[:100], choices, n=1) if isinstance(name, str) else []
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return InputError(f"unknown {kind} {shortened(name)}.{hint} Choices: {', '.join(choices)}")


def shortened(value: object) -> str:
    """The repr of a value, cut to what a message can hold."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = 120
    short.maxlist = short.maxtuple = short.maxdict = 12
    short.maxlong = 60
    try:
        return short.repr(value)
    except ValueError:  # more digits than Python prints
        return "a number of thousands of digits"


def printable(text: str) -> str:
    """`text` with what no terminal can print written as \\xNN."""
    return text.encode("utf-8", "backslashreplace").decode()
