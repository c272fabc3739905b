"""Embed images and keep them in a gallery, to search in.

  python tools/index.py people --checkpoint runs/market_srt/best.pt --images my/photos
  python tools/index.py people --checkpoint runs/market_srt/best.pt --table my/cameras.csv --prune
  python tools/index.py market --checkpoint runs/market_srt/best.pt --data market1501 --root datasets --ann hnsw
  python tools/index.py baseline --config configs/market_srt.yaml --images my/photos
  python tools/index.py millions --checkpoint runs/market_srt/best.pt --shards photos

What is new or changed is embedded, the rest is left; broken off, the same command goes on. A table has a header
path[,identity][,camera][,time][,x1,y1,x2,y2] and any further columns, which are kept; of a row with a box, that part of
the image is embedded. --shards takes what extract --shards has embedded, on any number of machines. GALLERY is a
folder; name.db and http://host:port are Milvus (pip install 'reid_kit[milvus]').
"""

import argparse
import os
import sys
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from tqdm import tqdm

from reid_kit.build import build_dataset, open_model
from reid_kit.cli.effective import refuse_options
from reid_kit.cli.extract_shards import of_items
from reid_kit.data.records import JUNK
from reid_kit.errors import InputError
from reid_kit.gallery import Entry, open_gallery
from reid_kit.gallery.folder import FolderGallery
from reid_kit.gallery.indexing import index_images
from reid_kit.gallery.table import read_entries
from reid_kit.image_files import find_images
from reid_kit.inference.testing import TestSettings
from reid_kit.model.embedder import Embedder
from reid_kit.model.fingerprint import fingerprint
from reid_kit.shards.folder import ShardFolder, refuse_other


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("gallery", metavar="GALLERY", help="a folder, name.db or http://host:port")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE")
    parser.add_argument("--config", metavar="FILE", help="its backbone with its pre-trained weights, untrained")
    parser.add_argument("--images", type=Path, metavar="DIR", help="all images below a folder")
    parser.add_argument("--table", type=Path, metavar="FILE", help="a table of images")
    parser.add_argument("--data", metavar="NAME", help="the gallery of a dataset")
    parser.add_argument("--root", metavar="DIR", help="where the dataset is")
    parser.add_argument("--shards", metavar="DIR", help="what reid-kit extract --shards DIR has embedded already")
    parser.add_argument("--prune", action="store_true", help="remove what the folder, table or dataset no longer holds")
    parser.add_argument("--ann", choices=("hnsw", "ivfpq"), help="build an approximate index, and measure its recall")
    parser.add_argument("--number-type", choices=("float32", "float16"), help="of the vectors in a new gallery")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY VALUE", help="keys of reid_kit/config_keys.py and new values"
    )


def main(arguments: argparse.Namespace) -> None:
    sources = (arguments.images, arguments.table, arguments.data, arguments.shards)
    if sum(given is not None for given in sources) != 1:
        raise InputError("give one of --images DIR, --table FILE, --data NAME and --shards DIR")
    model, config, _ = open_model(
        arguments.checkpoint, arguments.config, arguments.overrides, arguments.data, arguments.root
    )
    flip = config.TEST.FLIP
    shards = None if arguments.shards is None else finished_shards(arguments, model, flip)
    entries = [] if shards else find_entries(arguments, config)
    gallery = open_gallery(arguments.gallery, model, flip=flip, number_type=arguments.number_type)
    if arguments.ann and not isinstance(gallery, FolderGallery):
        raise InputError(f"--ann is for galleries in folders; {arguments.gallery} has indexes of its own")
    hidden = not sys.stderr.isatty()
    if shards:
        parts = tqdm(shards, desc="shards", total=len(shards), unit="shard", disable=hidden)
        added = sum(gallery.add(part.entries, F.normalize(torch.from_numpy(part.features))) for part in parts)
        print(f"{added:,} from {len(shards):,} shards")
    else:
        done = index_images(
            gallery,
            entries,
            prune=arguments.prune,
            on_bad_image=config.DATA.ON_BAD_IMAGE,
            progress=lambda found: tqdm(found, desc="images", unit="image", disable=hidden),
        )
        print(", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in vars(done).items() if count))
    about = gallery.description.approximate
    kind = arguments.ann or (about or {}).get("kind")
    if kind and not (about and about["kind"] == kind and gallery.is_current(about)):
        print(f"building {kind} ...", flush=True)
        about = gallery.build_approximate(kind).approximate
        print(f"{kind}: recall@10 {about['recall']:.4f} on a sample of its own entries")
    print(summary(gallery.describe()))


def finished_shards(arguments: argparse.Namespace, model: Embedder, flip: bool) -> ShardFolder:
    """The shards, once all are there and of the vectors that `model` would give a gallery."""
    refuse_options({"--prune": arguments.prune}, "--shards adds what has been embedded, and removes nothing")
    shards = ShardFolder(arguments.shards)
    as_embed = TestSettings(model.height, model.width, torch.device("cpu"), model.enlarge, flip=flip)
    wanted = {"fingerprint": fingerprint(model), "features": of_items(as_embed)}
    refuse_other(shards.folder, {name: shards.plan[name] for name in wanted}, wanted, "Extract them as the gallery is")
    if missing := shards.missing():
        raise InputError(
            f"{len(missing):,} of {len(shards):,} shards in {shards.folder} are not there yet, first "
            f"{shards.path(missing[0]).name}; the command that began them writes the rest"
        )
    return shards


def find_entries(arguments: argparse.Namespace, config) -> list[Entry]:
    """What to index, as the folder, the table or the dataset has it."""
    if arguments.table is not None:
        return list(read_entries(arguments.table))
    if arguments.images is not None:
        found = find_images(arguments.images)
        for text in found.left_out:
            warnings.warn(text, stacklevel=2)
        source = os.path.abspath(arguments.images)
        return [Entry(str(path), source=source) for path in found.paths]
    dataset = build_dataset(config)
    nobody = dataset.nobody
    return [
        Entry(
            str(record.path),
            record.box if config.DATA.USE_BOX else None,
            "" if record.identity in nobody else record.identity_name,
            record.camera_name,
            source=f"dataset {dataset.name} in {os.path.abspath(config.DATA.ROOT)}",
        )
        for record in dataset.gallery
        if record.identity != JUNK
    ]


def summary(about: dict) -> str:
    counts = f"{about['entries']:,} entries, {about['identities']:,} identities, {about['cameras']:,} cameras"
    return f"{about['address']}: {counts}; {about['size']} numbers of {about['number_type']} each, {about['backbone']}"
