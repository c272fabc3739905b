"""A folder of shards: shards.json says who made them and of what, list.jsonl lists the images, the rest are features.

A shard is a feature file (evaluation/feature_files.py) of a slice of the list, whole or absent.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from reid_kit.errors import InputError
from reid_kit.evaluation.feature_files import read_notes, write_feature_file
from reid_kit.files import new_file, read_stamp, take_folder, write_atomically
from reid_kit.gallery.entries import Entry
from reid_kit.reading import read_npz
from reid_kit.shards.listing import Item, first_difference, read_list, write_list

OTHERWISE = "Delete it, or choose another --shards"
STAMP, LIST, KIND, VERSION = "shards.json", "list.jsonl", "shards of reid_kit", 1


class Shard(NamedTuple):
    """(n, D) float32 features, and what is known of the images they are of."""

    entries: list[Entry]
    features: np.ndarray


def begin(folder: Path, plan: Mapping, items: Iterator[Item], size: int) -> None:
    """Takes a folder that is new, empty, or one in which the same was begun, and writes what is to be done there.

    Args:
        plan: what all features of the folder have in common. size: images of a shard.

    Raises:
        InputError: it holds something else; shards of another model, of other settings or another size, or of images
            that have changed since.
    """
    found = take_folder(folder, STAMP, KIND, "choose another --shards")
    about = {"kind": KIND, "version": VERSION}
    if found is None:
        write_atomically(folder / STAMP, json.dumps(about))  # first, as it says that the folder is ours
    plan = {**plan, "shard_size": size}
    refuse_other(folder, (found or {}).get("plan", plan), plan)
    with new_file(folder / LIST) as temporary:
        listed = write_list(items, temporary, size)
        if found and found.get("list", listed) != listed:
            raise InputError(
                f"the images have changed since the shards in {folder} were begun: "
                f"{first_difference(folder / LIST, temporary)}. Choose another --shards, or bring them back"
            )
    write_atomically(folder / STAMP, json.dumps({**about, "plan": plan, "list": listed}))


def refuse_other(place: Path, found: Mapping, wanted: Mapping, hint: str = OTHERWISE) -> None:
    """
    Raises:
        InputError: what is `found` to be said of features is not what is `wanted`.
    """
    for name in dict.fromkeys([*wanted, *found]):
        if found.get(name) != wanted.get(name):
            raise InputError(
                f"{place} holds features of another model, or of other settings or images: {name} is "
                f"{found.get(name)}, and {wanted.get(name)} was expected. {hint}"
            )


class ShardFolder:
    """What `begin` has planned in a folder, and what of it is there. Iterating gives its shards in order.

    plan: fingerprint of the model, and settings, of all features. rows: images in the list.

    Raises:
        InputError: the folder holds no shards, or those of a later version.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        about = read_stamp(self.folder / STAMP, KIND)
        if about is None or "list" not in about:
            raise InputError(f"{folder} holds no shards; reid-kit extract --shards {folder} writes them")
        if about["version"] > VERSION:
            raise InputError(f"{folder} is of version {about['version']}, this one reads {VERSION}; update reid_kit")
        self.plan, self.rows, self.digest = about["plan"], about["list"]["rows"], about["list"]["sha256"]
        self._starts = about["list"]["shards"]

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[Shard]:
        return map(self.read, range(len(self)))

    def slice(self, shard: int) -> range:
        """The rows of the list that a shard is of."""
        last = self._starts[shard + 1][1] if shard + 1 < len(self) else self.rows
        return range(self._starts[shard][1], last)

    def items(self, shard: int) -> Iterator[Item]:
        """The images of a shard, as the list has them."""
        return read_list(self.folder / LIST, self._starts[shard][0], len(self.slice(shard)))

    def path(self, shard: int) -> Path:
        return self.folder / f"{shard:06d}.npz"

    def missing(self) -> list[int]:
        """The shards that are not there yet.

        Raises:
            InputError: one is damaged, or was not made for this folder.
        """
        return [shard for shard in range(len(self)) if self.count(shard) is None]

    def count(self, shard: int) -> int | None:
        """How many features a shard holds; None where it is not there yet."""
        path = self.path(shard)
        if not path.exists():
            return None
        notes = read_notes(path, read_npz(path, ("notes",)))
        count = notes.pop("rows", None)
        refuse_other(path, notes, self._notes(shard))
        return count

    def write(self, shard: int, rows: np.ndarray, features: Tensor) -> None:
        """Writes a shard, whole or not at all.

        Args:
            rows: (n,) of the list, ascending; those that are left out could not be read. features: (n, D).
        """
        first, items = self.slice(shard)[0], list(self.items(shard))
        entries = [items[row - first].entry for row in rows]
        arrays = {
            "features": features.numpy(),
            "rows": rows,
            **{f"{name}s": _texts(entries, name) for name in ("path", "camera")},
            "identities": _texts(entries, "identity"),
            "model": np.array(self.plan["model"]),
            "notes": np.array(json.dumps({**self._notes(shard), "rows": len(rows)})),
        }
        write_feature_file(self.path(shard), arrays)

    def read(self, shard: int) -> Shard:
        """
        Raises:
            InputError: it is not there yet, is damaged, or was not made for this folder.
        """
        if self.count(shard) is None:
            raise InputError(f"{self.path(shard)} is missing: the same reid-kit extract writes what is not there yet")
        arrays, items = read_npz(self.path(shard)), list(self.items(shard))
        first = self.slice(shard)[0]
        return Shard([items[row - first].entry for row in arrays["rows"]], arrays["features"])

    def _notes(self, shard: int) -> dict:
        return {**self.plan, "list": self.digest, "shard": shard}


def _texts(entries: list[Entry], name: str) -> np.ndarray:
    return np.array([getattr(entry, name) for entry in entries], dtype=str)
