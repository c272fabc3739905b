"""extract --shards: a large source to a folder of feature files, by any number of processes."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext

from tqdm import tqdm
from yacs.config import CfgNode

from reid_kit.build import build_device, build_test_settings, open_model
from reid_kit.cli.effective import OF_SHARDS, refuse_keys, refuse_options
from reid_kit.distributed import from_first, in_agreement, leave_processes, rank, start_processes, world_size
from reid_kit.errors import InputError
from reid_kit.files import hold
from reid_kit.inference.testing import TestSettings
from reid_kit.model.embedder import Embedder
from reid_kit.model.fingerprint import fingerprint
from reid_kit.shards.embedding import write_shards
from reid_kit.shards.folder import LIST, ShardFolder, begin
from reid_kit.shards.listing import Item, items_of_folder, items_of_table, items_of_tars

SIZE = 10_000  # images of a shard, where --shard-size does not say it


def extract_shards(arguments: argparse.Namespace) -> None:
    """The first process lists the images; from there on each writes its own shards and waits for no other."""
    start_processes()
    folder, place, processes = arguments.shards, rank(), world_size()
    with ExitStack() as stack:
        held = nullcontext() if place else hold(folder, "choose another --shards")
        in_agreement(lambda: stack.enter_context(held))
        model, settings, plan, config = in_agreement(lambda: opened(arguments))
        in_agreement(lambda: place or begin(folder, plan, items_of(arguments, config), arguments.shard_size or SIZE))
        shards = in_agreement(lambda: ShardFolder(folder))
        missing = from_first(in_agreement(lambda: place or shards.missing()))
        leave_processes()
        mine = missing[place::processes]
        images = sum(len(shards.slice(shard)) for shard in mine)
        hidden = place > 0 or not sys.stderr.isatty()
        with tqdm(total=images, desc=f"{len(mine)} shards", unit="image", disable=hidden) as bar:
            write_shards(model, shards, mine, settings, bar)
    print(summary(shards, f"process {place + 1} of {processes} has written its {len(mine)} shards"), flush=True)


def opened(arguments: argparse.Namespace) -> tuple[Embedder, TestSettings, dict, CfgNode]:
    """The model, how it embeds, what all features have in common, and the config."""
    check(arguments)
    model, config, content = open_model(arguments.checkpoint, arguments.config, arguments.overrides)
    settings = build_test_settings(config, build_device(config))
    plan = {
        "fingerprint": fingerprint(model),
        "model": content["model_name"],
        "features": of_items(settings),
        "metric": settings.metric,
        "normalized": settings.metric == "cosine",
    }
    return model, settings, plan, config


def of_items(settings: TestSettings) -> str:
    """What the features of shards depend on beside the weights, in words."""
    return settings.of_features("box cut out where there is one")


def check(arguments: argparse.Namespace) -> None:
    if sum(given is not None for given in (arguments.images, arguments.table, arguments.tars)) != 1:
        raise InputError("--shards DIR takes one of --images DIR, --table FILE and --tars FILE ...")
    refuse_options({"--data": arguments.data, "--root": arguments.root}, "--output FILE takes datasets")
    if arguments.checkpoint is not None:
        refuse_keys(arguments.overrides, OF_SHARDS, "the model comes from the checkpoint as it was trained")
    if arguments.shard_size is not None and arguments.shard_size < 1:
        raise InputError(f"--shard-size must be at least 1, got {arguments.shard_size}")


def items_of(arguments: argparse.Namespace, config: CfgNode) -> Iterator[Item]:
    on_bad_image = config.DATA.ON_BAD_IMAGE
    if arguments.images is not None:
        return items_of_folder(arguments.images, on_bad_image)
    if arguments.table is not None:
        return items_of_table(arguments.table, on_bad_image)
    return items_of_tars(arguments.tars, on_bad_image)


def summary(shards: ShardFolder, said: str) -> str:
    """What lies where; while others are still at work, what `said` says of this process."""
    counts = [shards.count(shard) for shard in range(len(shards))]
    if None in counts:
        return f"{said}; {counts.count(None):,} of {len(shards):,} in {shards.folder} not there yet"
    left_out = shards.rows - sum(counts)
    note = f", {left_out:,} could not be read and are left out" if left_out else ""
    return f"{shards.folder}: {len(shards):,} shards of {shards.rows:,} images, which {LIST} lists{note}"
