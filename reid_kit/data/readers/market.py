"""Market-1501's layout: three folders, identity and camera in each file name."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from reid_kit.data.readers.registry import Counts, register
from reid_kit.data.records import DISTRACTOR, JUNK, Record, RetrievalDataset, own_numbers_of
from reid_kit.errors import InputError, unknown_name
from reid_kit.image_files import find_images

NAME = re.compile(r"^(-1|[0-9]+)_c([0-9]+)")  # 0002_c1s1_000451_03.jpg, -1_c3s2_000051_01.jpg, 0001_c2_f0046182.jpg


@register(
    "market1501",
    folders=("Market-1501-v15.09.15", "market1501", "Market-1501"),
    markers=("bounding_box_train",),
    source="Get Market-1501-v15.09.15.zip from its authors (Zheng et al. 2015) and unpack it there.",
    counts=lambda distractors_500k=False, multi_query=False: Counts(
        train=(12936, 751),
        query=None if multi_query else (3368, 750),
        gallery=None if distractors_500k else (19732, 750),
        cameras=None if distractors_500k else 6,  # theirs are not known
    ),
)
def market1501(folder: Path, distractors_500k: bool = False, multi_query: bool = False) -> RetrievalDataset:
    """Market-1501 (Zheng et al. 2015).

        Market-1501-v15.09.15/
            bounding_box_train/   12,936 images of 751 identities
            query/                 3,368 of 750
            bounding_box_test/    19,732: 13,115 of the same 750, 2,798 distractors (0), 3,819 junk (-1)
            gt_bbox/              25,259 hand-drawn boxes, for `multi_query` alone
            distractors_500k/     optional

    Distractors are negatives; junk stays among the gallery records, and the evaluator ignores it, which leaves the
    15,913 of the literature. With `distractors_500k` the images of that folder join the gallery as identity 0. With
    `multi_query` the images of gt_bbox that show a query's identity in its camera join the queries, to be pooled.
    """
    dataset = read_market("market1501", folder)
    if multi_query:
        asked = {(q.identity_name, q.camera_name): q for q in dataset.query}
        names = {q.path.name for q in dataset.query}
        for path, who, camera in parse_names(find_images(folder / "gt_bbox").paths):
            if (who, f"c{camera}") in asked and path.name not in names:
                dataset.query.append(replace(asked[who, f"c{camera}"], path=path))
    if distractors_500k:
        extra = find_images(folder / "distractors_500k")
        dataset.gallery.extend(Record(path, DISTRACTOR, camera=0, camera_name="") for path in extra.paths)
        dataset.left_out.extend(extra.left_out)
    return dataset


@register(
    "dukemtmc_reid",
    folders=("DukeMTMC-reID", "dukemtmc-reid", "dukemtmc_reid"),
    markers=("bounding_box_train",),
    source="Its authors withdrew DukeMTMC-reID in 2019; this reader serves those who hold a copy.",
    counts=Counts((16522, 702), (2228, 702), (17661, 1110), cameras=8),
)
def dukemtmc_reid(folder: Path) -> RetrievalDataset:
    """DukeMTMC-reID (Zheng et al. 2017): 16,522 training images of 702 identities, 2,228 queries of 702, 17,661
    gallery images of 1,110, 8 cameras, in Market-1501's three folders. No junk, no distractors."""
    return read_market("dukemtmc_reid", folder)


CUHK03_COUNTS = {
    "detected": Counts((7365, 767), (1400, 700), (5332, 700), cameras=2),
    "labeled": Counts((7368, 767), (1400, 700), (5328, 700), cameras=2),
}


@register(
    "cuhk03_np",
    folders=("cuhk03-np", "cuhk03_np", "CUHK03-NP"),
    markers=("detected", "labeled", "bounding_box_train"),
    source="Get cuhk-03.mat and the new protocol's lists, and run python tools/prepare_cuhk03.py --help.",
    counts=lambda boxes="detected": CUHK03_COUNTS[boxes],
)
def cuhk03_np(folder: Path, boxes: str = "detected") -> RetrievalDataset:
    """CUHK03 under its new protocol (Zhong et al. 2017), in Market-1501's three folders.

        cuhk03-np/
            detected/   7,365 training images of 767 identities, 1,400 queries of 700, 5,332 gallery images of 700
            labeled/    7,368 of 767, 1,400 of 700, 5,328 of 700

    Two cameras an identity. `boxes` is "detected" or "labeled".
    """
    if boxes not in CUHK03_COUNTS:
        raise unknown_name("boxes of cuhk03_np:", boxes, CUHK03_COUNTS)
    inner = folder / boxes if (folder / boxes).is_dir() else folder
    if not (inner / "bounding_box_train").is_dir():
        raise InputError(
            f"no {boxes} boxes of cuhk03_np in {folder}: expected {folder / boxes / 'bounding_box_train'}. "
            f"python tools/prepare_cuhk03.py makes it from cuhk-03.mat"
        )
    return read_market("cuhk03_np", inner)


def read_market(name: str, folder: Path) -> RetrievalDataset:
    """The records of Market-1501's three folders. Identity -1 is junk, 0 are distractors.

    Raises:
        InputError: a folder is missing or empty, or a name does not parse.
    """
    found = [find_images(folder / split) for split in ("bounding_box_train", "query", "bounding_box_test")]
    parsed = [list(parse_names(images.paths)) for images in found]
    everyone = {who for images in parsed for _, who, _ in images}
    nobody = {who: JUNK if who == "-1" else DISTRACTOR for who in everyone if who == "-1" or not who.strip("0")}
    numbers = {**own_numbers_of(everyone - nobody.keys()), **nobody}
    cameras = own_numbers_of(camera for images in parsed for _, _, camera in images)
    train, query, gallery = (
        [
            Record(path, numbers[who], cameras[camera], identity_name=who, camera_name=f"c{camera}")
            for path, who, camera in images
        ]
        for images in parsed
    )
    train = [record for record in train if record.identity != JUNK]
    left_out = [text for images in found for text in images.left_out]
    return RetrievalDataset(name, train, query, gallery, distractors=True, left_out=left_out)


def parse_names(paths: Iterable[Path]) -> Iterator[tuple[Path, str, str]]:
    """Each image with the identity and the camera of its name."""
    for path in paths:
        match = NAME.match(path.name)
        if not match:
            raise InputError(
                f"{path}: the name gives no identity and camera; expected IDENTITY_cCAMERA, as 0002_c1s1_000451_03.jpg"
            )
        yield path, match[1], match[2]
