"""The raw cuhk-03.mat and the new protocol's list to folders of images in Market-1501's layout."""

import re
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import h5py
import numpy as np

from reid_kit.errors import InputError, shortened
from reid_kit.reading import PARSER_ERRORS, parsing, read_mat, regular_file

FILE = re.compile(r"^(\d+)_(\d+)_([12])_(\d+)\.png$")  # camera pair, identity in it, camera, image: each from 1
RAW, LISTS = "the authors' cuhk-03.mat (HDF5)", "the list of the new protocol, cuhk03_new_protocol_config_*.mat"
SPLITS = {"bounding_box_train": "train_idx", "query": "query_idx", "bounding_box_test": "gallery_idx"}


def prepare_cuhk03(
    raw: str | Path,
    lists: str | Path,
    output: str | Path,
    boxes: str,
    progress: Callable[[list], Iterable] = iter,
) -> dict[str, int]:
    """Writes `output/boxes/{bounding_box_train,query,bounding_box_test}/LLLL_cC_PAIR_IDENTITY_IMAGE.png`.

    Args:
        raw: cuhk-03.mat (HDF5): cells `detected` and `labeled`, five camera pairs, each identities x 10 images.
        lists: cuhk03_new_protocol_config_{detected,labeled}.mat (Zhong et al. 2017): filelist, labels, camId, and
            train_idx, query_idx, gallery_idx, counted from 1.
        boxes: "detected" or "labeled". progress: wraps the images, to show how far it is.

    Returns:
        Images of each folder.

    Raises:
        InputError: a file is missing or is not what it should be; `output/boxes` exists.
    """
    raw, lists, target = Path(raw), Path(lists), Path(output) / boxes
    if target.exists():
        raise InputError(f"{target} exists; remove it, or give another --output")
    names = read_lists(lists)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".cuhk03-") as half, open_raw(raw, boxes) as file:
        counts = dict.fromkeys(SPLITS, 0)
        for split in SPLITS:
            (Path(half) / boxes / split).mkdir(parents=True)
        for split, name, source in progress(names):
            image, place = read_raw(file, boxes, source), Path(half) / boxes / split / name
            if not cv2.imwrite(str(place), image[..., ::-1]):
                raise InputError(f"cannot write {target / split / name}; is the disk full?")
            counts[split] += 1
        shutil.move(Path(half) / boxes, target)
    return counts


def read_lists(path: Path) -> list[tuple[str, str, tuple[int, int, int]]]:
    """(folder, new file name, place in the raw file) of each image of the protocol."""
    try:
        content = read_mat(path, ("filelist", "labels", "camId", *SPLITS.values()), LISTS)
    except InputError as error:
        raise InputError(f"{path} is not a list of CUHK03's new protocol: {error}") from error
    with parsing(str(path), LISTS):
        files = [str(cell[0]) for cell in content["filelist"].ravel()]
    count = len(files)
    labels, cameras = (whole_numbers(path, key, content[key], 0, 10**6) for key in ("labels", "camId"))
    splits = {split: whole_numbers(path, key, content[key], 1, count) - 1 for split, key in SPLITS.items()}
    if not len(labels) == len(cameras) == count:
        raise InputError(f"{path}: {count} files, {len(labels)} labels, {len(cameras)} camId; expected as many of each")
    places, times = np.unique(np.concatenate(list(splits.values())), return_counts=True)
    if (times > 1).any():
        raise InputError(f"{path}: image {places[times > 1][0] + 1} is in two of the splits, or twice in one")
    found = []
    for split, indices in splits.items():
        for index in indices:
            match = FILE.match(files[index])
            if not match:
                raise InputError(
                    f"{path}: file name {shortened(files[index])}; expected PAIR_IDENTITY_CAMERA_IMAGE.png"
                )
            pair, identity, _, image = map(int, match.groups())
            if min(pair, identity, image) < 1:
                raise InputError(f"{path}: file name {files[index]!r}; its numbers count from 1")
            name = f"{labels[index]:04d}_c{cameras[index]}_{files[index]}"
            found.append((split, name, (pair - 1, identity - 1, image - 1)))
    return found


def whole_numbers(path: Path, key: str, array: np.ndarray, least: int, most: int) -> np.ndarray:
    """(n,) int64 of an array of MATLAB, whose numbers are doubles."""
    numbers = array.ravel()
    if numbers.dtype.kind not in "iuf" or not ((numbers >= least) & (numbers <= most)).all():
        raise InputError(f"{path}: {key} holds something else than whole numbers from {least} to {most}")
    if (numbers != numbers.astype(np.int64)).any():
        raise InputError(f"{path}: {key} holds fractions; expected whole numbers")
    return numbers.astype(np.int64)


def open_raw(path: Path, boxes: str) -> h5py.File:
    regular_file(path, str(path))
    try:
        file = h5py.File(path, "r")
    except PARSER_ERRORS as error:
        raise InputError(f"{path} cannot be read as cuhk-03.mat (HDF5): {error}") from error
    if boxes not in file:
        file.close()
        raise InputError(f"{path} has no cell {boxes!r}; expected the authors' cuhk-03.mat and detected or labeled")
    return file


def read_raw(file: h5py.File, boxes: str, place: tuple[int, int, int]) -> np.ndarray:
    """(H, W, 3) uint8 RGB of camera pair, identity and image. MATLAB's arrays are transposed in HDF5."""
    pair, identity, image = place
    name = f"image {image + 1} of identity {identity + 1}, pair {pair + 1}"
    try:
        images = file[file[boxes][0, pair]]
        pixels = np.asarray(file[images[image, identity]][()]).T
    except PARSER_ERRORS as error:
        raise InputError(f"{file.filename}: no {name}. Expected {RAW}") from error
    name = f"{file.filename}: {name}"
    if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape or pixels.dtype.kind not in "iuf":
        raise InputError(f"{name} is empty or no RGB image: {pixels.shape} {pixels.dtype}. Expected {RAW}")
    if pixels.min() < 0 or pixels.max() > 255:
        raise InputError(f"{name} has values of {pixels.min()} to {pixels.max()}; expected 0 to 255")
    return pixels.astype(np.uint8)
