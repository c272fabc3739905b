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
    near = nearest(name[:100], choices) if isinstance(name, str) else None
    hint = f" Did you mean {near!r}?" if near else ""
    return InputError(f"unknown {kind} {shortened(name)}.{hint} Choices: {', '.join(choices)}")


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """The choice that `name` most resembles, in upper or lower case, or abbreviates: srt is soft_ranking_threshold."""
    folded = {choice.casefold(): choice for choice in choices}
    near = difflib.get_close_matches(name.casefold(), folded, n=1)
    initials = {"".join(word[0] for word in key.split("_") if word): choice for key, choice in folded.items()}
    return folded[near[0]] if near else initials.get(name.casefold())


def shortened(value: object) -> str:
    """The repr of a value, cut to what a message can hold."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = 120
    short.maxlist = short.maxtuple = short.maxdict = 12
    short.maxlong = 60
    try:
        text = short.repr(value)
        return text if len(text) < 400 else f"{text[:200]} ... {text[-50:]}"
    except ValueError:  # more digits than Python prints
        return "a number of thousands of digits"


def printable(text: str) -> str:
    """`text` with what no terminal can print written as \\xNN."""
    return text.encode("utf-8", "backslashreplace").decode()
