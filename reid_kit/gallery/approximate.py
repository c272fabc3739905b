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
EFFORTS = {"hnsw": (16, 32, 64, 128, 256, 512, 1024), "ivfpq": (1, 2, 4, 8, 16, 32, 64, 128, 256)}
CANDIDATES = 10  # times as many as are asked for, as an index compares roughly
NEIGHBOURS, BUILD_EFFORT = 32, 200  # of hnsw
DIRECTIONS = 128  # in which hnsw compares, those of the most variance: features of a model hardly vary in the others
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
        self.set_effort(about["kind"], about["effort"])

    def set_effort(self, kind: str, effort: int) -> None:
        import faiss

        name = {"hnsw": "efSearch", "ivfpq": "nprobe"}[kind]
        faiss.ParameterSpace().set_index_parameter(self.index, name, effort)

    def nearest_rows(self, distances: FeatureDistances, count: int) -> np.ndarray:
        """(Q, count) positions, -1 where there are fewer: what the index finds, by exact distance."""
        queries = torch.nn.functional.normalize(distances.query.block(slice(None))).cpu().numpy()
        _, rows = self.index.search(queries, min(CANDIDATES * count, self.index.ntotal))
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
        found.set_effort(kind, effort)
        near = _others(found.nearest_rows(distances, NEAREST + 1), sample)
        recall = float(np.mean([len(np.intersect1d(*pair)) / NEAREST for pair in zip(exact, near)]))
        if recall >= RECALL:
            break
    return {"effort": effort, "recall": recall}


def _new(faiss, kind: str, width: int, entries: int):
    if kind == "hnsw":
        index = faiss.IndexHNSWSQ(min(width, DIRECTIONS), faiss.ScalarQuantizer.QT_8bit, NEIGHBOURS)
        index.hnsw.efConstruction = BUILD_EFFORT
        return index if width <= DIRECTIONS else faiss.IndexPreTransform(faiss.PCAMatrix(width, DIRECTIONS), index)
    parts = max(parts for parts in range(1, max(width // 4, 1) + 1) if width % parts == 0)
    lists = max(int(4 * entries**0.5) // 2, 1) if entries < 10 * TRAINED_ON else int(4 * entries**0.5)
    index = faiss.IndexIVFPQ(faiss.IndexFlatL2(width), width, lists, parts, 8)
    index.cp.min_points_per_centroid = index.pq.cp.min_points_per_centroid = 1  # no warnings of small galleries
    return index


def _others(rows: np.ndarray, own: np.ndarray) -> list[np.ndarray]:
    """Of each list of rows the first NEAREST that are not the query itself."""
    return [near[near != row][:NEAREST] for near, row in zip(rows, own)]
