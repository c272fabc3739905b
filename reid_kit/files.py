"""Files that are either whole or absent."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reid_kit.errors import InputError


def write_atomically(path: str | Path, content: bytes | memoryview | str) -> None:
    """Writes `content` beside `path` and renames it there, so that a crash or a full disk leaves the old file.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    with new_file(path) as temporary, open(temporary, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def new_file(path: str | Path) -> Iterator[Path]:
    """The path of a file to write within the `with`; at its end that file takes the place of `path`.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror}. Whatever stood there before is intact; free some space or choose "
            f"another folder, then run again"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
