"""Images to features, with identities, cameras and paths.

  python tools/extract.py --checkpoint runs/market_srt/best.pt --data market1501 --root datasets --output market.npz
  python tools/extract.py --checkpoint runs/market_srt/best.pt --images my/photos --output photos.safetensors

The file holds `features` (N, D) float32, `paths`, and `model`; of a dataset also `identities`, `cameras` (-1: none) and
`split` ("query" or "gallery"). `tools/test.py --features FILE` evaluates it. In memory there are never the features of
more than a part of the images. A run that was broken off goes on after its last whole part.
"""

import argparse
import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import nn

from reid_kit.build import build_dataset, build_device, build_test_settings
from reid_kit.config import config_from_text
from reid_kit.data.records import Record
from reid_kit.errors import InputError
from reid_kit.evaluation.feature_files import SAVE, write_feature_file
from reid_kit.files import write_atomically
from reid_kit.image_files import find_images
from reid_kit.inference.testing import TestSettings, embed_records
from reid_kit.model.checkpoint import load_checkpoint, load_model
from reid_kit.model.fingerprint import fingerprint

PART = 4096  # images whose features are in memory at once


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", required=True, type=Path, metavar="FILE")
    parser.add_argument("--data", metavar="NAME", help="query and gallery of a dataset")
    parser.add_argument("--root", metavar="DIR", help="where the dataset is")
    parser.add_argument("--images", type=Path, metavar="DIR", help="all images below a folder")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="FILE.npz or FILE.safetensors")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY VALUE", help="keys of reid_kit/config_keys.py and new values"
    )


def main(arguments: argparse.Namespace) -> None:
    if (arguments.data is None) == (arguments.images is None):
        raise InputError("give either --data NAME or --images DIR")
    if arguments.output.suffix not in SAVE or arguments.output.exists():
        raise InputError(f"--output {arguments.output} must be a new file that ends in {' or '.join(SAVE)}")
    content = load_checkpoint(arguments.checkpoint)
    config = config_from_text(content["config"], arguments.overrides, arguments.data, arguments.root)
    device = build_device(config)
    records, split = find_records(arguments, config)
    model, settings = load_model(arguments.checkpoint, device), build_test_settings(config, device)

    folder = arguments.output.with_suffix(".partial")
    left_out = set(embed_in_parts(model, records, settings, folder, fingerprint(model)))
    kept = [position for position in range(len(records)) if position not in left_out]
    if not kept:
        raise InputError(f"none of the {len(records):,} images could be read; there is nothing to write")
    arrays = {
        "features": np.memmap(folder / "features", np.float32, "r", shape=(len(kept), model.embedding_size)),
        "paths": np.array([str(records[position].path) for position in kept]),
        "model": np.array(content["model_name"]),
    }
    if split:
        cameras = [records[position].camera for position in kept]
        arrays |= {
            "identities": np.array([records[position].identity for position in kept]),
            "cameras": np.array([-1 if camera is None else camera for camera in cameras]),
            "split": np.array([split[position] for position in kept]),
        }
    write_feature_file(arguments.output, arrays)
    shutil.rmtree(folder)
    print(f"{len(kept):,} features of {model.embedding_size} numbers: {arguments.output}")


def embed_in_parts(
    model: nn.Module, records: Sequence[Record], settings: TestSettings, folder: Path, checkpoint: str
) -> list[int]:
    """Writes the features to `folder`/features, row after row, and returns the positions of images left out.

    What stands there of an earlier run is kept, if it was of the same checkpoint, images and settings.

    Raises:
        InputError: the folder is another extraction's; an image cannot be read; the disk is full.
    """
    same = replace(settings, batch_size=0, workers=0)  # what no feature depends on
    plan = [checkpoint, repr(same), *((str(record.path), record.box) for record in records)]
    state = {"plan": hashlib.sha256(json.dumps(plan).encode()).hexdigest(), "done": 0, "left_out": []}
    folder.mkdir(parents=True, exist_ok=True)
    progress = folder / "progress.json"
    if progress.exists():
        found = json.loads(progress.read_text())
        if found["plan"] != state["plan"]:
            raise InputError(
                f"{folder} holds a part of another extraction: the checkpoint, the images or the settings differ. "
                f"Delete it, or choose another --output"
            )
        state = found
    with open(folder / "features", "ab") as file:
        rows = state["done"] - len(state["left_out"])
        file.truncate(rows * model.embedding_size * np.dtype(np.float32).itemsize)
        while state["done"] < len(records):
            first = state["done"]
            part = records[first : first + PART]
            found = embed_records(model, part, settings, f"images from {first:,} of {len(records):,}")
            readable = set(found.records)
            append(file, found.features.numpy())
            state["left_out"] += [first + place for place, record in enumerate(part) if record not in readable]
            state["done"] += len(part)
            write_atomically(progress, json.dumps(state))
    return state["left_out"]


def append(file, rows: np.ndarray) -> None:
    try:
        file.write(rows)
        file.flush()
        os.fsync(file.fileno())
    except OSError as error:
        raise InputError(
            f"cannot write {file.name}: {error.strerror}. Free some space; the same command then goes on"
        ) from error


def find_records(arguments: argparse.Namespace, config) -> tuple[list[Record], list[str]]:
    """What to embed, and the split each belongs to; images of a folder belong to none."""
    if arguments.images is None:
        dataset = build_dataset(config)
        if dataset.protocol.same_set:
            return dataset.gallery, ["gallery"] * len(dataset.gallery)
        return dataset.query + dataset.gallery, ["query"] * len(dataset.query) + ["gallery"] * len(dataset.gallery)
    images = find_images(arguments.images)
    for text in images.left_out:
        print(f"note: {text}")
    return [Record(path, 0) for path in images.paths], []
