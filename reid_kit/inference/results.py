"""What a test leaves behind: numbers, tables and pictures."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from reid_kit.data.records import Record
from reid_kit.files import hold, take_folder, write_atomically
from reid_kit.image import read_image
from reid_kit.inference.error_files import write_query_table
from reid_kit.inference.testing import Tested
from reid_kit.operating_point import OperatingPoint
from reid_kit.report.picture import Tile, ranked_list_picture
from reid_kit.report.plots import result_curves
from reid_kit.report.ranked_list import worst, worst_and_median
from reid_kit.report.tables import cmc_name, measured, points_json, result_json, result_table, threshold_table

QUERIES_SHOWN = 4  # of the worst, and of those around the median
WORST_SHOWN = 10
TILE_SIDE = 128  # pixels, the longer one
EMBED_DISTANCE = "cosine distance of `embed`'s features, 1 - a @ b"
STAMP, KIND = "settings.json", "test of reid_kit"  # the file that says of a folder that a test may write there


@contextmanager
def results_folder(folder: Path) -> Iterator[None]:
    """Holds the folder of a test, which is made or is one of a test already.

    Raises:
        InputError: the folder holds something else; another process works there.
    """
    with hold(folder, "choose other settings, whose results go to another folder"):
        take_folder(folder, STAMP, KIND, "test a copy of the checkpoint that lies elsewhere")
        yield


def stamp(folder: Path, settings: Mapping[str, object]) -> None:
    """Notes in a test's folder what is measured; before anything else stands there."""
    write_atomically(folder / STAMP, json.dumps({"kind": KIND, "version": 1, **settings}, indent=1))


def write_results(
    folder: Path,
    name: str,
    tested: Tested,
    facts: Mapping[str, object],
    thresholds: Mapping[float, OperatingPoint] | None = None,
) -> str:
    """Writes results.md and the pictures, and results.json last: where it stands, all is there. Returns the table.

    Args:
        name: of the row in the table.
        facts: what the numbers belong to, as checkpoint and test settings, kept in results.json.
        thresholds: of a training run, by the false-match rate that each was chosen for.
    """
    table = result_table({name: tested.result}, cmc_name([tested.dataset.protocol.same_set]), {name: tested.nmi})
    points = tested.result.histogram.points() if tested.result.histogram else {}
    tables = [table, threshold_table(points, "measured distance")]
    if thresholds is not None:
        tables.append(threshold_table(thresholds, EMBED_DISTANCE))
    tabled = measured(tested.result, tested.nmi, tested.dataset.protocol.measures)
    content = {**facts, **result_json(tested.result), "nmi": tested.nmi, "measures": tabled}
    if thresholds is not None:
        content["thresholds"] = points_json(thresholds)
    write_atomically(folder / "results.md", "\n\n".join(tables) + "\n")
    write_query_table(folder / "queries.parquet", tested)
    write_atomically(folder / "result_curves.png", result_curves(tested.result, name))
    if tested.query.records:
        content["query_paths"] = [str(record.path) for record in tested.query.records]
        precision = tested.result.average_precision
        worst_ones, median = worst_and_median(precision, QUERIES_SHOWN)
        title = "the worst queries, and under the line median ones"
        chosen = np.concatenate([worst_ones, median])
        picture = draw_ranked_lists(tested, chosen, title, line_after=len(worst_ones))
        write_atomically(folder / "ranked_list.png", picture)
        picture = draw_ranked_lists(tested, worst(precision, WORST_SHOWN), f"the {WORST_SHOWN} worst queries")
        write_atomically(folder / "worst_queries.png", picture)
    write_atomically(folder / "results.json", json.dumps(content, indent=1))
    return table


def draw_ranked_lists(tested: Tested, chosen: np.ndarray, title: str, line_after: int = 0) -> bytes:
    """A PNG of the measured ranking of the queries at the positions `chosen`."""
    settings, rows = tested.settings, []
    for position, ranked in zip(chosen, tested.ranked_lists(chosen)):
        record = tested.query.records[position]
        tiles = [tile(record, settings.use_box)]
        for place, correct, distance in zip(ranked.gallery, ranked.correct, ranked.distance):
            tiles.append(tile(tested.gallery.records[place], settings.use_box, f"{distance:.3f}", bool(correct)))
        rank = tested.result.first_match_rank[position]
        precision = tested.result.average_precision[position]
        rows.append((f"{record.path.name}: AP {100 * precision:.1f} %, first match at {rank}", tiles))
    title = f"{tested.dataset.name}: {title}. ✓ and green: same identity; ✗ and red: another; numbers: distance"
    scale = TILE_SIDE / max(settings.height, settings.width)
    size = (max(round(side * scale), 1) for side in (settings.height, settings.width))
    return ranked_list_picture(rows, title, *size, line_after)


def tile(record: Record, use_box: bool, distance: str = "", correct: bool | None = None) -> Tile:
    camera = f"c{record.camera_name}" if record.camera_name.isdigit() else record.camera_name
    image = read_image(record.path, record.box if use_box else None, record.source)
    return Tile(image, f"{record.identity_name}\n{camera} {distance}".rstrip(), correct)
