"""The image files of a folder: the one way in which datasets and commands list them."""

import os
from collections import Counter
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
    folder = Path(folder)
    found: list[Path] = []
    other: list[Path] = []
    linked: list[Path] = []
    seen: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        try:
            place = os.stat(here)
            if (place.st_dev, place.st_ino) in seen:  # a link back, or a second way to the same folder
                linked.append(here)
                continue
            seen.add((place.st_dev, place.st_ino))
            with os.scandir(here) as entries:
                for entry in entries:
                    path = here / entry.name
                    if entry.name.startswith(".") or entry.name.lower() in LITTER:
                        continue
                    if entry.is_dir():
                        waiting.append(path)
                    else:
                        (found if path.suffix.lower() in SUFFIXES else other).append(path)
        except (OSError, ValueError) as error:
            if isinstance(error, FileNotFoundError) and here is folder:
                raise InputError(f"no folder {folder}; unpack the dataset again") from error
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise InputError(f"cannot read the folder {here} of images: {why}") from error
    left_out = []
    if other:
        kinds = Counter(path.suffix.lower() or "no suffix" for path in other).most_common(5)
        listed = ", ".join(f"{count:,} of {kind}" for kind, count in kinds)
        left_out.append(f"{len(other):,} files in {folder} are left out, as they are no images ({listed}): {other[0]}")
    if linked:
        left_out.append(f"{len(linked):,} links in {folder} are left out, as they lead to where others do: {linked[0]}")
    if not found:
        hint = f"; {left_out[0]}" if left_out else ""
        raise InputError(f"{folder} holds no image: no images below it have a suffix of {sorted(SUFFIXES)}{hint}")
    return ImageFiles(sorted(found), left_out)
