"""The circle loss as a classification of identities."""

import torch
import torch.nn.functional as F
from torch import Tensor

from reid_kit.losses.cosine_softmax import SphereClassifier
from reid_kit.losses.pairs import non_negative_number, positive_number
from reid_kit.losses.registry import register


@register("circle_softmax")
class CircleSoftmax(SphereClassifier):
    """log(1 + sum over c != y of exp(gamma a_c (s_c - m)) * exp(-gamma a_y (s_y - 1 + m))), mean over anchors.

    s_c is the cosine of the feature and the weights of identity c, a_c = [s_c + m]_+, a_y = [1 + m - s_y]_+ (Sun et al.
    2020, eq. 5 and 6 with class-level labels): the cross entropy of the logits gamma a (s - boundary).

    Options:
        classes: number of identities; labels lie in 0 .. classes - 1. From a config it is the training set's.
        embedding_size: width of the feature. From a config it is the model's.
        gamma: scale; margin: m. The paper takes 128 and 0.25 for people, with the pairs of a batch; a classifier of
            people in fast-reid 64 and 0.35.
        detach_weights: hold a_c and a_y constant in the gradient, as the paper does.
        label_smoothing: share of the target spread over all classes.

    `active_fraction` is the share of samples that are not classified right.
    """

    def __init__(
        self,
        classes: int,
        embedding_size: int,
        gamma: float = 64.0,
        margin: float = 0.35,
        detach_weights: bool = True,
        label_smoothing: float = 0.0,
    ):
        super().__init__(classes, embedding_size, label_smoothing)
        self.gamma = positive_number("gamma of circle_softmax", gamma)
        self.margin = non_negative_number("margin of circle_softmax", margin)
        self.detach_weights = detach_weights

    def logits(self, cosine: Tensor, own: Tensor) -> Tensor:
        m = self.margin
        weights = F.relu(torch.where(own, 1 + m - cosine, cosine + m))
        if self.detach_weights:
            weights = weights.detach()
        return self.gamma * weights * torch.where(own, cosine - (1 - m), cosine - m)
