"""Features in files: our .npz and .safetensors, and the .mat that many re-ID projects write."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors
import safetensors.numpy

from reid_kit.errors import InputError, NonFiniteError, shortened
from reid_kit.evaluation.image_set import ImageSet
from reid_kit.files import new_file
from reid_kit.reading import parse_json, read_mat, read_npz, read_safetensors

HEADER_LIMIT = 100_000_000  # bytes that safetensors allows for names and metadata
DIGEST = "sha256"  # of the arrays, in the metadata of our .safetensors files, which have no sums of their own
ROWS = 4096  # that are looked at at once
NAMES = ("features", "identities", "split", "cameras", "notes")
MAT = tuple(f"{side}_{kind}" for side in ("gallery", "query") for kind in ("f", "label", "cam"))


class FeatureFile(NamedTuple):
    """Query and gallery, one and the same object where there are no queries; and what is noted of the features."""

    query: ImageSet
    gallery: ImageSet
    notes: dict


def read_feature_file(path: str | Path) -> FeatureFile:
    """Query, gallery and notes of a feature file.

    An .npz or .safetensors holds `features`, `identities`, `split`, and optionally `cameras` (-1: none), as
    tools/extract.py writes it; identities and cameras are integers, or names in any text, which become integers here.
    Text stands in the metadata of a .safetensors file, as JSON. A .mat holds `gallery_f`, `gallery_label`,
    `gallery_cam`, `query_f`, `query_label`, `query_cam`, all of them numbers.

    Raises:
        InputError: the file is missing, damaged, of another kind, lacks one of these arrays, or holds what no features
            and labels can be.
    """
    path = Path(path)
    if path.suffix not in LOAD:
        raise InputError(f"{path}: features are read from .npz, .safetensors or .mat files")
    arrays = LOAD[path.suffix](path)
    sides = read_mat_sides(path, arrays) if path.suffix == ".mat" else read_splits(path, arrays)
    return FeatureFile(*sides, read_notes(path, arrays))


def read_notes(path: Path, arrays: Mapping[str, np.ndarray]) -> dict:
    """The array `notes`, JSON that says how the features were made and are compared; {} where there is none."""
    if "notes" not in arrays:
        return {}
    notes = parse_json(str(arrays["notes"]), f"{path}: its notes")
    if not isinstance(notes, dict):
        raise InputError(f"{path}: its notes must hold names and values, got {notes!r:.80}")
    return notes


def load_safetensors(path: Path) -> dict[str, np.ndarray]:
    arrays, metadata = read_safetensors(path)
    if DIGEST in metadata and json.loads(metadata[DIGEST]) != digest(arrays):
        raise InputError(f"{path} is damaged: its arrays are not those that were written; copy or extract it again")
    texts = {name: parse_json(metadata[name], f"{path}: {name}") for name in NAMES if name in metadata}
    for name, values in texts.items():
        if not all(isinstance(value, str) for value in (values if isinstance(values, list) else [values])):
            raise InputError(f"{path}: {name} in its metadata must be text or a list of text, as JSON")
    return {**{name: np.array(values, dtype=str) for name, values in texts.items()}, **arrays}


def load_npz(path: Path) -> dict[str, np.ndarray]:
    return read_npz(path, NAMES)


def load_mat(path: Path) -> dict[str, np.ndarray]:
    return read_mat(path, MAT, "features in a .mat of a re-ID project: " + ", ".join(MAT))


LOAD = {".npz": load_npz, ".safetensors": load_safetensors, ".mat": load_mat}


def read_splits(path: Path, arrays: Mapping[str, np.ndarray]) -> tuple[ImageSet, ImageSet]:
    missing = [name for name in ("features", "split", "identities") if name not in arrays]
    if missing:
        raise InputError(f"{path} has no array {missing[0]!r}; it holds {', '.join(sorted(arrays)) or 'no other'}")
    counts = {name: len(np.atleast_1d(arrays[name])) for name in NAMES[:4] if name in arrays}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{counts[name]} rows of {name}" for name in ("features", "split", "identities"))
        raise InputError(f"{path} holds {listed}; expected as many of each, and of cameras")
    features = checked_features(path, "features", arrays["features"])
    split = arrays["split"]
    if split.shape != (len(features),) or split.dtype.kind not in "US":
        raise rows_differ(path, "split", split, len(features))
    split = split.astype(str)
    unknown = sorted(set(split.tolist()) - {"query", "gallery"})
    if unknown or "gallery" not in split:
        raise InputError(
            f"{path}: split holds {shortened(unknown) if unknown else 'no gallery'}; expected query, gallery"
        )
    identities = checked_labels(path, "identities", arrays["identities"], len(features))
    cameras = None
    if "cameras" in arrays:
        cameras = checked_labels(path, "cameras", arrays["cameras"], len(features))
        absent = np.flatnonzero(cameras < 0)
        if 0 < len(absent) < len(cameras):
            raise InputError(
                f"{path}: {len(absent):,} of {len(cameras):,} rows have no camera (below 0), first rows "
                f"{absent[:5].tolist()}; give each its camera, or none any, which switches the camera rule off"
            )
        cameras = None if len(absent) else cameras

    def part(name: str) -> ImageSet:
        rows = split == name
        return ImageSet(features[rows], identities[rows], None if cameras is None else cameras[rows])

    gallery = part("gallery")
    return (part("query") if "query" in split else gallery), gallery


def read_mat_sides(path: Path, arrays: Mapping[str, np.ndarray]) -> tuple[ImageSet, ImageSet]:
    def part(side: str) -> ImageSet:
        features = checked_features(path, f"{side}_f", arrays[f"{side}_f"])
        labels = [f"{side}_{kind}" for kind in ("label", "cam")]
        for name in labels:
            if arrays[name].dtype.kind not in "iuf":
                raise InputError(f"{path}: {name} must be numbers, got {arrays[name].dtype}; names go to an .npz file")
        rows = (checked_labels(path, name, arrays[name].ravel(), len(features)) for name in labels)
        return ImageSet(features, *rows)

    return part("query"), part("gallery")


def checked_features(path: Path, name: str, features: np.ndarray) -> np.ndarray:
    if features.ndim != 2 or 0 in features.shape or features.dtype.kind not in "fiu":
        raise InputError(f"{path}: {name} must be (N, D) numbers, got {features.shape} {features.dtype}")
    for start in range(0, len(features), ROWS):
        finite = np.isfinite(features[start : start + ROWS]).all(axis=1)
        if not finite.all():
            raise NonFiniteError(f"{path}: {name} hold NaN or infinity, first in row {start + int(finite.argmin())}")
    return features


def checked_labels(path: Path, name: str, labels: np.ndarray, count: int) -> np.ndarray:
    """(count,) int64 of integers in any numeric type, or of names; a name "-1" or "" is -1: junk, or no camera."""
    if labels.shape != (count,) or labels.dtype.kind not in "iufUS":
        raise rows_differ(path, name, labels, count)
    if labels.dtype.kind in "US" or (labels.dtype.kind == "u" and labels.max(initial=0) > np.iinfo(np.int64).max):
        names = np.char.strip(labels.astype(str))
        numbers = np.unique(names, return_inverse=True)[1].ravel() + 1
        return np.where((names == "-1") | (names == ""), -1, numbers)
    whole = labels.astype(np.int64) if np.isfinite(labels).all() and (np.abs(labels) < 2.0**62).all() else labels
    wrong = np.flatnonzero(whole != labels) if whole.dtype.kind == "i" else np.flatnonzero(~np.isfinite(labels))
    if len(wrong) or whole.dtype.kind != "i":
        raise InputError(f"{path}: {name} must be whole numbers or names; row {wrong[:1].tolist()} is not")
    return whole


def rows_differ(path: Path, name: str, array: np.ndarray, count: int) -> InputError:
    return InputError(
        f"{path} holds {count} rows of features and {name} of shape {array.shape} and type {array.dtype}; expected as "
        f"many rows of each, {'of text' if name == 'split' else 'of whole numbers or names'}"
    )


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """A hash of names, types, shapes and contents, which reads a memory-mapped array in parts."""
    found = hashlib.sha256()
    for name in sorted(arrays):
        array = np.atleast_1d(arrays[name])
        found.update(f"{name} {array.dtype.str} {array.shape}".encode())
        for start in range(0, len(array), ROWS):
            found.update(np.ascontiguousarray(array[start : start + ROWS]).data)
    return found.hexdigest()


def write_feature_file(path: str | Path, arrays: Mapping[str, np.ndarray], replace: bool = True) -> None:
    """Writes arrays to an .npz or .safetensors file, whole or not at all; a memory-mapped array is not read at once.

    Raises:
        InputError: the disk is full; text too long for a .safetensors file; the file is there, without `replace`.
    """
    path = Path(path)
    with new_file(path, replace) as temporary:
        SAVE[path.suffix](temporary, arrays)


def save_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    with open(path, "wb") as file:  # of a path numpy changes the suffix
        np.savez(file, **arrays)


def save_safetensors(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    metadata = {name: json.dumps(array.tolist()) for name, array in arrays.items() if array.dtype.kind == "U"}
    if sum(map(len, metadata.values())) > HEADER_LIMIT // 2:  # its header quotes them once more
        raise InputError(f"paths and splits of {len(arrays['paths']):,} images are too long for .safetensors; use .npz")
    numbers = {name: array for name, array in arrays.items() if name not in metadata}
    metadata[DIGEST] = json.dumps(digest(numbers))
    try:
        safetensors.numpy.save_file(numbers, path, metadata)
    except safetensors.SafetensorError as error:
        raise OSError(None, str(error)) from error


SAVE = {".npz": save_npz, ".safetensors": save_safetensors}
