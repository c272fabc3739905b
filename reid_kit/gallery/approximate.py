"""Approximate indexes of faiss: they find candidates, which are then ranked by their exact distances.

What an index misses is measured when it is built: recall@10 is the share of the ten nearest others of entries of a
sample that it finds. The effort of a search is the least that gives RECALL, or the most there is.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from reid_kit.errors import InputError, unknown_name
from reid_kit.evaluation.distances import FeatureDistances, blocks
from reid_kit.evaluation.features import FeatureRows
from reid_kit.files import new_file
from reid_kit.gallery.exact import nearest_among, nearest_rows

KINDS = ("hnsw", "ivfpq")
LEAST = 1000  # entries: fewer are searched exactly in no time
RECALL, NEAREST = 0.99, 10
SAMPLE = 200  # entries whose nearest are compared
EFFORTS = {
    "hnsw": (16, 32, 64, 128, 256, 512, 1024),  # efSearch
    "ivfpq": (*(2**n for n in range(9)), *(round(2 ** (8 + n / 4)) for n in range(1, 13))),  # nprobe
}
CANDIDATES = {"hnsw": 10, "ivfpq": 50}  # times as many as are asked for, as an index compares roughly
NEIGHBOURS, BUILD_EFFORT = 32, 200  # of hnsw
DIRECTIONS = 128  # that are compared, those of the most variance: features of a model hardly vary in the others
TRAINED_ON = 100_000  # entries
ADDED = 65536  # entries at a time


class Index:
    """An index in a file, as its description says."""

    def __init__(self, path: Path, about: Mapping):
        import faiss

        try:
            self.index = faiss.read_index(str(path))
        except RuntimeError as error:
            raise InputError(
                f"{path} cannot be read; build it anew with reid-kit index --ann {about['kind']}"
            ) from error
        self.kind = about["kind"]
        self.set_effort(about["effort"])

    def set_effort(self, effort: int) -> None:
        import faiss

        name = {"hnsw": "efSearch", "ivfpq": "nprobe"}[self.kind]
        faiss.ParameterSpace().set_index_parameter(self.index, name, effort)

    def nearest_rows(self, distances: FeatureDistances, count: int) -> np.ndarray:
        """(Q, count) positions, -1 where there are fewer: what the index finds, by exact distance."""
        import faiss

        queries = torch.nn.functional.normalize(distances.query.block(slice(None))).cpu().numpy()
        cores = faiss.omp_get_max_threads()
        try:
            faiss.omp_set_num_threads(cores if len(queries) > 1 else 1)  # for one query they only wait for each other
            _, rows = self.index.search(queries, min(CANDIDATES[self.kind] * count, self.index.ntotal))
        finally:
            faiss.omp_set_num_threads(cores)
        return nearest_among(distances, rows, count)


def build(kind: str, gallery: FeatureRows, rows: np.ndarray, path: Path) -> dict:
    """Writes an index of some rows of a gallery to a file.

    Returns:
        The effort that a search takes, and the recall@10 with it.

    Raises:
        InputError: an unknown kind; too few entries; the disk is full.
    """
    import faiss

    if kind not in KINDS:
        raise unknown_name("kind of approximate index", kind, KINDS)
    if len(rows) < LEAST:
        raise InputError(f"{len(rows):,} entries need no approximate index; from {LEAST:,} on there is one")
    random = np.random.default_rng(0)

    def unit(positions: np.ndarray) -> np.ndarray:
        return torch.nn.functional.normalize(gallery.block(positions)).cpu().numpy()

    inner = _new(faiss, kind, gallery.width, len(rows))
    inner.train(unit(np.sort(random.choice(rows, min(len(rows), TRAINED_ON), replace=False))))
    index = faiss.IndexIDMap(inner)
    for start, stop in blocks(slice(0, len(rows)), ADDED):
        index.add_with_ids(unit(rows[start:stop]), rows[start:stop])
    with new_file(path) as temporary:
        faiss.write_index(index, str(temporary))
    found = Index(path, {"kind": kind, "effort": EFFORTS[kind][0]})
    sample = np.sort(random.choice(rows, min(SAMPLE, len(rows)), replace=False))
    query = FeatureRows(gallery.features[sample], "sample", gallery.device, gallery.cosine)
    distances = FeatureDistances(query, gallery)
    allowed = np.zeros(len(gallery), bool)
    allowed[rows] = True
    exact = _others(nearest_rows(distances, NEAREST + 1, allowed), sample)
    for effort in EFFORTS[kind]:
        found.set_effort(effort)
        near = _others(found.nearest_rows(distances, NEAREST + 1), sample)
        recall = float(np.mean([len(np.intersect1d(*pair)) / NEAREST for pair in zip(exact, near)]))
        if recall >= RECALL:
            break
    return {"effort": effort, "recall": recall}


def _new(faiss, kind: str, width: int, entries: int):
    directions = min(width, DIRECTIONS)
    if kind == "hnsw":  # a graph of neighbours, 8 bits a direction
        index = faiss.index_factory(directions, f"HNSW{NEIGHBOURS}_SQ8")
        index.hnsw.efConstruction = BUILD_EFFORT
    else:  # lists, 4 bits a direction (Andre et al. 2021, "Quicker ADC")
        index = faiss.index_factory(directions, f"IVF{int(4 * entries**0.5)},PQ{directions}x4fs")
        index.cp.min_points_per_centroid = index.pq.cp.min_points_per_centroid = 1  # no warnings of small galleries
    return index if width == directions else faiss.IndexPreTransform(faiss.PCAMatrix(width, directions), index)


def _others(rows: np.ndarray, own: np.ndarray) -> list[np.ndarray]:
    """Of each list of rows the first NEAREST that are not the query itself."""
    return [near[near != row][:NEAREST] for near, row in zip(rows, own)]
