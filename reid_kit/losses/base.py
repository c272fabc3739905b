"""What every loss shares: checked input, float32 arithmetic, the batch gathered over processes."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from reid_kit.distributed import gather_rows, rank, row_counts, world_size
from reid_kit.errors import InputError, NonFiniteError
from reid_kit.precision import without_autocast

_labels_on_the_host: Tensor | None = None


@contextmanager
def without_waits(labels: Tensor) -> Iterator[None]:
    """Losses called within do not wait for the device to check what they are given.

    The caller looks whether embeddings and losses are finite, and gives the batch's (B,) labels on the host.
    """
    global _labels_on_the_host
    _labels_on_the_host = labels
    try:
        yield
    finally:
        _labels_on_the_host = None


def on_the_host(labels: Tensor) -> Tensor:
    """The batch's labels where they can be looked at: on the host if it has them."""
    return labels if _labels_on_the_host is None else _labels_on_the_host


INTEGERS = {torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32, torch.uint64}


@dataclass(frozen=True)
class Batch:
    """Anchors against the gallery they are compared with.

    anchors (A, D): this process's rows. gallery (G, D): the rows of all processes, then those of a cross-batch
    memory. Anchor i stands in the gallery as row `first + i`. The masks are made once; do not write into them.
    """

    anchors: Tensor
    anchor_labels: Tensor
    gallery: Tensor
    gallery_labels: Tensor
    first: int = 0

    @staticmethod
    def collect(embeddings: Tensor, labels: Tensor, whole: bool = False) -> "Batch":
        """Gathers the rows of all processes; with `whole` every process takes all of them as anchors."""
        gallery, gallery_labels = gather_rows(embeddings), gather_rows(labels)
        if whole:
            return Batch(gallery, gallery_labels, gallery, gallery_labels)
        first = sum(row_counts(len(embeddings), embeddings.device)[: rank()])
        return Batch(embeddings, labels, gallery, gallery_labels, first)

    @cached_property
    def is_self(self) -> Tensor:
        """(A, G) bool: the anchor itself, found by index, so that duplicates still count as pairs."""
        rows = torch.arange(len(self.anchors), device=self.anchors.device) + self.first
        return rows[:, None] == torch.arange(len(self.gallery), device=self.anchors.device)

    @cached_property
    def same(self) -> Tensor:
        """(A, G) bool: equal labels, the anchor itself included."""
        return self.anchor_labels[:, None] == self.gallery_labels

    @cached_property
    def positives(self) -> Tensor:
        """(A, G) bool: P_i, equal labels without the anchor itself."""
        return self.same & ~self.is_self

    @cached_property
    def negatives(self) -> Tensor:
        """(A, G) bool: N_i, other labels."""
        return ~self.same


class EmbeddingLoss(nn.Module):
    """Base of all losses. A subclass writes `compute(batch) -> scalar` from its paper's equation.

    feature: the feature of the embedder that the loss is defined on, "metric" (before the neck) or "inference".
    whole_batch: the equation does not split over anchors (medoids, histograms): every process computes it on all
        rows, and the gather's backward makes the averaged gradient that of one process.
    needs_positives: a batch without any positive pair is worth a warning.
    active_fraction: after a call, the share of pairs, triplets or anchors with a non-zero term, a 0-d tensor.
    """

    feature = "metric"
    whole_batch = False
    needs_positives = True

    def __init__(self):
        super().__init__()
        self.active_fraction = torch.tensor(float("nan"))
        self._warned = False

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch; 0 of an empty one.

        Args:
            embeddings: (B, D) float of any precision; computed in float32 at least, also under autocast.
            labels: (B,) integers of any type, in any order, with any counts.

        Raises:
            InputError: wrong shapes or types.
            NonFiniteError: embeddings with NaN or infinity; the message names the first rows.
        """
        with without_autocast(embeddings.device):
            batch = self.collect(embeddings, labels)
            if not len(batch.gallery):
                self.active_fraction = batch.gallery.new_zeros(())
                return batch.gallery.sum()
            return self.compute(batch)

    def collect(self, embeddings: Tensor, labels: Tensor) -> Batch:
        """The checked batch, in float32 at least, with the rows of all processes."""
        check(embeddings, labels)
        labels = labels.long()
        if embeddings.dtype in (torch.float16, torch.bfloat16):
            embeddings = embeddings.float()
        batch = Batch.collect(embeddings, labels, self.whole_batch)
        if self.needs_positives and not self._warned and not has_pairs(batch.gallery_labels):
            self._warned = True
            warnings.warn(
                f"{type(self).__name__}: a batch without any positive pair; its positive terms are 0. "
                f"Sample at least two images of an identity (SAMPLER.K >= 2).",
                stacklevel=5,  # the line that called the loss, above forward and Module.__call__
            )
        return batch

    def end_epoch(self) -> None:
        """Called after each epoch of training, for a loss that takes something from all of its batches."""

    def compute(self, batch: Batch) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no compute(batch)")


def has_pairs(labels: Tensor) -> bool:
    """Whether a label comes twice; taken for granted where only another process could tell without a wait."""
    if _labels_on_the_host is not None and world_size() > 1:
        return True
    # of sorted labels, as not every loss needs the masks
    return bool((on_the_host(labels).sort().values.diff() == 0).any())


def check(embeddings: Tensor, labels: Tensor) -> None:
    """Raises for embeddings and labels that no loss can take."""
    if not isinstance(embeddings, Tensor) or not isinstance(labels, Tensor):
        raise InputError(f"a loss takes two tensors, got {type(embeddings).__name__} and {type(labels).__name__}")
    if embeddings.ndim != 2 or not embeddings.is_floating_point():
        raise InputError(f"embeddings must be a (B, D) float tensor, got {tuple(embeddings.shape)} {embeddings.dtype}")
    if labels.shape != embeddings.shape[:1] or labels.dtype not in INTEGERS:
        raise InputError(
            f"labels must be a ({len(embeddings)},) integer tensor, one for each embedding, "
            f"got {tuple(labels.shape)} {labels.dtype}"
        )
    if _labels_on_the_host is not None or embeddings.detach().sum().isfinite():
        return  # one cheap pass: NaN and infinity never leave a sum, though large finite numbers may overflow it
    rows = (~torch.isfinite(embeddings).all(dim=1)).nonzero().flatten().tolist()
    if rows:
        raise NonFiniteError(f"{len(rows)} of {len(embeddings)} embeddings hold NaN or infinity, first rows {rows[:5]}")
