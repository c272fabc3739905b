"""Writes the demo data, whole or not at all."""

import json
import os
import re
from contextlib import suppress
from pathlib import Path

from reid_kit.data.demo.garments import write_garments
from reid_kit.data.demo.pedestrians import write_people
from reid_kit.errors import InputError
from reid_kit.files import LOCK, hold, read_stamp, remove_tree, take_folder, write_atomically

VERSION = 2  # of the pictures; a new one is rendered again
STAMP, KIND = "demo.json", "demo data of reid_kit"
HALF = ".half"  # folder of what is being rendered
OTHER = "give another folder with --root"
NAMES = re.compile(  # of all files that a demo is made of
    r"people/(bounding_box_train|query|bounding_box_test)/(-1|\d{4,})_c\ds1_\d{6,}_01\.jpg"
    r"|garments/(in-shop|consumer-to-shop)/(img/\w+/id_\d{8}/\w+\.jpg|(Eval|Anno)/list_\w+\.txt)"
)


def write_demo(root: str | Path, seed: int = 0, train: int = 70, test: int = 45) -> None:
    """Renders the demo data into `root`.

    What is already there for these arguments is left as it is; a demo of other arguments or of another version of the
    toolkit is rendered again. What anybody else has put into the folder stays.

    Args:
        seed: another seed gives other people and garments. train, test: identities; half as many garments.

    Raises:
        InputError: `root` holds something else; another process renders there; the seed is below 0.
    """
    root = Path(root)
    if seed < 0:
        raise InputError(f"--seed must be at least 0, got {seed}")
    made = {"kind": KIND, "version": VERSION, "seed": seed, "train": train, "test": test}
    if is_there(root, made):
        return
    with hold(root, OTHER):
        if is_there(root, made):
            return
        old = files_of(take_folder(root, STAMP, KIND, OTHER) or {})
        write_stamp(root, {**made, "files": old, "whole": False})
        try:
            remove_tree(root / HALF, NAMES)
            write_people(root / HALF / "people", seed, train, test, distractors=60, junk=30)
            write_garments(root / HALF / "garments", seed, train // 2, test // 2)
            new = sorted(path.relative_to(root / HALF).as_posix() for path in (root / HALF).rglob("*.*"))
            foreign = [name for name in new if name not in old and os.path.lexists(root / name)]
            if foreign:
                raise InputError(f"{root / foreign[0]} is none of the demo's files; move it, or {OTHER}")
            write_stamp(root, {**made, "files": sorted({*old, *new}), "whole": False})
            replace(root, old, new)
            write_stamp(root, {**made, "files": new, "whole": True})
        finally:
            remove_tree(root / HALF, NAMES)
            if {path.name for path in root.iterdir()} <= {STAMP, LOCK}:  # nothing came of it
                (root / STAMP).unlink(missing_ok=True)


def is_there(root: Path, made: dict) -> bool:
    stamp = read_stamp(root / STAMP, KIND)
    return stamp is not None and stamp.get("whole") is True and made.items() <= stamp.items()


def files_of(stamp: dict) -> list[str]:
    """The demo's files by its stamp, less what no demo has written."""
    found = stamp.get("files")
    return (
        [name for name in found if isinstance(name, str) and NAMES.fullmatch(name)] if isinstance(found, list) else []
    )


def write_stamp(root: Path, stamp: dict) -> None:
    write_atomically(root / STAMP, json.dumps(stamp))


def replace(root: Path, old: list[str], new: list[str]) -> None:
    """Takes an earlier demo's files out of `root` and puts those of HALF in their place."""
    for name in set(old) - set(new):
        (root / name).unlink(missing_ok=True)
    for name in new:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(root / HALF / name, root / name)
    for folder in sorted({parent for name in old for parent in (root / name).parents}, reverse=True):
        if root in folder.parents:
            with suppress(OSError):  # it is not empty
                folder.rmdir()
