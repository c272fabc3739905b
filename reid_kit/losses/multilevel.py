"""A loss on each level, or on each part, of an embedding that is several side by side."""

from collections.abc import Sequence

from torch import Tensor, nn

from reid_kit.errors import InputError
from reid_kit.losses.base import Batch, EmbeddingLoss


class MultiLevel(EmbeddingLoss):
    """The sum over levels of the loss of each level's part of the concatenated embeddings (RLL sec. 4.2, "L, M, H").

    Args:
        loss: one for all levels, which then share the weights that it owns, or a sequence with one for each.
        sizes: widths of the levels in the order of concatenation; the embeddings are (B, sum of sizes).
        chosen: places of the levels that have the loss; none: all.
        mean: over levels, instead of the sum; of parts, whose number should not change a term's weight.

    `active_fraction` is the mean over levels.

    Raises:
        InputError: sizes that are not positive, or not as many as the losses; embeddings of another width.
    """

    def __init__(
        self,
        loss: EmbeddingLoss | Sequence[EmbeddingLoss],
        sizes: Sequence[int],
        chosen: Sequence[int] = (),
        mean: bool = False,
    ):
        super().__init__()
        self.chosen, self.mean = list(chosen) or list(range(len(sizes))), mean
        losses = [loss] * len(self.chosen) if isinstance(loss, EmbeddingLoss) else list(loss)
        if not sizes or min(sizes) < 1 or len(losses) != len(self.chosen):
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
        anchors, gallery = batch.anchors.split(self.sizes, dim=1), batch.gallery.split(self.sizes, dim=1)
        for loss, place in zip(self.losses, self.chosen):
            level = Batch(anchors[place], batch.anchor_labels, gallery[place], batch.gallery_labels, batch.first)
            total = total + loss.compute(level)
            active = active + loss.active_fraction
        self.active_fraction = active / len(self.chosen)
        return total / len(self.chosen) if self.mean else total
