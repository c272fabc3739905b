"""Searching a gallery beside the bare products, opening it, and indexing beside bare embedding; in one process.

  python benchmarks/gallery.py --entries 1000000 --dimension 512
  python benchmarks/gallery.py --entries 100000 --ann hnsw
  python benchmarks/gallery.py --entries 0 --images 10000

Vectors are of identities, a centre and noise. Contenders run in turn; the table gives medians, and the median of the
ratios to the bare product of the same round. MB: the most that the process held during a first call beside what it held
before, without the vectors, which are mapped from their file.
"""

import argparse
import platform
import statistics
import tempfile
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
QUERIES = 32  # of a batch


class Vectors:
    """Stands for a model where vectors are given."""

    height, width, arguments, fingerprint = 256, 128, {"backbone": "vectors"}, "0" * 64

    def __init__(self, size: int):
        self.embedding_size = size


def vectors(count: int, size: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    centres = F.normalize(torch.randn(-(-count // AN_IDENTITY), size, generator=generator))
    noise = F.normalize(torch.randn(count, size, generator=generator)) * NOISE
    return F.normalize(centres.repeat_interleave(AN_IDENTITY, 0)[:count] + noise)


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
    queries = F.normalize(torch.cat(queries) + 0.05 * torch.randn(len(torch.cat(queries)), arguments.dimension))
    batch = queries[torch.randperm(len(queries))[:QUERIES]].contiguous()
    took, _ = seconds(lambda: open_gallery(folder / "gallery").describe_as)
    print(f"opened in {1000 * took:.1f} ms")
    shape = (arguments.entries, arguments.dimension)
    bare = torch.from_numpy(np.memmap(folder / "gallery/vectors", np.float32, "c", shape=shape))
    contenders = {
        f"bare product, {QUERIES} queries": lambda: batch @ bare.T,
        f"bare product, entries first, {QUERIES} queries": lambda: bare @ batch.T,
        f"search, {QUERIES} queries": lambda: gallery.search(batch, top=10),
        "bare product, one query": lambda: bare @ batch[0],
        "search, one query": lambda: gallery.search(batch[:1], top=10),
    }
    gallery.search(batch[:1])  # norms are computed once
    before = own_memory()
    gallery.search(batch)
    memory = own_memory() - before
    if arguments.ann:
        took, about = seconds(lambda: gallery.build_approximate(arguments.ann).approximate)
        print(f"{arguments.ann}: recall@10 {about['recall']:.4f} at effort {about['effort']}, built in {took:.0f} s")
        plain = open_gallery(folder / "gallery")
        plain.describe_as = None
        plain.description = plain.description.__class__(**{**vars(plain.description), "approximate": None})
        contenders = {
            f"search, {QUERIES} queries": lambda: plain.search(batch, top=10),
            f"{arguments.ann}, {QUERIES} queries": lambda: gallery.search(batch, top=10),
            "search, one query": lambda: plain.search(batch[:1], top=10),
            f"{arguments.ann}, one query": lambda: gallery.search(batch[:1], top=10),
        }
    found, _ = in_turn(contenders, arguments.repeats)
    for name, spent in found.items():
        rounds = [times for other, times in found.items() if other.endswith(name.split(", ")[-1])]
        best = [min(pair) for pair in zip(*rounds[: 2 if len(rounds) == 3 else 1])]
        ratio = statistics.median(a / b for a, b in zip(spent, best))
        print(f"| {name} | {1000 * statistics.median(spent):.1f} ms | {ratio:.3f} |")
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
