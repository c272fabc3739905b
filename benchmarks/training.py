"""The trainer beside the network's bare steps, in one process and in turn.

  python benchmarks/training.py --backbone resnet50 --height 256 --width 128
  python benchmarks/training.py --backbone vit_small_patch16_224 --height 256 --width 128 --workers 0 2

bare: forward, backward and optimizer step of the network on one fixed batch. memory: the trainer's steps (loss,
schedule, log) on batches in memory. files: the whole trainer on image files, read by so many workers; 0: by the
process itself. decoding: reading and augmenting alone. Images a CPU second of this process count, and the shares of
the bare network's in the same round; what the workers spend is in a column of its own. Seconds by the clock are of
account on a quiet machine.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from yacs.config import CfgNode

from reid_kit.build import build_dataset, build_loader, build_trainer, label_map
from reid_kit.config import load_config
from reid_kit.data.demo import write_demo
from reid_kit.data.loader import TrainBatch
from reid_kit.memory import keep_freed_memory
from reid_kit.training.optimizer import build_optimizer
from reid_kit.training.trainer import Stop, Trainer

TICKS = os.sysconf("SC_CLK_TCK")


def workers_seconds() -> float:
    """CPU seconds of the process's children, as long as they live."""
    children = [
        int(child) for tasks in Path("/proc/self/task").glob("*/children") for child in tasks.read_text().split()
    ]
    fields = [Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split() for child in children]
    return sum(int(stat[11]) + int(stat[12]) for stat in fields) / TICKS


def bare(trainer: Trainer, batches: list[TrainBatch]) -> Callable[[], None]:
    """Steps of the network alone, on its features' squares."""
    model, device = trainer.model, trainer.device
    images = batches[0].images.to(device, memory_format=torch.channels_last)
    optimizer = build_optimizer("adam", [(model.parameters(), 1.0)], 1e-6, 0.0)

    def run() -> None:
        model.train()
        for _ in batches:
            optimizer.zero_grad(set_to_none=True)
            model(images).inference.square().mean().backward()
            optimizer.step()

    return run


def epoch(trainer: Trainer, loader) -> Callable[[], None]:
    """An epoch of the trainer over a loader."""

    def run() -> None:
        trainer.loader, trainer.epoch, trainer.position = loader, 0, 0
        trainer.train_epoch(Stop())

    return run


def contenders(config: CfgNode, workers: list[int]) -> dict[str, Callable[[], None]]:
    dataset = build_dataset(config)
    trainer = build_trainer(config, dataset, torch.device("cpu"), None)
    trainer.log = lambda line: None
    labels = label_map(dataset.train)

    def loader(count: int):
        choice = config.clone()
        choice.defrost()
        choice.DATA.WORKERS = count
        found, sampler = build_loader(choice, dataset.train, labels)
        sampler.set_epoch(0)
        return found

    images = loader(0)
    batches = list(images)
    found = {"bare": bare(trainer, batches), "memory": epoch(trainer, batches)}
    for count in workers:
        found[f"files, {count} workers"] = epoch(trainer, loader(count))
    return {**found, "decoding": lambda: [None for _ in images]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--identities", type=int, default=8, help="P of a batch, with 4 images each")
    parser.add_argument("--steps", type=int, default=4, help="of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 1, 2, 4])
    arguments = parser.parse_args()
    keep_freed_memory()  # as the commands do
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "demo"
        write_demo(root, train=arguments.identities * arguments.steps, test=4)
        keys = {"MODEL.BACKBONE": arguments.backbone, "MODEL.WEIGHTS": "none", "MODEL.NECK": "bnneck"}
        keys |= {"DATA.NAME": "demo", "DATA.ROOT": root, "DATA.HEIGHT": arguments.height, "DATA.WIDTH": arguments.width}
        keys |= {"SAMPLER.P": arguments.identities, "SAMPLER.BATCHES_PER_EPOCH": arguments.steps, "TRAIN.EPOCHS": 1}
        keys["DATA.WORKERS"] = 0
        keys["LOSS.TERMS"] = "[{name: soft_ranking_threshold, thresholds: hard, margin: soft}, {name: softmax}]"
        config = load_config(None, [str(each) for pair in keys.items() for each in pair])
        runs = contenders(config, arguments.workers)
        for run in runs.values():
            run()  # threads and workers start, memory is asked for
        images = 4 * arguments.identities * arguments.steps
        spent = {name: [] for name in runs}
        for _ in range(arguments.rounds):
            for name, run in runs.items():
                start = time.perf_counter(), time.process_time(), workers_seconds()
                run()
                end = time.perf_counter(), time.process_time(), workers_seconds()
                spent[name].append([b - a for a, b in zip(start, end)])
    print(f"{arguments.backbone}, {arguments.height} x {arguments.width}, batches of {4 * arguments.identities}\n")
    print("| | images a CPU second | of the bare network's | workers' ms an image | images a second |")
    print("|:--|--:|--:|--:|--:|")
    for name, rounds in spent.items():
        clock, cpu, workers = (statistics.median(column) for column in zip(*rounds))
        share = statistics.median(b[1] / a[1] for a, b in zip(rounds, spent["bare"]))
        print(f"| {name} | {images / cpu:.1f} | {share:.3f} | {1000 * workers / images:.1f} | {images / clock:.1f} |")


if __name__ == "__main__":
    main()
