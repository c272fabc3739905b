"""Identity cross entropy on the sphere: NormFace, CosFace and ArcFace."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reid_kit.distributed import mean_over_processes
from reid_kit.errors import InputError, unknown_name
from reid_kit.losses.base import Batch, EmbeddingLoss
from reid_kit.losses.pairs import EPSILON, non_negative_number, positive_number, whole_number
from reid_kit.losses.registry import register
from reid_kit.losses.softmax import check_classes, check_width

MARGINS = ("cosine", "angle")


class SphereClassifier(EmbeddingLoss):
    """What the classifiers on the sphere share: a direction for each identity, and the cross entropy of its logits."""

    feature = "inference"
    needs_positives = False

    def __init__(self, classes: int, embedding_size: int, label_smoothing: float):
        super().__init__()
        classes = whole_number(f"classes of {self.name}", classes)
        embedding_size = whole_number(f"embedding_size of {self.name}", embedding_size)
        self.label_smoothing = non_negative_number(f"label_smoothing of {self.name}", label_smoothing)
        if label_smoothing >= 1:
            raise InputError(f"label_smoothing of {self.name} must be below 1, got {label_smoothing}")
        self.weight = nn.Parameter(torch.empty(classes, embedding_size))
        nn.init.normal_(self.weight, std=embedding_size**-0.5)  # norms near 1

    def compute(self, batch: Batch) -> Tensor:
        check_classes(batch.anchor_labels, len(self.weight), self.name)
        check_width(batch.anchors, self.weight.shape[1], self.name)
        anchors, labels = batch.anchors, batch.anchor_labels.long()
        cosine = F.normalize(anchors) @ F.normalize(self.weight.to(anchors.dtype)).T
        own = F.one_hot(labels, len(self.weight)).bool()
        self.active_fraction = (cosine.detach().argmax(1) != labels).sum() / max(len(labels), 1)
        logits = self.logits(cosine, own)
        entropy = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing, reduction="sum")
        return mean_over_processes(entropy, len(labels))

    def logits(self, cosine: Tensor, own: Tensor) -> Tensor:
        """(A, C) logits of the cosines; `own` marks each anchor's identity."""
        raise NotImplementedError(f"{type(self).__name__} has no logits(cosine, own)")


@register("cosine_softmax")
class CosineSoftmax(SphereClassifier):
    """Cross entropy of scale * cos(w_c, f), the cosine of the own identity lowered by a margin.

    margin 0 is NormFace (Wang et al. 2017, eq. 8); `margin_on: cosine` is CosFace, cos - m (Wang et al. 2018, eq. 4);
    `margin_on: angle` is ArcFace, cos(theta + m) (Deng et al. 2019, eq. 3). Where theta + m passes pi, and ArcFace
    would begin to rise, cos(theta) - m sin(m) takes its place, as in all published code.

    Options:
        classes: number of identities; labels lie in 0 .. classes - 1. From a config it is the training set's.
        embedding_size: width of the feature. From a config it is the model's.
        scale: s, the norm that stands for the features'.
        margin: m, a cosine, or an angle in radians. CosFace's is 0.35, ArcFace's 0.5, with scale 64, for faces.
        label_smoothing: share of the target spread over all classes.

    `active_fraction` is the share of samples that are not classified right, without the margin.
    """

    def __init__(
        self,
        classes: int,
        embedding_size: int,
        scale: float = 30.0,
        margin: float = 0.0,
        margin_on: str = "cosine",
        label_smoothing: float = 0.0,
    ):
        super().__init__(classes, embedding_size, label_smoothing)
        self.scale = positive_number("scale of cosine_softmax", scale)
        self.margin = non_negative_number("margin of cosine_softmax", margin)
        if margin_on not in MARGINS:
            raise unknown_name("margin_on of cosine_softmax:", margin_on, MARGINS)
        if margin_on == "angle" and margin >= math.pi:
            raise InputError(f"margin of cosine_softmax is an angle in radians below pi, got {margin}")
        self.margin_on = margin_on

    def logits(self, cosine: Tensor, own: Tensor) -> Tensor:
        m = self.margin
        if self.margin_on == "cosine":
            lowered = cosine - m
        else:
            # the sine's gradient at an angle of 0 is infinite; there it is held
            sine = F.threshold(1 - cosine.square(), EPSILON, EPSILON).sqrt()
            beyond = cosine < math.cos(math.pi - m)  # theta + m > pi
            lowered = torch.where(beyond, cosine - m * math.sin(m), cosine * math.cos(m) - sine * math.sin(m))
        return self.scale * torch.where(own, lowered, cosine)
