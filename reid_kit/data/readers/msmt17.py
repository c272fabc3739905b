"""MSMT17: lists of files, the camera in each file name."""

import re
from pathlib import Path

from reid_kit.data.readers.lists import read_lines, whole_number
from reid_kit.data.readers.registry import Counts, register
from reid_kit.data.records import Record, RetrievalDataset
from reid_kit.errors import InputError, shortened

NAME = re.compile(r"^[0-9]+_[0-9]+_([0-9]{1,9})_")  # 0000_000_01_0303morning_0008_0.jpg
FOLDERS = (("train", "test"), ("mask_train_v2", "mask_test_v2"))  # of V1 and V2


@register(
    "msmt17",
    folders=("MSMT17_V1", "MSMT17_V2", "MSMT17", "msmt17"),
    markers=("list_train.txt",),
    source="Ask its authors (Wei et al. 2018) for MSMT17_V1 or V2 and unpack it there.",
    counts=Counts((32621, 1041), (11659, 3060), (82161, 3060), cameras=15),
)
def msmt17(folder: Path) -> RetrievalDataset:
    """MSMT17 (Wei et al. 2018): 32,621 images of 1,041 identities in list_train.txt and list_val.txt together, which
    train; 11,659 queries and 82,161 gallery images of 3,060; 15 cameras. Identities are counted from 0 in train, and
    anew in test: there number 0 is somebody else. V1 keeps its images in train/ and test/, V2 in
    mask_train_v2/ and mask_test_v2/."""
    present = [pair for pair in FOLDERS if (folder / pair[0]).is_dir()]
    if not present:
        raise InputError(f"{folder} holds neither train/ (V1) nor mask_train_v2/ (V2); unpack the images there")
    train, test = (folder / name for name in present[0])
    return RetrievalDataset(
        "msmt17",
        read_list(folder / "list_train.txt", train) + read_list(folder / "list_val.txt", train),
        read_list(folder / "list_query.txt", test),
        read_list(folder / "list_gallery.txt", test),
        counts_anew=True,
    )


def read_list(file: Path, images: Path) -> list[Record]:
    """A record for each line "path identity"."""
    records = []
    for number, line in read_lines(file):
        name, _, identity = line.strip().rpartition(" ")
        match = NAME.match(Path(name).name)
        if not match:
            raise InputError(f"{file}:{number}: {shortened(line)}; expected 0000/0000_000_01_0303morning_0008_0.jpg 0")
        source = f"{file.name}:{number}"
        who = whole_number(source, "identity", identity)
        camera = int(match[1])
        records.append(Record(images / name, who, camera, source=source, identity_name=identity))
    return records
