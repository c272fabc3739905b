"""Images to features, with identities, cameras and paths.

  python tools/extract.py --checkpoint runs/market_srt/best.pt --data market1501 --root datasets --output market.npz
  python tools/extract.py --checkpoint runs/market_srt/best.pt --images my/photos --output photos.safetensors
  python tools/extract.py --checkpoint runs/market_srt/best.pt --tars 'photos-{000..123}.tar' --shards photos
  torchrun --nproc-per-node 4 tools/extract.py --checkpoint runs/market_srt/best.pt --table photos.csv --shards photos

The file holds `features` (N, D) float32 as the model's metric compares them (TEST.METRIC cosine: L2-normalised),
`paths`, `model` and `notes`, JSON of how they were made and are measured; of a dataset also `identities` and `cameras`
(-1: none), their names, and `split` ("query" or "gallery"). `tools/test.py --features FILE` evaluates it. In memory
there are never the features of more than a part of the images. A run that was broken off goes on after its last whole
part. --shards DIR takes any number of images and of processes: a file for each 10,000 of the images in list.jsonl; the
same command writes those that are not there yet (docs/scale.md).
"""

import argparse
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from torch import nn

from reid_kit.build import build_dataset, build_device, build_test_settings, open_model
from reid_kit.cli.effective import OF_IMAGES, refuse_keys, refuse_options
from reid_kit.cli.extract_shards import extract_shards
from reid_kit.data.records import Protocol, Record
from reid_kit.errors import InputError
from reid_kit.evaluation.feature_files import SAVE, write_feature_file
from reid_kit.files import clear_leftovers, hold, refuse_existing, short_hash, take_folder, write_atomically
from reid_kit.image_files import find_images
from reid_kit.inference.stored import notes_of
from reid_kit.inference.testing import TestSettings, embed_records
from reid_kit.model.fingerprint import fingerprint

PART = 4096  # images whose features are in memory at once
PROGRESS, ROWS, KIND = "progress.json", "features", "extraction of reid_kit"  # in the folder of one that goes on


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", type=Path, metavar="FILE")
    parser.add_argument("--config", metavar="FILE", help="its backbone with its pre-trained weights, untrained")
    parser.add_argument("--data", metavar="NAME", help="query and gallery of a dataset")
    parser.add_argument("--root", metavar="DIR", help="where the dataset is")
    parser.add_argument("--images", type=Path, metavar="DIR", help="all images below a folder")
    parser.add_argument("--table", type=Path, metavar="FILE", help="a table of images, as index takes it (--shards)")
    parser.add_argument("--tars", nargs="+", metavar="FILE", help="tars as of WebDataset, or patterns (--shards)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="FILE.npz or FILE.safetensors")
    parser.add_argument("--shards", type=Path, metavar="DIR", help="a folder of files in its place")
    parser.add_argument("--shard-size", type=int, metavar="N", help="images of such a file (10,000)")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY VALUE", help="keys of reid_kit/config_keys.py and new values"
    )


def main(arguments: argparse.Namespace) -> None:
    if (arguments.output is None) == (arguments.shards is None):
        raise InputError("give either --output FILE or --shards DIR")
    if arguments.shards is not None:
        extract_shards(arguments)
        return
    of_shards = {f"--{name.replace('_', '-')}": vars(arguments)[name] for name in ("table", "tars", "shard_size")}
    refuse_options(of_shards, "--output FILE takes --data or --images; --shards DIR takes it")
    if (arguments.data is None) == (arguments.images is None):
        raise InputError("give either --data NAME or --images DIR")
    if arguments.images is not None:
        of_dataset = {
            key: True for key in arguments.overrides[::2] if key in ("DATA.NAME", "DATA.ROOT", "DATA.OPTIONS")
        }
        refuse_options({"--root": arguments.root, **of_dataset}, "--images says where the images are")
    if arguments.config is None:
        refuse_keys(arguments.overrides, OF_IMAGES, "the model comes from the checkpoint as it was trained")
    if arguments.output.suffix not in SAVE:
        raise InputError(f"--output {arguments.output} must end in {' or '.join(SAVE)}")
    folder = arguments.output.with_name(f"{arguments.output.name}.partial")
    with hold(folder, "choose another --output"):
        refuse_existing(arguments.output)
        clear_leftovers(folder.parent, arguments.output.name)
        state = take_folder(folder, PROGRESS, KIND, "choose another --output") or {}
        extract(arguments, folder, state)
        for name in (PROGRESS, ROWS):
            (folder / name).unlink()
    with suppress(OSError):  # it is gone, or somebody has put something into it
        folder.rmdir()


def extract(arguments: argparse.Namespace, folder: Path, state: dict) -> None:
    """Embeds the images by way of `folder`, whose `state` an earlier run has left, and writes the feature file."""
    model, config, content = open_model(
        arguments.checkpoint, arguments.config, arguments.overrides, arguments.data, arguments.root
    )
    records, split, protocol = find_records(arguments, config)
    settings = build_test_settings(config, build_device(config))
    weights = fingerprint(model)
    width = len(model.columns(settings.levels)) if settings.levels else model.embedding_size
    left_out = set(embed_in_parts(model, records, settings, folder, [weights, width], state))
    kept = [position for position in range(len(records)) if position not in left_out]
    if not kept:
        raise InputError(f"none of the {len(records):,} images could be read; there is nothing to write")
    notes = notes_of(settings, protocol, content.get("chosen", "")) | {"fingerprint": weights}
    arrays = {
        "features": np.memmap(folder / ROWS, np.float32, "r", shape=(len(kept), width)),
        "paths": np.array([str(records[position].path) for position in kept]),
        "model": np.array(content["model_name"]),
        "notes": np.array(json.dumps(notes)),
    }
    if split:
        found = [records[position] for position in kept]
        arrays |= {
            "identities": np.array([record.identity for record in found]),
            "cameras": np.array([-1 if record.camera is None else record.camera for record in found]),
            "identity_names": np.array([record.identity_name for record in found]),
            "camera_names": np.array([record.camera_name for record in found]),
            "split": np.array([split[position] for position in kept]),
        }
    write_feature_file(arguments.output, arrays, replace=False)
    print(f"{len(kept):,} features of {width} numbers: {arguments.output}")


def embed_in_parts(
    model: nn.Module, records: Sequence[Record], settings: TestSettings, folder: Path, of_model: list, found: dict
) -> list[int]:
    """Writes the features to a file of `folder`, row after row, and returns the positions of images left out.

    Features that are compared by direction are L2-normalised. What stands there of an earlier run, by the state
    `found`, is kept, if it was of the same model, images and settings.

    Args:
        of_model: its fingerprint and how many numbers a feature has.

    Raises:
        InputError: the folder is another extraction's; an image cannot be read; the disk is full.
    """
    same = replace(settings, batch_size=0, workers=0, cache=None)  # what no feature depends on
    plan = [of_model, repr(same), *((str(record.path), record.box) for record in records)]
    state = {"kind": KIND, "version": 1, "plan": short_hash(json.dumps(plan)), "done": 0, "left_out": []}
    if found and found.get("plan") != state["plan"]:
        raise InputError(
            f"{folder} holds a part of another extraction: the checkpoint, the images or the settings differ. "
            f"Delete it, or choose another --output"
        )
    state |= found
    write_atomically(folder / PROGRESS, json.dumps(state))  # first, as it says that the folder is ours
    with open(folder / ROWS, "ab") as file:
        size = (state["done"] - len(state["left_out"])) * of_model[1] * np.dtype(np.float32).itemsize
        if file.tell() < size:
            raise InputError(f"{folder}: its rows do not reach as far as its {PROGRESS} says; delete the folder")
        file.truncate(size)
        while state["done"] < len(records):
            first = state["done"]
            part = records[first : first + PART]
            images = embed_records(model, part, settings, f"images from {first:,} of {len(records):,}")
            features = F.normalize(images.features) if settings.metric == "cosine" else images.features
            readable = set(images.records)
            append(file, features.numpy())
            state["left_out"] += [first + place for place, record in enumerate(part) if record not in readable]
            state["done"] += len(part)
            write_atomically(folder / PROGRESS, json.dumps(state))
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


def find_records(arguments: argparse.Namespace, config) -> tuple[list[Record], list[str], Protocol | None]:
    """What to embed, the split each belongs to, and the protocol; images of a folder have neither."""
    if arguments.images is None:
        dataset = build_dataset(config)
        if dataset.protocol.same_set:
            return dataset.gallery, ["gallery"] * len(dataset.gallery), dataset.protocol
        split = ["query"] * len(dataset.query) + ["gallery"] * len(dataset.gallery)
        return dataset.query + dataset.gallery, split, dataset.protocol
    if arguments.images.is_file():
        return [Record(arguments.images, 0)], [], None
    images = find_images(arguments.images)
    for text in images.left_out:
        print(f"note: {text}")
    return [Record(path, 0) for path in images.paths], [], None
