"""Measure mAP and CMC of a run or a checkpoint, on the dataset it was trained on or on others.

  python tools/test.py --config configs/market_srt.yaml
  python tools/test.py --checkpoint runs/market_srt/best.pt
  python tools/test.py --checkpoint runs/market_mgn/best.pt --attention
  python tools/test.py --checkpoint runs/market_srt/best.pt --data cuhk03_np --root datasets TEST.FLIP true
  python tools/test.py --config configs/inshop_srt_bbox.yaml --config configs/inshop_srt_nobbox.yaml
  python tools/test.py --features market.npz --features theirs.mat TEST.METRIC cosine

Each result goes to a folder of its own beside the checkpoint: results.json and results.md, with the
ranked lists, the worst queries, the CMC curve and the distances as pictures.
"""

import argparse
import re
from dataclasses import replace
from pathlib import Path

from reid_kit.build import build_dataset, build_device, build_test_settings
from reid_kit.cli.fitness import check_fitness
from reid_kit.config import config_from_text, load_config
from reid_kit.data.records import Protocol
from reid_kit.distributed import rank, start_processes
from reid_kit.errors import InputError
from reid_kit.evaluation import RetrievalResult
from reid_kit.evaluation.feature_files import read_feature_file
from reid_kit.files import write_atomically
from reid_kit.inference.attention import attention_picture, four_people
from reid_kit.inference.error_files import write_projector
from reid_kit.inference.results import write_results
from reid_kit.inference.testing import TestSettings, better_queries, evaluate, test_retrieval
from reid_kit.model.checkpoint import load_checkpoint, load_model
from reid_kit.report.tables import box_table, result_table

BOX_TABLE_RANKS = {"consumer_to_shop": 20, "demo_consumer_to_shop": 20}  # k of CMC@k; 1 elsewhere


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", action="append", default=[], metavar="FILE", help="test best.pt of its run folder")
    parser.add_argument("--checkpoint", action="append", default=[], metavar="FILE", help="test this; needs no config")
    parser.add_argument("--data", action="append", default=[], metavar="NAME", help="another dataset; may be repeated")
    parser.add_argument("--root", metavar="DIR", help="where the datasets are; the default is the training run's")
    parser.add_argument("--rerank", action="store_true", help="re-rank by k-reciprocal encoding (Zhong et al. 2017)")
    parser.add_argument("--expand", type=int, default=0, metavar="K", help="average each query with its K nearest")
    parser.add_argument("--alpha", type=float, default=0.0, metavar="A", help="weigh them by similarity ** A")
    parser.add_argument(
        "--multi-query", choices=("max", "mean"), default="", help="pool a person's queries of a camera"
    )
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
    variant = {key: getattr(arguments, key) for key in ("rerank", "multi_query", "expand", "alpha")}
    if arguments.features:
        config = load_config(None, arguments.overrides)
        settings = replace(build_test_settings(config, build_device(config)), **variant)
        print(result_table({Path(file).name: of_file(file, settings) for file in arguments.features}))
        return
    checkpoints = [Path(path) for path in arguments.checkpoint]
    checkpoints += [Path(load_config(path, arguments.overrides).TRAIN.OUTPUT) / "best.pt" for path in arguments.config]
    if not checkpoints:
        raise InputError("nothing to test: give --checkpoint FILE, or --config FILE of a run that has been trained")
    results, nmi, boxes, ranks = {}, {}, {}, {}
    suffix = "".join(f"_{key}{'' if value is True else f'_{value}'}" for key, value in variant.items() if value)
    for checkpoint in checkpoints:
        text = load_checkpoint(checkpoint)["config"]
        trained = config_from_text(text, arguments.overrides)
        device = build_device(trained)
        model = load_model(checkpoint, device)
        for name in arguments.data or [trained.DATA.NAME]:
            config = config_from_text(text, arguments.overrides, name, arguments.root)
            dataset = build_dataset(config)
            notes = check_fitness(config, dataset, trained=False)
            if rank() == 0:
                print(*(f"note: {note}" for note in notes), sep="\n", end="\n" * bool(notes))
            own = name == trained.DATA.NAME  # another dataset's cameras are others, whatever their numbers
            settings = replace(build_test_settings(config, device), histogram=True, cameras=own, **variant)
            tested = test_retrieval(model, dataset, settings)
            label = f"{checkpoint.parent.name} on {name}"
            folder = checkpoint.parent / f"test_{name}{suffix}"
            if rank() == 0:
                facts = {"checkpoint": str(checkpoint), "dataset": name, "test": dict(config.TEST)}
                write_results(folder, label, tested, facts)
                if arguments.projector:
                    count = write_projector(folder / "projector", tested)
                    print(f"{count:,} images for `tensorboard --logdir {folder}/projector`")
                if arguments.attention:
                    people = four_people(dataset.query)
                    write_atomically(folder / "attention.png", attention_picture(model, people, settings))
                    print(f"{label}: {folder}/attention.png")
                print(f"{label}: {folder}/results.json, ranked_list.png, worst_queries.png, result_curves.png")
            results[label], nmi[label] = tested.result, tested.nmi
            boxes[row_of(checkpoint.parent.name), name, config.DATA.USE_BOX] = tested.result
            ranks[name] = BOX_TABLE_RANKS.get(name, 1)
    if rank() == 0:
        print(f"\n{result_table(results, nmi=nmi)}")
        if len({used for _, _, used in boxes}) == 2:
            print(f"\n{box_table(boxes, ranks)}")


def row_of(run: str) -> str:
    """The method that a run of fashion retrieval is about: inshop_srt_plain_bbox is srt_plain."""
    found = re.fullmatch(r"(?:demo_)?(?:inshop|consumer2shop)_(.+)_(?:no)?bbox", run)
    return found[1] if found else run


def of_file(file: str, settings: TestSettings) -> RetrievalResult:
    """The result of features that are there already."""
    query, gallery = read_feature_file(file)
    same_set = query is gallery
    camera_aware = not same_set and query.cameras is not None and gallery.cameras is not None
    protocol = Protocol(camera_aware=camera_aware, same_set=same_set)
    return evaluate(better_queries(query, gallery, protocol, settings), gallery, protocol, settings)
