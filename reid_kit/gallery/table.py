"""A table of images to index."""

import os
from pathlib import Path

from reid_kit.errors import InputError
from reid_kit.gallery.entries import Entry
from reid_kit.reading import CORNERS, read_box, read_table

KNOWN = ("path", "identity", "camera", "time", *CORNERS)


def read_entries(file: Path) -> list[Entry]:
    """The rows of a table path[,identity][,camera][,time][,x1,y1,x2,y2][,any further columns], as text.

    Paths are relative to the table. Fields are parted by comma, semicolon or tab, whichever the header has most of.

    Raises:
        InputError: the file is missing or no such table; the message names the line.
    """
    lines = read_table(file, "a table with a header that names path")
    names = [name.lower() if name.lower() in KNOWN else name for name in lines[0][1]] if lines else []
    if "path" not in names or len(set(names)) < len(names):
        raise InputError(
            f"{file}: the header must name path, and each column once, as {','.join(KNOWN)}; it is {names}"
        )
    if len(lines) == 1:
        raise InputError(f"{file} has a header and no rows")
    source = os.path.abspath(file)
    entries = []
    for number, fields in lines[1:]:
        line = f"{file.name}:{number}"
        if len(fields) != len(names):
            raise InputError(f"{line}: {len(fields)} fields, the header has {len(names)}")
        row = dict(zip(names, fields))
        if not row["path"]:
            raise InputError(f"{line}: path must not be empty")
        box = read_box(line, row)
        if box and not (box[0] < box[2] and box[1] < box[3]):
            raise InputError(f"{line}: box {box} is inverted or empty; expected x1 < x2, y1 < y2")
        path = file.absolute().parent / Path(row["path"]).expanduser()
        columns = {name: value for name, value in row.items() if name not in KNOWN and name and value}
        known = (row.get(name, "") for name in KNOWN[1:4])
        entries.append(Entry(str(path), box, *known, columns, "", source))
    return entries
