"""What a dataset is to the rest of the toolkit: three lists of records and the rule they are tested by."""

from dataclasses import dataclass, field
from pathlib import Path

JUNK = -1  # identity of detections that no ranking may contain
DISTRACTOR = 0  # identity of people who are nobody's match (Market-1501's layout)


@dataclass(frozen=True, slots=True)
class Record:
    """One image: where it lies, who is on it, and what is known of how it was taken.

    `box` is (x1, y1, x2, y2) in pixels of the image file, x2 and y2 exclusive. `source` names the line of the
    list file that the box came from ("list_bbox.txt:17"), for error messages.
    """

    path: Path
    identity: int
    camera: int | None = None
    box: tuple[float, float, float, float] | None = None
    domain: str | None = None
    source: str | None = None


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
    """Train, query and gallery records. With `protocol.same_set` query and gallery are the same list."""

    name: str
    train: list[Record]
    query: list[Record]
    gallery: list[Record]
    protocol: Protocol = field(default_factory=Protocol)
