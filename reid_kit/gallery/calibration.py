"""How near is near enough: thresholds for false-match rates, measured on a gallery's own labelled entries."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from reid_kit.errors import InputError
from reid_kit.evaluation.retrieval import evaluate_retrieval
from reid_kit.gallery.entries import EMBED_DISTANCES, Description
from reid_kit.gallery.gallery import Gallery
from reid_kit.operating_point import OperatingPoint

FALSE_MATCH_RATE = 1e-3  # that a threshold is for where nothing is said
MOST = 20_000  # entries whose pairs are compared


@dataclass(frozen=True)
class Calibration:
    """points: by false-match rate asked for. entries, identities: that they were measured on. pairs_of: which pairs."""

    points: dict[float, OperatingPoint]
    entries: int
    identities: int
    pairs_of: str
    negatives: int


def same_or_not(pair: Tensor, metric: str, threshold: float | None) -> tuple[str, float]:
    """Of (2, D) L2-normalised vectors: "same", "different" or, without a threshold, "not judged"; their distance."""
    a, b = pair.double()
    distance = float(1 - a @ b if metric == "cosine" else (a - b).norm())
    return "not judged" if threshold is None else "same" if distance <= threshold else "different", distance


def calibrate(gallery: Gallery, rates: Sequence[float], most: int = MOST) -> Calibration:
    """Thresholds on the gallery's distance, from all pairs of labelled entries, at most those of `most` entries.

    Pairs of one identity in one camera are left out where every entry has a camera and identities are seen by several.
    For a rate below one pair there is no threshold.

    Raises:
        InputError: a rate outside (0, 1]; too few labels.
    """
    for rate in rates:
        if not 0 < rate <= 1:
            raise InputError(f"a false-match rate lies above 0 and is at most 1, got {rate}")
    names, cameras, vectors = _labelled(gallery)
    identities, own = np.unique(names, return_inverse=True)
    if len(names) > most:  # whole identities, at random
        order = np.random.default_rng(0).permutation(len(identities))
        sizes = np.bincount(own)[order]
        chosen = np.zeros(len(identities), bool)
        chosen[order[: max(int(np.searchsorted(np.cumsum(sizes), most, "right")), 2)]] = True
        kept = chosen[own]
        names, cameras, vectors, own = names[kept], cameras[kept], vectors[kept], own[kept]
    counts = np.unique(own, return_counts=True)[1]
    if len(counts) < 2 or counts.max() < 2:
        raise InputError(
            f"{gallery.address} has {len(names):,} entries with an identity, of {len(counts):,} identities; a "
            f"threshold needs two identities, and one with two images. Index a table with the column identity"
        )
    seen_by = np.unique(np.stack([own, np.unique(cameras, return_inverse=True)[1]]), axis=1)
    across = bool((cameras != "").all()) and np.bincount(seen_by[0]).max() > 1
    sides = (np.unique(cameras, return_inverse=True)[1],) * 2 if across else ()
    metric = gallery.description.metric
    histogram = evaluate_retrieval(
        vectors, vectors, own, own, *sides, metric=metric, same_set=True, histogram=True
    ).histogram
    positives, negatives = histogram.positives_of / 2, histogram.negatives_of / 2  # counted from both ends
    histogram = replace(histogram, positives_of=positives, negatives_of=negatives)
    pairs_of = "pairs across cameras" if across else "all pairs"
    return Calibration(histogram.points(sorted(rates)), len(names), len(counts), pairs_of, int(negatives.sum()))


def _labelled(gallery: Gallery) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n,) identities, (n,) cameras and (n, D) vectors of the entries with an identity."""
    names, cameras, vectors = [], [], [np.empty((0, gallery.description.size), np.float32)]
    for entries, block in gallery.batches():
        kept = [place for place, entry in enumerate(entries) if entry.identity]
        names += [entries[place].identity for place in kept]
        cameras += [entries[place].camera for place in kept]
        vectors.append(block[kept])
    return np.array(names, str), np.array(cameras, str), np.concatenate(vectors)


def operating_point(points: Iterable[OperatingPoint], rate: float) -> OperatingPoint:
    """The point of the highest false-match rate that is at most `rate`, measured on pairs enough to tell.

    Raises:
        InputError: there is no threshold at all, or none so strict.
    """
    points = list(points)
    if not points:
        raise InputError(
            "no threshold is known: calibrate the gallery on labelled entries (reid-kit calibrate), or give --threshold"
        )
    within = [point for point in points if point.false_match_rate <= rate and rate * point.pairs >= 1]
    if not within:
        strictest = min(points, key=lambda point: point.threshold)
        raise InputError(
            f"no threshold is known for a false-match rate of {rate:g}: the strictest was measured at "
            f"{strictest.false_match_rate:.2g}, on {strictest.pairs:,} pairs. Calibrate for that rate on more labelled "
            f"entries (reid-kit calibrate GALLERY --false-match-rate {rate:g}), or give --threshold"
        )
    return max(within, key=lambda point: point.threshold)


def rates_of(point: OperatingPoint, description: Description) -> str:
    """What a threshold of a gallery means, and what it was measured on."""
    low, high = point.interval
    said = (
        f"a match has a {EMBED_DISTANCES[description.metric]} of at most {point.threshold:.4f}: on "
        f"{description.thresholds_from} a false-match rate of {point.false_match_rate:.2g} ({low:.2g} to {high:.2g}, "
        f"{point.pairs:,} pairs) and a true-match rate of {point.true_match_rate:.3f}"
    )
    if "this gallery" not in description.thresholds_from:
        said += ". That is other data than this; reid-kit calibrate measures on yours"
    return said
