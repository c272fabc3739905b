"""Train a model from a config, then test its best weights.

python tools/train.py --config configs/market_srt.yaml
python tools/train.py --config configs/market_srt.yaml --dry-run
python tools/train.py --config configs/market_srt.yaml --resume
python tools/train.py --config configs/market_srt.yaml TRAIN.OUTPUT runs/other SAMPLER.P 16
torchrun --nproc-per-node 4 tools/train.py --config configs/market_srt.yaml
"""

import argparse
import os
from collections.abc import Collection
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from yacs.config import CfgNode

from reid_kit.build import (
    build_device,
    build_loader,
    build_model,
    build_test_settings,
    build_trainer,
    build_training_data,
    label_map,
    records_digest,
)
from reid_kit.build_objective import build_objective
from reid_kit.cli.effective import OF_THE_CACHE
from reid_kit.cli.fitness import check_fitness
from reid_kit.cli.tables import dataset_table
from reid_kit.config import config_from_text, load_config
from reid_kit.data.records import RetrievalDataset
from reid_kit.distributed import in_agreement, rank, start_processes, wait_for_all
from reid_kit.errors import InputError
from reid_kit.files import hold, write_atomically
from reid_kit.inference.results import EMBED_DISTANCE, write_results
from reid_kit.inference.testing import embed_thresholds, test_retrieval
from reid_kit.model.checkpoint import load_checkpoint, load_model, save_tested
from reid_kit.model.embedder import Embedder
from reid_kit.reading import parsing
from reid_kit.report.tables import measured, threshold_table
from reid_kit.report.training_curves import training_curves
from reid_kit.training.run_folder import RunFolder
from reid_kit.training.trainer import Trainer

FREE_ON_RESUME = {"DATA.ROOT", "DATA.WORKERS", *OF_THE_CACHE, "TRAIN.DEVICE", "TRAIN.OUTPUT", "TEST.BATCH_SIZE"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, metavar="FILE", help="a YAML file, as in configs/")
    parser.add_argument("--resume", action="store_true", help="go on with the run in TRAIN.OUTPUT")
    parser.add_argument("--dry-run", action="store_true", help="print config, dataset and model size; train nothing")
    parser.add_argument(
        "--split", type=float, metavar="SHARE", help="of folder and csv: draw this share of the identities to test with"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY VALUE", help="keys of reid_kit/config_keys.py and new values"
    )


def main(arguments: argparse.Namespace) -> None:
    start_processes()
    drawn = [] if arguments.split is None else ["DATA.OPTIONS.split", repr(arguments.split)]
    config = in_agreement(lambda: load_config(arguments.config, [*arguments.overrides, *drawn]))
    if arguments.dry_run:
        dry_run(config)
    else:
        train(config, arguments.resume or is_restarted(config))


def is_restarted(config: CfgNode) -> bool:
    """Whether torchrun starts its processes anew, after it lost one (--max-restarts), and the run has a checkpoint."""
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
    return restarts > 0 and (Path(config.TRAIN.OUTPUT) / "last.pt").exists()


def dry_run(config: CfgNode) -> None:
    """Prints what a run would be made of, and ends where the run would.

    It downloads no weights and trains nothing, but it reads local weights and one batch of images.
    """
    build_device(config)
    RunFolder(config.TRAIN.OUTPUT, config.dump(), read_state=read_training_state, trackers=config.LOG.TRACKERS)
    model = build_model(config, weights="none" if config.MODEL.WEIGHTS == "imagenet" else None)
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{config.dump()}\n{config.MODEL.BACKBONE}: {count / 1e6:.2f} million parameters")
    print(f"{normalisation(model)}\n", flush=True)
    dataset, _ = build_training_data(config)
    print(dataset_table(dataset), *(f"note: {note}" for note in check_fitness(config, dataset)), sep="\n")
    labels = label_map(dataset.train)
    build_objective(config, len(labels), model)
    loader, sampler = build_loader(config, dataset.train, labels)
    next(iter(loader))
    print(f"\n{config.TRAIN.EPOCHS} epochs of {len(sampler)} batches: {config.TRAIN.EPOCHS * len(sampler)} iterations")


def train(config: CfgNode, resume: bool, look_at_test_set: bool = True) -> None:
    """Trains to the end, tests the best weights, and leaves numbers and pictures in the run folder.

    The first process holds the folder from before it reads anything there to the end.

    Args:
        look_at_test_set: False ends with best.pt, which DATA.VALIDATION chose.
    """
    folder = Path(config.TRAIN.OUTPUT)
    with ExitStack() as stack:
        held = hold(folder, "give TRAIN.OUTPUT another folder") if rank() == 0 else nullcontext()
        in_agreement(lambda: stack.enter_context(held))
        device, (dataset, validation), run, content = in_agreement(lambda: begin(config, resume))
        if run:
            stack.callback(run.close)
        trainer = in_agreement(lambda: prepare(config, dataset, validation, device, run, content))
        try:
            trainer.fit()
        except KeyboardInterrupt:
            if run:
                print(
                    f"stopped at iteration {trainer.iteration}; the same command with --resume goes on from {run.last}"
                )
            raise
        wait_for_all()  # the first process writes best.pt
        if look_at_test_set:
            test_best(config, dataset, device, trainer)
            wait_for_all()  # who compares runs reads results.json next


def begin(
    config: CfgNode, resume: bool
) -> tuple[torch.device, tuple[RetrievalDataset, RetrievalDataset], RunFolder | None, dict[str, Any] | None]:
    """Device, datasets, in the first process the run folder, and the checkpoint that a resumed run goes on from."""
    folder, run = Path(config.TRAIN.OUTPUT), None
    content = begun(folder / "last.pt", config) if resume else None
    if rank() == 0:
        run = RunFolder(folder, config.dump(), resume, read_training_state, config.LOG.TRACKERS)
    device, (dataset, validation) = build_device(config), build_training_data(config)
    notes = check_fitness(config, dataset)
    if run:
        print(dataset_table(dataset), flush=True)
        if validation is not dataset:
            print(dataset_table(validation), flush=True)
        for note in notes:
            print(f"note: {note}", flush=True)
    if content:
        check_images(content, dataset, folder / "last.pt")
    return device, (dataset, validation), run, content


def prepare(
    config: CfgNode,
    dataset: RetrievalDataset,
    validation: RetrievalDataset,
    device: torch.device,
    run: RunFolder | None,
    content: dict[str, Any] | None,
) -> Trainer:
    """The trainer, where a resumed run left it."""
    trainer = build_trainer(config, dataset, device, run, validation)
    if run and trainer.model.backbone.loaded:
        print(f"note: {trainer.model.backbone.loaded}", flush=True)
    resumed = bool(content)
    if content:
        with parsing(str(Path(config.TRAIN.OUTPUT) / "last.pt"), "the training state of a run with this config"):
            trainer.load_state_dict(content["training"])
        content.clear()  # its memory
    if run:
        print(normalisation(trainer.model), flush=True)
        if resumed:
            print(f"resumed at epoch {trainer.epoch + 1}, iteration {trainer.iteration}", flush=True)
    return trainer


def test_best(config: CfgNode, dataset: RetrievalDataset, device: torch.device, trainer: Trainer) -> None:
    """Tests best.pt, puts numbers, protocol and thresholds into it, and writes the results into the run folder."""
    best, run = Path(config.TRAIN.OUTPUT) / "best.pt", trainer.run
    if not best.exists():
        raise InputError(
            f"the run has ended and its {best} is gone. Its last weights are in {best.with_name('last.pt')}: give that "
            f"to tools/test.py --checkpoint, or train again with another TRAIN.OUTPUT"
        )
    settings = replace(build_test_settings(config, device), histogram=True)
    model = load_model(best, device)
    tested = test_retrieval(model, dataset, settings, load_checkpoint(best).get("chosen", ""))
    thresholds = embed_thresholds(model, tested)
    if run:
        numbers = measured(tested.result, tested.nmi, dataset.protocol.measures)
        save_tested(best, thresholds.values(), numbers, tested.result.protocol)
        write_atomically(run.path / "curves.png", training_curves(run.records(), len(trainer.sampler)))
        seconds = round(trainer.seconds, 1)
        facts = {"checkpoint": str(best), "dataset": dataset.name, "training_seconds": seconds}
        table = write_results(run.path, dataset.name, tested, facts | {"test": dict(config.TEST)}, thresholds)
        print(f"\ntrained in {trainer.seconds:.0f} s; the best weights, {best}:\n\n{table}\n")
        print(f"{threshold_table(thresholds, EMBED_DISTANCE)}\n")
        print(f"ranked lists: {run.path / 'ranked_list.png'}\ncurves:       {run.path / 'curves.png'}")


def normalisation(model: Embedder) -> str:
    """The values that images are normalised by, as a local MODEL.WEIGHTS file may want others than timm's."""
    sides = ("MEAN", model.arguments["mean"]), ("STD", model.arguments["std"])
    values = ", ".join(f"MODEL.{name} {' '.join(f'{value:g}' for value in numbers)}" for name, numbers in sides)
    return f"images in 0 .. 1 are normalised by {values}"


def begun(last: Path, config: CfgNode) -> dict[str, Any] | None:
    """The content of a run's last.pt, to go on from; None where it is missing, which RunFolder tells.

    Raises:
        InputError: it is no checkpoint of a run, or of a run with another config.
    """
    if not last.exists():
        return None
    content = load_checkpoint(last)
    if content["training"] is None:
        raise InputError(
            f"{last} holds weights without a training state, as best.pt does; only a run's own last.pt resumes"
        )
    check_same(config, content["config"], last.parent / "config.yaml")
    return content


def read_training_state(checkpoint: Path) -> dict | None:
    return load_checkpoint(checkpoint)["training"]


def check_images(content: dict[str, Any], dataset: RetrievalDataset, last: Path) -> None:
    """
    Raises:
        InputError: the dataset's training images are not those of the checkpoint `last`.
    """
    if content["labels"] != label_map(dataset.train):
        raise InputError(
            f"{last} was trained on {len(content['labels'])} identities, {dataset.name} now has others in its training "
            f"set; point DATA.ROOT to the images that the run began with"
        )
    now = records_digest(dataset.train)
    then = content["training"].get("images", now)
    if then != now:
        raise InputError(
            f"{last} was trained on other images of {dataset.name} ({then}; now {now}): images were added, removed or "
            f"renamed, or belong to others. Point DATA.ROOT to the images that the run began with, or start another "
            f"run with a new TRAIN.OUTPUT"
        )


def check_same(config: CfgNode, text: str, name: Path) -> None:
    """A run goes on with the config it began with, `text`; where the machine's own keys may differ."""
    found = differing(config, config_from_text(text), FREE_ON_RESUME)
    if found:
        raise InputError(
            f"{name} and the config asked for differ: {'; '.join(found)}. Resume with the values the run "
            f"began with, or start another run with a new TRAIN.OUTPUT"
        )


def differing(config: CfgNode, saved: CfgNode, free: Collection[str]) -> list[str]:
    """The keys whose values differ, in words; those of `free` may."""
    return [
        f"{section}.{key} was {saved[section].get(key)!r}, is {value!r}"
        for section, keys in config.items()
        for key, value in keys.items()
        if saved[section].get(key) != value and f"{section}.{key}" not in free
    ]
