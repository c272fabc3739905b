"""Measure mAP and CMC of a run or a checkpoint, on the dataset it was trained on or on others.

  python tools/test.py --config configs/market_srt.yaml
  python tools/test.py --checkpoint runs/market_srt/best.pt
  python tools/test.py --checkpoint runs/market_mgn/best.pt --attention
  python tools/test.py --checkpoint runs/market_srt/best.pt --data cuhk03_np --root datasets TEST.FLIP true
  python tools/test.py --config configs/inshop_srt_bbox.yaml --config configs/inshop_srt_nobbox.yaml
  python tools/test.py --features market.npz --features theirs.mat TEST.METRIC cosine

Each result goes to a folder of its own beside the checkpoint or the file, whose name says what differs from the run's
own settings: results.json and results.md, with the ranked lists, the worst queries, the CMC curve and the distances as
pictures.
"""

import argparse
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from torch import nn
from yacs.config import CfgNode

from reid_kit.build import build_dataset, build_device, build_test_settings, open_model
from reid_kit.cli.effective import OF_IMAGES, OF_THE_CACHE, OF_THE_RANKING, refuse_keys, refuse_options
from reid_kit.cli.fitness import check_fitness
from reid_kit.cli.train import FREE_ON_RESUME, differing
from reid_kit.config import config_from_text, load_config
from reid_kit.distributed import rank, start_processes
from reid_kit.errors import InputError
from reid_kit.evaluation.feature_files import read_feature_file
from reid_kit.files import short_hash, write_atomically
from reid_kit.inference.attention import attention_picture, four_people
from reid_kit.inference.error_files import write_projector
from reid_kit.inference.results import results_folder, stamp, write_results
from reid_kit.inference.stored import measure_stored
from reid_kit.inference.testing import Tested, TestSettings, test_retrieval
from reid_kit.model.pretrained import HUB
from reid_kit.report.tables import box_table, cmc_name, result_table

BOX_TABLE_RANKS = {"consumer_to_shop": 20, "demo_consumer_to_shop": 20}  # k of CMC@k; 1 elsewhere
# keys that no number depends on
NOT_MEASURED = {"DATA.NAME", "DATA.WORKERS", *OF_THE_CACHE, "TEST.BATCH_SIZE", "TRAIN.DEVICE"}
RERANKING = ("k1", "k2", "lambda_value")


class Row(NamedTuple):
    """A line of the table."""

    label: str
    tested: Tested
    run: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", action="append", default=[], metavar="FILE", help="test best.pt of its run folder")
    parser.add_argument("--checkpoint", action="append", default=[], metavar="FILE", help="test this; needs no config")
    parser.add_argument("--data", action="append", default=[], metavar="NAME", help="another dataset; may be repeated")
    parser.add_argument("--root", metavar="DIR", help="where the datasets are; the default is the training run's")
    parser.add_argument("--rerank", action="store_true", help="re-rank by k-reciprocal encoding (Zhong et al. 2017)")
    parser.add_argument("--k1", type=int, metavar="K", help="its neighbours (20, or what a smaller set has)")
    parser.add_argument("--k2", type=int, metavar="K", help="neighbours whose encodings it averages (6)")
    parser.add_argument("--lambda", type=float, dest="lambda_value", metavar="L", help="the Euclidean share (0.3)")
    parser.add_argument("--expand", type=int, metavar="K", help="average each query with its K nearest")
    parser.add_argument("--alpha", type=float, metavar="A", help="weigh them by similarity ** A (0)")
    parser.add_argument("--multi-query", choices=("max", "mean"), help="pool a person's queries of a camera")
    parser.add_argument(
        "--attention", action="store_true", help="draw where in the images of four people each part of the model looks"
    )
    parser.add_argument("--features", action="append", default=[], metavar="FILE", help=".npz, .safetensors or .mat")
    parser.add_argument("--projector", action="store_true", help="features and thumbnails for TensorBoard's projector")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY VALUE", help="keys of reid_kit/config_keys.py and new values"
    )


def main(arguments: argparse.Namespace) -> None:
    start_processes()
    variant = ranking_of(arguments)
    rows = of_files(arguments, variant) if arguments.features else of_checkpoints(arguments, variant)
    if rank() == 0:
        results = {row.label: row.tested.result for row in rows}
        cmc = cmc_name([row.tested.dataset.protocol.same_set for row in rows])
        print(f"\n{result_table(results, cmc, {row.label: row.tested.nmi for row in rows})}")
        print_box_table(rows)


def ranking_of(arguments: argparse.Namespace) -> dict[str, object]:
    """What the options ask for beside the plain ranking, by the fields of TestSettings."""
    given = vars(arguments)
    if not arguments.rerank:
        refuse_options({f"--{name.split('_')[0]}": given[name] for name in RERANKING}, "they belong to --rerank")
    if arguments.expand is None:
        refuse_options({"--alpha": arguments.alpha}, "it belongs to --expand")
    elif arguments.expand < 1:
        raise InputError(f"--expand takes a number of neighbours from 1 on, got {arguments.expand}")
    names = ("rerank", *RERANKING, "multi_query", "expand", "alpha")
    return {name: given[name] for name in names if given[name] is not None and given[name] is not False}


def of_checkpoints(arguments: argparse.Namespace, variant: Mapping[str, object]) -> list[Row]:
    """Models tested on the datasets they were trained on, or on those that are asked for."""
    configs, untrained = {}, {}
    for path in arguments.config:
        config = load_config(path, arguments.overrides)
        run = Path(config.TRAIN.OUTPUT)
        if config.MODEL.WEIGHTS == "none" or any((run / name).exists() for name in ("best.pt", "last.pt")):
            configs[str(run / "best.pt")] = path, config
        else:
            untrained[f"{run}-untrained/{config.MODEL.BACKBONE}"] = path
            if rank() == 0:
                print(
                    f"note: {run} holds no run; tested is {config.MODEL.BACKBONE} with its pre-trained weights as it is"
                )
    if arguments.checkpoint or configs:
        place = ("TRAIN.OUTPUT",) if arguments.config else ()
        refuse_keys(arguments.overrides, OF_IMAGES + place, "the model comes from the checkpoint as it was trained")
    checkpoints = list({Path(name).resolve(): name for name in [*arguments.checkpoint, *configs, *untrained]}.values())
    if not checkpoints:
        raise InputError("nothing to test: give --checkpoint FILE, or --config FILE of a run that has been trained")
    names = distinct(checkpoints, lambda name: Path(name).absolute().parent.name)
    rows = []
    for checkpoint, run in zip(checkpoints, names):
        path = untrained.get(checkpoint)
        model, trained, content = open_model(None if path else checkpoint, path, arguments.overrides)
        if checkpoint in configs and rank() == 0:
            path, config = configs[checkpoint]
            for what in differing(config, trained, FREE_ON_RESUME):
                print(f"note: {path} is not what {checkpoint} was trained with, which counts: {what}")
        device = build_device(trained)
        for name in dict.fromkeys(arguments.data or [trained.DATA.NAME]):
            config = config_from_text(content["config"], arguments.overrides, name, arguments.root)
            own = config_from_text(content["config"], (), name)
            file = Path(checkpoint)
            other = {} if file.name == "best.pt" else {file.name.removesuffix(".pt"): True}
            changes = {**other, **differences(config, own)}
            cameras = name == trained.DATA.NAME  # another dataset's cameras are others, whatever their numbers
            settings = replace(build_test_settings(config, device), histogram=True, cameras=cameras, **variant)
            facts = {"checkpoint": checkpoint, "dataset": name, "data": dict(config.DATA), **variant}
            facts |= {"test": dict(config.TEST)}
            home = Path() if checkpoint.startswith(HUB) else Path(checkpoint).parent
            folder = home / folder_name(name, {**changes, **variant})
            test = partial(test_checkpoint, model, config, settings, content.get("chosen", ""))
            further, label = partial(write_further, arguments, model), f"{run} on {name}"
            rows.append(Row(label, tested_into(folder, label, facts, test, further), run))
    return rows


def test_checkpoint(model: nn.Module, config: CfgNode, settings: TestSettings, chosen: str) -> Tested:
    dataset = build_dataset(config)
    notes = check_fitness(config, dataset, trained=False)
    if rank() == 0:
        print(*(f"note: {note}" for note in notes), sep="\n", end="\n" * bool(notes))
    return test_retrieval(model, dataset, settings, chosen)


def write_further(arguments: argparse.Namespace, model: nn.Module, folder: Path, tested: Tested) -> None:
    """What is written where it is asked for."""
    if arguments.projector:
        count = write_projector(folder / "projector", tested)
        print(f"{count:,} images for `tensorboard --logdir {folder}/projector`")
    if arguments.attention:
        people = four_people(tested.dataset.query)
        write_atomically(folder / "attention.png", attention_picture(model, people, tested.settings))
        print(f"attention of the model's parts: {folder}/attention.png")


def of_files(arguments: argparse.Namespace, variant: Mapping[str, object]) -> list[Row]:
    """Features that are there already."""
    names = ("checkpoint", "config", "data", "root", "projector", "attention")
    given = {f"--{name}": getattr(arguments, name) for name in names}
    refuse_options(given, "--features holds the features themselves")
    refuse_keys(arguments.overrides, OF_THE_RANKING, "--features holds the features themselves")
    config = load_config(None, arguments.overrides)
    settings = replace(build_test_settings(config, build_device(config)), histogram=True, **variant)
    asked = {field: getattr(settings, field) for field in ("metric", "average_precision", "ranks", "nmi")}
    asked = {field: value for field, value in asked.items() if f"TEST.{field.upper()}" in arguments.overrides[::2]}
    files = list({Path(path).resolve(): path for path in arguments.features}.values())
    rows = []
    for path, name in zip(map(Path, files), distinct(files, lambda path: Path(path).name)):
        test = partial(test_file, path, settings, asked)
        facts = {"features": str(path), **asked, **variant}
        folder = path.parent / folder_name(path.name, {**asked, **variant})
        rows.append(Row(name, tested_into(folder, name, facts, test), name))
    return rows


def test_file(path: Path, settings: TestSettings, asked: Mapping[str, object]) -> Tested:
    return measure_stored(path, read_feature_file(path), settings, asked)


def tested_into(
    folder: Path,
    label: str,
    facts: Mapping[str, object],
    test: Callable[[], Tested],
    further: Callable[[Path, Tested], None] = lambda folder, tested: None,
) -> Tested:
    """Runs a test whose results go to `folder`, which the first process holds for it; `further` writes more there."""
    place = folder if folder.exists() else folder.parent
    if place.is_dir() and not os.access(place, os.W_OK):
        if rank() == 0:
            print(f"note: {place} cannot be written in, so that the results are printed alone")
        return test()
    with results_folder(folder) if rank() == 0 else nullcontext():
        tested = test()
        if rank() == 0:
            stamp(folder, facts)
            further(folder, tested)
            write_results(folder, label, tested, facts)
            pictures = ", ranked_list.png, worst_queries.png" if tested.query.records else ""
            print(f"{label}: {folder}/results.json, result_curves.png{pictures}")
    return tested


def differences(config: CfgNode, own: CfgNode) -> dict[str, object]:
    """The keys that a number depends on and whose values are not the run's own, by their last word in small letters."""
    found = {}
    for section, keys in config.items():
        for key, value in keys.items():
            name, was = f"{section}.{key}", own[section].get(key)
            if name == "DATA.ROOT":
                value, was = (str(Path(root).resolve()) for root in (value, was))
            if name.startswith(OF_IMAGES) and name not in NOT_MEASURED and value != was:
                found[key.lower()] = value
    return found


def folder_name(name: str, changes: Mapping[str, object]) -> str:
    """test_NAME, and each of the changes with its value; a hash stands for what fits no file name."""

    def part(value: object) -> str:
        text = str(value)
        return "" if value is True else f"_{text if re.fullmatch(r'[A-Za-z0-9.-]{1,20}', text) else short_hash(text)}"

    return f"test_{name}" + "".join(f"_{key}{part(value)}" for key, value in changes.items())


def distinct(paths: Sequence[str], short: Callable[[str], str]) -> list[str]:
    """A name for each path: the short one, or where several have it the whole path."""
    count = Counter(map(short, paths))
    return [short(path) if count[short(path)] == 1 else path for path in paths]


def print_box_table(rows: Sequence[Row]) -> None:
    """Fashion results with and without the box side by side, where there are both."""
    names = {row.run: row_of(row.run) for row in rows}
    cells, ranks = {}, {}
    for label, tested, run in rows:
        place = (tested.dataset.name, tested.settings.use_box)
        cells[(label if (names[run], *place) in cells else names[run], *place)] = tested.result
        ranks[tested.dataset.name] = BOX_TABLE_RANKS.get(tested.dataset.name, 1)
    if len({used for _, _, used in cells}) == 2:
        print(f"\n{box_table(cells, ranks)}")


def row_of(run: str) -> str:
    """The method that a run of fashion retrieval is about: inshop_srt_plain_bbox is srt_plain."""
    found = re.fullmatch(r"(?:demo_)?(?:inshop|consumer2shop)_(.+)_(?:no)?bbox", run)
    return found[1] if found else run
