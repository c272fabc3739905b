"""Your own images: a folder a person or product, or a table."""

import csv as csv_module
import io
from pathlib import Path

from reid_kit.data.readers.registry import list_images, register
from reid_kit.data.records import Protocol, Record, RetrievalDataset
from reid_kit.errors import InputError

COLUMNS = ("path", "identity", "split", "camera", "x1", "y1", "x2", "y2", "domain")
SPLITS = ("train", "query", "gallery", "test")


@register("folder", markers=("train",), source="A folder of yours: train/ID/*.jpg, query/ID/*.jpg, gallery/ID/*.jpg.")
def folder(folder: Path) -> RetrievalDataset:
    """Images in train/ID/, query/ID/ and gallery/ID/, where ID is any name, the same in query and gallery for the same
    identity. Without query/, gallery/ (or test/) is both, and each image ignores itself. No cameras, no boxes."""
    test = folder / ("gallery" if (folder / "gallery").is_dir() else "test")
    if not test.is_dir():
        raise InputError(f"{folder} has neither gallery/ nor test/; expected gallery/ID/*.jpg to test on")
    names = {split: identities(path) for split, path in (("train", folder / "train"), ("gallery", test))}
    if (folder / "query").is_dir():
        names["query"] = identities(folder / "query")
    numbers = {name: number for number, name in enumerate(sorted({n for found in names.values() for n in found}), 1)}

    def records(split: str) -> list[Record]:
        return [Record(path, numbers[name]) for name, where in names[split].items() for path in list_images(where)]

    gallery = records("gallery")
    query = records("query") if "query" in names else gallery
    protocol = Protocol(camera_aware=False, same_set=query is gallery)
    return RetrievalDataset("folder", records("train"), query, gallery, protocol)


def identities(split: Path) -> dict[str, Path]:
    """Name -> folder, in order."""
    found = {path.name: path for path in sorted(split.iterdir()) if path.is_dir() and not path.name.startswith(".")}
    if not found:
        raise InputError(f"{split} holds no folder of an identity; expected {split}/ID/*.jpg")
    return found


@register("csv", markers=("dataset.csv",), source="A table of yours, or a folder with one called dataset.csv.")
def csv(folder: Path) -> RetrievalDataset:
    """A table `path,identity,split[,camera][,x1,y1,x2,y2][,domain]`, with paths relative to it, splits train, query,
    gallery or test, cameras as integers, boxes in pixels. Rows of `test` are query and gallery at once, each ignoring
    itself. The camera rule holds where every row that is tested has a camera."""
    file = folder if folder.is_file() else folder / "dataset.csv"
    rows = read_rows(file)
    numbers = {name: number for number, name in enumerate(sorted({row["identity"] for _, row in rows}), 1)}
    splits: dict[str, list[Record]] = {split: [] for split in SPLITS}
    seen: dict[str, str] = {}
    for source, row in rows:
        if row["path"] in seen:
            raise InputError(f"{source}: path {row['path']} stands in {seen[row['path']]} already")
        seen[row["path"]] = source
        if row["split"] not in splits:
            raise InputError(f"{source}: split {row['split']!r}; expected one of {', '.join(SPLITS)}")
        splits[row["split"]].append(to_record(file, source, row, numbers))
    if splits["test"] and (splits["query"] or splits["gallery"]):
        raise InputError(f"{file} has rows of test and of query or gallery; use either test alone or the two others")
    query, gallery = (splits["test"],) * 2 if splits["test"] else (splits["query"], splits["gallery"])
    if not gallery or not query:
        raise InputError(f"{file} has nothing to test on; expected rows of query and gallery, or of test")
    cameras = all(record.camera is not None for record in query + gallery)
    protocol = Protocol(camera_aware=cameras and query is not gallery, same_set=query is gallery)
    return RetrievalDataset("csv", splits["train"], query, gallery, protocol)


def read_rows(file: Path) -> list[tuple[str, dict[str, str]]]:
    try:
        text = file.read_text("utf-8-sig")  # a table saved by Excel begins with a mark
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 text ({error.reason}); save the table as CSV UTF-8") from error
    with io.StringIO(text, newline="") as lines:
        reader = csv_module.DictReader(lines)
        header = reader.fieldnames or []
        wrong = [name for name in header if name not in COLUMNS]
        missing = [name for name in COLUMNS[:3] if name not in header]
        if wrong or missing:
            problem = f"no column {', '.join(missing)}" if missing else f"unknown column {', '.join(map(repr, wrong))}"
            raise InputError(f"{file}: {problem}; the header is path,identity,split[,camera][,x1,y1,x2,y2][,domain]")
        rows = [(f"{file.name}:{reader.line_num}", row) for row in reader]
    for source, row in rows:
        if None in row or None in row.values():
            raise InputError(f"{source}: another number of fields than the header's {len(header)}")
        if not row["path"] or not row["identity"]:
            raise InputError(f"{source}: path and identity must not be empty")
    return rows


def to_record(file: Path, source: str, row: dict[str, str], numbers: dict[str, int]) -> Record:
    def number(name: str, kind: type):
        text = row.get(name) or ""
        try:
            return kind(text) if text else None
        except ValueError as error:
            raise InputError(f"{source}: {name} {text!r} is no {kind.__name__}") from error

    box = tuple(number(name, float) for name in ("x1", "y1", "x2", "y2"))
    given = [value is not None for value in box]
    if any(given) and not all(given):
        raise InputError(f"{source}: a box has all of x1, y1, x2, y2 or none")
    if all(given) and not (box[0] < box[2] and box[1] < box[3]):
        raise InputError(f"{source}: box {box} is inverted or empty; expected x1 < x2, y1 < y2")
    return Record(
        file.parent / row["path"],
        numbers[row["identity"]],
        camera=number("camera", int),
        box=box if all(given) else None,
        domain=row.get("domain") or None,
        source=source,
    )
