"""Embedding by shards: memory by the number of images, and the rate beside the bare network's.

  python benchmarks/shards.py --rows 10000 100000 1000000
  python benchmarks/shards.py --backbone resnet50 --height 256 --width 128

Rows: a table of so many images is listed, embedded by a stub (no file is read, features are 8 numbers) and written;
memory is what the process holds beside what it held before. Rate: images a CPU second, of this process and its workers,
through the network on one fixed batch, and of image files through `write_shards`, in turn.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from memory import peak_memory
from torch import nn
from tqdm import tqdm

from reid_kit.data.demo import write_demo
from reid_kit.inference.features import extract_features
from reid_kit.inference.testing import TestSettings
from reid_kit.model.embedder import Embedder
from reid_kit.shards import ShardFolder, embedding, listing
from reid_kit.shards.folder import begin

CPU = torch.device("cpu")


class Stub(nn.Module):
    """8 numbers of an image, without a network."""

    height, width, embedding_size = 4, 2, 8

    def forward(self, images: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(inference=images.flatten(1)[:, :8].float())


def write_rows(folder: Path, count: int) -> Path:
    """A table of images that are not there."""
    table = folder / "rows.csv"
    with open(table, "w") as file:
        file.write("path,identity,camera\n")
        file.writelines(f"camera {row % 9}/{row:09}.jpg,{row // 20},c{row % 9}\n" for row in range(count))
    return table


def embed_all(model: nn.Module, items, settings: TestSettings, into: Path) -> None:
    begin(into, {"model": "benchmark"}, items, 10_000)
    shards = ShardFolder(into)
    with tqdm(disable=True) as bar:
        embedding.write_shards(model, shards, range(len(shards)), settings, bar)


def memory(counts: list[int]) -> None:
    embedding.read_resized = lambda *_: np.zeros((4, 2, 3), np.uint8)
    settings = TestSettings(4, 2, CPU)
    print("| images | MB at most | us an image | MB on the disk |\n|--:|--:|--:|--:|")
    for count in counts:
        with tempfile.TemporaryDirectory() as name:
            folder, table = Path(name) / "shards", write_rows(Path(name), count)
            folder.mkdir()

            def run(table=table, folder=folder) -> None:
                embed_all(Stub(), listing.items_of_table(table, "skip"), settings, folder)

            start = time.process_time()
            peak = peak_memory(run, "cpu")
            took = 1e6 * (time.process_time() - start) / count
            size = sum(path.stat().st_size for path in folder.iterdir()) / 2**20
            print(f"| {count:,} | {peak:.0f} | {took:.0f} | {size:,.0f} |", flush=True)


def rate(backbone: str, height: int, width: int, images: int, rounds: int) -> None:
    model = Embedder(backbone, "none", height=height, width=width).eval()
    settings = TestSettings(height, width, CPU, batch_size=32)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "demo"
        write_demo(root, train=2, test=images // 20)
        items = list(listing.items_of_folder(root / "people", "error"))[:images]
        batch = torch.randint(0, 256, (32, 3, height, width), dtype=torch.uint8)
        batches = [(batch.to(memory_format=torch.channels_last), torch.arange(32))] * -(-len(items) // 32)
        runs: dict[str, Callable[[Path], object]] = {
            "bare": lambda _: extract_features(model, batches, CPU, title=""),
            "shards": lambda into: embed_all(model, items, settings, into),
        }
        spent: dict[str, list[float]] = {key: [] for key in runs}
        for turn in range(rounds + 1):  # the first starts threads and asks for memory
            for key, run in runs.items():
                into = Path(name) / f"{key}{turn}"
                into.mkdir()
                start = time.process_time()
                run(into)
                counted = 32 * len(batches) if key == "bare" else len(items)
                spent[key].append((time.process_time() - start) / counted)
    shares = [bare / shards for bare, shards in list(zip(*spent.values()))[1:]]
    per_second = {key: 1 / statistics.median(seconds[1:]) for key, seconds in spent.items()}
    print(f"{backbone}, {height} x {width}: bare {per_second['bare']:.1f} images a CPU second, by shards ", end="")
    print(f"{per_second['shards']:.1f}; share {statistics.median(shares):.3f} ({min(shares):.3f} to {max(shares):.3f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", default=[], metavar="N")
    parser.add_argument("--backbone", metavar="NAME")
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.rows:
        memory(arguments.rows)
    if arguments.backbone:
        rate(arguments.backbone, arguments.height, arguments.width, arguments.images, arguments.rounds)


if __name__ == "__main__":
    main()
