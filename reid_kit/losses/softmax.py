"""Identity cross entropy."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reid_kit.distributed import mean_over_processes
from reid_kit.errors import InputError
from reid_kit.losses.base import Batch, EmbeddingLoss, on_the_host
from reid_kit.losses.pairs import non_negative_number, whole_number
from reid_kit.losses.registry import register


@register("softmax")
class Softmax(EmbeddingLoss):
    """Cross entropy over the training identities, by a linear classifier on the feature after the neck.

    Options:
        classes: number of identities; labels lie in 0 .. classes - 1. From a config it is the training set's.
        embedding_size: width of the feature. From a config it is the model's.
        label_smoothing: share of the target spread over all classes.
        bias: a learned offset for each identity.

    `active_fraction` is the share of samples that are not classified right.
    """

    feature = "inference"
    needs_positives = False

    def __init__(self, classes: int, embedding_size: int, label_smoothing: float = 0.0, bias: bool = False):
        super().__init__()
        classes = whole_number("classes of softmax", classes)
        embedding_size = whole_number("embedding_size of softmax", embedding_size)
        self.label_smoothing = non_negative_number("label_smoothing of softmax", label_smoothing)
        if label_smoothing >= 1:
            raise InputError(f"label_smoothing of softmax must be below 1, got {label_smoothing}")
        self.weight = nn.Parameter(torch.empty(classes, embedding_size))
        nn.init.normal_(self.weight, std=0.001)
        self.bias = nn.Parameter(torch.zeros(classes)) if bias else None

    def compute(self, batch: Batch) -> Tensor:
        check_classes(batch.anchor_labels, len(self.weight), "softmax")
        check_width(batch.anchors, self.weight.shape[1], "softmax")
        weight, bias = (own if own is None else own.to(batch.anchors.dtype) for own in (self.weight, self.bias))
        scores = F.linear(batch.anchors, weight, bias)
        entropy = F.cross_entropy(
            scores, batch.anchor_labels.long(), label_smoothing=self.label_smoothing, reduction="sum"
        )
        self.active_fraction = (scores.detach().argmax(1) != batch.anchor_labels).sum() / max(len(scores), 1)
        return mean_over_processes(entropy, len(scores))


def check_width(embeddings: Tensor, width: int, loss: str) -> None:
    """Raises where embeddings do not fit a loss's own weights."""
    if embeddings.shape[1] != width:
        raise InputError(
            f"{loss} was built for embedding_size={width}, but the embeddings are {embeddings.shape[1]} wide"
        )


def check_classes(labels: Tensor, classes: int, loss: str) -> None:
    """Raises where a label has no row of a loss's own weights."""
    labels = on_the_host(labels)
    if len(labels) and not (0 <= int(labels.min()) and int(labels.max()) < classes):
        raise InputError(
            f"{loss} was built for classes=0..{classes - 1}, but the batch has labels {int(labels.min())} to "
            f"{int(labels.max())}; give it the training set's number of identities"
        )
