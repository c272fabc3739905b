"""What a dataset is to the rest of the toolkit: three lists of records and the rule they are tested by."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

JUNK = -1  # identity of detections that no ranking may contain
DISTRACTOR = 0  # identity of people who are nobody's match, where a dataset has distractors
UNKNOWN_CAMERA = -1


@dataclass(frozen=True, slots=True)
class Record:
    """One image: where it lies, who is on it, and what is known of how it was taken.

    `identity` and `camera` are numbers to compare and to count by; `identity_name` and `camera_name` are what the
    dataset calls them, in any text ("0002", "c1"), to show and to keep. Where a name is not given it is the number.
    `box` is (x1, y1, x2, y2) in pixels of the image file, x2 and y2 exclusive. `source` names the line of the
    list file that the box came from ("list_bbox.txt:17"), for error messages.
    """

    path: Path
    identity: int
    camera: int | None = None
    box: tuple[float, float, float, float] | None = None
    domain: str | None = None
    source: str | None = None
    identity_name: str = ""
    camera_name: str | None = None

    def __post_init__(self):
        if not self.identity_name:
            object.__setattr__(self, "identity_name", str(self.identity))
        if self.camera_name is None:
            object.__setattr__(self, "camera_name", "" if self.camera is None else str(self.camera))

    @property
    def boxed_nothing(self) -> bool:
        """Whether there is a box, and it is inverted or empty."""
        return self.box is not None and not (self.box[0] < self.box[2] and self.box[1] < self.box[3])


def numbers_of(names: Iterable[str]) -> dict[str, int]:
    """A number from 1 on for each name, in the order of the names as text."""
    return {name: number for number, name in enumerate(sorted(set(names)), 1)}


def own_numbers_of(names: Iterable[str]) -> dict[str, int]:
    """The number that each name is ("0002" is 2), where these are small and differ; else `numbers_of`."""
    names = set(names)
    found = {name: int(name) for name in names if re.fullmatch(r"[0-9]{1,18}", name)}
    return found if found.keys() == names and len(set(found.values())) == len(names) else numbers_of(names)


def camera_numbers(records: Iterable[Record]) -> list[int]:
    """The cameras of images, UNKNOWN_CAMERA where a record names none."""
    return [UNKNOWN_CAMERA if record.camera is None else record.camera for record in records]


@dataclass(frozen=True, slots=True)
class Protocol:
    """How a dataset is tested.

    camera_aware: a query ignores gallery images of its own identity in its own camera.
    same_set: query and gallery are one set, and each image ignores itself alone.
    ranks: the k of the headline CMC@k (Recall@k in metric learning).
    nmi: whether normalised mutual information belongs to the headline.
    measures: what the papers' tables print of the set: mAP, mINP, NMI, CMC@k or, as metric learning calls it, Recall@k.
    """

    camera_aware: bool = True
    same_set: bool = False
    ranks: tuple[int, ...] = (1, 5, 10)
    nmi: bool = False
    measures: tuple[str, ...] = ("mAP", "CMC@1", "mINP")


@dataclass(frozen=True, slots=True)
class RetrievalDataset:
    """Train, query and gallery records. With `protocol.same_set` query and gallery are the same list.

    distractors: identity 0 is nobody's match, as in Market-1501's layout; elsewhere it is an identity like others.
    counts_anew: an identity of train and one of query or gallery are two, though their numbers be equal.
    left_out: what stands in the dataset's folders and was not read, in words.
    drawn: what split was drawn, in words; "" where the dataset has its own.
    """

    name: str
    train: list[Record]
    query: list[Record]
    gallery: list[Record]
    protocol: Protocol = field(default_factory=Protocol)
    distractors: bool = False
    counts_anew: bool = False
    left_out: list[str] = field(default_factory=list)
    drawn: str = ""

    @property
    def nobody(self) -> set[int]:
        """The identities that are nobody."""
        return {JUNK, DISTRACTOR} if self.distractors else {JUNK}

    @property
    def boxed_nothing(self) -> list[Record]:
        """The records whose box is inverted or empty; each once where query and gallery are one list."""
        test = self.gallery if self.query is self.gallery else [*self.query, *self.gallery]
        return [record for record in (*self.train, *test) if record.boxed_nothing]
