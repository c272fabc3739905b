"""Features in files: our .npz and .safetensors, and the .mat that many re-ID projects write."""

import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors
import safetensors.numpy
import scipy.io
from scipy.io.matlab import MatReadError

from reid_kit.errors import InputError
from reid_kit.files import new_file

HEADER_LIMIT = 100_000_000  # bytes that safetensors allows for names and metadata
DAMAGED = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    IndexError,
    NotImplementedError,  # a .mat of MATLAB 7.3
    MatReadError,
    zipfile.BadZipFile,
    zlib.error,
    safetensors.SafetensorError,
)


class FeatureSet(NamedTuple):
    """features (N, D), identities (N,), cameras (N,) or None."""

    features: np.ndarray
    identities: np.ndarray
    cameras: np.ndarray | None

    def with_features(self, features: np.ndarray, positions: np.ndarray | None = None) -> "FeatureSet":
        """Other features of the same images, or of those at `positions`."""
        kept = slice(None) if positions is None else positions
        return FeatureSet(features, self.identities[kept], None if self.cameras is None else self.cameras[kept])


def read_feature_file(path: str | Path) -> tuple[FeatureSet, FeatureSet]:
    """Query and gallery of a feature file; one and the same object where the file has no queries.

    An .npz or .safetensors holds `features`, `identities`, `split`, and optionally `cameras` (-1: none), as
    tools/extract.py writes it; text stands in the metadata of a .safetensors file, as JSON. A .mat holds `gallery_f`,
    `gallery_label`, `gallery_cam`, `query_f`, `query_label`, `query_cam`.

    Raises:
        InputError: the file is missing, damaged, of another kind, or lacks one of these arrays.
    """
    path = Path(path)
    if path.suffix not in LOAD:
        raise InputError(f"{path}: features are read from .npz, .safetensors or .mat files")
    try:
        arrays = LOAD[path.suffix](path)
    except DAMAGED as error:
        raise InputError(f"{path} cannot be read: {error or type(error).__name__}") from error
    try:
        return read_mat(arrays) if path.suffix == ".mat" else read_splits(path, arrays)
    except KeyError as error:
        raise InputError(f"{path} has no array {error}; it holds {', '.join(sorted(arrays))}") from error


def load_safetensors(path: Path) -> dict[str, np.ndarray]:
    with safetensors.safe_open(path, "np") as file:
        texts = {name: np.array(json.loads(text)) for name, text in (file.metadata() or {}).items()}
        return {**texts, **{name: file.get_tensor(name) for name in file.keys()}}  # noqa: SIM118


def load_npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as arrays:
        return dict(arrays)


LOAD = {".npz": load_npz, ".safetensors": load_safetensors, ".mat": scipy.io.loadmat}


def read_splits(path: Path, arrays: Mapping[str, np.ndarray]) -> tuple[FeatureSet, FeatureSet]:
    names = ("features", "split", "identities", *(["cameras"] if "cameras" in arrays else []))
    lengths = {name: len(arrays[name]) for name in names}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{length} rows of {name}" for name, length in lengths.items())
        raise InputError(f"{path} holds {counts}; expected as many of each")
    cameras = arrays.get("cameras")
    if cameras is not None and (cameras < 0).any():
        cameras = None

    def part(name: str) -> FeatureSet:
        rows = arrays["split"] == name
        return FeatureSet(
            arrays["features"][rows], arrays["identities"][rows], None if cameras is None else cameras[rows]
        )

    gallery = part("gallery")
    return (part("query") if (arrays["split"] == "query").any() else gallery), gallery


def read_mat(arrays: Mapping[str, np.ndarray]) -> tuple[FeatureSet, FeatureSet]:
    def part(name: str) -> FeatureSet:
        return FeatureSet(
            arrays[f"{name}_f"],
            arrays[f"{name}_label"].ravel().astype(np.int64),
            arrays[f"{name}_cam"].ravel().astype(np.int64),
        )

    return part("query"), part("gallery")


def write_feature_file(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays to an .npz or .safetensors file, whole or not at all; a memory-mapped array is not read at once.

    Raises:
        InputError: the disk is full; or text too long for a .safetensors file.
    """
    path = Path(path)
    with new_file(path) as temporary:
        SAVE[path.suffix](temporary, arrays)


def save_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    with open(path, "wb") as file:  # of a path numpy changes the suffix
        np.savez(file, **arrays)


def save_safetensors(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    metadata = {name: json.dumps(array.tolist()) for name, array in arrays.items() if array.dtype.kind == "U"}
    if sum(map(len, metadata.values())) > HEADER_LIMIT // 2:  # its header quotes them once more
        raise InputError(f"paths and splits of {len(arrays['paths']):,} images are too long for .safetensors; use .npz")
    try:
        safetensors.numpy.save_file(
            {name: array for name, array in arrays.items() if name not in metadata}, path, metadata
        )
    except safetensors.SafetensorError as error:
        raise OSError(None, str(error)) from error


SAVE = {".npz": save_npz, ".safetensors": save_safetensors}
