"""Re-ranking by k-reciprocal encoding (Zhong et al. 2017), with sparse neighbourhoods instead of N x N matrices."""

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from reid_kit.errors import InputError
from reid_kit.evaluation.distances import exact_products
from reid_kit.evaluation.features import Array, FeatureRows

ROWS = 512  # whose distances to all are held at once


def k_reciprocal_distance(
    query_features: Array, gallery_features: Array, k1: int = 20, k2: int = 6, lambda_value: float = 0.3
) -> Tensor:
    """(Q, G) float32 distances: lambda * Euclidean + (1 - lambda) * Jaccard distance of k-reciprocal neighbourhoods.

    The Euclidean part is squared, and divided by its row's maximum over query and gallery together, as in the authors'
    code. Memory beside the result is O((Q + G) k1).

    Args:
        query_features, gallery_features: (Q, D) and (G, D).
        k1: neighbours that may be reciprocal. k2: neighbours whose encodings are averaged (1: none).
        lambda_value: weight of the Euclidean distance, 0 to 1.

    Raises:
        InputError: k1 or k2 do not fit the number of images, lambda outside [0, 1], features with NaN.
    """
    sides = [
        FeatureRows(features, name, torch.device("cpu"), cosine=False)
        for features, name in ((query_features, "query"), (gallery_features, "gallery"))
    ]
    total = len(sides[0]) + len(sides[1])
    if not 1 <= k1 < total or not 1 <= k2 <= k1:
        raise InputError(f"k1 must lie in 1 .. {total - 1}, for {total} images, and k2 in 1 .. k1; got {k1} and {k2}")
    if not 0 <= lambda_value <= 1:
        raise InputError(f"lambda_value must lie in [0, 1], got {lambda_value}")
    with exact_products():
        rows = torch.cat([side.block(slice(None)) for side in sides])
        queries = len(sides[0])
        norms = torch.cat([side.squared_norms for side in sides])
        neighbours, farthest, distances = nearest(rows, norms, k1 + 1, queries)
        V = encode(rows, neighbours, farthest, k1)
        if k2 > 1:
            V = indicator(neighbours[:, :k2]) @ V / k2
        distances.div_(farthest[:queries, None])
    return (
        jaccard_distances(V[:queries], V[queries:].tocsc()).mul_(1 - lambda_value).add_(distances, alpha=lambda_value)
    )


def nearest(rows: Tensor, norms: Tensor, count: int, queries: int) -> tuple[np.ndarray, Tensor, Tensor]:
    """The nearest rows of each row, by squared distance.

    Args:
        rows, norms: (N, D), and (N,) their squared norms.

    Returns:
        (N, count) their positions, the row itself first; (N,) the largest distance of each row; (queries, N - queries)
        the distances between the first rows and the others.
    """
    found, farthest = [], []
    between = rows.new_empty(queries, len(rows) - queries)
    for start in range(0, len(rows), ROWS):
        part = slice(start, start + ROWS)
        distances = torch.addmm(norms, rows[part], rows.T, alpha=-2).add_(norms[part, None]).clamp_(min=0)
        farthest.append(distances.amax(1))
        between[part] = distances[: max(queries - start, 0), queries:]
        distances[:, part].fill_diagonal_(-1)
        found.append(distances.topk(count, largest=False).indices)
    return torch.cat(found).numpy(), torch.cat(farthest).clamp_(min=torch.finfo(rows.dtype).tiny), between


def indicator(columns: np.ndarray, mask: np.ndarray | None = None) -> sparse.csr_matrix:
    """(N, N) with ones at each row's `columns` (N, k), those of a `mask` alone."""
    row = np.repeat(np.arange(len(columns)), columns.shape[1])
    kept = slice(None) if mask is None else mask.ravel()
    ones = np.ones(len(row[kept]))
    return sparse.csr_matrix((ones, (row[kept], columns.ravel()[kept])), shape=(len(columns), len(columns)))


def reciprocal(neighbours: np.ndarray) -> sparse.csr_matrix:
    """(N, N) with ones where two rows are among each other's neighbours (N, k): R(i, k)."""
    mutual = [
        (neighbours[part] == np.arange(start, start + len(part))[:, None, None]).any(2)
        for start in range(0, len(neighbours), ROWS)
        for part in [neighbours[start : start + ROWS]]
    ]
    return indicator(neighbours, np.concatenate(mutual))


def encode(rows: Tensor, neighbours: np.ndarray, farthest: Tensor, k1: int) -> sparse.csr_matrix:
    """(N, N) the encodings V: Gaussian weights of the expanded k-reciprocal neighbours, summing to 1 in each row."""
    near, half = reciprocal(neighbours), reciprocal(neighbours[:, : round(k1 / 2) + 1])
    overlap = near.multiply(near @ half.T).tocoo()  # of each neighbour's own half-size neighbourhood with this row's
    size = np.asarray(half.sum(1)).ravel()
    joined = overlap.data > 2 / 3 * size[overlap.col]
    accepted = sparse.csr_matrix((overlap.data[joined] > 0, (overlap.row[joined], overlap.col[joined])), near.shape)
    pattern = (near + accepted.astype(float) @ half).tocoo()
    first, second = pattern.row, pattern.col
    weights = [
        torch.exp(-(rows[a] - rows[b]).square().sum(1) / farthest[a])
        for a, b in zip(*(torch.from_numpy(ends.astype(np.int64)).split(ROWS * 64) for ends in (first, second)))
    ]
    V = sparse.csr_matrix((torch.cat(weights).double().numpy(), (first, second)), shape=near.shape)
    return sparse.diags(1 / np.asarray(V.sum(1)).ravel()) @ V


def jaccard_distances(query: sparse.csr_matrix, gallery: sparse.csc_matrix) -> Tensor:
    """(Q, G): 1 - sum of minima / sum of maxima, each row of either side summing to 1."""
    found = torch.empty(query.shape[0], gallery.shape[0])
    for row in range(query.shape[0]):
        part = slice(query.indptr[row], query.indptr[row + 1])
        columns, values = query.indices[part], query.data[part]
        shared = gallery[:, columns]
        minima = np.minimum(shared.data, np.repeat(values, np.diff(shared.indptr)))
        common = np.bincount(shared.indices, minima, minlength=gallery.shape[0])
        found[row] = torch.from_numpy(1 - common / (2 - common))
    return found
