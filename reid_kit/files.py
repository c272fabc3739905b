"""Files that are either whole or absent, and folders that one process at a time works in."""

import hashlib
import json
import os
import platform
import re
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import ENOLCK, ENOSYS, EOPNOTSUPP
from pathlib import Path

from reid_kit.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt

LOCK = ".reid_kit.lock"
LEFTOVER = re.compile(r"\.([0-9a-f]{12}|[\w.-]+\.(?:pt|ya?ml|jsonl?|md|csv|png|npz|safetensors))\.(\d+)\.tmp")


def write_atomically(path: str | Path, content: bytes | memoryview | str) -> None:
    """Writes `content` beside `path` and renames it there, so that a crash or a full disk leaves the old file.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    with new_file(path) as temporary, open(temporary, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def new_file(path: str | Path, replace: bool = True) -> Iterator[Path]:
    """The path of a file to write within the `with`; at its end that file takes the place of `path`.

    Args:
        replace: False refuses a `path` that is there by then.

    Raises:
        InputError: the disk is full or the folder cannot be written; `path` is there and must not be replaced.
    """
    path = Path(path)
    temporary = path.with_name(f".{short_hash(path.name)}.{os.getpid()}.tmp")  # as short whatever the name
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        if not replace:
            refuse_existing(path)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}. Whatever stood there before is intact; free some space "
            f"or choose another folder, then run again"
        ) from error
    finally:
        with suppress(OSError):  # a disk that takes no write may take no removal: the first error is the one to show
            temporary.unlink(missing_ok=True)


def refuse_existing(path: str | Path) -> None:
    """
    Raises:
        InputError: there is a file or folder at `path`.
    """
    if os.path.lexists(path):
        raise InputError(f"{path} exists, and nothing is written over it; remove it or choose another --output")


def short_hash(text: str) -> str:
    """12 hexadecimal digits that stand for a text."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:12]


@contextmanager
def hold(folder: str | Path, otherwise: str) -> Iterator[None]:
    """Keeps other processes from working in `folder`, which is made if it is not there, until the end of the `with`.

    The lock is the operating system's and goes with the process, however that ends. What killed processes left half
    written in the folder is removed; a folder that was made here and is empty at the end too.

    Args:
        otherwise: what to do instead of waiting for its end, for the error.

    Raises:
        InputError: another process works there; the folder cannot be made or written.
    """
    folder = Path(folder)
    made = [place for place in (folder, *folder.parents) if not os.path.exists(place)]
    try:
        descriptor = _lock(folder, otherwise)
        try:
            clear_leftovers(folder)
            yield
        finally:
            with suppress(OSError):
                (folder / LOCK).unlink()  # before it is let go of, so that nobody holds a file without a name
            _held.discard(descriptor)
            os.close(descriptor)
    finally:
        for place in made:
            with suppress(OSError):  # it is not empty
                place.rmdir()


_held: set[int] = set()  # open locks of this process


def _forget_locks() -> None:
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):  # a child that outlives its parent must not go on holding what that held
    os.register_at_fork(after_in_child=_forget_locks)


def _lock(folder: Path, otherwise: str) -> int:
    """The descriptor of the folder's lock file, locked; it holds who locked it."""
    path = folder / LOCK
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not folder.exists():
                continue  # another process ended and removed it in between
            raise InputError(
                f"cannot write in the folder {folder}: {error.strerror}. Mend that, or {otherwise}"
            ) from error
        if not _locked(descriptor, folder):
            holder = _holder(descriptor)
            os.close(descriptor)
            raise InputError(f"{folder} is in use by another process ({holder}). Wait for its end, or {otherwise}")
        with suppress(OSError):
            if os.path.samestat(os.stat(path), os.fstat(descriptor)):  # not one that its holder just removed
                os.truncate(descriptor, 0)
                os.write(descriptor, f"pid {os.getpid()} on {platform.node()}".encode())
                _held.add(descriptor)
                return descriptor
        os.close(descriptor)


def _locked(descriptor: int, folder: Path) -> bool:
    try:
        if fcntl:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            os.lseek(descriptor, 2**30, os.SEEK_SET)  # past the text, which others may then read
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            os.lseek(descriptor, 0, os.SEEK_SET)
    except OSError as error:
        if error.errno not in (ENOLCK, ENOSYS, EOPNOTSUPP):
            return False
        warnings.warn(f"{folder}: this file system has no locks; see to it that one process works there", stacklevel=4)
    return True


def _holder(descriptor: int) -> str:
    for _ in range(20):  # it writes its name a moment after it has the lock
        if text := os.pread(descriptor, 200, 0) if hasattr(os, "pread") else os.read(descriptor, 200):
            return text.decode(errors="replace")
        time.sleep(0.05)
    return "its pid is not known"


def clear_leftovers(folder: Path, name: str | None = None) -> None:
    """Removes what processes that are no more left half written in `folder`: of any file, or of `name` alone."""
    wanted = name and short_hash(name)
    for path in folder.iterdir():
        match = LEFTOVER.fullmatch(path.name)
        if match and wanted in (None, match[1]) and not is_alive(int(match[2])):
            with suppress(OSError):
                path.unlink()


def is_alive(pid: int) -> bool:
    if fcntl is None:  # Windows has no signal that only asks
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def remove_tree(folder: Path, names: re.Pattern) -> None:
    """Removes the files below `folder` whose path there is one of `names`, then what folders are empty."""
    for place, folders, files in os.walk(folder, topdown=False):
        for file in files:
            path = Path(place, file)
            if names.fullmatch(path.relative_to(folder).as_posix()):
                path.unlink()
        for below in folders:
            with suppress(OSError):  # it is not empty, or a link
                Path(place, below).rmdir()
    with suppress(OSError):
        folder.rmdir()


def read_stamp(path: Path, kind: str) -> dict | None:
    """What a JSON file of ours says of the folder it stands in; None where it is missing, or is not of this `kind`."""
    try:
        stamp = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return stamp if isinstance(stamp, dict) and stamp.get("kind") == kind else None


def take_folder(folder: Path, stamp: str, kind: str, otherwise: str) -> dict | None:
    """What the `stamp` of a folder says that is about to be written in; None where the folder is empty.

    Raises:
        InputError: it holds files, and no stamp that says that they are ours.
    """
    found = read_stamp(folder / stamp, kind)
    if found is None and (others := [path.name for path in folder.iterdir() if path.name != LOCK]):
        raise InputError(
            f"{folder} is not this {kind}: it holds {min(others)}, and is left alone. Move that, or {otherwise}"
        )
    return found
