"""Decoded and resized images, kept from one epoch to the next: in memory that the workers share, or on the disk.

What is kept goes by the file's size and time of change, and carries a sum of its pixels: a file that changed is read
again, and what a killed process left half written is not taken. Pixels are those that reading the file gives.
"""

import hashlib
import json
import os
import threading
import warnings
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from reid_kit.errors import InputError
from reid_kit.files import LEFTOVER, clear_leftovers, read_stamp, short_hash, write_atomically
from reid_kit.image import Box, read_resized

STAMP, KIND = "cache.json", "image cache of reid_kit"
VERSION = 1  # of the way from a file to pixels: others are not taken
SHARED_MEMORY = "/dev/shm"  # where Linux keeps what processes share
SHARE = 0.5  # of what is free there, at the most
PARTS = 256  # folders on the disk, each with its share of the limit, so that what it holds is soon counted
SUM = 4  # bytes before the pixels of a file on the disk


class RamCache:
    """The first of `count` images of a list, as many as find room, in shared memory: it ends with the process.

    Args:
        size: (height, width) of an image. limit: bytes that they may take.
    """

    def __init__(self, count: int, size: tuple[int, int], limit: float):
        with suppress(OSError, AttributeError):  # no Linux
            disk = os.statvfs(SHARED_MEMORY)
            limit = min(limit, SHARE * disk.f_bavail * disk.f_frsize)
        limit /= int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # each process keeps its own
        self.count = min(count, int(limit // (3 * size[0] * size[1])))
        if self.count < count:
            warnings.warn(
                f"DATA.CACHE ram has room for {self.count:,} of {count:,} images (DATA.CACHE_GB, {SHARED_MEMORY}); the "
                f"others are read each time",
                stacklevel=2,
            )
        self.images = torch.empty((self.count, *size, 3), dtype=torch.uint8).share_memory_()
        self.stamps = torch.zeros((self.count, 3), dtype=torch.int64).share_memory_()

    def read(
        self, index: int, path: str | Path, box: Box | None, source: str | None, size: tuple[int, int]
    ) -> np.ndarray:
        """What `read_resized` gives of the image at position `index` of the list."""
        stamp = stamp_of(path)
        if index >= self.count or stamp is None:
            return read_resized(path, box, source, size)
        kept, known = self.images[index].numpy(), self.stamps[index].numpy()
        image = kept.copy()
        if tuple(known) == (*stamp, zlib.crc32(image)):
            return image
        image = read_resized(path, box, source, size)
        kept[:], known[:] = image, (*stamp, zlib.crc32(image))
        return image


class DiskCache:
    """Images in a folder, one file each, that any number of runs may share and anybody may delete.

    Args:
        limit: bytes that the folder may take; what finds no room is read from its own file each time.

    Raises:
        InputError: the folder holds what is not ours, or cannot be written.
    """

    def __init__(self, folder: str | Path, limit: float):
        self.folder, self.limit = Path(folder).expanduser().absolute(), limit
        self.failed = False
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._take()
            for number in range(PARTS):
                part = self.folder / f"{number:02x}"
                part.mkdir(exist_ok=True)
                clear_leftovers(part)
        except OSError as error:
            raise InputError(
                f"cannot write in the folder {self.folder}: {error.strerror}; choose another DATA.CACHE_FOLDER"
            ) from error

    def _take(self) -> None:
        if read_stamp(self.folder / STAMP, KIND):
            return
        others = [path.name for path in self.folder.iterdir() if not LEFTOVER.fullmatch(path.name)]
        if others and not read_stamp(self.folder / STAMP, KIND):  # another run may just have begun it
            raise InputError(
                f"{self.folder} is no {KIND}: it holds {min(others)}, and is left alone. Choose another "
                f"DATA.CACHE_FOLDER"
            )
        write_atomically(self.folder / STAMP, json.dumps({"kind": KIND}))

    def read(
        self, index: int, path: str | Path, box: Box | None, source: str | None, size: tuple[int, int]
    ) -> np.ndarray:
        """What `read_resized` gives of the image; `index` is of no account."""
        stamp = stamp_of(path)
        if stamp is None:
            return read_resized(path, box, source, size)
        key = hashlib.sha256(repr((VERSION, os.path.abspath(path), *stamp, box, size)).encode(errors="surrogateescape"))
        place = self.folder / key.hexdigest()[:2] / key.hexdigest()[2:34]
        with suppress(OSError):
            data = place.read_bytes()
            if len(data) == SUM + 3 * size[0] * size[1] and zlib.crc32(data[SUM:]) == int.from_bytes(data[:SUM], "big"):
                return np.frombuffer(bytearray(data), np.uint8, offset=SUM).reshape(*size, 3)
        image = read_resized(path, box, source, size)
        self._keep(place, image)
        return image

    def _keep(self, place: Path, image: np.ndarray) -> None:
        """Writes a file whole or not at all; a disk that takes no more costs speed, not the run."""
        temporary = place.with_name(f".{short_hash(f'{place.name} {threading.get_ident()}')}.{os.getpid()}.tmp")
        try:
            with os.scandir(place.parent) as files:
                used = sum(file.stat().st_size for file in files)
            if used + SUM + image.nbytes > self.limit / PARTS:
                return
            temporary.write_bytes(zlib.crc32(np.ascontiguousarray(image)).to_bytes(SUM, "big") + image.tobytes())
            os.replace(temporary, place)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            if not self.failed and not isinstance(error, FileNotFoundError):  # somebody deletes the folder
                self.failed = True
                warnings.warn(f"DATA.CACHE_FOLDER takes no more images: {place}: {error.strerror}", stacklevel=3)


def stamp_of(path: str | Path) -> tuple[int, int] | None:
    """Size and time of the last change of a file, in bytes and ns; None where there is none: reading it says why."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_size, found.st_mtime_ns
