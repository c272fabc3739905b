"""mAP, CMC and mINP of query features against gallery features."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from reid_kit.errors import InputError, unknown_name
from reid_kit.evaluation.distances import Distances, FeatureDistances, GivenDistances
from reid_kit.evaluation.features import Array, FeatureRows, integer_labels, usable_device
from reid_kit.evaluation.metrics import precision_of
from reid_kit.evaluation.ranks import Pairs, match_ranks, same_identity_pairs
from reid_kit.evaluation.verification import DistanceHistogram, HistogramCounter

METRICS = ("euclidean", "cosine")


@dataclass(frozen=True)
class RetrievalResult:
    """What one evaluation found. mAP, mINP and the values of `cmc` lie in [0, 1].

    cmc: rank -> share of counted queries whose first match stands at that rank or better.
    r_precision: share of matches among the first R, where R is a query's number of matches; map_at_r: mean average
        precision at R (Musgrave et al. 2020); both of all counted queries, as mAP.
    average_precision: (Q,) NaN where a query was skipped. first_match_rank: (Q,) 0 where it was skipped.
    query_ids: (Q,) the identity of each query, by which intervals are drawn (evaluation/statistics.py).
    queries, skipped: counted queries, and those left out for want of a match. gallery: entries without junk.
    protocol: all that the numbers depend on, in a line.
    histogram: of the distances of matching and other pairs, where it was asked for.
    """

    mAP: float
    mINP: float
    r_precision: float
    map_at_r: float
    cmc: dict[int, float]
    query_ids: np.ndarray
    average_precision: np.ndarray
    first_match_rank: np.ndarray
    queries: int
    skipped: int
    gallery: int
    protocol: str
    histogram: DistanceHistogram | None = None


def evaluate_retrieval(
    query_features: Array,
    gallery_features: Array,
    query_ids: Array | Sequence[int],
    gallery_ids: Array | Sequence[int],
    query_cameras: Array | Sequence[int] | None = None,
    gallery_cameras: Array | Sequence[int] | None = None,
    *,
    metric: str = "euclidean",
    average_precision: str = "step",
    ranks: Sequence[int] = (1, 5, 10, 20),
    same_set: bool = False,
    junk_id: int = -1,
    no_match: str = "skip",
    histogram: bool = False,
    device: str | torch.device | None = None,
) -> RetrievalResult:
    """Ranks the gallery for each query and measures where its matches stand.

    Exact: float32 distances, ties against the query, the same on CPU and GPU to rounding. Memory beside the
    features stays below 256 MB; a GPU holds features that come from elsewhere once, where it has the room. With
    several processes each compares its share of the gallery, and all return one result.

    Args:
        query_features, gallery_features: (Q, D) and (G, D): tensors or arrays of any float type, also memory-mapped.
        query_ids, gallery_ids: (Q,) and (G,) integers.
        query_cameras, gallery_cameras: (Q,) and (G,) integers: a query ignores its identity in its own camera.
        metric: "euclidean" or "cosine".
        average_precision: "step" (mean over matches of precision at each) or "trapezoid" (Market-1501's script).
        ranks: the k of CMC@k, called Recall@k in metric learning.
        same_set: query and gallery are one list, and each entry ignores itself alone.
        junk_id: gallery entries of this identity stand in no ranking, and queries of it are skipped.
        no_match: queries without a match are left out ("skip") or count as 0 ("zero").
        histogram: also count how many pairs lie at which distance.
        device: where to compute; None is where the query features are.

    Raises:
        NonFiniteError: features with NaN or infinity.
        InputError: shapes or lengths that do not agree, zero features under cosine, unknown names, no query that has
            a match.
    """
    if metric not in METRICS:
        raise unknown_name("metric", metric, METRICS)
    device = usable_device(device, query_features)
    query, gallery = (
        FeatureRows(features, name, device, metric == "cosine", hold=True)
        for features, name in ((query_features, "query"), (gallery_features, "gallery"))
    )
    return measure(
        FeatureDistances(query, gallery),
        Sides(query_ids, gallery_ids, query_cameras, gallery_cameras, len(query), len(gallery), same_set, junk_id),
        average_precision,
        ranks,
        no_match,
        histogram,
    )


def evaluate_distances(
    distances: Array,
    query_ids: Array | Sequence[int],
    gallery_ids: Array | Sequence[int],
    query_cameras: Array | Sequence[int] | None = None,
    gallery_cameras: Array | Sequence[int] | None = None,
    *,
    name: str = "given distances",
    average_precision: str = "step",
    ranks: Sequence[int] = (1, 5, 10, 20),
    same_set: bool = False,
    junk_id: int = -1,
    no_match: str = "skip",
    histogram: bool = False,
) -> RetrievalResult:
    """`evaluate_retrieval` of (Q, G) distances that are there already, as after re-ranking.

    Args:
        name: what the protocol line calls the distances.
    """
    given = GivenDistances(distances, name)
    return measure(
        given,
        Sides(query_ids, gallery_ids, query_cameras, gallery_cameras, *given.matrix.shape, same_set, junk_id),
        average_precision,
        ranks,
        no_match,
        histogram,
    )


class Sides:
    """Checked identities and cameras of query and gallery, and which pairs of them count."""

    def __init__(
        self, query_ids, gallery_ids, query_cameras, gallery_cameras, queries: int, gallery: int, same_set, junk_id
    ):
        if same_set and queries != gallery:
            raise InputError(f"same_set asks for one set, got {queries} queries and a gallery of {gallery}")
        self.junk_id = junk_id
        query_ids = integer_labels(query_ids, queries, "query_ids")
        gallery_ids = integer_labels(gallery_ids, gallery, "gallery_ids")
        if (query_cameras is None) != (gallery_cameras is None):
            raise InputError("cameras are given for one side only; give both, or neither to switch the camera rule off")
        self.rule = "each query ignores itself" if same_set else "no camera rule"
        if query_cameras is not None:
            query_cameras = integer_labels(query_cameras, queries, "query_cameras")
            gallery_cameras = integer_labels(gallery_cameras, gallery, "gallery_cameras")
            self.rule = "same identity in the same camera ignored"
        self.query_ids = query_ids
        self.junk, self.junk_queries = (np.flatnonzero(ids == junk_id) for ids in (gallery_ids, query_ids))
        pairs = same_identity_pairs(query_ids, gallery_ids, query_cameras, gallery_cameras, same_set)
        person = query_ids[pairs.query] != junk_id
        self.pairs = Pairs(pairs.query[person], pairs.gallery[person], pairs.is_match[person])


def measure(
    distances: Distances, sides: Sides, average_precision: str, ranks: Sequence[int], no_match: str, histogram: bool
) -> RetrievalResult:
    """Counts the ranks of the matches and sums them up."""
    if no_match not in ("skip", "zero"):
        raise unknown_name("no_match", no_match, ("skip", "zero"))
    precision = precision_of(average_precision)
    counter = HistogramCounter(distances.largest, distances.device, sides.query_ids) if histogram else None
    matches = match_ranks(distances, sides.pairs, sides.junk, counter, sides.junk_queries)
    count = np.bincount(matches.query, minlength=distances.queries)
    left_out = count == 0 if no_match == "skip" else np.isin(np.arange(distances.queries), sides.junk_queries)
    skipped = int(left_out.sum())
    queries = distances.queries - skipped
    if not queries:
        raise InputError(
            f"none of the {distances.queries} queries has a match in the gallery: identities that do not occur there, "
            f"cameras parsed wrongly, so that every match is in its query's own camera, or queries that are all junk "
            f"(identity {sides.junk_id})"
        )
    first, last = (np.zeros(distances.queries, np.int64) for _ in range(2))
    np.maximum.at(last, matches.query, matches.rank)
    first[matches.query[matches.found == 1]] = matches.rank[matches.found == 1]
    precisions = np.bincount(matches.query, precision(matches.found, matches.rank), distances.queries)
    precisions = precisions / np.maximum(count, 1)
    penalties = count / np.maximum(last, 1)  # mINP: matches over the rank of the last one (Ye et al. 2021)
    among = matches.rank <= count[matches.query]  # the first R of a query with R matches
    at_r = np.where(among, matches.found / matches.rank, 0) / count[matches.query]
    gallery = distances.gallery - len(sides.junk)
    return RetrievalResult(
        mAP=float(precisions.sum() / queries),
        mINP=float(penalties.sum() / queries),
        r_precision=float((among / count[matches.query]).sum() / queries),
        map_at_r=float(at_r.sum() / queries),
        cmc={k: float(((first > 0) & (first <= k)).sum() / queries) for k in ranks},
        query_ids=sides.query_ids,
        average_precision=np.where(left_out, np.nan, precisions),
        first_match_rank=first,
        queries=queries,
        skipped=skipped,
        gallery=gallery,
        protocol=(
            f"{distances.name}, {average_precision} AP, {sides.rule}, queries {queries}, skipped {skipped}, "
            f"gallery {gallery}, junk {len(sides.junk)} ignored, ties against the query"
        ),
        histogram=counter.result() if counter else None,
    )
