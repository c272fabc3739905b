"""Time and peak memory of forward and backward of every loss, beside pytorch-metric-learning's where it has one.

  python benchmarks/losses.py --sizes 72 256 1024 4096 --dimension 512

The two are called in turn in one process, so that what else the machine does hits both alike; each cell is the median,
MB is what a call holds at most. Batches are 4 images an identity, the peer's losses go with the miners they need. What
takes longer than --limit seconds or does not fit into memory says so in its cell and is not tried at larger sizes.
On a CPU, memory ends at --memory GB, whatever the machine has.
"""

import argparse
import resource
import signal
import statistics
import time
from collections.abc import Callable

import torch
from memory import peak_memory
from pytorch_metric_learning import distances, losses, miners, reducers
from timing import seconds
from torch import Tensor

from reid_kit.losses import LOSSES, build_loss
from reid_kit.losses.registry import option_names


class Mined(torch.nn.Module):
    """The peer's miner and its loss, as its users combine them."""

    def __init__(self, miner: torch.nn.Module, loss: torch.nn.Module):
        super().__init__()
        self.miner, self.loss = miner, loss

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return self.loss(embeddings, labels, self.miner(embeddings, labels))


RAW, COSINE = distances.LpDistance(normalize_embeddings=False), distances.CosineSimilarity()
PEERS: dict[str, Callable[[int, int], torch.nn.Module]] = {  # of the number of identities and the width
    "angular": lambda c, d: losses.AngularLoss(),
    "circle": lambda c, d: losses.CircleLoss(m=0.25, gamma=128),
    "contrastive": lambda c, d: losses.ContrastiveLoss(distance=COSINE, pos_margin=1, neg_margin=0.5),
    "generalized_lifted_structure": lambda c, d: losses.GeneralizedLiftedStructureLoss(distance=RAW),
    "histogram": lambda c, d: losses.HistogramLoss(n_bins=100),
    "lifted_structure": lambda c, d: losses.LiftedStructureLoss(neg_margin=1, pos_margin=0, distance=RAW),
    "margin": lambda c, d: Mined(miners.DistanceWeightedMiner(), losses.MarginLoss(margin=0.2, beta=1.2)),
    "n_pair": lambda c, d: losses.NPairsLoss(),
    "proxy_nca": lambda c, d: losses.ProxyNCALoss(c, d),
    "ranked_list": lambda c, d: losses.RankedListLoss(margin=0.4, Tn=10, alpha=1.2, Tp=0),
    "relative_absolute": lambda c, d: losses.MultiSimilarityLoss(alpha=2, beta=50, base=0.5),
    "smooth_ap": lambda c, d: losses.SmoothAPLoss(),
    "softmax": lambda c, d: losses.NormalizedSoftmaxLoss(c, d),
    "triplet": lambda c, d: losses.TripletMarginLoss(margin=0.3, distance=RAW, reducer=reducers.MeanReducer()),
    "triplet_batch_hard": lambda c, d: Mined(
        miners.BatchHardMiner(distance=RAW), losses.TripletMarginLoss(margin=0.3, distance=RAW)
    ),
}

LIKE_THE_PEER = {"angular": {"n_pair_weight": 0.0}}  # options without which ours does more


def one_call(loss: torch.nn.Module, embeddings: Tensor, labels: Tensor) -> float:
    """Seconds of one forward and backward."""
    return seconds(lambda: loss(embeddings, labels).backward(), str(embeddings.device))[0]


def too_slow(*_) -> None:
    raise TimeoutError


def obstacle(loss: torch.nn.Module, embeddings: Tensor, labels: Tensor, limit: float) -> str:
    """Why the loss cannot be measured, from a first call; "" where it can."""
    signal.signal(signal.SIGALRM, too_slow)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        one_call(loss, embeddings, labels)
    except TimeoutError:
        return f"over {limit:g} s"
    except (RuntimeError, MemoryError) as error:
        full = any(words in str(error) for words in ("allocate memory", "bad_alloc"))
        if full or isinstance(error, (torch.OutOfMemoryError, MemoryError)):
            return "no memory"
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return ""


def measure(name: str, size: int, obstacles: list[str], arguments: argparse.Namespace) -> list[str]:
    """The cells of one loss at one size: ms, MB, the peer's ms and MB, the ratio of times.

    obstacles: why ours and the peer's failed at a smaller size, or ""; updated.
    """
    torch.manual_seed(0)
    filled = {"classes": size // 4, "embedding_size": arguments.dimension}
    options = {key: value for key, value in filled.items() if key in option_names(name)}
    ours = build_loss(name, **options, **LIKE_THE_PEER.get(name, {}))
    pair = [ours, *([PEERS[name](*filled.values())] if name in PEERS else [])]
    pair = [loss.to(arguments.device) for loss in pair]
    labels = torch.arange(size, device=arguments.device) // 4
    embeddings = torch.randn(size, arguments.dimension, device=arguments.device, requires_grad=True)
    for i, loss in enumerate(pair):
        obstacles[i] = obstacles[i] or obstacle(loss, embeddings, labels, arguments.limit)
    able = [i for i in range(len(pair)) if not obstacles[i]]

    rounds, end = [], time.perf_counter() + arguments.seconds
    while able and (not rounds or time.perf_counter() < end):
        rounds.append([one_call(pair[i], embeddings, labels) for i in able])
    medians = dict(zip(able, map(statistics.median, zip(*rounds))))
    cells = []
    for i in range(2):
        if i in medians:
            held = peak_memory(lambda i=i: one_call(pair[i], embeddings, labels), arguments.device)
            cells += [f"{1000 * medians[i]:.2f}", f"{held:.0f}"]
        else:
            cells += [obstacles[i] or "-"] * 2
    return [*cells, f"{medians[0] / medians[1]:.2f}" if len(medians) == 2 else "-"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[72, 256, 1024, 4096])
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=2.0, help="of measuring a cell, one round at least")
    parser.add_argument("--limit", type=float, default=20.0, help="seconds of a first call")
    parser.add_argument("--memory", type=float, default=6.0, help="GB, on a CPU")
    parser.add_argument("--losses", nargs="+", default=sorted(LOSSES))
    arguments = parser.parse_args()
    if arguments.device == "cpu":
        resource.setrlimit(resource.RLIMIT_DATA, [int(arguments.memory * 2**30)] * 2)
    print("| loss | B | ms | MB | peer's ms | peer's MB | ratio |\n|:--|--:|--:|--:|--:|--:|--:|")
    for name in arguments.losses:
        obstacles = ["", ""]
        for size in sorted(arguments.sizes):
            cells = measure(name, size, obstacles, arguments)
            print(f"| {name} | {size} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
