"""The training objective: a weighted sum of loss terms, each on the feature that it is defined on."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from reid_kit.losses.base import EmbeddingLoss


class Term(NamedTuple):
    """One summand. `feature` is "metric" (before the neck) or "inference" (after it)."""

    name: str
    loss: nn.Module
    weight: float
    feature: str


class WeightedSum(nn.Module):
    """Sum over terms of weight * loss(feature, labels)."""

    def __init__(self, terms: Sequence[Term]):
        super().__init__()
        self.names = [term.name for term in terms]
        self.weights = [term.weight for term in terms]
        self.features = [term.feature for term in terms]
        self.losses = nn.ModuleList(term.loss for term in terms)

    def forward(self, features, labels: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The weighted sum, and the value of each term.

        Args:
            features: has the (B, D) attributes `metric` and `inference`.
            labels: (B,) int64.
        """
        values = [loss(getattr(features, name), labels) for loss, name in zip(self.losses, self.features)]
        return sum(weight * value for weight, value in zip(self.weights, values)), values

    def end_epoch(self) -> None:
        """Tells the losses, also those that others wrap, that an epoch has ended."""
        for module in self.modules():
            if isinstance(module, EmbeddingLoss):
                module.end_epoch()

    @property
    def active_fractions(self) -> list[Tensor]:
        """The share of pairs or triplets with a non-zero term, of each loss, in the last batch."""
        return [loss.active_fraction for loss in self.losses]
