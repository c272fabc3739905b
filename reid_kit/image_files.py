"""The image files of a folder: the one way in which datasets and commands list them."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from reid_kit.errors import InputError

SUFFIXES = {".jpg", ".jpeg", ".jpe", ".png", ".apng", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".gif", ".avif"}
SUFFIXES |= {".jp2", ".pbm", ".pgm", ".ppm", ".pnm", ".pam", ".sr", ".ras"}  # all that OpenCV decodes to 8-bit RGB
LITTER = {"thumbs.db", "desktop.ini", "__macosx"}  # what systems leave in a folder, with hidden files


class ImageFiles(NamedTuple):
    """paths: sorted. left_out: what was not taken for an image of the folder, in words."""

    paths: list[Path]
    left_out: list[str]


def find_images(folder: str | Path) -> ImageFiles:
    """All images below a folder, in its own folders and in linked ones, each folder once.

    Hidden files, with them the `._` companions that macOS writes, are no images.

    Raises:
        InputError: the folder, or one below it, is missing or cannot be read, or there is no image.
    """
    left_out: list[str] = []
    return ImageFiles(list(walk_images(folder, left_out)), left_out)


def walk_images(folder: str | Path, left_out: list[str]) -> Iterator[Path]:
    """What `find_images` finds, one by one in the same order: in memory are the names of one folder and those above it.

    Args:
        left_out: gets, at the end, what was not taken for an image of the folder, in words.
    """
    folder = Path(folder)
    found, links = 0, 0
    kinds: Counter[str] = Counter()
    first: dict[str, Path] = {}  # of the files, and of the links, that are left out
    seen: set[tuple[int, int]] = set()
    waiting = [iter([(folder, True)])]  # what stands in the folders on the way down, and whether it is a folder
    while waiting:
        path, is_folder = next(waiting[-1], (None, False))
        if path is None:
            waiting.pop()
        elif is_folder:
            try:
                place = os.stat(path)
                if (place.st_dev, place.st_ino) in seen:  # a link back, or a second way to the same folder
                    first.setdefault("link", path)
                    links += 1
                else:
                    seen.add((place.st_dev, place.st_ino))
                    waiting.append(_entries(path))
            except (OSError, ValueError) as error:
                if isinstance(error, FileNotFoundError) and path is folder:
                    raise InputError(f"no folder {folder}; unpack the dataset again") from error
                why = error.strerror if isinstance(error, OSError) else str(error)
                raise InputError(f"cannot read the folder {path} of images: {why}") from error
        elif path.suffix.lower() in SUFFIXES:
            found += 1
            yield path
        else:
            first.setdefault("file", path)
            kinds[path.suffix.lower() or "no suffix"] += 1
    if kinds:
        listed = ", ".join(f"{count:,} of {kind}" for kind, count in kinds.most_common(5))
        left_out.append(
            f"{kinds.total():,} files in {folder} are left out, as they are no images ({listed}): {first['file']}"
        )
    if links:
        left_out.append(f"{links:,} links in {folder} are left out, as they lead to where others do: {first['link']}")
    if not found:
        hint = f"; {left_out[0]}" if left_out else ""
        raise InputError(f"{folder} holds no image: no images below it have a suffix of {sorted(SUFFIXES)}{hint}")


def _entries(folder: Path) -> Iterator[tuple[Path, bool]]:
    """What stands in a folder, in the order of names, and whether it is a folder."""
    names, folders = [], set()
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith(".") and entry.name.lower() not in LITTER:
                names.append(entry.name)
                if entry.is_dir():
                    folders.add(entry.name)
    return ((folder / name, name in folders) for name in sorted(names))
