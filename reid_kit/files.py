"""Files that are either whole or absent."""

import os
from pathlib import Path

from reid_kit.errors import InputError


def write_atomically(path: str | Path, content: bytes | memoryview | str) -> None:
    """Writes `content` beside `path` and renames it there, so that a crash or a full disk leaves the old file.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(
            f"cannot write {path} ({len(data) / 1e6:.1f} MB): {error.strerror}. Whatever stood there before is intact; "
            f"free some space or choose another folder, then run again"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
