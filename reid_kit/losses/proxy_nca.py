"""Proxy-NCA (Movshovitz-Attias et al. 2017): embeddings against one learned proxy an identity."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reid_kit.distributed import mean_over_processes
from reid_kit.losses.base import Batch, EmbeddingLoss
from reid_kit.losses.pairs import EPSILON, positive_number, squared_distances, whole_number
from reid_kit.losses.registry import register
from reid_kit.losses.softmax import check_classes, check_width


@register("proxy_nca")
class ProxyNCA(EmbeddingLoss):
    """Mean over anchors of -log(exp(-d(a, p_y)) / sum over z != y of exp(-d(a, p_z))) (RLL eq. 5, static proxies).

    The anchor's own proxy is not in the denominator, so the loss falls below 0 where the identities are apart. Proxies
    want a learning rate far above the network's: OPTIMIZER.LOSS_LR_FACTOR.

    Options:
        classes: number of identities; labels lie in 0 .. classes - 1. From a config it is the training set's.
        embedding_size: width of the feature. From a config it is the model's.
        squared: d is the squared Euclidean distance, as in all published code, instead of the paper's plain one.
        positive_in_denominator: sum over all proxies, the anchor's own included.
        scale: multiplies d.
        normalize: L2-normalise embeddings and proxies first.

    `active_fraction` is the share of anchors whose nearest proxy is of another identity.
    """

    needs_positives = False

    def __init__(
        self,
        classes: int,
        embedding_size: int,
        squared: bool = False,
        positive_in_denominator: bool = False,
        scale: float = 1.0,
        normalize: bool = False,
    ):
        super().__init__()
        classes = whole_number("classes of proxy_nca", classes)
        embedding_size = whole_number("embedding_size of proxy_nca", embedding_size)
        self.scale = positive_number("scale of proxy_nca", scale)
        self.squared, self.positive_in_denominator, self.normalize = squared, positive_in_denominator, normalize
        self.proxies = nn.Parameter(torch.empty(classes, embedding_size))
        nn.init.normal_(self.proxies, std=embedding_size**-0.5)  # norms near 1

    def compute(self, batch: Batch) -> Tensor:
        check_classes(batch.anchor_labels, len(self.proxies), "proxy_nca")
        check_width(batch.anchors, self.proxies.shape[1], "proxy_nca")
        anchors, proxies = batch.anchors, self.proxies.to(batch.anchors.dtype)
        if self.normalize:
            anchors, proxies = F.normalize(anchors), F.normalize(proxies)
        d = squared_distances(anchors, proxies, EPSILON)
        if not self.squared:
            d = d.sqrt()
        labels = batch.anchor_labels.long()[:, None]
        own, scores = -self.scale * d.gather(1, labels), -self.scale * d
        if len(proxies) > 1 and not self.positive_in_denominator:  # without any other proxy the loss is 0
            scores.scatter_(1, labels, -torch.inf)
        self.active_fraction = (scores.detach().amax(1, keepdim=True) > own).sum() / max(len(labels), 1)
        return mean_over_processes((scores.logsumexp(1, keepdim=True) - own).sum(), len(labels))
