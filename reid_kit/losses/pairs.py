"""Distances and similarities between anchors and gallery, and the masked reductions that the losses share."""

from numbers import Real

import torch
import torch.nn.functional as F
from torch import Tensor

from reid_kit.errors import InputError, unknown_name
from reid_kit.losses.base import Batch

EPSILON = 1e-12  # inside the square root: the gradient at distance 0 is finite
DISTANCES = ("euclidean", "squared", "cosine")


def normalized(batch: Batch) -> Batch:
    """The batch with L2-normalised rows."""
    gallery = F.normalize(batch.gallery)
    anchors = gallery if batch.anchors is batch.gallery else F.normalize(batch.anchors)
    return Batch(anchors, batch.anchor_labels, gallery, batch.gallery_labels, batch.first)


def squared_distances(anchors: Tensor, gallery: Tensor) -> Tensor:
    """(A, G) squared Euclidean distances by one matrix product, around the gallery's mean, which costs few digits.

    Where rounding leaves 0 or less, as between duplicates, the gradient is 0, its true value: a product of terms
    that should cancel would be all noise under the steep slope of a square root.
    """
    centre = gallery.detach().mean(dim=0)
    anchors, gallery = anchors - centre, gallery - centre
    squares = anchors.square().sum(1)[:, None] + gallery.square().sum(1)
    return F.relu(torch.addmm(squares, anchors, gallery.T, alpha=-2))


def distances(batch: Batch, kind: str = "euclidean") -> Tensor:
    """(A, G) distances: "euclidean", "squared" (Euclidean) or "cosine" (1 - s). An anchor is 0 from itself."""
    if kind == "cosine":
        matrix = 1 - similarities(batch)
    else:
        matrix = squared_distances(batch.anchors, batch.gallery)
        if kind == "euclidean":
            matrix = (matrix + EPSILON).sqrt()
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
    top = values.detach().masked_fill(~mask, -torch.inf).amax(1, keepdim=True)
    top = top.masked_fill(top.isinf(), 0)
    total = (values - top).masked_fill(~mask, -torch.inf).exp().sum(1)
    return total.clamp(min=torch.finfo(values.dtype).tiny).log().masked_fill(~mask.any(1), -torch.inf) + top.squeeze(1)


def masked_softmax(values: Tensor, mask: Tensor) -> Tensor:
    """(A, G) softmax over each row's masked entries; zeros elsewhere, and in rows without any."""
    floor = torch.finfo(values.dtype).min
    return values.masked_fill(~mask, floor).softmax(dim=1).masked_fill(~mask, 0)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """(A,) mean over each row's masked entries; 0 where a row has none."""
    return values.masked_fill(~mask, 0).sum(1) / mask.sum(1).clamp(min=1)


def fraction(mask: Tensor, of: Tensor) -> Tensor:
    """The share of `of`'s true entries that `mask` holds too: a 0-d tensor, 0 where `of` is empty."""
    return (mask & of).sum() / of.sum().clamp(min=1)


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


def is_number(value: object) -> bool:
    """Whether `value` is a number: neither a bool nor a string, which is what YAML makes of 1e-4."""
    return isinstance(value, Real) and not isinstance(value, bool)
