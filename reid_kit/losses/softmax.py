"""Identity cross entropy."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reid_kit.distributed import mean_over_processes
from reid_kit.errors import InputError
from reid_kit.losses.base import Batch, EmbeddingLoss
from reid_kit.losses.registry import register


@register("softmax")
class Softmax(EmbeddingLoss):
    """Cross entropy over the training identities, by a linear classifier on the feature after the neck.

    Options:
        classes: number of identities; labels lie in 0 .. classes - 1. From a config it is the training set's.
        embedding_size: width of the feature. From a config it is the model's.
        label_smoothing: share of the target spread over all classes.

    `active_fraction` is the share of samples that are not classified right.
    """

    feature = "inference"
    needs_positives = False

    def __init__(self, classes: int, embedding_size: int, label_smoothing: float = 0.0):
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise InputError(f"label_smoothing of softmax must lie in [0, 1), got {label_smoothing}")
        self.label_smoothing = label_smoothing
        self.weight = nn.Parameter(torch.empty(classes, embedding_size))
        nn.init.normal_(self.weight, std=0.001)

    def compute(self, batch: Batch) -> Tensor:
        check_classes(batch.anchor_labels, len(self.weight), "softmax")
        scores = F.linear(batch.anchors, self.weight)
        entropy = F.cross_entropy(
            scores, batch.anchor_labels.long(), label_smoothing=self.label_smoothing, reduction="sum"
        )
        self.active_fraction = (scores.detach().argmax(1) != batch.anchor_labels).float().mean()
        return mean_over_processes(entropy, len(scores))


def check_classes(labels: Tensor, classes: int, loss: str) -> None:
    """Raises where a label has no row of a loss's own weights."""
    if len(labels) and not (0 <= int(labels.min()) and int(labels.max()) < classes):
        raise InputError(
            f"{loss} was built for classes=0..{classes - 1}, but the batch has labels {int(labels.min())} to "
            f"{int(labels.max())}; give it the training set's number of identities"
        )
