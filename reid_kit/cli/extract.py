"""Images to features, with identities, cameras and paths.

  python tools/extract.py --checkpoint runs/market_srt/best.pt --data market1501 --root datasets --output market.npz
  python tools/extract.py --checkpoint runs/market_srt/best.pt --images my/photos --output photos.npz

The file holds `features` (N, D) float32, `paths`, and `model`; of a dataset also `identities`, `cameras` (-1: none) and
`split` ("query" or "gallery"). `tools/test.py --features FILE` evaluates it. A run that was broken off goes on after
its last whole part.
"""

import argparse
import io
import shutil
from pathlib import Path

import numpy as np

from reid_kit.build import build_dataset, build_device, build_test_settings
from reid_kit.config import config_from_text
from reid_kit.data.readers.registry import IMAGE_SUFFIXES
from reid_kit.data.records import Record
from reid_kit.errors import InputError
from reid_kit.files import write_atomically
from reid_kit.model.checkpoint import load_checkpoint, load_model
from reid_kit.training.testing import embed_records

PART = 4096  # images whose features are kept while the others are still to come


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", required=True, type=Path, metavar="FILE")
    parser.add_argument("--data", metavar="NAME", help="query and gallery of a dataset")
    parser.add_argument("--root", metavar="DIR", help="where the dataset is")
    parser.add_argument("--images", type=Path, metavar="DIR", help="all images below a folder")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE.npz")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="keys of reid_kit/config.py and new values")


def main(arguments: argparse.Namespace) -> None:
    if (arguments.data is None) == (arguments.images is None):
        raise InputError("give either --data NAME or --images DIR")
    if arguments.output.suffix != ".npz" or arguments.output.exists():
        raise InputError(f"--output {arguments.output} must be a new file that ends in .npz")
    content = load_checkpoint(arguments.checkpoint)
    overrides = ["DATA.NAME", arguments.data, "DATA.OPTIONS", "{}"] if arguments.data else []
    overrides += ["DATA.ROOT", arguments.root] if arguments.root else []
    config = config_from_text(content["config"], [*overrides, *arguments.overrides])
    device = build_device(config)
    records, split = find_records(arguments, config)
    model, settings = load_model(arguments.checkpoint, device), build_test_settings(config, device)

    parts = arguments.output.with_suffix(".parts")
    parts.mkdir(parents=True, exist_ok=True)
    for first in range(0, len(records), PART):
        part = parts / f"{first:09d}.npy"
        if not part.exists():
            found = embed_records(model, records[first : first + PART], settings, f"images from {first}")
            if len(found.records) < len(records[first : first + PART]):
                raise InputError("an image was left out; extraction needs DATA.ON_BAD_IMAGE error")
            write_array(part, found.features.numpy())
    features = np.concatenate([np.load(part) for part in sorted(parts.glob("*.npy"))])
    write_arrays(
        arguments.output,
        features=features,
        paths=np.array([str(record.path) for record in records]),
        identities=np.array([record.identity for record in records]),
        cameras=np.array([-1 if record.camera is None else record.camera for record in records]),
        split=np.array(split),
        model=np.array(content["model_name"]),
    )
    shutil.rmtree(parts)
    print(f"{len(features):,} features of {features.shape[1]} numbers: {arguments.output}")


def find_records(arguments: argparse.Namespace, config) -> tuple[list[Record], list[str]]:
    """What to embed, and the split each belongs to."""
    if arguments.images is None:
        dataset = build_dataset(config)
        if dataset.protocol.same_set:
            return dataset.gallery, ["gallery"] * len(dataset.gallery)
        return dataset.query + dataset.gallery, ["query"] * len(dataset.query) + ["gallery"] * len(dataset.gallery)
    files = sorted(path for path in arguments.images.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise InputError(f"no images below {arguments.images} ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return [Record(path, 0) for path in files], ["gallery"] * len(files)


def write_array(path: Path, array: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array)
    write_atomically(path, buffer.getbuffer())


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_atomically(path, buffer.getbuffer())
