"""What is wrong with a dataset's folder, and how to mend it."""

import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from reid_kit.data.readers.registry import find_reader, load_dataset
from reid_kit.data.records import Record, RetrievalDataset
from reid_kit.errors import InputError
from reid_kit.image import read_image

SPLITS = ("train", "query", "gallery")


@dataclass
class Diagnosis:
    """A dataset and what was found: `problems` keep it from being used, `warnings` change what its numbers mean."""

    dataset: RetrievalDataset
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def diagnose(
    name: str,
    root: str | Path,
    *,
    check_images: bool = True,
    progress: Callable[[list[Record]], Iterable[Record]] = iter,
    **options,
) -> Diagnosis:
    """Reads a dataset and checks its counts, cameras, identities, and every image.

    Args:
        check_images: decode each image and cut its box.
        progress: wraps the records whose images are read, to show how far it is.

    Raises:
        InputError: the reader cannot read the folder at all.
    """
    diagnosis = Diagnosis(load_dataset(name, root, **options))
    check_counts(diagnosis, name, options)
    diagnosis.warnings.extend(diagnosis.dataset.left_out)
    check_empty(diagnosis, SPLITS)
    check_split(diagnosis)
    check_single_images(diagnosis)
    check_matches(diagnosis)
    check_domains(diagnosis)
    check_areas(diagnosis)
    if check_images:
        check_files(diagnosis, progress)
    return diagnosis


def check_empty(diagnosis: Diagnosis, splits: Iterable[str]) -> None:
    """Splits without an image."""
    for split in splits:
        if not getattr(diagnosis.dataset, split):
            diagnosis.problems.append(f"{diagnosis.dataset.name} has no image of {split}; give it some")


def check_counts(diagnosis: Diagnosis, name: str, options: dict) -> None:
    """Images and identities of each split, and cameras, against the official counts."""
    counts = find_reader(name).counts(**options)
    for split in SPLITS:
        expected = getattr(counts, split)
        records = getattr(diagnosis.dataset, split)
        found = len(records), len({record.identity for record in records} - diagnosis.dataset.nobody)
        if expected and found != expected:
            diagnosis.warnings.append(
                f"{split} has {found[0]:,} images of {found[1]:,} identities, officially {expected[0]:,} of "
                f"{expected[1]:,}; unpack the dataset again, or expect numbers that compare with nobody's"
            )
    cameras = {record.camera for split in SPLITS for record in getattr(diagnosis.dataset, split)}
    if counts.cameras and len(cameras) != counts.cameras:
        diagnosis.warnings.append(
            f"{len(cameras)} cameras ({', '.join(map(str, sorted(cameras)))}), officially {counts.cameras}; the camera "
            f"is parsed from the file name, so look whether the names are the original ones"
        )


def check_split(diagnosis: Diagnosis) -> None:
    """Identities on both sides of the split, where equal ones are the same."""
    dataset = diagnosis.dataset
    if dataset.counts_anew:
        return
    train = {record.identity: record for record in dataset.train}
    test = {record.identity: record for record in dataset.query + dataset.gallery}
    both = sorted(train.keys() & test.keys() - dataset.nobody)
    if both:
        if len(both) == len(test.keys() - dataset.nobody):
            diagnosis.warnings.append(
                f"a closed set: all {len(both)} identities of the test are in train, as in a shop whose products stay. "
                f"The numbers say how well known ones are found; how well new ones are, they do not say"
            )
            return
        places = " and ".join(place(side[both[0]]) for side in (train, test))
        diagnosis.problems.append(
            f"{len(both)} identities are in train and in test, as {names(both, test)} ({places}); a model would be "
            f"tested on whom it was trained on. Give the identities of each split names of their own"
        )


def check_single_images(diagnosis: Diagnosis) -> None:
    """Identities with a single training image."""
    train = {record.identity: record for record in diagnosis.dataset.train}
    images = Counter(record.identity for record in diagnosis.dataset.train)
    single = sorted(identity for identity, count in images.items() if count == 1)
    if single:
        diagnosis.warnings.append(
            f"{len(single)} training identities have one image, as {names(single, train)} "
            f"({place(train[single[0]])}): in P x K batches it is repeated"
        )


def names(identities: list[int], records: dict[int, Record]) -> str:
    """What the first of some identities are called."""
    return f"[{', '.join(records[identity].identity_name for identity in identities[:5])}]"


def check_areas(diagnosis: Diagnosis) -> None:
    """Boxes that hold nothing."""
    empty = diagnosis.dataset.boxed_nothing
    if empty:
        named = ", ".join(map(place, empty[:5]))
        diagnosis.warnings.append(
            f"{len(empty):,} boxes are inverted or empty ({named}): DATA.USE_BOX true asks for others, false for none"
        )


def place(record: Record) -> str:
    """The line that names a record's image, or its file."""
    return record.source or str(record.path)


def check_matches(diagnosis: Diagnosis) -> None:
    """Queries without a match that counts."""
    dataset = diagnosis.dataset
    by_identity: dict[int, list[Record]] = {}
    for record in dataset.gallery:
        by_identity.setdefault(record.identity, []).append(record)

    def has_match(query: Record) -> bool:
        if query.identity in dataset.nobody:
            return False
        for other in by_identity.get(query.identity, ()):
            apart = (other.path, other.box) != (query.path, query.box) if dataset.protocol.same_set else True
            if apart and (not dataset.protocol.camera_aware or other.camera != query.camera):
                return True
        return False

    lost = [query for query in dataset.query if not has_match(query)]
    if lost:
        which = "in another camera" if dataset.protocol.camera_aware else "besides itself"
        note = diagnosis.problems if len(lost) == len(dataset.query) else diagnosis.warnings
        note.append(
            f"{len(lost)} of {len(dataset.query)} queries have no match {which} in the gallery and are skipped, as "
            f"{lost[0].path.name}; were cameras parsed wrongly, or gallery images left out?"
        )


def check_domains(diagnosis: Diagnosis) -> None:
    """Training identities that lack one of the domains."""
    domains = {record.domain for record in diagnosis.dataset.train} - {None}
    if domains:
        train = {record.identity: record for record in reversed(diagnosis.dataset.train)}
        of: dict[int, set] = {}
        for record in diagnosis.dataset.train:
            of.setdefault(record.identity, set()).add(record.domain)
        lonely = sorted(identity for identity, found in of.items() if found != domains)
        if lonely:
            diagnosis.warnings.append(
                f"{len(lonely)} training identities lack one of the domains {sorted(domains)}, as "
                f"{names(lonely, train)} ({place(train[lonely[0]])})"
            )


def check_boxes(diagnosis: Diagnosis, use_box: bool, splits: Iterable[str] = SPLITS) -> None:
    """Boxes that are missing where they are used, and photos of several boxes where they are not."""
    records = [record for split in splits for record in getattr(diagnosis.dataset, split)]
    without = [record for record in records if record.box is None]
    if use_box and without:
        diagnosis.problems.append(
            f"{len(without):,} of {len(records):,} images have no box, as {place(without[0])}; set DATA.USE_BOX to "
            f"false or annotate them"
        )
    photos: dict[str, Record] = {}
    for record in [] if use_box else records:
        first = photos.setdefault(os.fspath(record.path), record)
        if first.box != record.box:
            diagnosis.problems.append(
                f"{record.path} shows several boxes ({place(first)}, {place(record)}), which without them are one "
                f"image; set DATA.USE_BOX to true"
            )
            return


def check_files(diagnosis: Diagnosis, progress: Callable[[list[Record]], Iterable[Record]]) -> None:
    """Every image once: whether it decodes, and whether its boxes lie on it."""
    records = {(record.path, record.box): record for split in SPLITS for record in getattr(diagnosis.dataset, split)}
    for record in progress(list(records.values())):
        try:
            read_image(record.path, None if record.boxed_nothing else record.box, record.source)
        except InputError as error:
            diagnosis.problems.append(str(error))
