"""Train a model from a config, then test its best weights.

python tools/train.py --config configs/market_srt.yaml
python tools/train.py --config configs/market_srt.yaml --dry-run
python tools/train.py --config configs/market_srt.yaml --resume
python tools/train.py --config configs/market_srt.yaml TRAIN.OUTPUT runs/other SAMPLER.P 16
torchrun --nproc-per-node 4 tools/train.py --config configs/market_srt.yaml
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from yacs.config import CfgNode

from reid_kit.build import (
    build_dataset,
    build_device,
    build_loader,
    build_model,
    build_objective,
    build_test_settings,
    build_trainer,
    label_map,
)
from reid_kit.cli.fitness import check_fitness
from reid_kit.cli.tables import dataset_table
from reid_kit.config import config_from_text, load_config
from reid_kit.data.records import RetrievalDataset
from reid_kit.distributed import in_agreement, rank, start_processes, wait_for_all
from reid_kit.errors import InputError
from reid_kit.files import write_atomically
from reid_kit.inference.results import write_results
from reid_kit.inference.testing import test_retrieval
from reid_kit.model.checkpoint import load_checkpoint, load_model
from reid_kit.reading import parsing, read_text
from reid_kit.report.training_curves import training_curves
from reid_kit.training.run_folder import RunFolder
from reid_kit.training.trainer import Trainer

FREE_ON_RESUME = {"DATA.ROOT", "DATA.WORKERS", "TRAIN.DEVICE", "TRAIN.OUTPUT", "TEST.BATCH_SIZE"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, metavar="FILE", help="a YAML file, as in configs/")
    parser.add_argument("--resume", action="store_true", help="go on with the run in TRAIN.OUTPUT")
    parser.add_argument("--dry-run", action="store_true", help="print config, dataset and model size; train nothing")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY VALUE", help="keys of reid_kit/config_keys.py and new values"
    )


def main(arguments: argparse.Namespace) -> None:
    start_processes()
    config = in_agreement(lambda: load_config(arguments.config, arguments.overrides))
    if arguments.dry_run:
        dry_run(config)
    else:
        train(config, arguments.resume)


def dry_run(config: CfgNode) -> None:
    """Prints what a run would be made of, and ends where the run would.

    It downloads no weights and trains nothing, but it reads local weights and one batch of images.
    """
    build_device(config)
    RunFolder(config.TRAIN.OUTPUT, config.dump())
    model = build_model(config, weights="none" if config.MODEL.WEIGHTS == "imagenet" else None)
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{config.dump()}\n{config.MODEL.BACKBONE}: {count / 1e6:.2f} million parameters\n", flush=True)
    dataset = build_dataset(config)
    print(dataset_table(dataset), *(f"note: {note}" for note in check_fitness(config, dataset)), sep="\n")
    labels = label_map(dataset.train)
    build_objective(config, len(labels), model)
    loader, sampler = build_loader(config, dataset.train, labels)
    next(iter(loader))
    print(f"\n{config.TRAIN.EPOCHS} epochs of {len(sampler)} batches: {config.TRAIN.EPOCHS * len(sampler)} iterations")


def train(config: CfgNode, resume: bool) -> None:
    """Trains to the end, tests the best weights, and leaves numbers and pictures in the run folder."""
    folder = Path(config.TRAIN.OUTPUT)
    device, dataset, run = in_agreement(lambda: begin(config, resume))
    trainer = in_agreement(lambda: prepare(config, dataset, device, run, resume))
    try:
        trainer.fit()
    except KeyboardInterrupt:
        if run:
            print(f"stopped at iteration {trainer.iteration}; the same command with --resume goes on from {run.last}")
        raise
    wait_for_all()  # the first process writes best.pt
    best = folder / "best.pt"
    settings = replace(build_test_settings(config, device), histogram=True)
    tested = test_retrieval(load_model(best, device), dataset, settings)
    if run:
        facts = {"checkpoint": str(best), "dataset": dataset.name, "training_seconds": round(trainer.seconds, 1)}
        table = write_results(folder, dataset.name, tested, facts)
        write_atomically(folder / "curves.png", training_curves(run.records()))
        run.close()
        print(f"\ntrained in {trainer.seconds:.0f} s; the best weights, {best}:\n\n{table}\n")
        print(f"ranked lists: {folder / 'ranked_list.png'}\ncurves:       {folder / 'curves.png'}")
    wait_for_all()  # who compares runs reads results.json next


def begin(config: CfgNode, resume: bool) -> tuple[torch.device, RetrievalDataset, RunFolder | None]:
    """Device, dataset and, in the first process, the run folder."""
    device, dataset, run = build_device(config), build_dataset(config), None
    notes = check_fitness(config, dataset)
    if rank() == 0:
        print(dataset_table(dataset), flush=True)
        folder = Path(config.TRAIN.OUTPUT)
        if resume:
            check_same(config, folder)
        run = RunFolder(folder, config.dump(), resume)
        for note in notes:
            print(f"note: {note}", flush=True)
    return device, dataset, run


def prepare(
    config: CfgNode, dataset: RetrievalDataset, device: torch.device, run: RunFolder | None, resume: bool
) -> Trainer:
    """The trainer, where a resumed run left it."""
    trainer = build_trainer(config, dataset, device, run)
    if run and trainer.model.backbone.loaded:
        print(f"note: {trainer.model.backbone.loaded}", flush=True)
    if resume:
        last = Path(config.TRAIN.OUTPUT) / "last.pt"
        with parsing(str(last), "the training state of a run with this config"):
            trainer.load_state_dict(resumable(last, dataset))
        if run:
            print(f"resumed at epoch {trainer.epoch + 1}, iteration {trainer.iteration}", flush=True)
    return trainer


def resumable(path: Path, dataset: RetrievalDataset) -> dict:
    """The training state of a checkpoint of a run on `dataset`."""
    content = load_checkpoint(path)
    if content["training"] is None:
        raise InputError(
            f"{path} holds weights without a training state, as best.pt does; only a run's own last.pt resumes"
        )
    if content["labels"] != label_map(dataset.train):
        raise InputError(
            f"{path} was trained on {len(content['labels'])} identities, {dataset.name} now has others in its training "
            f"set; point DATA.ROOT to the images that the run began with"
        )
    return content["training"]


def check_same(config: CfgNode, folder: Path) -> None:
    """A run goes on with the config it began with; where the machine's own keys may differ."""
    saved_file = folder / "config.yaml"
    if not saved_file.exists():
        return  # RunFolder says that there is nothing to resume
    saved = config_from_text(read_text(saved_file, str(saved_file)))
    differing = [
        f"{section}.{key} was {saved[section][key]!r}, is {value!r}"
        for section, keys in config.items()
        for key, value in keys.items()
        if saved[section].get(key) != value and f"{section}.{key}" not in FREE_ON_RESUME
    ]
    if differing:
        raise InputError(
            f"{saved_file} and the config asked for differ: {'; '.join(differing)}. Resume with the values the run "
            f"began with, or start another run with a new TRAIN.OUTPUT"
        )
