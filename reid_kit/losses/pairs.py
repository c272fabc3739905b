"""Distances and similarities between anchors and gallery, and the masked reductions that the losses share."""

import math
from collections.abc import Callable, Iterator
from numbers import Integral, Real

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from reid_kit.errors import InputError, unknown_name
from reid_kit.losses.base import Batch

EPSILON = 1e-12  # what a square root is taken of at least: the gradient at distance 0 is finite
BLOCK = 2**24  # comparisons of pairs with whole rows held at once
DISTANCES = ("euclidean", "squared", "cosine")


def normalized(batch: Batch) -> Batch:
    """The batch with L2-normalised rows."""
    gallery = F.normalize(batch.gallery)
    anchors = gallery if batch.anchors is batch.gallery else F.normalize(batch.anchors)
    return Batch(anchors, batch.anchor_labels, gallery, batch.gallery_labels, batch.first)


def squared_distances(anchors: Tensor, gallery: Tensor, least: float = 0.0) -> Tensor:
    """(A, G) squared Euclidean distances by one matrix product, around the gallery's mean, which costs few digits.

    Where rounding leaves `least` or less, as between duplicates, the gradient is 0, its true value: a product of terms
    that should cancel would be all noise under the steep slope of a square root.
    """
    centre = gallery.detach().mean(dim=0)
    anchors, gallery = anchors - centre, gallery - centre
    matrix = torch.addmm(gallery.square().sum(1), anchors, gallery.T, alpha=-2)
    return F.threshold(matrix.add_(anchors.square().sum(1)[:, None]), least, least)


def distances(batch: Batch, kind: str = "euclidean") -> Tensor:
    """(A, G) distances: "euclidean", "squared" (Euclidean) or "cosine" (1 - s). An anchor is 0 from itself."""
    if kind == "cosine":
        matrix = 1 - similarities(batch)
    elif kind == "squared":
        matrix = squared_distances(batch.anchors, batch.gallery)
    else:
        matrix = squared_distances(batch.anchors, batch.gallery, EPSILON).sqrt()
    return matrix.masked_fill(batch.is_self, 0)


def similarities(batch: Batch) -> Tensor:
    """(A, G) cosine similarities."""
    batch = normalized(batch)
    return batch.anchors @ batch.gallery.T


def check_distance(kind: str) -> str:
    if kind not in DISTANCES:
        raise unknown_name("distance", kind, DISTANCES)
    return kind


def masked_logsumexp(values: Tensor, mask: Tensor) -> Tensor:
    """(A,) log of the sum of exp over each row's masked entries; -inf, with zero gradient, where a row has none."""
    lowest = torch.finfo(values.dtype).min  # not -inf, whose differences in a row without any entry are NaN
    return values.masked_fill(~mask, lowest).logsumexp(1).masked_fill(~mask.any(1), -torch.inf)


def masked_softmax(values: Tensor, mask: Tensor) -> Tensor:
    """(A, G) softmax over each row's masked entries; zeros elsewhere, and in rows without any."""
    floor = torch.finfo(values.dtype).min
    return values.masked_fill(~mask, floor).softmax(dim=1).masked_fill(~mask, 0)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """(A,) mean over each row's masked entries; 0 where a row has none."""
    return values.masked_fill(~mask, 0).sum(1) / mask.sum(1).clamp(min=1)


def in_blocks(terms: Callable, pairs: Tensor, *tensors: Tensor) -> Iterator:
    """terms(*tensors, rows, columns) of the true entries of `pairs` (A, G), a block at a time.

    For what compares a pair with the whole row of its anchor. Several blocks are computed again in the backward pass,
    not kept.
    """
    size = max(1, BLOCK // max(pairs.shape[1], 1))
    blocks = list(zip(*(indices.split(size) for indices in pairs.nonzero(as_tuple=True))))
    for block in blocks:
        yield terms(*tensors, *block) if len(blocks) == 1 else checkpoint(terms, *tensors, *block, use_reentrant=False)


def fraction(mask: Tensor, of: Tensor) -> Tensor:
    """The share of `of`'s true entries that `mask` holds too: a 0-d tensor, 0 where `of` is empty."""
    return (mask & of).count_nonzero() / of.count_nonzero().clamp(min=1)  # bools by sum() are widened to int64


def is_number(value: object) -> bool:
    """Whether `value` is a finite number: neither a bool nor a string, which is what YAML makes of 1e-4."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def number(name: str, value: float) -> float:
    """`value` itself if it is a finite number, as thresholds must be."""
    if not is_number(value):
        raise InputError(f"{name} must be a number, got {value!r}")
    return value


def positive_number(name: str, value: float) -> float:
    """`value` itself if it is above 0, as temperatures and scales must be."""
    if not is_number(value) or not value > 0:
        raise InputError(f"{name} must be a number above 0, got {value!r}")
    return value


def non_negative_number(name: str, value: float) -> float:
    """`value` itself if it is at least 0, as margins must be."""
    if not is_number(value) or not value >= 0:
        raise InputError(f"{name} must be a number of at least 0, got {value!r}")
    return value


def whole_number(name: str, value: int, least: int = 1) -> int:
    """`value` itself if it is an integer of at least `least`, as counts must be."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise InputError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return value
