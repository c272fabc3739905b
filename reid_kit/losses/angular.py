"""The angular loss (Wang et al. 2017)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from reid_kit.distributed import mean_over_processes
from reid_kit.errors import InputError
from reid_kit.losses.base import Batch, EmbeddingLoss
from reid_kit.losses.pairs import in_blocks, masked_logsumexp, non_negative_number, normalized, number
from reid_kit.losses.registry import register


@register("angular")
class Angular(EmbeddingLoss):
    """n_pair_weight * L_np + angular_weight * L_ang, means over all ordered positive pairs (a, p).

    L_ang: log(1 + sum over N_a of exp(4 tan^2(angle) (f_a + f_p).f_n - 2 (1 + tan^2(angle)) f_a.f_p)), which holds the
    angle at the negative n below `angle`. L_np: log(1 + sum over N_a of exp(f_a.f_n - f_a.f_p)).

    Options:
        angle: in degrees, between 0 and 90.
        n_pair_weight, angular_weight: 1 and the paper's lambda, 2; with n_pair_weight 0 the angular term alone.
        normalize: L2-normalise the embeddings first; the angular term is derived for unit norms.

    `active_fraction` is the share of positive pairs with a negative whose exponent in L_ang is above 0.
    """

    def __init__(
        self, angle: float = 45.0, n_pair_weight: float = 1.0, angular_weight: float = 2.0, normalize: bool = True
    ):
        super().__init__()
        if not 0 < number("angle of angular", angle) < 90:
            raise InputError(f"angle of angular must lie between 0 and 90 degrees, got {angle}")
        self.n_pair_weight = non_negative_number("n_pair_weight of angular", n_pair_weight)
        self.angular_weight = non_negative_number("angular_weight of angular", angular_weight)
        self.squared_tangent, self.normalize = math.tan(math.radians(angle)) ** 2, normalize

    def compute(self, batch: Batch) -> Tensor:
        batch = normalized(batch) if self.normalize else batch
        positives, negatives = batch.positives, batch.negatives
        s, among = batch.anchors @ batch.gallery.T, batch.gallery @ batch.gallery.T
        n_pair = s.new_zeros(())
        if self.n_pair_weight:
            n_pair = F.softplus(masked_logsumexp(s, negatives)[:, None] - s).masked_fill(~positives, 0).sum()
        lowest = torch.finfo(s.dtype).min
        to_negatives = (4 * self.squared_tangent * s).masked_fill(~negatives, lowest)
        own = 2 * (1 + self.squared_tangent) * s
        blocks = in_blocks(self.angular, positives, to_negatives, 4 * self.squared_tangent * among, own)
        angular, active = map(sum, zip(*blocks))
        pairs = positives.count_nonzero()
        self.active_fraction = active / pairs.clamp(min=1)
        return mean_over_processes(self.n_pair_weight * n_pair + self.angular_weight * angular, pairs)

    def angular(self, to_negatives: Tensor, among: Tensor, own: Tensor, a: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        """The summed terms of some positive pairs, and how many have an exponent above 0."""
        toward, attraction = to_negatives.index_select(0, a) + among.index_select(0, p), own[a, p]
        violated = (toward.detach().amax(1) > attraction).sum()
        return F.softplus(toward.logsumexp(1) - attraction).sum(), violated
