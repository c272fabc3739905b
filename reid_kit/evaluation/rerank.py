"""Re-ranking by k-reciprocal encoding (Zhong et al. 2017), with sparse neighbourhoods instead of N x N matrices."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from reid_kit.errors import InputError
from reid_kit.evaluation.distances import blocks, exact_products
from reid_kit.evaluation.features import Array, FeatureRows, usable_device
from reid_kit.evaluation.neighbours import Neighbours

ROWS = 512  # whose neighbours are compared at once
PAIRS = 64  # whose distances are computed at once
HELD = 2**23  # Jaccard distances that are held on the CPU at once


def k_reciprocal_distance(
    query_features: Array,
    gallery_features: Array,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
    device: str | torch.device | None = None,
    same_set: bool = False,
) -> Tensor:
    """(Q, G) float32 distances: lambda * Euclidean + (1 - lambda) * Jaccard distance of k-reciprocal neighbourhoods.

    The Euclidean part is squared, and divided by its row's maximum over query and gallery together, as in the authors'
    code. Memory beside the features and the result is O((Q + G) k1).

    Args:
        query_features, gallery_features: (Q, D) and (G, D).
        k1: neighbours that may be reciprocal. k2: neighbours whose encodings are averaged (1: none).
        lambda_value: weight of the Euclidean distance, 0 to 1.
        device: where distances are computed and returned; None is where the query features are.
        same_set: query and gallery are one list, so that each image is a neighbour once.

    Raises:
        InputError: k1 or k2 do not fit the number of images, lambda outside [0, 1], a device that is not there; with
            `same_set` sides of different length.
        NonFiniteError: features with NaN or infinity.
    """
    device = usable_device(device, query_features)
    sides = [
        FeatureRows(features, name, device, cosine=False)
        for features, name in ((query_features, "query"), (gallery_features, "gallery"))
    ]
    queries, gallery = map(len, sides)
    if same_set and queries != gallery:
        raise InputError(f"same_set asks for one set, got {queries} queries and a gallery of {gallery}")
    rows_of = sides[:1] if same_set else sides
    total = sum(map(len, rows_of))
    if not 1 <= k1 < total or not 1 <= k2 <= k1:
        raise InputError(f"k1 must lie in 1 .. {total - 1}, for {total} images, and k2 in 1 .. k1; got {k1} and {k2}")
    if not 0 <= lambda_value <= 1:
        raise InputError(f"lambda_value must lie in [0, 1], got {lambda_value}")
    distances = torch.empty(queries, gallery, device=device)  # outside, as inside it would take no changes by others
    with exact_products(device) as threads:
        rows = distances.new_empty(total, sides[0].width)
        for side, place in zip(rows_of, (0, queries)):
            for start, stop in blocks(slice(0, len(side)), ROWS):
                rows[place + start : place + stop] = side.block(slice(start, stop))
        norms = torch.cat([side.squared_norms for side in rows_of])
        found = Neighbours(rows, norms, k1 + 1, distances, threads)
        positions = found.positions.cpu().numpy()
        V = encode(found, positions, k1, threads)
        if k2 > 1:
            V = sparse_rows(positions[:, :k2], np.full((len(rows), k2), 1 / k2)) @ V
        distances.div_(found.farthest[:queries, None])
        add_jaccard(distances, lambda_value, V[:queries], V[total - gallery :].tocsc())
    return distances


def sparse_rows(columns: np.ndarray, values: np.ndarray) -> sparse.csr_matrix:
    """(N, N) with `values` (N, k) at each row's `columns` (N, k)."""
    count, width = columns.shape
    return sparse.csr_matrix(
        (values.ravel(), columns.ravel(), np.arange(0, count * width + 1, width)), shape=(count, count)
    )


def reciprocal(neighbours: np.ndarray) -> sparse.csr_matrix:
    """(N, N) with ones where two rows are among each other's neighbours (N, k): R(i, k)."""
    mutual = [
        (neighbours[neighbours[start:stop]] == np.arange(start, stop)[:, None, None]).any(2)
        for start, stop in blocks(slice(0, len(neighbours)), ROWS)
    ]
    found = sparse_rows(neighbours, np.concatenate(mutual).astype(np.float64))
    found.eliminate_zeros()
    return found


def encode(found: Neighbours, positions: np.ndarray, k1: int, threads: ThreadPoolExecutor) -> sparse.csr_matrix:
    """(N, N) the encodings V: Gaussian weights of the expanded k-reciprocal neighbours, summing to 1 in each row."""
    near, half = reciprocal(positions), reciprocal(positions[:, : round(k1 / 2) + 1])
    overlap = near.multiply(near @ half.T).tocoo()  # of each neighbour's own half-size neighbourhood with this row's
    size = np.asarray(half.sum(1)).ravel()
    joined = overlap.data > 2 / 3 * size[overlap.col]
    accepted = sparse.csr_matrix((np.ones(joined.sum()), (overlap.row[joined], overlap.col[joined])), near.shape)
    expanded = near + accepted @ half > 0
    weights = torch.exp(-found.nearest / found.farthest[:, None]).double().cpu().numpy()
    V = sparse_rows(positions, weights).multiply(expanded)
    first, second = (expanded > (V > 0)).nonzero()  # the pairs that are no neighbours, whose distances are not known

    @torch.inference_mode()
    def weights_of(a: Tensor, b: Tensor) -> np.ndarray:
        distances = (found.rows[a] - found.rows[b]).square().sum(1)
        return torch.exp(-distances / found.farthest[a]).double().cpu().numpy()

    ends = (torch.from_numpy(ends).to(found.rows.device).split(PAIRS) for ends in (first, second))
    others = np.concatenate([*threads.map(weights_of, *ends), []])
    V = V + sparse.csr_matrix((others, (first, second)), near.shape)
    return sparse.diags(1 / np.asarray(V.sum(1)).ravel()) @ V


def add_jaccard(distances: Tensor, lambda_value: float, query: sparse.csr_matrix, gallery: sparse.csc_matrix) -> None:
    """lambda * `distances` (Q, G) + (1 - lambda) * Jaccard distance, in place.

    The latter is 1 - sum of minima / sum of maxima of the encodings' rows, each of which sums to 1.
    """
    for start, stop in blocks(slice(0, query.shape[0]), max(HELD // gallery.shape[0], 1)):  # each copied at once
        jaccard = torch.empty(stop - start, gallery.shape[0])
        for row in range(start, stop):
            part = slice(query.indptr[row], query.indptr[row + 1])
            columns, values = query.indices[part], query.data[part]
            shared = gallery[:, columns]
            minima = np.minimum(shared.data, np.repeat(values, np.diff(shared.indptr)))
            common = torch.from_numpy(np.bincount(shared.indices, minima, minlength=gallery.shape[0]))
            jaccard[row - start] = 1 - common / (2 - common)
        distances[start:stop].mul_(lambda_value).add_(jaccard.to(distances), alpha=1 - lambda_value)
