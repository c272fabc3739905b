"""Re-ranking by k-reciprocal encoding (Zhong et al. 2017), with sparse neighbourhoods instead of N x N matrices."""

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from reid_kit.errors import InputError
from reid_kit.evaluation.distances import blocks, exact_products
from reid_kit.evaluation.features import Array, FeatureRows, usable_device

ROWS = 512  # whose distances to all are held at once


def k_reciprocal_distance(
    query_features: Array,
    gallery_features: Array,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
    device: str | torch.device | None = None,
) -> Tensor:
    """(Q, G) float32 distances: lambda * Euclidean + (1 - lambda) * Jaccard distance of k-reciprocal neighbourhoods.

    The Euclidean part is squared, and divided by its row's maximum over query and gallery together, as in the authors'
    code. Memory beside the features and the result is O((Q + G) k1).

    Args:
        query_features, gallery_features: (Q, D) and (G, D).
        k1: neighbours that may be reciprocal. k2: neighbours whose encodings are averaged (1: none).
        lambda_value: weight of the Euclidean distance, 0 to 1.
        device: where distances are computed and returned; None is where the query features are.

    Raises:
        InputError: k1 or k2 do not fit the number of images, lambda outside [0, 1], a device that is not there.
        NonFiniteError: features with NaN or infinity.
    """
    device = usable_device(device, query_features)
    sides = [
        FeatureRows(features, name, device, cosine=False)
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
        near, neighbours, farthest, euclidean = nearest(rows, norms, k1 + 1, queries)
        V = encode(rows, near, neighbours, farthest, k1)
        if k2 > 1:
            V = sparse_rows(neighbours[:, :k2], np.full((len(rows), k2), 1 / k2)) @ V
        euclidean.div_(farthest[:queries, None])
    jaccard = jaccard_distances(V[:queries], V[queries:].tocsc()).to(device)
    return jaccard.mul_(1 - lambda_value).add_(euclidean, alpha=lambda_value)


def nearest(rows: Tensor, norms: Tensor, count: int, queries: int) -> tuple[Tensor, np.ndarray, Tensor, Tensor]:
    """The nearest rows of each row, by squared distance. Of a pair of rows one distance is computed for both.

    Args:
        rows, norms: (N, D), and (N,) their squared norms.

    Returns:
        (N, count) their distances, ascending, and their positions, the row itself first; (N,) the largest distance of
        each row; (queries, N - queries) the distances between the first rows and the others.
    """
    total = len(rows)
    near = rows.new_full((total, count), torch.inf)
    neighbours = torch.zeros(total, count, dtype=torch.int64, device=rows.device)
    farthest, between = rows.new_full((total,), torch.finfo(rows.dtype).tiny), rows.new_empty(queries, total - queries)

    def take(part: slice, distances: Tensor, first: int) -> None:
        """Of the rows `part`, their distances to the rows from `first` on."""
        found = distances.topk(min(count, distances.shape[1]), largest=False)
        candidates = torch.cat([near[part], found.values], 1)
        positions = torch.cat([neighbours[part], found.indices + first], 1)
        near[part], chosen = candidates.topk(count, largest=False)
        neighbours[part] = positions.gather(1, chosen)
        farthest[part] = torch.maximum(farthest[part], distances.amax(1))

    for start, stop in blocks(slice(0, total), ROWS):
        distances = torch.addmm(norms[start:], rows[start:stop], rows[start:].T, alpha=-2)
        distances.add_(norms[start:stop, None]).clamp_(min=0)
        if start < queries:
            between[start:stop] = distances[: queries - start, queries - start :]
        distances.fill_diagonal_(-1)
        take(slice(start, stop), distances, start)
        if stop < total:
            take(slice(stop, total), distances[:, stop - start :].T.contiguous(), start)
    near[:, 0] = 0
    return near, neighbours.cpu().numpy(), farthest, between


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


def encode(rows: Tensor, distances: Tensor, neighbours: np.ndarray, farthest: Tensor, k1: int) -> sparse.csr_matrix:
    """(N, N) the encodings V: Gaussian weights of the expanded k-reciprocal neighbours, summing to 1 in each row."""
    near, half = reciprocal(neighbours), reciprocal(neighbours[:, : round(k1 / 2) + 1])
    overlap = near.multiply(near @ half.T).tocoo()  # of each neighbour's own half-size neighbourhood with this row's
    size = np.asarray(half.sum(1)).ravel()
    joined = overlap.data > 2 / 3 * size[overlap.col]
    accepted = sparse.csr_matrix((np.ones(joined.sum()), (overlap.row[joined], overlap.col[joined])), near.shape)
    expanded = near + accepted @ half > 0
    V = sparse_rows(neighbours, torch.exp(-distances / farthest[:, None]).double().cpu().numpy()).multiply(expanded)
    first, second = (expanded > (V > 0)).nonzero()  # the pairs that are no neighbours, whose distances are not known
    others = [
        torch.exp(-(rows[a] - rows[b]).square().sum(1) / farthest[a]).double().cpu().numpy()
        for a, b in zip(*(torch.from_numpy(ends).to(rows.device).split(ROWS) for ends in (first, second)))
    ]
    V = V + sparse.csr_matrix((np.concatenate([*others, []]), (first, second)), near.shape)
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
