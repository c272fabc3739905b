"""Your own images: a folder a person or product, or a table."""

import os
import random
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from reid_kit.data.readers.registry import register
from reid_kit.data.records import Protocol, Record, RetrievalDataset, numbers_of, own_numbers_of
from reid_kit.errors import InputError, shortened
from reid_kit.image import Box
from reid_kit.image_files import ImageFiles, find_images
from reid_kit.reading import read_box, read_table

COLUMNS = ("path", "identity", "split", "camera", "x1", "y1", "x2", "y2", "domain")
SPLITS = ("train", "query", "gallery", "test")
HEADER = "path,identity,split[,camera][,x1,y1,x2,y2][,domain]"


@register("folder", markers=("train",), source="A folder of yours: train/ID/*.jpg, query/ID/*.jpg, gallery/ID/*.jpg.")
def folder(folder: Path, split: float = 0.0, seed: int = 0) -> RetrievalDataset:
    """Images in train/ID/, query/ID/ and gallery/ID/, where ID is any name, the same in query and gallery for the same
    identity. Without query/, gallery/ (or test/) is both, and each image ignores itself. No cameras, no boxes.

    With a `split` above 0 the folder holds ID/*.jpg, and that share of identities is drawn, by the `seed`, as test/.
    """
    if split:
        return drawn_folder(folder, split, seed)
    test = folder / ("gallery" if (folder / "gallery").is_dir() else "test")
    if not test.is_dir():
        raise InputError(f"{folder} has neither gallery/ nor test/; expected gallery/ID/*.jpg to test on")
    images = {split: identities(path) for split, path in (("train", folder / "train"), ("gallery", test))}
    if (folder / "query").is_dir():
        images["query"] = identities(folder / "query")
    numbers = numbers_of(name for found in images.values() for name in found)
    left_out = [text for found in images.values() for files in found.values() for text in files.left_out]

    def records(split: str) -> list[Record]:
        found = images[split].items()
        return [Record(path, numbers[name], identity_name=name) for name, files in found for path in files.paths]

    gallery = records("gallery")
    query = records("query") if "query" in images else gallery
    protocol = Protocol(camera_aware=False, same_set=query is gallery)
    return RetrievalDataset("folder", records("train"), query, gallery, protocol, left_out=left_out)


def drawn_folder(folder: Path, split: float, seed: int) -> RetrievalDataset:
    """A folder of ID/*.jpg."""
    if inside := [name for name in ("train", *SPLITS) if (folder / name).is_dir()]:
        raise InputError(f"{folder} has {inside[0]}/, so it is split already; leave the split out")
    images = identities(folder)
    numbers, tested = numbers_of(images), draw_identities(images, split, seed)
    train, test = (
        [
            Record(path, numbers[name], identity_name=name)
            for name, files in images.items()
            if (name in tested) == wanted
            for path in files.paths
        ]
        for wanted in (False, True)
    )
    left_out = [text for files in images.values() for text in files.left_out]
    drawn = said(split, seed, tested, images)
    return RetrievalDataset("folder", train, test, test, Protocol(False, same_set=True), left_out=left_out, drawn=drawn)


def draw_identities(names: Iterable[str], split: float, seed: int) -> set[str]:
    """A share of the identities, at least one and not all, the same for the same names and seed."""
    names = sorted(set(names))
    if not 0 < split < 1 or len(names) < 2:
        raise InputError(f"a split is a share between 0 and 1 of two identities or more; got {split} of {len(names)}")
    return set(random.Random(seed).sample(names, min(max(round(split * len(names)), 1), len(names) - 1)))


def said(split: float, seed: int, tested: Collection[str], names: Collection[str]) -> str:
    return f"drawn to test with: {len(tested):,} of {len(names):,} identities (split {split:g}, seed {seed})"


def identities(split: Path) -> dict[str, ImageFiles]:
    """Name -> images, in order."""
    found = {path.name: path for path in sorted(split.iterdir()) if path.is_dir() and not path.name.startswith(".")}
    if not found:
        raise InputError(f"{split} holds no folder of an identity; expected {split}/ID/*.jpg")
    return {name: find_images(path) for name, path in found.items()}


@dataclass(frozen=True)
class Row:
    """A row of a table: `source` names its line; `box` is None where it has none, other fields are "" there."""

    source: str
    path: Path
    identity: str
    split: str
    camera: str
    box: Box | None
    domain: str


@register("csv", markers=("dataset.csv",), source="A table of yours, or a folder with one called dataset.csv.")
def csv(folder: Path, split: float = 0.0, seed: int = 0) -> RetrievalDataset:
    """A table `path,identity,split[,camera][,x1,y1,x2,y2][,domain]`, with paths relative to it, splits train, query,
    gallery or test, boxes in pixels; identities and cameras are any text, and "7" and "007" are two.

    An image is a path and its box: rows of one photo with other boxes are other images. An image may be a query and in
    the gallery at once, in two rows; rows of `test` are all both. A query never finds itself: it ignores its identity
    in its own camera, and where the table has no cameras, the very image. Cameras are given for all rows that are
    tested or for none. With a `split` above 0 the table has no such column, and that share of identities is drawn, by
    the `seed`, as rows of `test`.
    """
    file = folder if folder.is_file() else folder / "dataset.csv"
    rows, drawn = read_rows(file, split > 0), ""
    if split:
        names = {row.identity for row in rows}
        chosen = draw_identities(names, split, seed)
        rows = [replace(row, split="test" if row.identity in chosen else "train") for row in rows]
        drawn = said(split, seed, chosen, names)
    check_images_once(rows)
    check_names(file, "identity", {row.identity: row.source for row in rows})
    check_names(file, "camera", {row.camera: row.source for row in rows if row.camera})
    tested = [row for row in rows if row.split != "train"]
    check_cameras(file, tested)
    numbers = numbers_of(row.identity for row in rows)
    cameras = own_numbers_of(row.camera for row in rows if row.camera)
    splits: dict[str, list[Record]] = {split: [] for split in SPLITS}
    for row in rows:
        splits[row.split].append(
            Record(
                row.path,
                numbers[row.identity],
                cameras.get(row.camera),
                row.box,
                row.domain or None,
                row.source,
                identity_name=row.identity,
                camera_name=row.camera,
            )
        )
    if splits["test"] and (splits["query"] or splits["gallery"]):
        raise InputError(f"{file} has rows of test and of query or gallery; use either test alone or the two others")
    query, gallery = (splits["test"],) * 2 if splits["test"] else (splits["query"], splits["gallery"])
    if not gallery or not query:
        raise InputError(f"{file} has nothing to test on; expected rows of query and gallery, or of test")
    camera_aware = bool(tested[0].camera)
    keys = [(os.path.normpath(record.path), record.box) for record in query + gallery]
    if not camera_aware and query is not gallery and len(set(keys)) < len(keys):
        # each image stands for a camera of its own, which has no name: so a query ignores itself in the gallery
        own = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        both = [replace(record, camera=own[key]) for record, key in zip(query + gallery, keys)]
        query, gallery, camera_aware = both[: len(query)], both[len(query) :], True
    protocol = Protocol(camera_aware, query is gallery)
    return RetrievalDataset("csv", splits["train"], query, gallery, protocol, drawn=drawn)


def read_rows(file: Path, drawn: bool = False) -> list[Row]:
    """The rows of a table whose fields are parted by comma, semicolon or tab, whichever its header has most of.

    Args:
        drawn: it has no column `split`.
    """
    lines = list(read_table(file, f"a table {HEADER}"))
    names = [name.lower() for name in lines[0][1]] if lines else []
    wrong = [name for name in names if name not in COLUMNS or names.count(name) > 1]
    missing = [name for name in COLUMNS[: 2 if drawn else 3] if name not in names]
    if drawn and "split" in names:
        raise InputError(f"{file} has a column split; leave out the split that is to be drawn, or that column")
    if missing == ["split"] and not wrong:
        raise InputError(
            f"{file}: no column split; add it, or let one be drawn: --split 0.3 (DATA.OPTIONS {{split: 0.3}})"
        )
    if wrong or missing:
        problem = f"no column {', '.join(missing)}" if missing else f"unknown column {shortened(wrong)[1:-1]}"
        raise InputError(f"{file}: {problem}; the header is {HEADER}")
    rows = []
    for number, fields in lines[1:]:
        source = f"{file.name}:{number}"
        if len(fields) != len(names):
            raise InputError(f"{source}: another number of fields than the header's {len(names)}")
        row = dict(zip(names, fields))
        if not row["path"] or not row["identity"]:
            raise InputError(f"{source}: path and identity must not be empty")
        row.setdefault("split", "train")  # to be drawn
        if row["split"].lower() not in SPLITS:
            raise InputError(
                f"{source}: split {shortened(row['split'])}; expected one of {', '.join(SPLITS)}. Identities to choose "
                f"weights on are of train: DATA.VALIDATION 0.15 holds that share of them out"
            )
        path = file.parent / os.path.expanduser(row["path"])
        box = read_box(source, row)
        camera, domain = row.get("camera", ""), row.get("domain", "")
        rows.append(Row(source, path, row["identity"], row["split"].lower(), camera, box, domain))
    return rows


def check_images_once(rows: Iterable[Row]) -> None:
    """Raises InputError for an image in two rows, other than once as a query and once in the gallery."""
    photos: dict[str, list[Row]] = {}
    for row in rows:
        photo = photos.setdefault(os.path.normpath(row.path), [])
        for other in photo:
            if None not in (row.box, other.box) and row.box != other.box:
                continue
            if {row.split, other.split} != {"query", "gallery"} or row.box != other.box:
                raise InputError(
                    f"{row.source}: path {row.path.name} stands in {other.source} already, as the same image; rows of "
                    f"one photo need a box each, and only a query may stand in the gallery too"
                )
            if (row.identity, row.camera) != (other.identity, other.camera):
                raise InputError(
                    f"{row.source}: {row.path.name} is of {row.identity!r}, camera {row.camera!r} here, of "
                    f"{other.identity!r}, camera {other.camera!r} in {other.source}"
                )
        photo.append(row)


def check_names(file: Path, column: str, names: dict[str, str]) -> None:
    """Raises InputError for two names of which one is the other as a spreadsheet writes numbers: 2 and 2.0."""
    for name, source in names.items():
        whole = re.sub(r"\.0+$", "", name)
        if whole != name and whole in names and whole.isdecimal():
            raise InputError(
                f"{file}: {column} {name!r} ({source}) and {whole!r} ({names[whole]}) are two names of what looks like "
                f"one; write it one way (pandas: read the column as text, or as Int64)"
            )


def check_cameras(file: Path, rows: list[Row]) -> None:
    """Raises InputError where some of the tested rows have a camera and others none."""
    without = [row.source for row in rows if not row.camera]
    if without and len(without) < len(rows):
        raise InputError(
            f"{file}: {len(without):,} of {len(rows):,} rows to test on have no camera ({', '.join(without[:5])}); "
            f"give each its camera, or leave the column out, which switches the camera rule off for all"
        )
