"""Draw what a pair weighs in each loss against its similarity, from autograd, into one picture.

  python tools/plot_loss_weights.py --output loss_weights.png

The weight of a pair is the size of the loss's gradient by the pair's similarity: the view of "A unified view of deep
metric learning via gradient analysis", Figure 1. In each panel one pair of an anchor moves from dissimilar to similar
while its other pairs stay. The last panels show why SRT takes ranks: distances of three batches of different spread,
and their ranks.
"""

import argparse
import io
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure

from reid_kit.files import refuse_existing, write_atomically
from reid_kit.losses import build_loss
from reid_kit.losses.base import Batch, EmbeddingLoss
from reid_kit.losses.soft_ranking_threshold import soft_ranks

LOSSES = {
    "contrastive": {"name": "contrastive"},
    "triplet": {"name": "triplet", "distance": "squared", "normalize": True},
    "binomial_deviance": {"name": "binomial_deviance"},
    "lifted_structure": {"name": "lifted_structure", "normalize": True},
    "generalized_lifted_structure": {"name": "generalized_lifted_structure"},
    "relative_absolute (RAW)": {"name": "relative_absolute"},
    "RAW + VTHM": {"name": "relative_absolute", "miner": "vthm"},
    "ranked_list": {"name": "ranked_list", "detach_gallery": False},
    "margin": {"name": "margin", "miner": "all"},
    "circle": {"name": "circle", "detach_weights": True},
    "smooth_ap": {"name": "smooth_ap", "temperature": 0.1},
    "triplet_adaptive_weight": {"name": "triplet_adaptive_weight", "margin": "soft", "normalize": True},
    "SRT": {"name": "soft_ranking_threshold", "normalize": True, "temperature": 0.1},
    "SRT-F": {
        "name": "soft_ranking_threshold", "normalize": True, "temperature": 0.1, "thresholds": "hard", "margin": "soft"
    },
}  # fmt: skip
ONE, MANY = (0.5,), (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)  # similarities of the pairs that stay, of either kind
RANKING = {"smooth_ap", "SRT", "SRT-F"}  # show their nature among many
STEPS = torch.linspace(-0.2, 0.99, 120)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, default=Path("loss_weights.png"), metavar="FILE")


def main(arguments: argparse.Namespace) -> None:
    refuse_existing(arguments.output)
    write_atomically(arguments.output, draw())
    print(f"pair weights of {len(LOSSES)} losses, and distances against ranks: {arguments.output}")


def pair_weight(loss: EmbeddingLoss, similarity: float, positive: bool, others: Sequence[float]) -> float:
    """|dL/ds| of an anchor and one image at `similarity`, all else held: the loss of that anchor alone.

    The anchor is e_0 and image j is s_j e_0 + sqrt(1 - s_j^2) e_j, so that s_j can move by itself.
    """
    own = torch.tensor([similarity, *others, *others], dtype=torch.float64, requires_grad=True)
    axes = torch.eye(1 + len(own), dtype=torch.float64)
    images = own[:, None] * axes[0] + (1 - own**2).sqrt()[:, None] * axes[1:]
    gallery = torch.cat([axes[:1], images])
    labels = torch.tensor([0, 0 if positive else 1, *[0] * len(others), *range(2, 2 + len(others))])
    batch = Batch.collect(gallery, labels) if loss.whole_batch else Batch(axes[:1], labels[:1], gallery, labels)
    return abs(float(torch.autograd.grad(loss.compute(batch), own)[0][0]))


def draw() -> bytes:
    """The picture, as PNG."""
    columns, panels = 4, len(LOSSES) + 2
    figure = Figure(figsize=(15, 3 * -(-panels // columns)), layout="constrained")
    axes = figure.subplots(-(-panels // columns), columns).flat
    for panel, (title, options) in zip(axes, LOSSES.items()):
        loss = build_loss(**options).double()
        for positive, color in ((True, "tab:green"), (False, "tab:red")):
            weights = [pair_weight(loss, float(s), positive, MANY if title in RANKING else ONE) for s in STEPS]
            panel.plot(STEPS, weights, color=color, label="positive" if positive else "negative")
        panel.set(title=title, xlabel="similarity of the pair", ylabel="weight")
        panel.grid(alpha=0.3)
    axes[0].legend()
    draw_distances_and_ranks(*axes[len(LOSSES) : panels])
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return buffer.getvalue()


def draw_distances_and_ranks(distances_panel, ranks_panel) -> None:
    """Distances differ from batch to batch, ranks hardly."""
    generator = torch.Generator().manual_seed(0)
    for spread in (0.5, 1.0, 2.0):
        batch = spread * torch.randn(72, 16, generator=generator)
        matrix = torch.cdist(batch, batch)
        others = ~torch.eye(72, dtype=torch.bool)
        distances_panel.hist(matrix[others].numpy(), bins=60, histtype="step", density=True)
        ranks_panel.hist(soft_ranks(matrix, 0.1)[others].numpy(), bins=60, histtype="step", density=True)
    distances_panel.set(title="distances of three batches", xlabel="distance")
    ranks_panel.set(title="their ranks", xlabel="soft rank")
