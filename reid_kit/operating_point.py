"""A threshold on the distance of two images, and the errors that it was measured to make."""

from dataclasses import dataclass

FALSE_MATCH_RATES = (1e-4, 1e-3, 1e-2)  # that thresholds are reported for


@dataclass(frozen=True)
class OperatingPoint:
    """Pairs at `threshold` or nearer are taken for one identity.

    true_match_rate, false_match_rate: what share of the pairs of one identity, and of different ones, lies there.
    interval: of 95 %, for the false-match rate; true_match_interval: for the other, None in files that do not have it.
        Both by how much groups of identities differ (evaluation/verification.py).
    pairs: of different identities, that the rate was measured on.
    """

    threshold: float
    true_match_rate: float
    false_match_rate: float
    interval: tuple[float, float]
    pairs: int
    true_match_interval: tuple[float, float] | None = None
