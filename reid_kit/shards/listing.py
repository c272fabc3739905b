"""What is to be embedded, as a list on the disk, an image a line: no process holds more than a part of it."""

import glob
import hashlib
import json
import os
import re
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice, zip_longest
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from reid_kit.errors import InputError
from reid_kit.gallery.entries import Entry, checked, stamp_of, stamped
from reid_kit.gallery.table import entry_of, read_entries
from reid_kit.image_files import walk_images
from reid_kit.reading import Member, parsing
from reid_kit.shards.tars import columns_of, read_samples

HELD = 2**20  # keys of rows that are in memory at a time
RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


class Item(NamedTuple):
    """An image to embed: what is known of it, and where it lies if that is in a tar."""

    entry: Entry
    member: Member | None = None


def items_of_folder(folder: Path, on_bad_image: str) -> Iterator[Item]:
    """All images below a folder, in the order of their names; see `walk_images`."""
    left_out: list[str] = []
    source = os.path.abspath(folder)
    for path in walk_images(source, left_out):
        yield Item(stamped(Entry(str(path), source=source), on_bad_image))
    warn(left_out)


def items_of_table(file: Path, on_bad_image: str) -> Iterator[Item]:
    """The rows of a table; see `gallery.table.read_entries`."""
    for entry in read_entries(file):
        yield Item(stamped(entry, on_bad_image))


def items_of_tars(names: Sequence[str], on_bad_image: str) -> Iterator[Item]:
    """The samples of tars, one tar after the other; see `read_samples`. The path of an image is TAR/MEMBER.

    Args:
        names: files, or patterns with {000..123}, *, ? or [].
        on_bad_image: "skip" leaves out a sample whose texts cannot be read, or what of a tar cannot, and warns of it.
    """
    for tar in tars_of(names):
        left_out: list[str] = []
        try:
            stamp = stamp_of(tar)
            for member, texts in read_samples(tar, left_out):
                try:
                    entry = checked(entry_of(str(member), columns_of(texts), str(member), tar))
                except InputError as error:
                    if on_bad_image == "error":
                        raise
                    warn([f"left out: {error}"])
                else:
                    yield Item(replace(entry, stamp=stamp), member)
        except InputError as error:
            if on_bad_image == "error":
                raise
            left_out = [f"left out, from there on: {error}"]
        warn(left_out)


def tars_of(names: Sequence[str]) -> list[str]:
    """The absolute paths that names and patterns stand for."""
    found: dict[str, None] = {}
    for name in names:
        for pattern in expanded(name):
            paths = sorted(glob.glob(pattern)) if glob.has_magic(pattern) and not os.path.exists(pattern) else [pattern]
            if not paths:
                raise InputError(f"no tar is called {pattern}")
            for path in map(os.path.abspath, paths):
                if path in found:
                    raise InputError(f"the tar {path} is given twice")
                found[path] = None
    return list(found)


def expanded(name: str) -> Iterator[str]:
    """a-{000..123}.tar, as WebDataset writes many names in one."""
    match = RANGE.search(name)
    if match is None:
        yield name
        return
    first, last = match.groups()
    for number in range(int(first), int(last) + 1):
        yield from expanded(f"{name[: match.start()]}{number:0{len(first)}}{name[match.end() :]}")


def warn(notes: Iterable[str]) -> None:
    for note in notes:
        warnings.warn(note, stacklevel=2)


def write_list(items: Iterable[Item], path: Path, size: int) -> dict:
    """Writes the list, and says of it: rows, sha256, and `shards`, where each begins as [byte, row].

    A shard is of `size` images or fewer, and of no more than one tar. What is in memory does not grow with the rows.

    Raises:
        InputError: there is no image; one, or a box of one, is listed twice.
    """
    digest, shards, byte, tar, row = hashlib.sha256(), [], 0, None, -1
    with open(path, "wb") as file, tempfile.TemporaryFile(dir=path.parent) as keys:
        for row, item in enumerate(items):
            of_tar = item.member.tar if item.member else ""
            if not shards or row - shards[-1][1] == size or of_tar != tar:
                shards.append([byte, row])
                tar = of_tar
            line = line_of(item)
            file.write(line)
            digest.update(line)
            byte += len(line)
            keys.write(np.int64(hash(item.entry.key)).tobytes())
        suspects = repeated(keys, row + 1)
    if not shards:
        raise InputError("there is no image to embed")
    refuse_repeated(suspects, path)
    return {"rows": row + 1, "sha256": digest.hexdigest(), "shards": shards}


def repeated(keys: BinaryIO, count: int) -> set[int]:
    """The keys that stand more than once in a file of so many."""
    parts, found = -(-count // HELD), set()
    for part in range(parts):
        keys.seek(0)
        blocks = (np.frombuffer(keys.read(8 * HELD), np.int64) for _ in range(parts))
        mine = np.sort(np.concatenate([block[block % parts == part] for block in blocks]))
        found.update(mine[1:][mine[1:] == mine[:-1]].tolist())
    return found


def refuse_repeated(suspects: set[int], path: Path) -> None:
    seen = set()
    for item in read_list(path) if suspects else ():
        if hash(item.entry.key) in suspects:
            if item.entry.key in seen:
                raise InputError(
                    f"{item.entry.path} is listed twice; give boxes, or take one out (of a tar: rename the member)"
                )
            seen.add(item.entry.key)


def read_list(path: Path, byte: int = 0, count: int | None = None) -> Iterator[Item]:
    """So many items of a list, from the line on that begins at `byte`."""
    with parsing(str(path), "the list of images that reid-kit extract wrote"), open(path, "rb") as file:
        file.seek(byte)
        for line in islice(file, count):
            yield item_of(json.loads(line))


def line_of(item: Item) -> bytes:
    known = {name: value for name, value in vars(item.entry).items() if value}
    if item.member:
        known["path"] = item.member
    return json.dumps(known, ensure_ascii=False).encode() + b"\n"


def item_of(known: Mapping) -> Item:
    member = Member(*known["path"]) if isinstance(known["path"], list) else None
    box = known.get("box")
    entry = Entry(**{**known, "path": str(member or known["path"]), "box": box and tuple(box)})
    return Item(entry, member)


def first_difference(before: Path, now: Path) -> str:
    """Where two lists part, in words."""
    with open(before, "rb") as old, open(now, "rb") as new:
        row, lines = next((row, pair) for row, pair in enumerate(zip_longest(old, new)) if pair[0] != pair[1])
    paths = [item_of(json.loads(line)).entry.path if line else "none" for line in lines]
    if paths[0] == paths[1]:
        return f"{paths[0]} is another file now, or other labels stand beside it"
    return f"image {row:,} was {paths[0]} and is {paths[1]}"
