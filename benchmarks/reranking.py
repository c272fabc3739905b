"""k-reciprocal re-ranking with sparse neighbourhoods beside the same with N x N matrices, in one process.

  python benchmarks/reranking.py --queries 3368 --gallery 15913 --dimension 2048

The two run in turn; the dense one holds about 20 bytes for each pair of images, 7.5 GB at this shape, and is left out
with --without-dense. The product alone is what no version can do without.
"""

import argparse
import statistics

import numpy as np
import torch
from timing import in_turn

from reid_kit import k_reciprocal_distance

K1, K2, LAMBDA = 20, 6, 0.3


def product(query: np.ndarray, gallery: np.ndarray) -> None:
    """All inner products of the N images, 512 rows at a time, thrown away."""
    rows = torch.from_numpy(np.concatenate([query, gallery]))
    for start in range(0, len(rows), 512):
        rows[start : start + 512] @ rows.T


def dense(query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """The method as it was published: every matrix N x N, a full argsort, loops over images."""
    rows = np.concatenate([query, gallery])
    total, queries = len(rows), len(query)
    squares = (rows**2).sum(1)
    original = squares[:, None] + squares - 2 * rows @ rows.T
    original = np.maximum(original, 0, out=original)
    original /= original.max(1, keepdims=True)
    V = np.zeros_like(original)
    order = np.argsort(original).astype(np.int32)

    def reciprocal(image: int, k: int) -> np.ndarray:
        forward = order[image, : k + 1]
        return forward[(order[forward, : k + 1] == image).any(1)]

    for image in range(total):
        near = expanded = reciprocal(image, K1)
        for candidate in near:
            candidates = reciprocal(candidate, round(K1 / 2))
            if len(np.intersect1d(candidates, near)) > 2 / 3 * len(candidates):
                expanded = np.append(expanded, candidates)
        expanded = np.unique(expanded)
        weight = np.exp(-original[image, expanded])
        V[image, expanded] = weight / weight.sum()
    V = np.stack([V[order[image, :K2]].mean(0) for image in range(total)])
    holders = [np.flatnonzero(V[:, image]) for image in range(total)]
    jaccard = np.empty((queries, total), np.float32)
    for image in range(queries):
        common = np.zeros(total, np.float32)
        for neighbour in np.flatnonzero(V[image]):
            found = holders[neighbour]
            common[found] += np.minimum(V[image, neighbour], V[found, neighbour])
        jaccard[image] = 1 - common / (2 - common)
    return (LAMBDA * original[:queries] + (1 - LAMBDA) * jaccard)[:, queries:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=3368)
    parser.add_argument("--gallery", type=int, default=15913)
    parser.add_argument("--dimension", type=int, default=2048)
    parser.add_argument("--identities", type=int, default=750)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--without-dense", action="store_true")
    arguments = parser.parse_args()
    random = np.random.default_rng(0)
    centres = random.standard_normal((arguments.identities, arguments.dimension), np.float32)
    sides = [
        0.5 * centres[random.integers(0, arguments.identities, n)]
        + random.standard_normal((n, arguments.dimension), np.float32)
        for n in (arguments.queries, arguments.gallery)
    ]
    contenders = {"k_reciprocal_distance": lambda: k_reciprocal_distance(*sides, K1, K2, LAMBDA).numpy()}
    contenders["bare product"] = lambda: product(*sides)
    if not arguments.without_dense:
        contenders["dense"] = lambda: dense(*sides)
    seconds, found = in_turn(contenders, arguments.repeats)
    print(f"Q {arguments.queries:,}, G {arguments.gallery:,}, D {arguments.dimension:,}\n")
    print("| | seconds | times the sparse version |\n|:--|--:|--:|")
    for name, spent in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(spent, seconds["k_reciprocal_distance"]))
        print(f"| {name} | {statistics.median(spent):.1f} | {ratio:.2f} |")
    if "dense" in found:
        print(f"\nlargest difference: {np.abs(found['k_reciprocal_distance'] - found['dense']).max():.1e}")


if __name__ == "__main__":
    main()
