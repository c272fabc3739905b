"""The evaluator beside the bare matrix product and beside a classical evaluator that sorts, in one process.

  python benchmarks/evaluation.py --queries 3368 --gallery 15913 --dimension 2048

The three run in turn; the table gives medians, and the median of the ratios to the product of the same round. MB: the
most that the process (or the GPU) held during a first call beside what it held before; on Linux and on GPUs.
"""

import argparse
import statistics

import numpy as np
import torch
from memory import peak_memory
from timing import in_turn

from reid_kit import evaluate_retrieval

BLOCK = 512, 4096  # queries and gallery entries of one product


def product(query: torch.Tensor, gallery: torch.Tensor) -> None:
    """All inner products, a block at a time, thrown away."""
    for start in range(0, len(query), BLOCK[0]):
        for first in range(0, len(gallery), BLOCK[1]):
            query[start : start + BLOCK[0]] @ gallery[first : first + BLOCK[1]].T


def sort_based(query, gallery, query_ids, gallery_ids, query_cameras, gallery_cameras) -> float:
    """mAP as most toolkits compute it: the whole distance matrix, an argsort, a loop over queries."""
    distances = torch.cdist(query, gallery).cpu().numpy()
    order = np.argsort(distances, axis=1)
    precisions = []
    for row, identity, camera in zip(order, query_ids, query_cameras):
        kept = ~((gallery_ids[row] == identity) & (gallery_cameras[row] == camera))
        matches = (gallery_ids[row] == identity)[kept]
        if matches.any():
            found = matches.cumsum()
            precisions.append((found / np.arange(1, len(found) + 1))[matches].mean())
    return float(np.mean(precisions))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=3368)
    parser.add_argument("--gallery", type=int, default=15913)
    parser.add_argument("--distractors", type=int, default=0, help="gallery entries more, of no query's identity")
    parser.add_argument("--dimension", type=int, default=2048)
    parser.add_argument("--identities", type=int, default=750)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--without-sort", action="store_true", help="leave the sorting evaluator out; it holds Q x G")
    arguments = parser.parse_args()
    random = np.random.default_rng(0)
    query_ids, gallery_ids = (
        random.integers(0, arguments.identities, n) for n in (arguments.queries, arguments.gallery)
    )
    gallery_ids = np.concatenate([gallery_ids, np.arange(arguments.distractors) + arguments.identities])
    cameras = [random.integers(0, 6, len(ids)) for ids in (query_ids, gallery_ids)]
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(arguments.identities, arguments.dimension, generator=generator)
    query, gallery = (
        (0.3 * centres[ids % len(centres)] + torch.randn(len(ids), arguments.dimension, generator=generator)).to(
            arguments.device
        )
        for ids in (query_ids, gallery_ids)
    )
    sides = (query, gallery, query_ids, gallery_ids, *cameras)
    contenders = {
        "bare product": lambda: product(query, gallery),
        "evaluate_retrieval": lambda: evaluate_retrieval(*sides),
    }
    if not arguments.without_sort:
        contenders["sorting"] = lambda: sort_based(*sides)
    memory = {name: peak_memory(run, arguments.device) for name, run in contenders.items()}
    seconds, _ = in_turn(contenders, arguments.repeats, arguments.device)
    print(f"Q {arguments.queries:,}, G {len(gallery):,}, D {arguments.dimension:,}, {arguments.device}\n")
    print("| | seconds | times the product | MB |\n|:--|--:|--:|--:|")
    for name, found in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(found, seconds["bare product"]))
        print(f"| {name} | {statistics.median(found):.2f} | {ratio:.2f} | {memory[name]:.0f} |")


if __name__ == "__main__":
    main()
