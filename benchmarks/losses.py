"""Time and peak memory of forward and backward of every loss, beside pytorch-metric-learning's where it has one.

  python benchmarks/losses.py --sizes 72 256 1024 --dimension 512

The two are called in turn in one process, so that what else the machine does hits both alike; each cell is the median.
Batches are 4 images an identity. A cell is "-" where the first call took longer than --limit seconds or did not fit.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from pytorch_metric_learning import distances, losses, miners, reducers
from torch import Tensor

from reid_kit.losses import LOSSES, build_loss
from reid_kit.losses.registry import option_names

RAW = distances.LpDistance(normalize_embeddings=False)
PEERS: dict[str, Callable[[int, int], torch.nn.Module]] = {
    "triplet": lambda c, d: losses.TripletMarginLoss(margin=0.3, distance=RAW, reducer=reducers.MeanReducer()),
    "contrastive": lambda c, d: losses.ContrastiveLoss(
        distance=distances.CosineSimilarity(), pos_margin=1, neg_margin=0.5
    ),
    "lifted_structure": lambda c, d: losses.LiftedStructureLoss(neg_margin=1, pos_margin=0, distance=RAW),
    "generalized_lifted_structure": lambda c, d: losses.GeneralizedLiftedStructureLoss(distance=RAW),
    "relative_absolute": lambda c, d: losses.MultiSimilarityLoss(alpha=2, beta=50, base=0.5),
    "circle": lambda c, d: losses.CircleLoss(m=0.25, gamma=128),
    "margin": lambda c, d: losses.MarginLoss(margin=0.2, beta=1.2),
    "n_pair": lambda c, d: losses.NPairsLoss(),
    "proxy_nca": lambda c, d: losses.ProxyNCALoss(c, d),
    "angular": lambda c, d: losses.AngularLoss(),
    "smooth_ap": lambda c, d: losses.SmoothAPLoss(),
    "histogram": lambda c, d: losses.HistogramLoss(n_bins=100),
    "softmax": lambda c, d: losses.NormalizedSoftmaxLoss(c, d),
    "triplet_batch_hard": lambda c, d: MinedTriplets(miners.BatchHardMiner(distance=RAW)),
}


class MinedTriplets(torch.nn.Module):
    """The peer's miner and its triplet loss, as its users combine them."""

    def __init__(self, miner: torch.nn.Module):
        super().__init__()
        self.miner, self.loss = miner, losses.TripletMarginLoss(margin=0.3, distance=RAW)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return self.loss(embeddings, labels, self.miner(embeddings, labels))


def one_call(loss: torch.nn.Module, embeddings: Tensor, labels: Tensor) -> float:
    """Seconds of one forward and backward."""
    synchronize(embeddings.device)
    start = time.perf_counter()
    loss(embeddings, labels).backward()
    synchronize(embeddings.device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak(loss: torch.nn.Module, embeddings: Tensor, labels: Tensor) -> float:
    """MB that one forward and backward holds at most, by the allocator's own events."""
    if embeddings.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        loss(embeddings, labels).backward()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        loss(embeddings, labels).backward()
    held = most = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most / 2**20


def measure(name: str, size: int, arguments: argparse.Namespace) -> list[str]:
    """The cells of one loss at one size: ms, MB, the peer's ms, the ratio."""
    torch.manual_seed(0)
    classes = size // 4
    labels = torch.arange(size, device=arguments.device) // 4
    embeddings = torch.randn(size, arguments.dimension, device=arguments.device, requires_grad=True)
    filled = {"classes": classes, "embedding_size": arguments.dimension}
    mine = build_loss(name, **{key: value for key, value in filled.items() if key in option_names(name)})
    mine = mine.to(arguments.device)
    if one_call(mine, embeddings, labels) > arguments.limit:
        return ["-", "-", "-", "-"]
    theirs = PEERS[name](classes, arguments.dimension).to(arguments.device) if name in PEERS else None
    if theirs is not None:
        try:
            if one_call(theirs, embeddings, labels) > arguments.limit:
                theirs = None
        except (RuntimeError, MemoryError):
            theirs = None
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(arguments.repeats):
        times[0].append(one_call(mine, embeddings, labels))
        if theirs is not None:
            times[1].append(one_call(theirs, embeddings, labels))
    own = statistics.median(times[0])
    cells = [f"{1000 * own:.2f}", f"{peak(mine, embeddings, labels):.0f}"]
    if theirs is None:
        return [*cells, "-", "-"]
    other = statistics.median(times[1])
    return [*cells, f"{1000 * other:.2f}", f"{own / other:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[72, 256, 1024])
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--limit", type=float, default=20.0, help="seconds of a first call")
    parser.add_argument("--losses", nargs="+", default=sorted(LOSSES))
    arguments = parser.parse_args()
    print("| loss | B | ms | MB | peer's ms | ratio |\n|:--|--:|--:|--:|--:|--:|")
    for name in arguments.losses:
        for size in arguments.sizes:
            print(f"| {name} | {size} | " + " | ".join(measure(name, size, arguments)) + " |", flush=True)


if __name__ == "__main__":
    main()
