"""The margin loss (Wu et al. 2017), with its learnable boundary between positives and negatives."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reid_kit.distributed import mean_over_processes
from reid_kit.losses.base import Batch
from reid_kit.losses.miners import PairLoss
from reid_kit.losses.pairs import (
    distances,
    fraction,
    non_negative_number,
    normalized,
    positive_number,
    similarities,
    whole_number,
)
from reid_kit.losses.registry import register
from reid_kit.losses.softmax import check_classes


@register("margin")
class Margin(PairLoss):
    """[d_ap - beta + m]_+ over positive and [beta - d_an + m]_+ over negative pairs, divided by the number above 0.

    Wu et al. 2017, sec. 4 ("Sampling matters in deep embedding learning"), on L2-normalised embeddings. The boundary
    wants a learning rate above the network's: OPTIMIZER.LOSS_LR_FACTOR.

    Options:
        margin: m.
        beta: where the learnable boundary starts.
        classes: one boundary for each of so many identities, labels 0 .. classes - 1; one for all where not given.
        miner: the paper's sampling of negatives, "distance_weighted"; its draws come from torch's generator.

    `active_fraction` is the share of the mined pairs with a non-zero term.
    """

    def __init__(
        self,
        margin: float = 0.2,
        beta: float = 1.2,
        classes: int | None = None,
        miner: str | Mapping = "distance_weighted",
    ):
        super().__init__(miner)
        self.margin = non_negative_number("margin of margin", margin)
        positive_number("beta of margin", beta)
        self.classes = classes if classes is None else whole_number("classes of margin", classes)
        self.beta = nn.Parameter(torch.full((self.classes or 1,), float(beta)))

    def compute(self, batch: Batch) -> Tensor:
        if self.classes:
            check_classes(batch.anchor_labels, self.classes, "margin")
        beta = self.beta[batch.anchor_labels.long(), None] if self.classes else self.beta
        positives, negatives = self.mine(batch, similarities(batch))
        d = distances(normalized(batch))
        hinges = F.relu(torch.where(batch.same, d - beta, beta - d) + self.margin)
        mined = positives | negatives
        active = mined & (hinges > 0)
        self.active_fraction = fraction(active, of=mined)
        return mean_over_processes(hinges.masked_fill(~mined, 0).sum(), active.sum())
