"""What a gallery knows of an image, and of itself."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from reid_kit.errors import InputError
from reid_kit.operating_point import OperatingPoint

KIND, FORMAT = "reid_kit gallery", 1
EMBED_DISTANCES = {"cosine": "cosine distance", "euclidean": "Euclidean distance"}  # by metric


@dataclass(frozen=True)
class Entry:
    """An image, or a box of one: path and box are its key.

    identity, camera, time: any text; "" where they are not known. columns: what else is known of it, as text.
    box: x1, y1, x2, y2 in pixels, x2 and y2 exclusive.
    stamp: the file's size and time of change when it was embedded. source: the folder or table that lists it.
    """

    path: str
    box: tuple[float, float, float, float] | None = None
    identity: str = ""
    camera: str = ""
    time: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    stamp: str = ""
    source: str = ""

    @property
    def key(self) -> tuple[str, str]:
        return self.path, box_text(self.box)


@dataclass(frozen=True)
class Match(Entry):
    """An entry at a distance from a query."""

    distance: float = float("nan")


class Where(NamedTuple):
    """Which entries a search is about: of these cameras, of none of those, of these identities; () is any."""

    camera: tuple[str, ...] = ()
    not_camera: tuple[str, ...] = ()
    identity: tuple[str, ...] = ()


@dataclass(frozen=True)
class Description:
    """Who made a gallery's vectors, how they are compared, and how near is near enough.

    fingerprint: of the weights. backbone, height, width (pixels), flip: of the model and its input. size: D.
    metric: "euclidean" or "cosine", of L2-normalised vectors. number_type: "float32" or "float16".
    thresholds: on that distance. thresholds_from: the data that they were measured on.
    approximate: kind, recall and settings of an approximate index, where there is one.
    """

    fingerprint: str
    backbone: str
    height: int
    width: int
    flip: bool
    size: int
    metric: str
    number_type: str
    thresholds: tuple[OperatingPoint, ...] = ()
    thresholds_from: str = ""
    approximate: Mapping | None = None

    def as_json(self) -> str:
        return json.dumps({"kind": KIND, "format": FORMAT, **asdict(self)}, indent=1)


def read_description(text: str | bytes, name: str) -> Description:
    """The description of a gallery called `name`.

    Raises:
        InputError: it is no such description, or one of a later version.
    """
    try:
        content = json.loads(text)
        if content.pop("kind") != KIND:
            raise ValueError("it is of another kind")
        form = int(content.pop("format"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{name} is no gallery: its description cannot be read ({error})") from error
    if form > FORMAT:
        raise InputError(f"{name} is a gallery of format {form}, this version reads up to {FORMAT}; update reid_kit")
    try:
        points = tuple(
            OperatingPoint(**{key: tuple(value) if isinstance(value, list) else value for key, value in point.items()})
            for point in content.pop("thresholds")
        )
        return Description(**content, thresholds=points)
    except (TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{name} is a damaged gallery: its description lacks something ({error})") from error


def as_entry(image: Entry | str | Path) -> Entry:
    """An entry of a file, by its absolute path, with the file's stamp.

    Raises:
        InputError: the file is not there, or its name is no text.
    """
    entry = image if isinstance(image, Entry) else Entry(os.fspath(image))
    path = os.path.abspath(entry.path)
    return replace(checked(replace(entry, path=path)), stamp=entry.stamp or stamp_of(path))


def checked(entry: Entry) -> Entry:
    texts = (entry.path, entry.identity, entry.camera, entry.time, *entry.columns, *entry.columns.values())
    if wrong := [text for text in texts if not isinstance(text, str)]:
        raise InputError(f"{entry.path}: what a gallery keeps of an image is text, got {wrong[0]!r}")
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{entry.path!r} cannot be kept: its name is not UTF-8 text; rename it") from error
    return entry


def stamp_of(path: str) -> str:
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read image {path}: {getattr(error, 'strerror', None) or error}") from error
    return f"{status.st_size} {status.st_mtime_ns}"


def stamped(entry: Entry, on_bad_image: str) -> Entry:
    """By its absolute path, with the file's stamp; with "skip" a missing file is left to be skipped when it is read."""
    entry = checked(replace(entry, path=os.path.abspath(entry.path)))
    try:
        return replace(entry, stamp=stamp_of(entry.path))
    except InputError:
        if on_bad_image == "error":
            raise
        return entry


def box_text(box: Iterable[float] | None) -> str:
    return "" if box is None else " ".join(f"{float(value):.10g}" for value in box)


def box_of_text(text: str) -> tuple[float, float, float, float] | None:
    return tuple(map(float, text.split())) if text else None
