"""A table of images to index."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from reid_kit.errors import InputError
from reid_kit.gallery.entries import Entry
from reid_kit.reading import CORNERS, read_box, read_table

KNOWN = ("path", "identity", "camera", "time", *CORNERS)


def read_entries(file: Path) -> Iterator[Entry]:
    """The rows of a table path[,identity][,camera][,time][,x1,y1,x2,y2][,any further columns], as text, one by one.

    Paths are relative to the table. Fields are parted by comma, semicolon or tab, whichever the header has most of.

    Raises:
        InputError: the file is missing or no such table; the message names the line.
    """
    lines = read_table(file, "a table with a header that names path")
    names = [column_name(name) for name in next(lines, (0, []))[1]]
    if "path" not in names or len(set(names)) < len(names):
        raise InputError(
            f"{file}: the header must name path, and each column once, as {','.join(KNOWN)}; it is {names}"
        )
    source, number = os.path.abspath(file), 0
    folder = os.path.dirname(source)
    for number, fields in lines:
        line = f"{file.name}:{number}"
        if len(fields) != len(names):
            raise InputError(f"{line}: {len(fields)} fields, the header has {len(names)}")
        row = dict(zip(names, fields))
        if not row["path"]:
            raise InputError(f"{line}: path must not be empty")
        yield entry_of(os.path.join(folder, os.path.expanduser(row["path"])), row, line, source)
    if not number:
        raise InputError(f"{file} has a header and no rows")


def entry_of(path: str, row: Mapping[str, str], line: str, source: str) -> Entry:
    """What is known of an image, by the names of a table's columns; `line` says where that stands, for errors."""
    further = {name: value for name, value in row.items() if name not in KNOWN and name and value}
    identity, camera, time = (row.get(name, "") for name in KNOWN[1:4])
    box = read_box(line, row)
    if box and not (box[0] < box[2] and box[1] < box[3]):
        raise InputError(f"{line}: box {box} is inverted or empty; expected x1 < x2, y1 < y2")
    return Entry(path, box, identity, camera, time, further, "", source)


def column_name(name: str) -> str:
    """As KNOWN has it, in whatever letters it was written; others stay."""
    return name.lower() if name.lower() in KNOWN else name
