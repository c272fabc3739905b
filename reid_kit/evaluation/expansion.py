"""Better queries before the ranking: expanded by what they find, or pooled from several images."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from reid_kit.errors import InputError, unknown_name
from reid_kit.evaluation.distances import exact_products
from reid_kit.evaluation.features import Array, FeatureRows, integer_labels, usable_device

ROWS = 64  # queries that are compared with the gallery at once
POOLINGS = {"mean": lambda rows: rows.mean(0), "max": lambda rows: rows.amax(0)}


def expand_queries(
    query_features: Array,
    gallery_features: Array,
    neighbours: int = 10,
    alpha: float = 0.0,
    same_set: bool = False,
    device: str | torch.device | None = None,
) -> Tensor:
    """(Q, D) L2-normalised: each query with its nearest gallery features, weighted by cosine similarity ** alpha.

    alpha 0 is average query expansion (Chum et al. 2007); above 0 alpha query expansion (Radenovic et al. 2018, who
    take 3). No label is used. Compare the result with cosine distance.

    Args:
        query_features, gallery_features: (Q, D) and (G, D).
        neighbours: gallery features that each query is averaged with.
        same_set: query and gallery are one list, and no entry is its own neighbour.
        device: where they are computed and returned; None is where the query features are.

    Raises:
        InputError: more neighbours than gallery features or fewer than one, alpha below 0 or infinite, zero features, a
            device that is not there.
    """
    device = usable_device(device, query_features)
    query, gallery = (
        FeatureRows(features, name, device, cosine=True)
        for features, name in ((query_features, "query"), (gallery_features, "gallery"))
    )
    most = len(gallery) - same_set
    if not 1 <= neighbours <= most:
        size = "the size of the gallery without the query" if same_set else "the size of the gallery"
        raise InputError(f"neighbours must lie in 1 .. {most}, {size}; got {neighbours}")
    if not 0 <= alpha < math.inf:
        raise InputError(f"alpha must be at least 0 and finite, got {alpha}")
    expanded = []
    with exact_products(device):
        rows = F.normalize(gallery.block(slice(None)))
        for start in range(0, len(query), ROWS):
            block = F.normalize(query.block(slice(start, start + ROWS)))
            similarities = block @ rows.T
            if same_set:
                similarities.diagonal(start).fill_(-torch.inf)
            similarity, nearest = similarities.topk(neighbours)
            weight = similarity.clamp(min=0) ** alpha
            expanded.append(F.normalize(block + (weight[..., None] * rows[nearest]).sum(1)))
    return torch.cat(expanded)


def pool_queries(
    features: Tensor, identities: Array, cameras: Array, pooling: str = "mean"
) -> tuple[Tensor, np.ndarray]:
    """One query for all images of an identity in a camera (Zheng et al. 2015, multiple queries).

    Args:
        features: (Q, D). identities, cameras: (Q,) integers.
        pooling: "mean" or "max", of each feature's values.

    Returns:
        (P, D) pooled features, in the order in which their first images come, and (P,) the positions of these.
    """
    if pooling not in POOLINGS:
        raise unknown_name("pooling", pooling, POOLINGS)
    labels = {"cameras": cameras, "identities": identities}
    owner = np.stack([integer_labels(values, len(features), name) for name, values in labels.items()])
    _, first, group = np.unique(owner, axis=1, return_index=True, return_inverse=True)
    group = torch.from_numpy(group.ravel())
    order = np.argsort(first)
    return torch.stack([POOLINGS[pooling](features[group == g]) for g in order.tolist()]), first[order]
