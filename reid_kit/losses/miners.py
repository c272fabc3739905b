"""Miners: which pairs of a batch a pair loss sees.

A miner is a function from (A, G) cosine similarities and the masks of positive and negative pairs to two masks, subsets
of the given ones. It always judges by the cosine, whatever the loss computes on, so that its options mean the same
everywhere. On any pair loss: `miner: vthm`, or with options `miner: {name: vthm, epsilon: 0.05}`.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from reid_kit.errors import InputError, unknown_name
from reid_kit.losses.base import Batch, EmbeddingLoss
from reid_kit.losses.pairs import fraction, non_negative_number

Masks = tuple[Tensor, Tensor]


def all_pairs(similarities: Tensor, positives: Tensor, negatives: Tensor) -> Masks:
    """Every pair."""
    return positives, negatives


def hardest(similarities: Tensor, positives: Tensor, negatives: Tensor) -> Masks:
    """The least similar positive and the most similar negative of each anchor; among equals all of them."""
    farthest, nearest = hardest_similarities(similarities, positives, negatives)
    return positives & (similarities == farthest), negatives & (similarities == nearest)


def vthm(similarities: Tensor, positives: Tensor, negatives: Tensor, epsilon: float = 0.1) -> Masks:
    """Valid triplet based hard mining (RAW, sec. 5.1): the pairs of triplets that violate a margin of `epsilon`.

    Negatives with s_ij > min over P_i of s - epsilon, positives with s_ij < max over N_i of s + epsilon; none of an
    anchor that has no positive or no negative.
    """
    farthest, nearest = hardest_similarities(similarities, positives, negatives)
    return positives & (similarities < nearest + epsilon), negatives & (similarities > farthest - epsilon)


def semi_hard(similarities: Tensor, positives: Tensor, negatives: Tensor, margin: float = 0.1) -> Masks:
    """The pairs of semi-hard triplets, s_ip - margin < s_in < s_ip (Schroff et al. 2015, sec. 3.2).

    The margin is half of that on squared distances, d^2 = 2 - 2s: FaceNet's 0.2 is 0.1 here.
    """
    kept_positives = positives & (gap_above(-similarities, negatives) < margin)
    kept_negatives = negatives & (gap_above(similarities, positives) < margin)
    return kept_positives, kept_negatives


def distance_weighted(
    similarities: Tensor,
    positives: Tensor,
    negatives: Tensor,
    dimension: int,
    floor: float = 0.5,
    cut: float = 1.4,
) -> Masks:
    """All positives, and for each anchor as many negatives, drawn so as to be spread evenly over distance.

    Wu et al. 2017, sec. 4: the weight of a negative at distance d = sqrt(2 - 2s) is 1 / q(d), where
    q(d) ~ d^(n-2) (1 - d^2 / 4)^((n-3)/2) is the density of distances on the unit sphere in n dimensions. Distances
    below `floor` weigh as much as `floor`; negatives from `cut` on are never drawn.

    A mask has no multiplicity, so an anchor's draws are without replacement: |P_i| different negatives, or all that lie
    below `cut` where they are fewer. The draw adds Gumbel noise to the logarithm of the weights and takes the highest:
    nothing is exponentiated, no row starves. The noise is from torch's generator of the device.
    """
    if not 0 < floor < cut <= 2:
        raise InputError(f"distance_weighted needs 0 < floor < cut <= 2, distances on a sphere; got {floor} and {cut}")
    distance = (2 - 2 * similarities).clamp(min=floor**2).sqrt()
    eligible = negatives & (distance < cut)
    nearer = distance.masked_fill(~eligible, floor)
    log_density = (dimension - 2) * nearer.log() + (dimension - 3) / 2 * (1 - nearer.square() / 4).log()
    gumbel = -torch.empty_like(distance).exponential_().log()
    order = (gumbel - log_density).masked_fill(~eligible, -torch.inf).argsort(dim=1, descending=True)
    drawn = torch.arange(order.shape[1], device=order.device) < positives.sum(1, keepdim=True)
    return positives, eligible & torch.zeros_like(eligible).scatter(1, order, drawn)


def hardest_similarities(similarities: Tensor, positives: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
    """(A, 1) least similarity to a positive, +inf without any, and greatest to a negative, -inf without any."""
    farthest = similarities.masked_fill(~positives, torch.inf).amin(1, keepdim=True)
    nearest = similarities.masked_fill(~negatives, -torch.inf).amax(1, keepdim=True)
    return farthest, nearest


def gap_above(values: Tensor, mask: Tensor) -> Tensor:
    """(A, G): how far the next greater masked value of its row lies above each value; inf where there is none."""
    ordered = values.masked_fill(~mask, torch.inf).sort(dim=1).values
    ordered = torch.cat([ordered, torch.full_like(ordered[:, :1], torch.inf)], dim=1)
    return ordered.gather(1, torch.searchsorted(ordered, values.contiguous(), right=True)) - values


MINERS: dict[str, Callable[..., Masks]] = {
    "all": all_pairs,
    "hardest": hardest,
    "vthm": vthm,
    "semi_hard": semi_hard,
    "distance_weighted": distance_weighted,
}
GIVEN = ("similarities", "positives", "negatives", "dimension")  # what a miner gets from the batch; the rest is options


def build_miner(choice: str | Mapping) -> partial:
    """A miner by its name, or by a mapping of `name` and options.

    Raises:
        InputError: the name or an option is unknown, or an option is not a number of at least 0.
    """
    if isinstance(choice, str):
        choice = {"name": choice}
    if not isinstance(choice, Mapping) or "name" not in choice:
        raise InputError(f"a miner is a name or a mapping like {{name: vthm, epsilon: 0.05}}, got {choice!r}")
    options = dict(choice)
    name = options.pop("name")
    if name not in MINERS:
        raise unknown_name("miner", name, MINERS)
    known = [option for option in inspect.signature(MINERS[name]).parameters if option not in GIVEN]
    for option, value in options.items():
        if option not in known:
            raise unknown_name(f"option of miner {name!r}:", option, known)
        non_negative_number(f"{option} of miner {name}", value)
    return partial(MINERS[name], **options)


class PairLoss(EmbeddingLoss):
    """A loss over pairs, and the miner that chooses them.

    `active_fraction` is the share of the batch's pairs that are mined and have a non-zero term, unless the loss says
    otherwise.
    """

    def __init__(self, miner: str | Mapping = "all"):
        super().__init__()
        self.miner = build_miner(miner)
        self.miner_needs_dimension = "dimension" in inspect.signature(self.miner.func).parameters

    @torch.no_grad()
    def mine(self, batch: Batch, similarities: Tensor) -> Masks:
        """(A, G) masks of the mined positive and negative pairs."""
        extra = {"dimension": batch.gallery.shape[1]} if self.miner_needs_dimension else {}
        return self.miner(similarities, batch.positives, batch.negatives, **extra)

    def report(self, active: Tensor, batch: Batch) -> None:
        """Sets `active_fraction` from the (A, G) mask of pairs that are mined and have a non-zero term."""
        self.active_fraction = fraction(active, of=batch.positives | batch.negatives)
