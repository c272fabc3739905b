"""Propose identities for a gallery's images: groups of what looks alike, as a table to correct and to train on.

  python tools/group.py people --output grouped
  python tools/train.py --config configs/own_images.yaml DATA.NAME csv DATA.ROOT grouped/groups.csv --split 0.3

--output gets groups.csv, ungrouped.csv (images that are alone) and sheets/NAME.png, a picture of each group. To split a
group or merge two, change the column identity of groups.csv.
"""

import argparse
import csv
import io
import json
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from reid_kit.cli.contact_sheet import contact_sheet
from reid_kit.errors import InputError
from reid_kit.files import hold, take_folder, write_atomically
from reid_kit.gallery import Entry, open_gallery
from reid_kit.gallery.grouping import UNGROUPED, agreement, group_vectors

KIND = "output of group"  # of groups.json
COLUMNS = ("path", "identity", "camera", "x1", "y1", "x2", "y2")
ROW, SHOWN = 10, 60  # images in a row of a sheet, and on the whole


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("gallery", metavar="GALLERY", help="a folder, name.db or http://host:port")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="a new folder")
    parser.add_argument(
        "--distance", type=float, default=0.5, metavar="D", help="0 to 1; less gives more, purer groups (%(default)s)"
    )
    parser.add_argument(
        "--neighbours", type=int, default=10, metavar="K", help="about as many as an identity has images (%(default)s)"
    )
    parser.add_argument("--least", type=int, default=2, metavar="N", help="images of a group (%(default)s)")


def main(arguments: argparse.Namespace) -> None:
    gallery = open_gallery(arguments.gallery)
    with hold(arguments.output, "choose another --output"):
        take_folder(arguments.output, "groups.json", KIND, "choose another --output")
        entries, vectors = [], [np.empty((0, gallery.description.size), np.float32)]
        for part, block in gallery.batches():
            entries += part
            vectors.append(block)
        k1 = arguments.neighbours
        k2 = max(round(0.3 * k1), 1)  # the proportion of Zhong et al. 2017
        groups = group_vectors(np.concatenate(vectors), arguments.distance, arguments.least, k1, k2)
        count, alone = int(groups.max(initial=UNGROUPED)) + 1, int((groups == UNGROUPED).sum())
        print(f"{len(entries):,} images: {count:,} groups, {alone:,} images alone")
        labelled = np.array([bool(entry.identity) for entry in entries])
        if labelled.any():
            found = agreement(groups[labelled], [entry.identity for entry in entries if entry.identity])
            print(
                f"against the {labelled.sum():,} labels there are: pairs, precision {found.pair_precision:.3f}, recall "
                f"{found.pair_recall:.3f}; BCubed, precision {found.bcubed_precision:.3f}, "
                f"recall {found.bcubed_recall:.3f}"
            )
        if not count:
            raise InputError("no group was found; give a larger --distance")
        write_groups(arguments.output, entries, groups, gallery.description.height, gallery.description.width)
    print(f"{arguments.output}: groups.csv, ungrouped.csv, sheets/")


def write_groups(folder: Path, entries: list[Entry], groups: np.ndarray, height: int, width: int) -> None:
    """The tables and sheets; groups.json, last, says that the folder is ours."""
    digits = len(str(groups.max()))
    names = [f"g{group:0{digits}}" for group in range(groups.max() + 1)]
    (folder / "sheets").mkdir(exist_ok=True)
    for stale in (folder / "sheets").iterdir():
        if re.fullmatch(r"g\d+\.png", stale.name):
            stale.unlink()
    for group, name in enumerate(names):
        members = [entries[place] for place in np.flatnonzero(groups == group)]
        shown = [(entry.path, entry.box, Path(entry.path).name, None) for entry in members[:SHOWN]]
        rows = [("", shown[first : first + ROW]) for first in range(0, len(shown), ROW)]
        more = f", the first {SHOWN} shown" if len(members) > SHOWN else ""
        sheet = contact_sheet(rows, f"{name}: {len(members)} images{more}", height, width)
        write_atomically(folder / "sheets" / f"{name}.png", sheet)
    order = np.argsort(groups, kind="stable")
    grouped = [(entries[place], names[groups[place]]) for place in order if groups[place] != UNGROUPED]
    alone = [(entries[place], f"alone-{place}") for place in order if groups[place] == UNGROUPED]
    write_atomically(folder / "ungrouped.csv", table(alone))
    write_atomically(folder / "groups.csv", table(grouped))
    write_atomically(folder / "groups.json", json.dumps({"kind": KIND, "groups": len(names), "alone": len(alone)}))


def table(rows: Iterable[tuple[Entry, str]]) -> str:
    """A table that the reader `csv` takes, with the columns that any row has."""
    found = [dict(zip(COLUMNS, (entry.path, name, entry.camera, *(entry.box or [""] * 4)))) for entry, name in rows]
    columns = [c for c in COLUMNS if c in COLUMNS[:2] or any(row[c] != "" for row in found)]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return text.getvalue()
