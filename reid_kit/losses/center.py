"""The centre loss (Wen et al. 2016)."""

import torch
from torch import Tensor

from reid_kit.distributed import gather_rows, mean_over_processes
from reid_kit.errors import InputError
from reid_kit.losses.base import Batch, EmbeddingLoss
from reid_kit.losses.pairs import non_negative_number, squared_distances, whole_number
from reid_kit.losses.registry import register
from reid_kit.losses.softmax import check_classes, check_width


@register("center")
class Center(EmbeddingLoss):
    """Mean over anchors of 1/2 |f - c_y|^2 (Wen et al. 2016, eq. 2); stands beside a classifier, with a small weight.

    The centres are no parameters of the optimizer. After each batch of training they move by the paper's eq. 4:
    c_j <- c_j - rate * sum over the batch's images of j of (c_j - f) / (1 + their number), whatever the term's weight
    and the optimizer. They begin at 0.

    Options:
        classes: number of identities; labels lie in 0 .. classes - 1. From a config it is the training set's.
        embedding_size: width of the feature. From a config it is the model's.
        rate: the paper's alpha, 0 .. 1.

    `active_fraction` is the share of anchors that are nearer to another identity's centre than to their own.
    """

    needs_positives = False

    def __init__(self, classes: int, embedding_size: int, rate: float = 0.5):
        super().__init__()
        classes = whole_number("classes of center", classes)
        embedding_size = whole_number("embedding_size of center", embedding_size)
        self.rate = non_negative_number("rate of center", rate)
        if rate > 1:
            raise InputError(f"rate of center must be at most 1, got {rate}")
        self.register_buffer("centres", torch.zeros(classes, embedding_size))

    def compute(self, batch: Batch) -> Tensor:
        check_classes(batch.anchor_labels, len(self.centres), "center")
        check_width(batch.anchors, self.centres.shape[1], "center")
        labels, centres = batch.anchor_labels.long(), self.centres.to(batch.anchors.dtype)
        loss = (batch.anchors - centres[labels]).square().sum() / 2
        with torch.no_grad():
            d = squared_distances(batch.anchors, centres)
            self.active_fraction = (d.amin(1) < d.gather(1, labels[:, None])[:, 0]).sum() / max(len(labels), 1)
            if self.training:
                self.move(gather_rows(batch.anchors), gather_rows(labels))
        return mean_over_processes(loss, len(labels))

    def move(self, rows: Tensor, labels: Tensor) -> None:
        """Equation 4, with the rows of all processes."""
        rows = rows.to(self.centres.dtype)
        ones = torch.ones_like(labels, dtype=rows.dtype)[:, None]  # bincount would wait for a GPU
        counts = rows.new_zeros(len(self.centres), 1).index_add_(0, labels, ones)
        sums = torch.zeros_like(self.centres).index_add_(0, labels, self.centres[labels] - rows)
        self.centres -= self.rate * sums / (1 + counts)
