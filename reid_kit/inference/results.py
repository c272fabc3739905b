"""What a test leaves behind: numbers, tables and pictures."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from reid_kit.files import write_atomically
from reid_kit.image import read_image
from reid_kit.inference.error_files import write_query_table
from reid_kit.inference.testing import ImageSet, Tested
from reid_kit.report.picture import Tile, ranked_list_picture
from reid_kit.report.plots import result_curves
from reid_kit.report.ranked_list import ranked_lists, worst, worst_and_median
from reid_kit.report.tables import measured, result_json, result_table, verification_table

QUERIES_SHOWN = 4  # of the worst, and of those around the median
WORST_SHOWN = 20
TILE_HEIGHT = 128  # pixels


def write_results(folder: Path, name: str, tested: Tested, facts: Mapping[str, object]) -> str:
    """Writes results.json, results.md and the pictures; returns the table.

    Args:
        name: of the row in the table.
        facts: what the numbers belong to, as checkpoint and test settings, kept in results.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    recall = "Recall" if tested.dataset.protocol.same_set else "CMC"
    table = result_table({name: tested.result}, recall, {name: tested.nmi})
    tabled = measured(tested.result, tested.nmi, tested.dataset.protocol.measures)
    content = {**facts, **result_json(tested.result), "nmi": tested.nmi, "measures": tabled}
    write_atomically(folder / "results.json", json.dumps(content, indent=1))
    write_atomically(folder / "results.md", f"{table}\n\n{verification_table(tested.result)}\n")
    write_query_table(folder / "queries.parquet", tested)
    write_atomically(folder / "result_curves.png", result_curves(tested.result, name))
    precision = tested.result.average_precision
    chosen = {
        "ranked_list.png": ("the worst queries and median ones", worst_and_median(precision, QUERIES_SHOWN)),
        "worst_queries.png": (f"the {WORST_SHOWN} worst queries", worst(precision, WORST_SHOWN)),
    }
    for file, (title, queries) in chosen.items():
        write_atomically(folder / file, draw_ranked_lists(tested, queries, title))
    return table


def draw_ranked_lists(tested: Tested, chosen: np.ndarray, title: str) -> bytes:
    """A PNG of the ranked lists of the queries at the positions `chosen`."""
    query, gallery, settings, protocol = tested.query, tested.gallery, tested.settings, tested.dataset.protocol
    cameras = (None, None)
    if protocol.camera_aware and query.cameras is not None and gallery.cameras is not None:
        cameras = query.cameras[chosen].numpy(), gallery.cameras.numpy()
    lists = ranked_lists(
        query.features[chosen],
        gallery.features,
        query.identities[chosen].numpy(),
        gallery.identities.numpy(),
        *cameras,
        metric=settings.metric,
        same_set=chosen if protocol.same_set else None,
    )
    rows = []
    for position, ranked in zip(chosen, lists):
        tiles = [tile(query, position, settings.use_box)]
        tiles += [tile(gallery, i, settings.use_box, bool(c)) for i, c in zip(ranked.gallery, ranked.correct)]
        rank = tested.result.first_match_rank[position]
        rows.append((f"AP {100 * tested.result.average_precision[position]:.1f} %, first match at {rank}", tiles))
    title = f"{tested.dataset.name}: {title}, nearest gallery images (green: same identity)"
    return ranked_list_picture(rows, title, TILE_HEIGHT, round(TILE_HEIGHT * settings.width / settings.height))


def tile(images: ImageSet, position: int, use_box: bool, correct: bool | None = None) -> Tile:
    record = images.records[position]
    camera = f" c{record.camera}" if record.camera is not None else ""
    image = read_image(record.path, record.box if use_box else None, record.source)
    return Tile(image, f"{record.identity}{camera}", correct)
