"""The sets of metric learning, whose test images are query and gallery at once: SOP, CUB-200-2011, Cars196."""

import math
from pathlib import Path

import numpy as np

from reid_kit.data.readers.lists import read_headed, read_lines, whole_number
from reid_kit.data.readers.registry import Counts, register
from reid_kit.data.records import Protocol, Record, RetrievalDataset
from reid_kit.errors import InputError, shortened
from reid_kit.reading import parsing, read_mat


def recall_and_nmi(*ranks: int) -> Protocol:
    measures = (*(f"Recall@{k}" for k in ranks), "NMI")
    return Protocol(camera_aware=False, same_set=True, ranks=ranks, nmi=True, measures=measures)


PRODUCTS, CLASSES = recall_and_nmi(1, 10, 100, 1000), recall_and_nmi(1, 2, 4, 8, 16, 32)


@register(
    "sop",
    folders=("Stanford_Online_Products", "sop"),
    markers=("Ebay_train.txt",),
    source="Get Stanford_Online_Products.zip (Song et al. 2016) and unpack it there.",
    counts=Counts((59551, 11318), (60502, 11316), (60502, 11316)),
)
def sop(folder: Path) -> RetrievalDataset:
    """Stanford Online Products: Ebay_train.txt and Ebay_test.txt with columns image_id class_id super_class_id path;
    59,551 training images of 11,318 products, 60,502 test images of 11,316."""
    columns = ("image_id", "class_id", "super_class_id", "path")
    train, test = (
        [
            Record(folder / fields["path"], whole_number(source, "class_id", fields["class_id"]), source=source)
            for source, fields in read_headed(folder / f"Ebay_{split}.txt", columns)
        ]
        for split in ("train", "test")
    )
    return one_test_set("sop", train, test, PRODUCTS)


@register(
    "cub200",
    folders=("CUB_200_2011", "cub200"),
    markers=("images.txt",),
    source="Get CUB_200_2011.tgz (Wah et al. 2011) and unpack it there.",
    counts=Counts((5864, 100), (5924, 100), (5924, 100)),
)
def cub200(folder: Path) -> RetrievalDataset:
    """CUB-200-2011: images.txt (image id, path), image_class_labels.txt (image id, class), bounding_boxes.txt (image
    id, x, y, width, height), images/. The first 100 classes train (5,864 images), the rest test (5,924)."""
    classes = keyed(folder / "image_class_labels.txt", 1)
    boxes = keyed(folder / "bounding_boxes.txt", 4) if (folder / "bounding_boxes.txt").exists() else {}
    records = []
    for number, (source, (path,)) in keyed(folder / "images.txt", 1).items():
        if number not in classes:
            raise InputError(f"{folder / 'image_class_labels.txt'} has no class of image {number}")
        line, (identity,) = classes[number]
        box = None
        if number in boxes:
            source, fields = boxes[number]
            box = corners(source, fields)
        identity = whole_number(line, "class", identity)
        records.append(Record(folder / "images" / path, identity, box=box, source=source))
    return by_class("cub200", records, 100)


@register(
    "cars196",
    folders=("Cars196", "cars196"),
    markers=("cars_annos.mat",),
    source="Get car_ims.tgz and cars_annos.mat (Krause et al. 2013) and put both there.",
    counts=Counts((8054, 98), (8131, 98), (8131, 98)),
)
def cars196(folder: Path) -> RetrievalDataset:
    """Cars196: cars_annos.mat with path, class and box of each image of car_ims/. The first 98 classes train (8,054
    images), the rest test (8,131)."""
    file, expected = folder / "cars_annos.mat", "the authors' cars_annos.mat: path, class and box of each image"
    annotations = read_mat(file, ["annotations"], expected, squeeze=True)["annotations"]
    if annotations.ndim != 1:
        raise InputError(f"{file}: annotations of shape {annotations.shape}. Expected {expected}")
    with parsing(str(file), expected):
        records = [car(folder, entry, f"cars_annos.mat, entry {n}") for n, entry in enumerate(annotations, 1)]
    return by_class("cars196", records, 98)


def car(folder: Path, entry: np.void, source: str) -> Record:
    """The record of an entry of cars_annos.mat, whose corners are pixels of the car, counted from 1."""
    identity, *corners = (float(entry[name]) for name in ("class", "bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2"))
    path = str(entry["relative_im_path"])
    if not all(number.is_integer() and 0 < number < 2**31 for number in (identity, *corners)) or not path.strip("[]"):
        raise InputError(f"{source}: {shortened(entry)}; expected a path, and class and corners counted from 1")
    x1, y1, x2, y2 = map(int, corners)
    return Record(folder / path, int(identity), box=(x1 - 1, y1 - 1, x2, y2), source=source)


def corners(source: str, fields: list[str]) -> tuple[float, float, float, float]:
    """The box of x, y, width and height, in pixels."""
    try:
        x, y, width, height = map(float, fields)
    except ValueError as error:
        box = shortened(" ".join(fields))[1:-1]
        raise InputError(f"{source}: box {box}; expected four numbers, x y width height") from error
    if not all(map(math.isfinite, (x, y, width, height))):
        raise InputError(f"{source}: box {shortened(' '.join(fields))[1:-1]}; expected finite numbers")
    return x, y, x + width, y + height


def keyed(path: Path, fields: int) -> dict[int, tuple[str, list[str]]]:
    """image id -> "file:line" and the other fields of its line.

    Raises:
        InputError: a line has another number of fields, or an image id stands twice.
    """
    found: dict[int, tuple[str, list[str]]] = {}
    for number, line in read_lines(path):
        text, *rest = line.split()
        source = f"{path.name}:{number}"
        if len(rest) != fields:
            raise InputError(f"{path}:{number}: {shortened(line)}; expected an image id and {fields} more fields")
        key = whole_number(source, "image id", text)
        if key in found:
            raise InputError(f"{source}: image {key} stands in {found[key][0]} already")
        found[key] = source, rest
    return found


def by_class(name: str, records: list[Record], training_classes: int) -> RetrievalDataset:
    train = [record for record in records if record.identity <= training_classes]
    return one_test_set(name, train, [r for r in records if r.identity > training_classes], CLASSES)


def one_test_set(name: str, train: list[Record], test: list[Record], protocol: Protocol) -> RetrievalDataset:
    trained = {record.identity: record.source for record in train}
    for record in test:
        if record.identity in trained:
            raise InputError(f"{record.source}: class {record.identity} is in train too, in {trained[record.identity]}")
    for record in (*train[:1], *test[:1]):
        if not record.path.exists():
            raise InputError(f"no image {record.path}, the first of its list; unpack the images beside the lists")
    return RetrievalDataset(name, train, test, test, protocol)
