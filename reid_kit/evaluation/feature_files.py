"""Features that were computed elsewhere: our .npz, and the .mat that many re-ID projects write."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.io

from reid_kit.errors import InputError


class FeatureSet(NamedTuple):
    """features (N, D), identities (N,), cameras (N,) or None."""

    features: np.ndarray
    identities: np.ndarray
    cameras: np.ndarray | None


def read_feature_file(path: str | Path) -> tuple[FeatureSet, FeatureSet]:
    """Query and gallery of a feature file; one and the same object where the file has no queries.

    An .npz holds `features`, `identities`, `split`, and optionally `cameras` (-1: none), as tools/extract.py writes it.
    A .mat holds `gallery_f`, `gallery_label`, `gallery_cam`, `query_f`, `query_label`, `query_cam`.

    Raises:
        InputError: the file is missing, of another kind, or lacks one of these arrays.
    """
    path = Path(path)
    if path.suffix not in (".npz", ".mat"):
        raise InputError(f"{path}: features are read from .npz or .mat files")
    try:
        arrays = dict(np.load(path)) if path.suffix == ".npz" else scipy.io.loadmat(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    try:
        return read_npz(arrays) if path.suffix == ".npz" else read_mat(arrays)
    except KeyError as error:
        raise InputError(f"{path} has no array {error}; it holds {', '.join(sorted(arrays))}") from error


def read_npz(arrays: dict[str, np.ndarray]) -> tuple[FeatureSet, FeatureSet]:
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


def read_mat(arrays: dict[str, np.ndarray]) -> tuple[FeatureSet, FeatureSet]:
    def part(name: str) -> FeatureSet:
        return FeatureSet(
            arrays[f"{name}_f"],
            arrays[f"{name}_label"].ravel().astype(np.int64),
            arrays[f"{name}_cam"].ravel().astype(np.int64),
        )

    return part("query"), part("gallery")
