"""Searching a gallery beside the bare products, opening it, and indexing beside bare embedding; in one process.

  python benchmarks/gallery.py --entries 1000000 --dimension 512
  python benchmarks/gallery.py --ann hnsw
  python benchmarks/gallery.py --entries 0 --images 10000

Vectors are of identities, a centre and noise, spread over the dimensions as a trained model's are. Contenders run in
turn; the table gives medians, and medians of the ratios within a round: to the bare product, and how many times as fast
as exact search. MB: the most that the process held during a first call beside what it held before, without the vectors,
which are mapped from their file.
"""

import argparse
import platform
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from timing import in_turn, seconds

from reid_kit.gallery import Entry, open_gallery
from reid_kit.gallery.approximate import KINDS
from reid_kit.gallery.indexing import index_images
from reid_kit.model.embedder import Embedder

BLOCK = 65536  # entries that are made at once
AN_IDENTITY = 10  # entries
NOISE = 0.7  # beside a centre of length 1
SPREAD = 0.7  # component k has a deviation of k^-SPREAD: so MobileNetV2's embedding of CUHK03-NP falls off
QUERIES = 32  # of a batch


class Vectors:
    """Stands for a model where vectors are given."""

    height, width, arguments, fingerprint = 256, 128, {"backbone": "vectors"}, "0" * 64

    def __init__(self, size: int):
        self.embedding_size = size


def vectors(count: int, size: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    spread = torch.arange(1, size + 1) ** -SPREAD

    def around(centres: torch.Tensor | float, count: int, length: float) -> torch.Tensor:
        return F.normalize(centres + length * F.normalize(torch.randn(count, size, generator=generator) * spread))

    return around(around(0, -(-count // AN_IDENTITY), 1).repeat_interleave(AN_IDENTITY, 0)[:count], count, NOISE)


def own_memory() -> float:
    """MB of the process that are not mapped from files."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def search(arguments: argparse.Namespace, folder: Path) -> None:
    gallery = open_gallery(folder / "gallery", Vectors(arguments.dimension))
    count, queries = 0, []
    while count < arguments.entries:
        part = vectors(min(BLOCK, arguments.entries - count), arguments.dimension, count)
        queries.append(part[:: BLOCK // QUERIES])
        gallery.add(
            [Entry(f"{count + n}.jpg", identity=str((count + n) // AN_IDENTITY)) for n in range(len(part))], part
        )
        count += len(part)
    queries = torch.cat(queries)  # of identities of the gallery, from other images
    queries = F.normalize(queries + NOISE * vectors(len(queries), arguments.dimension, -1))
    batch = queries[torch.randperm(len(queries))[:QUERIES]].contiguous()
    took, opened = seconds(lambda: open_gallery(folder / "gallery"))
    first, _ = seconds(lambda: opened.search(batch[:1]))
    print(f"opened in {1000 * took:.1f} ms; the first search, which computes norms, takes {first:.2f} s")
    shape = (arguments.entries, arguments.dimension)
    bare = torch.from_numpy(np.memmap(folder / "gallery/vectors", np.float32, "c", shape=shape))
    gallery.search(batch[:1])
    before = own_memory()
    gallery.search(batch)
    memory = own_memory() - before
    contenders = {
        f"bare product, {QUERIES} queries": lambda: batch @ bare.T,
        f"bare product, entries first, {QUERIES} queries": lambda: bare @ batch.T,
        f"search, {QUERIES} queries": lambda: gallery.search(batch, top=10),
        "bare product, one query": lambda: bare @ batch[0],
        "search, one query": lambda: gallery.search(batch[:1], top=10),
    }
    if arguments.ann:
        took, about = seconds(lambda: gallery.build_approximate(arguments.ann).approximate)
        print(f"{arguments.ann}: recall@10 {about['recall']:.4f} at effort {about['effort']}, built in {took:.0f} s")
        other = open_gallery(folder / "gallery")
        gallery.description = replace(other.description, approximate=None)
        contenders[f"{arguments.ann}, {QUERIES} queries"] = lambda: other.search(batch, top=10)
        contenders[f"{arguments.ann}, one query"] = lambda: other.search(batch[:1], top=10)
        other.search(batch)  # the index is read once
    found, _ = in_turn(contenders, arguments.repeats)
    for name, spent in found.items():
        asked = name.split(", ")[-1]
        bare_ones = [times for other, times in found.items() if other.startswith("bare") and other.endswith(asked)]
        ratio = statistics.median(own / min(best) for own, *best in zip(spent, *bare_ones))
        faster = statistics.median(exact / own for own, exact in zip(spent, found[f"search, {asked}"]))
        print(f"| {name} | {1000 * statistics.median(spent):.1f} ms | {ratio:.3f} | {faster:.1f} |")
    print(f"a search takes {memory:.0f} MB beside the vectors")


def index(arguments: argparse.Namespace, folder: Path) -> None:
    """Index beside `embed` of the same files, of which nothing is kept."""
    import cv2

    random = np.random.default_rng(0)
    paths = [folder / f"{number}.jpg" for number in range(arguments.images)]
    for path in paths:
        cv2.imwrite(str(path), cv2.resize(random.integers(0, 256, (16, 8, 3), dtype=np.uint8), (64, 128)))
    model = Embedder("resnet10t", "none", height=128, width=64)
    entries = [Entry(str(path), source="benchmark") for path in paths]
    places = iter(range(100))
    contenders = {
        "bare embedding": lambda: [model.embed(paths[n : n + 512]) for n in range(0, len(paths), 512)] and None,
        "index": lambda: index_images(open_gallery(folder / f"gallery{next(places)}", model), entries),
    }
    found, _ = in_turn(contenders, max(arguments.repeats // 2, 1))
    for name, spent in found.items():
        ratio = statistics.median(a / b for a, b in zip(found["bare embedding"], spent))
        print(f"| {name} | {len(paths) / statistics.median(spent):.0f} images/s | {ratio:.3f} of the bare rate |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--ann", choices=KINDS)
    parser.add_argument("--images", type=int, default=0, help="also index so many")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    print(
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, {arguments.entries:,} rows"
    )
    with tempfile.TemporaryDirectory() as folder:
        if arguments.entries:
            search(arguments, Path(folder))
        if arguments.images:
            index(arguments, Path(folder))


if __name__ == "__main__":
    main()
