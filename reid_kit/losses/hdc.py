"""Hard-aware deeply cascaded embedding (Yuan et al. 2017)."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from reid_kit.errors import InputError
from reid_kit.losses.base import Batch, EmbeddingLoss
from reid_kit.losses.pairs import (
    check_distance,
    distances,
    non_negative_number,
    normalized,
    positive_number,
    whole_number,
)
from reid_kit.losses.registry import register


@register("hdc")
class HDC(EmbeddingLoss):
    """Sum over heads of the mean contrastive loss of the head's hard pairs: d for a positive, [margin - d]_+ for a
    negative pair.

    The embeddings are the heads' side by side, from the shallowest. Positive and negative pairs are ranked apart by
    their loss under the head, and the hardest share of each, `ratios` of all the batch's pairs, is kept. Head k chooses
    among the pairs that head k - 1 kept, so that a pair meets deeper heads only as long as it stays hard.

    Options:
        sizes: widths of the heads, together the embedding's. From a config they are the levels of the model; a model of
            one level is split in equal parts, as where no sizes are given.
        ratios: one for each head, in (0, 1]; the number of pairs kept is rounded up.
        cascade: with false every head chooses among all pairs, as in the released code.
        margin: in units of the distance.
        distance: "squared" (Euclidean; the released code's), "euclidean" or "cosine".
        normalize: L2-normalise each head's embeddings first.

    `active_fraction` is the share of kept pairs with a non-zero loss.
    """

    whole_batch = True

    def __init__(
        self,
        sizes: Sequence[int] | None = None,
        ratios: Sequence[float] = (1.0, 0.5, 0.2),
        cascade: bool = True,
        margin: float = 1.0,
        distance: str = "squared",
        normalize: bool = True,
    ):
        super().__init__()
        if not isinstance(ratios, list | tuple) or not ratios:
            raise InputError(f"ratios of hdc must be a list of shares in (0, 1], one for each head, got {ratios!r}")
        if any(positive_number("each of the ratios of hdc", ratio) > 1 for ratio in ratios):
            raise InputError(f"ratios of hdc must be one share in (0, 1] for each head, got {ratios}")
        check_sizes("hdc", sizes)
        if sizes is not None and len(sizes) not in (1, len(ratios)):
            raise InputError(f"sizes and ratios of hdc must be one each for every head, got {sizes} and {ratios}")
        self.sizes, self.ratios, self.cascade = sizes, list(ratios), cascade
        self.margin, self.distance = non_negative_number("margin of hdc", margin), check_distance(distance)
        self.normalize = normalize

    def compute(self, batch: Batch) -> Tensor:
        sizes = part_sizes("hdc", self.sizes, batch.gallery.shape[1], [1] * len(self.ratios))
        once = torch.ones_like(batch.same).triu(1)  # a pair counts once
        positives, negatives = batch.positives & once, batch.negatives & once
        counts = int(positives.sum()), int(negatives.sum())
        loss, kept, active = 0, 0, 0
        for head, ratio in zip(batch.gallery.split(sizes, dim=1), self.ratios):
            level = Batch(head, batch.gallery_labels, head, batch.gallery_labels)
            d = distances(normalized(level) if self.normalize else level, self.distance)
            keep_positives, keep_negatives = (math.ceil(round(ratio * count, 6)) for count in counts)
            hard_positives = hardest(d, positives, keep_positives)
            hard_negatives = hardest(-d, negatives, keep_negatives)
            terms = torch.cat([d[hard_positives], F.relu(self.margin - d[hard_negatives])])
            loss = loss + terms.sum() / max(len(terms), 1)
            kept, active = kept + len(terms), active + (terms > 0).sum()
            if self.cascade:
                positives, negatives = hard_positives, hard_negatives
        self.active_fraction = active / max(kept, 1)
        return loss


def hardest(hardness: Tensor, pairs: Tensor, count: int) -> Tensor:
    """(B, B) bool: at most `count` of the `pairs`, those with the highest `hardness`."""
    flat = hardness.detach().masked_fill(~pairs, -torch.inf).flatten()
    chosen = flat.topk(min(count, len(flat))).indices
    return torch.zeros_like(pairs).flatten().index_fill(0, chosen, True).view_as(pairs) & pairs


def check_sizes(loss: str, sizes: Sequence[int] | None) -> None:
    """Raises for what are no widths; None is left to `part_sizes`."""
    if sizes is not None and not isinstance(sizes, list | tuple):
        raise InputError(f"sizes of {loss} must be a list of widths, got {sizes!r}")
    for size in sizes or ():
        whole_number(f"each of the sizes of {loss}", size)


def part_sizes(loss: str, sizes: Sequence[int] | None, width: int, shares: Sequence[int]) -> list[int]:
    """The checked widths of an ensemble's parts, in proportion to `shares` where `sizes` does not name several."""
    if sizes is None or len(sizes) == 1:
        edges = [round(width * sum(shares[:part]) / sum(shares)) for part in range(len(shares) + 1)]
        sizes = [end - start for start, end in zip(edges, edges[1:])]
    if sum(sizes) != width or not all(size > 0 for size in sizes):
        raise InputError(
            f"sizes of {loss} must be widths above 0 that add up to the embedding's, {width}, got {list(sizes)}"
        )
    return list(sizes)
