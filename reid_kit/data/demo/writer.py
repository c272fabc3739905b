"""Writes the demo data, whole or not at all."""

import json
import shutil
import tempfile
from pathlib import Path

from reid_kit.data.demo.garments import write_garments
from reid_kit.data.demo.pedestrians import write_people
from reid_kit.errors import InputError

VERSION = 2  # of the pictures; a new one is rendered again


def write_demo(root: str | Path, seed: int = 0, train: int = 70, test: int = 45) -> None:
    """Renders the demo data into `root`.

    What is already there for these arguments is left as it is; a demo of other arguments or of an older version of the
    toolkit is rendered again.

    Args:
        seed: another seed gives other people and garments. train, test: identities; half as many garments.

    Raises:
        InputError: `root` holds something else.
    """
    root = Path(root)
    made = {"version": VERSION, "seed": seed, "train": train, "test": test}
    stamp = root / "demo.json"
    if stamp.exists() and json.loads(stamp.read_text()) == made:
        return
    if not stamp.exists() and root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InputError(f"{root} exists and is not this demo data; remove it or give another folder with --root")
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=".demo-") as folder:
        half = Path(folder) / "demo"
        write_people(half / "people", seed, train, test, distractors=60, junk=30)
        write_garments(half / "garments", seed, train // 2, test // 2)
        (half / "demo.json").write_text(json.dumps(made))
        if root.exists():  # empty, or an old demo
            shutil.move(root, Path(folder) / "old")
        shutil.move(half, root)
