"""A loss on each level of a multilevel embedding."""

from collections.abc import Sequence

from torch import Tensor, nn

from reid_kit.errors import InputError
from reid_kit.losses.base import Batch, EmbeddingLoss


class MultiLevel(EmbeddingLoss):
    """The sum over levels of the loss of each level's part of the concatenated embeddings (RLL sec. 4.2, "L, M, H").

    Args:
        loss: one for all levels, which then share the weights that it owns, or a sequence with one for each.
        sizes: widths of the levels in the order of concatenation; the embeddings are (B, sum of sizes).

    `active_fraction` is the mean over levels.

    Raises:
        InputError: sizes that are not positive, or not as many as the losses; embeddings of another width.
    """

    def __init__(self, loss: EmbeddingLoss | Sequence[EmbeddingLoss], sizes: Sequence[int]):
        super().__init__()
        losses = [loss] * len(sizes) if isinstance(loss, EmbeddingLoss) else list(loss)
        if not sizes or min(sizes) < 1 or len(losses) != len(sizes):
            raise InputError(f"sizes must give a positive width for each of {len(losses)} levels, got {list(sizes)}")
        self.losses, self.sizes = nn.ModuleList(losses), list(sizes)
        self.name, self.feature = losses[0].name, losses[0].feature
        self.whole_batch = any(level.whole_batch for level in losses)
        self.needs_positives = any(level.needs_positives for level in losses)

    def compute(self, batch: Batch) -> Tensor:
        if batch.gallery.shape[1] != sum(self.sizes):
            raise InputError(
                f"{self.name} was built for levels of {self.sizes}, together {sum(self.sizes)} wide, "
                f"but the embeddings are {batch.gallery.shape[1]} wide"
            )
        total, active = 0, 0
        parts = zip(batch.anchors.split(self.sizes, dim=1), batch.gallery.split(self.sizes, dim=1))
        for loss, (anchors, gallery) in zip(self.losses, parts):
            level = Batch(anchors, batch.anchor_labels, gallery, batch.gallery_labels, batch.first)
            total = total + loss.compute(level)
            active = active + loss.active_fraction
        self.active_fraction = active / len(self.sizes)
        return total
