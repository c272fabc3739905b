"""How well k-means finds the classes: normalised mutual information."""

import numpy as np
from sklearn.metrics import normalized_mutual_info_score

from reid_kit.distributed import from_first, rank
from reid_kit.errors import InputError
from reid_kit.evaluation.features import Array, as_tensor, integer_labels

ITERATIONS = 50


def normalized_mutual_information(features: Array, labels: Array, seed: int = 0) -> float:
    """NMI, in [0, 1], of the classes and a k-means clustering with as many clusters, with arithmetic normalisation.

    K-means runs on the L2-normalised features, all of them, by faiss, on a GPU where it finds one (scikit-learn where
    faiss is not installed). Several processes call it with the same features; the first one clusters.

    Args:
        features: (N, D). labels: (N,) integers. seed: of the clusters' first centres.
    """
    features = as_tensor(features).float().cpu().numpy()
    if features.ndim != 2 or 0 in features.shape:
        raise InputError(f"features must be (N, D) with at least one row, got {features.shape}")
    labels = integer_labels(labels, len(features), "labels")
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    if not np.isfinite(norms).all():
        raise InputError(f"{int((~np.isfinite(norms)).sum())} features hold NaN or infinity; NMI needs finite ones")
    value = None
    if rank() == 0:
        found = k_means(features / np.maximum(norms, 1e-12), len(np.unique(labels)), seed)
        value = float(normalized_mutual_info_score(labels, found, average_method="arithmetic"))
    return from_first(value)


def k_means(rows: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """(N,) the cluster of each row."""
    try:
        import faiss
    except ImportError:
        from sklearn.cluster import KMeans

        return KMeans(clusters, n_init=1, max_iter=ITERATIONS, random_state=seed).fit_predict(rows)
    # the defaults take 256 rows a cluster and warn below 39
    means = faiss.Kmeans(
        rows.shape[1],
        clusters,
        niter=ITERATIONS,
        seed=seed,
        max_points_per_centroid=len(rows),
        min_points_per_centroid=1,
        gpu=getattr(faiss, "get_num_gpus", int)() > 0,
    )
    means.train(rows)
    return means.index.search(rows, 1)[1].ravel()
