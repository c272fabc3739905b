"""Files that others wrote: one function for each format, which turns whatever its parser raises into an InputError.

The tensors of checkpoints and weights are read in model/weights.py, images in image.py.
"""

import csv
import io
import json
import math
import os
import pickle
import stat
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from reid_kit.errors import InputError, printable, shortened

PARSER_ERRORS = (  # what parsers raise on random bytes; each library's own classes are added where it is used
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RuntimeError,  # NotImplementedError and RecursionError too
    AssertionError,
    MemoryError,
    SyntaxError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    pickle.UnpicklingError,
)
FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # to open a pipe would wait
TEXT_LIMIT = 2**28  # bytes of a list, or of a line of a table
CORNERS = ("x1", "y1", "x2", "y2")  # columns of a table, in pixels
TRIAL = 600  # seconds that scipy may take
BOMB = 2**30, 200  # an array of more bytes that was packed to less than one in so many is not read


class Member(NamedTuple):
    """A file within a tar that is not compressed: `size` bytes of it, from `offset` on."""

    tar: str
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.tar}/{self.name}"


@contextmanager
def parsing(what: str, expected: str, *own_errors: type[Exception]) -> Iterator[None]:
    """Turns what a parser raises into the InputError "`what` cannot be read: why; `expected`"."""
    try:
        yield
    except InputError:
        raise
    except (*PARSER_ERRORS, *own_errors) as error:
        why = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(f"{what} cannot be read: {why}. Expected {expected}") from error


def regular_file(path: str | Path, what: str) -> Path:
    """`path`, once it is known to be a regular file that can be read; pipes and devices would never end.

    Raises:
        InputError: `what` is missing, out of reach or of another kind.
    """
    with opened(path, f"{what} cannot be read"):
        return Path(path)


def read_bytes(path: str | Path | Member, what: str, limit: int) -> bytes:
    """The content of a regular file, or of one in a tar, of at most `limit` bytes; see `regular_file`."""
    failure = f"cannot read {what}"
    member = path if isinstance(path, Member) else None
    with opened(member.tar if member else path, failure) as (descriptor, size):
        size = member.size if member else size
        if size > limit:
            raise InputError(f"{failure}: it has {size:,} bytes, at most {limit:,} were expected")
        with open(descriptor, "rb", buffering=0, closefd=False) as file:
            if member is None:
                return file.readall()
            file.seek(member.offset)
            return file.read(size)


@contextmanager
def opened(path: str | Path, failure: str) -> Iterator[tuple[int, int]]:
    """Descriptor and size of a regular file; `failure` is how an error begins."""
    descriptor = None
    try:
        descriptor = os.open(path, FLAGS)
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe, a device or a socket"
            raise InputError(f"{failure}: it is {kind}, and a file was expected")
        yield descriptor, found.st_size
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL or a lone surrogate
        why = error.strerror if isinstance(error, OSError) else f"no file can be called so ({error})"
        raise InputError(f"{printable(failure[:500])}: {why}") from error
    finally:
        if descriptor is not None:
            os.close(descriptor)


def is_file(path: Path) -> bool:
    """`path.is_file()`, and False of what no file can be called."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def read_text(path: str | Path, what: str) -> str:
    """The text of a file in UTF-8, or in UTF-16 with its mark, as spreadsheets save it; line ends as \\n."""
    data = read_bytes(path, what, TEXT_LIMIT)
    encoding = _encoding(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise _undecodable(what, encoding, f"{error.reason} at byte {error.start}") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise InputError(f"{what} is no text: it holds a zero byte in line {line}; save it as UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_table(path: Path, expected: str) -> Iterator[tuple[int, list[str]]]:
    """Number and fields, stripped, of each line that is not blank, one at a time; the first is the header.

    Fields are parted by comma, semicolon or tab, whichever the header has most of.
    """
    lines = text_lines(path, f"the table {path}")
    header = next(lines, "")
    with parsing(str(path), expected, csv.Error):
        found = csv.reader(chain([header], lines), delimiter=max(",;\t", key=header.count), skipinitialspace=True)
        for fields in found:
            if any(fields):
                yield found.line_num, [field.strip() for field in fields]


def text_lines(path: str | Path, what: str) -> Iterator[str]:
    """The lines of a file, as `read_text` reads it, without their ends, one at a time."""
    with opened(path, f"cannot read {what}") as (descriptor, _), open(descriptor, "rb", closefd=False) as file:
        encoding = _encoding(file.read(2))
        file.seek(0)
        text, number = io.TextIOWrapper(file, encoding), 0
        try:
            while line := text.readline(TEXT_LIMIT):
                number += 1
                if "\0" in line or len(line) == TEXT_LIMIT:
                    why = "it holds a zero byte" if "\0" in line else f"there are {TEXT_LIMIT:,} characters"
                    raise InputError(f"{what} is no text: {why} in line {number}; save it as UTF-8")
                yield line.removesuffix("\n")
        except UnicodeDecodeError as error:
            raise _undecodable(what, encoding, f"{error.reason} after line {number}") from error


def _encoding(start: bytes) -> str:
    """Of a text that begins so."""
    return "utf-16" if start[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"


def _undecodable(what: str, encoding: str, why: str) -> InputError:
    return InputError(f"{what} is not {encoding[:6].upper().rstrip('-')} text ({why}); save it as UTF-8")


def read_box(source: str, row: Mapping[str, str]) -> tuple[float, float, float, float] | None:
    """x1, y1, x2, y2 of a table's row, None where all are empty; `source` names its line.

    Raises:
        InputError: some of the four are empty or no finite numbers.
    """
    fields = [row.get(corner, "") for corner in CORNERS]
    if not any(fields):
        return None
    if not all(fields):
        raise InputError(f"{source}: a box has all of {', '.join(CORNERS)} or none")
    try:
        x1, y1, x2, y2 = map(float, fields)
    except ValueError as error:
        raise InputError(f"{source}: box {shortened(fields)}; expected numbers, with a point for decimals") from error
    if not all(map(math.isfinite, (x1, y1, x2, y2))):
        raise InputError(f"{source}: box {(x1, y1, x2, y2)}; expected finite numbers")
    return x1, y1, x2, y2


def parse_json(text: str, what: str):
    with parsing(what, "JSON"):
        return json.loads(text)


def read_npz(path: str | Path, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, or those of `names` that it holds; each is checked against its sum."""
    path = regular_file(path, str(path))
    with parsing(str(path), "an .npz file of arrays, as np.savez writes it"):
        with zipfile.ZipFile(path) as packed:
            for entry in packed.infolist():
                if entry.file_size > max(BOMB[0], entry.compress_size * BOMB[1]):
                    raise InputError(
                        f"{path}: {shortened(entry.filename)} would unpack {entry.compress_size:,} bytes to "
                        f"{entry.file_size:,}; save the arrays with np.savez"
                    )
        with np.load(path) as arrays:
            return {name: arrays[name] for name in arrays.files if names is None or name in names}


def read_safetensors(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays of a .safetensors file and its metadata."""
    import safetensors

    path = regular_file(path, str(path))
    with (
        parsing(str(path), "a .safetensors file of arrays", safetensors.SafetensorError),
        safetensors.safe_open(path, "np") as file,
    ):
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


def read_mat(path: str | Path, names: Collection[str], expected: str, squeeze: bool = False) -> dict[str, np.ndarray]:
    """Arrays of a .mat file, of any version of MATLAB: scipy reads up to 7.2, h5py what 7.3 writes.

    scipy itself dies of some damaged files, which nothing in Python can catch: a process of its own goes first.

    Raises:
        InputError: the file is damaged, or lacks one of `names`; `expected` says which file was asked for.
    """
    import h5py
    import scipy.io
    from scipy.io.matlab import MatReadError

    path = regular_file(path, str(path))
    if h5py.is_hdf5(path):
        with parsing(str(path), expected), h5py.File(path, "r") as file:
            arrays = {name: of_hdf5(file[name]) for name in names if name in file}
    else:
        trial = "import sys, scipy.io; scipy.io.loadmat(sys.argv[1])"
        command = [sys.executable, "-c", trial, str(path)]
        try:
            died = subprocess.run(command, stderr=subprocess.DEVNULL, timeout=TRIAL, check=False).returncode < 0
        except subprocess.TimeoutExpired:
            died = True
        if died:
            raise InputError(f"{path} cannot be read: it is damaged. Expected {expected}")
        with parsing(str(path), expected, MatReadError):
            arrays = scipy.io.loadmat(path, squeeze_me=squeeze)
    missing = [name for name in names if name not in arrays]
    if missing:
        held = ", ".join(sorted(name for name in arrays if not name.startswith("__"))) or "none of them"
        raise InputError(f"{path} has no array {', '.join(missing)}; it holds {held}. Expected {expected}")
    return arrays


def of_hdf5(item) -> np.ndarray:
    """MATLAB's arrays are transposed in HDF5."""
    array = np.asarray(item[()]).T
    if array.dtype.kind not in "biuf":
        raise InputError(f"{item.file.filename}: {item.name} holds no numbers; save it without -v7.3")
    return array
