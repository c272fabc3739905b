"""The raw cuhk-03.mat and the new protocol's list to folders of images in Market-1501's layout."""

import re
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import h5py
import numpy as np
import scipy.io

from reid_kit.errors import InputError

FILE = re.compile(r"^(\d+)_(\d+)_([12])_(\d+)\.png$")  # camera pair, identity in it, camera, image: each from 1
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
            image = read_raw(file, boxes, source)
            cv2.imwrite(str(Path(half) / boxes / split / name), image[..., ::-1])
            counts[split] += 1
        shutil.move(Path(half) / boxes, target)
    return counts


def read_lists(path: Path) -> list[tuple[str, str, tuple[int, int, int]]]:
    """(folder, new file name, place in the raw file) of each image of the protocol."""
    try:
        content = scipy.io.loadmat(path)
        files = [str(cell[0]) for cell in content["filelist"].ravel()]
        labels, cameras = content["labels"].ravel(), content["camId"].ravel()
        splits = {split: content[key].ravel().astype(int) - 1 for split, key in SPLITS.items()}
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise InputError(
            f"{path} is not a list of CUHK03's new protocol ({error}); expected cuhk03_new_protocol_config_*.mat"
        ) from error
    found = []
    for split, indices in splits.items():
        for index in indices:
            match = FILE.match(files[index])
            if not match:
                raise InputError(f"{path}: file name {files[index]!r}; expected PAIR_IDENTITY_CAMERA_IMAGE.png")
            pair, identity, _, image = map(int, match.groups())
            name = f"{labels[index]:04d}_c{cameras[index]}_{files[index]}"
            found.append((split, name, (pair - 1, identity - 1, image - 1)))
    return found


def open_raw(path: Path, boxes: str) -> h5py.File:
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path} cannot be read as cuhk-03.mat (HDF5): {error}") from error
    if boxes not in file:
        file.close()
        raise InputError(f"{path} has no cell {boxes!r}; expected the authors' cuhk-03.mat and detected or labeled")
    return file


def read_raw(file: h5py.File, boxes: str, place: tuple[int, int, int]) -> np.ndarray:
    """(H, W, 3) uint8 RGB of camera pair, identity and image. MATLAB's arrays are transposed in HDF5."""
    pair, identity, image = place
    try:
        images = file[file[boxes][0, pair]]
        pixels = file[images[image, identity]][()].T
    except (KeyError, IndexError, ValueError) as error:
        raise InputError(
            f"{file.filename}: no image {image + 1} of identity {identity + 1}, pair {pair + 1}"
        ) from error
    if pixels.ndim != 3:
        raise InputError(f"{file.filename}: image {image + 1} of identity {identity + 1}, pair {pair + 1} is empty")
    return pixels.astype(np.uint8)
