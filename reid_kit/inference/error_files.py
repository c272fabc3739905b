"""What a test tells of single queries: a table of all of them, and the features for TensorBoard's projector."""

from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import cv2
import numpy as np
import torch

from reid_kit.data.records import JUNK, Record
from reid_kit.evaluation.distances import blocks, exact_products
from reid_kit.files import new_file
from reid_kit.image import read_image
from reid_kit.inference.testing import Tested, TestSettings

BLOCK_MEMORY = 64_000_000  # bytes of distances at once
PROJECTED = 4096  # images: more are slow to load and to arrange in a browser
THUMBNAIL = 64  # pixels of the longer side


def write_query_table(path: Path, tested: Tested) -> None:
    """Writes a Parquet table of all queries: image, average precision, first match, and the nearest wrong entry.

    Average precision and rank are null where a query was skipped for want of a match.

    Raises:
        InputError: the file cannot be written.
    """
    import pyarrow
    import pyarrow.parquet

    if not tested.query.records:  # features of a file: there are no images
        return
    records, gallery = tested.query.records, tested.gallery.records
    nearest, distances = nearest_wrong(tested)
    counted = tested.result.first_match_rank > 0
    columns = {
        "path": [str(record.path) for record in records],
        "identity": [record.identity_name for record in records],
        "camera": [record.camera_name or None for record in records],
        "average_precision": pyarrow.array(tested.result.average_precision, pyarrow.float64(), mask=~counted),
        "first_match_rank": pyarrow.array(tested.result.first_match_rank, pyarrow.int64(), mask=~counted),
        "nearest_wrong_path": [str(gallery[i].path) if i >= 0 else None for i in nearest],
        "nearest_wrong_identity": [gallery[i].identity_name if i >= 0 else None for i in nearest],
        "nearest_wrong_distance": pyarrow.array(distances, pyarrow.float32(), mask=nearest < 0),
    }
    types = {
        "camera": pyarrow.string(),
        "nearest_wrong_path": pyarrow.string(),
        "nearest_wrong_identity": pyarrow.string(),
    }
    table = pyarrow.table(
        {name: pyarrow.array(v, types.get(name)) if isinstance(v, list) else v for name, v in columns.items()}
    )
    facts = {"dataset": tested.dataset.name, "protocol": tested.result.protocol}
    with new_file(path) as temporary:
        pyarrow.parquet.write_table(table.replace_schema_metadata(facts), temporary)


def nearest_wrong(tested: Tested) -> tuple[np.ndarray, np.ndarray]:
    """(Q,) the gallery position of each query's nearest entry of another identity, -1 where there is none; and (Q,) its
    distance, in the ranking that was measured."""
    query_ids, gallery_ids = (np.asarray(side.identities) for side in (tested.query, tested.gallery))
    distances = tested.measured_distances(device=tested.settings.device)
    junk = torch.as_tensor(np.flatnonzero(gallery_ids == JUNK), device=distances.device)
    positions, values = [], []
    size = max(BLOCK_MEMORY // (4 * len(gallery_ids)), 1)
    with exact_products(distances.device) as threads:
        for first, last in blocks(slice(0, len(query_ids)), size):
            order = distances.order(first, last, slice(0, len(gallery_ids)), threads)
            order[torch.as_tensor(query_ids[first:last, None] == gallery_ids, device=order.device)] = torch.inf
            order[:, junk] = torch.inf
            least, place = order.min(1)
            found = distances.of_order(least[:, None], torch.arange(first, last, device=order.device)[:, None])
            positions.append(torch.where(least.isinf(), -1, place).cpu().numpy())
            values.append(found[:, 0].cpu().numpy())
    return np.concatenate(positions), np.concatenate(values)


def write_projector(folder: Path, tested: Tested, most: int = PROJECTED) -> int:
    """Writes features, names and thumbnails where `tensorboard --logdir` finds them; returns how many images.

    Of more than `most` images some identities are drawn, the same each time.

    Raises:
        InputError: an image cannot be read any more.
    """
    from torch.utils.tensorboard import SummaryWriter

    sides = (
        {"gallery": tested.gallery}
        if tested.dataset.protocol.same_set
        else {"query": tested.query, "gallery": tested.gallery}
    )
    rows = [(split, place) for split, side in sides.items() for place in range(len(side.records))]
    identities = np.concatenate([np.asarray(side.identities) for side in sides.values()])
    kept = by_identities(identities, most)
    features, names, thumbnails = [], [], []
    for split, place in (rows[i] for i in kept):
        side, record = sides[split], sides[split].records[place]
        features.append(torch.as_tensor(side.features[place]).float())
        precision = tested.result.average_precision[place] if split == "query" or len(sides) == 1 else np.nan
        shown = "" if np.isnan(precision) else f"{precision:.3f}"
        name = [record.identity_name, record.camera_name, split, shown, str(record.path)]
        names.append([" ".join(text.split()) for text in name])  # a tab or a new line would break the table
        thumbnails.append(thumbnail(record, tested.settings))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "projector_config.pbtxt").unlink(missing_ok=True)  # of an earlier test here; it would be added to
    with SummaryWriter(str(folder)) as writer, redirect_stdout(StringIO()):  # it says that it writes over its own files
        writer.add_embedding(
            torch.stack(features),
            names,
            torch.from_numpy(np.stack(thumbnails)).permute(0, 3, 1, 2) / 255,
            tag=tested.dataset.name,
            metadata_header=["identity", "camera", "split", "average precision", "path"],
        )
    return len(kept)


def by_identities(identities: np.ndarray, most: int) -> np.ndarray:
    """Positions of at most `most` images, junk apart: all of one identity drawn at random, then all of the next."""
    kept = np.flatnonzero(identities != JUNK)
    known, which = np.unique(identities[kept], return_inverse=True)
    turn = np.random.default_rng(0).permutation(len(known))
    return np.sort(kept[np.argsort(turn[which], kind="stable")[:most]])


def thumbnail(record: Record, settings: TestSettings) -> np.ndarray:
    """(THUMBNAIL, THUMBNAIL, 3) uint8: the image as the network saw it, in the middle of a white square.

    Of images that are not square the writer of the sprite makes no whole square.
    """
    image = read_image(record.path, record.box if settings.use_box else None, record.source)
    scale = THUMBNAIL / max(settings.height, settings.width)
    height, width = (max(round(side * scale), 1) for side in (settings.height, settings.width))
    square = np.full((THUMBNAIL, THUMBNAIL, 3), 255, np.uint8)
    top, left = (THUMBNAIL - height) // 2, (THUMBNAIL - width) // 2
    square[top : top + height, left : left + width] = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return square
