"""List files: a count, column names, lines."""

import math
import re
from pathlib import Path

from reid_kit.errors import InputError, shortened
from reid_kit.reading import is_file, read_text

WHOLE = "[0-9]{1,18}"  # what int64 holds
Line = tuple[str, dict[str, str]]  # "file:number" and the fields by column


def read_counted(path: Path, columns: tuple[str, ...]) -> list[Line]:
    """The lines of a DeepFashion list: line 1 a count, line 2 the column names, fields apart by white space.

    Raises:
        InputError: the file is missing, the count is wrong, a column is missing, a line has too few fields.
    """
    lines = read_lines(path)
    if len(lines) < 2 or not re.fullmatch(WHOLE, lines[0][1].strip()):
        raise InputError(f"{path}: line 1 must be the count of lines and line 2 the column names")
    found = table(path, lines[1:], columns)
    count = int(lines[0][1])
    if count != len(found):
        raise InputError(f"{path}: line 1 promises {count:,} lines, there are {len(found):,}; get the file again")
    return found


def read_headed(path: Path, columns: tuple[str, ...]) -> list[Line]:
    """The lines of a list whose line 1 holds the column names; see `read_counted`."""
    return table(path, read_lines(path), columns)


def read_lines(path: Path) -> list[tuple[int, str]]:
    """(number, text) of each line that is not blank."""
    if not is_file(path):
        raise InputError(f"no list {path}; it comes with the dataset")
    lines = read_text(path, f"the list {path}").split("\n")
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]


def whole_number(source: str, name: str, text: str) -> int:
    """The number that digits are; `source` is the line for the error."""
    if not re.fullmatch(WHOLE, text):
        raise InputError(f"{source}: {name} {shortened(text)}; expected a whole number of at most 18 digits")
    return int(text)


def table(path: Path, lines: list[tuple[int, str]], columns: tuple[str, ...]) -> list[Line]:
    names = lines[0][1].split() if lines else []
    missing = [column for column in columns if column not in names]
    if missing:
        raise InputError(
            f"{path}: no column {', '.join(missing)}; line {lines[0][0] if lines else 1} must name {' '.join(columns)}"
        )
    found = []
    for number, line in lines[1:]:
        fields = line.split()
        if len(fields) < len(names):
            raise InputError(f"{path}:{number}: {len(fields)} fields, expected {len(names)}: {' '.join(names)}")
        found.append((f"{path.name}:{number}", dict(zip(names, fields))))
    return found


def read_box(source: str, fields: dict[str, str]) -> tuple[float, float, float, float]:
    """The box of columns x_1 y_1 x_2 y_2, in pixels.

    Raises:
        InputError: no finite numbers.
    """
    try:
        box = tuple(float(fields[name]) for name in ("x_1", "y_1", "x_2", "y_2"))
    except ValueError as error:
        raise InputError(f"{source}: box {shortened(fields)}; expected numbers") from error
    if not all(map(math.isfinite, box)):
        raise InputError(f"{source}: box {shortened(fields)}; expected finite numbers")
    return box
