"""Proxy-anchor (Kim et al. 2020): learned proxies as anchors, the batch's images as their positives and negatives."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reid_kit.losses.base import Batch, EmbeddingLoss
from reid_kit.losses.pairs import masked_logsumexp, non_negative_number, positive_number, whole_number
from reid_kit.losses.registry import register
from reid_kit.losses.softmax import check_classes, check_width


@register("proxy_anchor")
class ProxyAnchor(EmbeddingLoss):
    """Mean over the proxies p with images in the batch of log(1 + sum over P_p of exp(-alpha (s - delta)))
    + mean over all proxies of log(1 + sum over N_p of exp(alpha (s + delta))), cosine s (Kim et al. 2020, eq. 4).

    Options:
        classes: number of identities; labels lie in 0 .. classes - 1. From a config it is the training set's.
        embedding_size: width of the feature. From a config it is the model's.
        alpha: scale; delta: margin.

    The proxies want a learning rate of a hundred times the network's (OPTIMIZER.LOSS_LR_FACTOR 100), as in the paper.
    `active_fraction` is the share of images that are nearer to another identity's proxy than to their own.
    """

    whole_batch = True  # a proxy's sums are over all images
    needs_positives = False

    def __init__(self, classes: int, embedding_size: int, alpha: float = 32.0, delta: float = 0.1):
        super().__init__()
        classes = whole_number("classes of proxy_anchor", classes)
        embedding_size = whole_number("embedding_size of proxy_anchor", embedding_size)
        self.alpha = positive_number("alpha of proxy_anchor", alpha)
        self.delta = non_negative_number("delta of proxy_anchor", delta)
        self.proxies = nn.Parameter(torch.empty(classes, embedding_size))
        nn.init.kaiming_normal_(self.proxies, mode="fan_out")

    def compute(self, batch: Batch) -> Tensor:
        check_classes(batch.anchor_labels, len(self.proxies), "proxy_anchor")
        check_width(batch.anchors, self.proxies.shape[1], "proxy_anchor")
        labels = batch.anchor_labels.long()
        s = F.normalize(self.proxies.to(batch.anchors.dtype)) @ F.normalize(batch.anchors).T
        own = F.one_hot(labels, len(self.proxies)).T.bool()
        self.active_fraction = (s.detach().argmax(0) != labels).sum() / max(len(labels), 1)
        attraction = F.softplus(masked_logsumexp(-self.alpha * (s - self.delta), own))
        repulsion = F.softplus(masked_logsumexp(self.alpha * (s + self.delta), ~own))
        return attraction.sum() / own.any(1).sum().clamp(min=1) + repulsion.mean()
