"""Ranked lists as a picture."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

GREEN, RED, GREY, INK, PAPER = (80, 175, 76), (60, 60, 230), (150, 150, 150), (40, 40, 40), (255, 255, 255)  # BGR
FRAME, GAP, LINE, HEADER = 4, 8, 18, 34  # pixels


class Tile(NamedTuple):
    """An image (H, W, 3) uint8 RGB with a caption; `correct` frames it green or red, None grey."""

    image: np.ndarray
    caption: str
    correct: bool | None = None


def ranked_list_picture(rows: Sequence[tuple[str, Sequence[Tile]]], title: str, height: int, width: int) -> bytes:
    """A PNG of rows of tiles, each row under its heading: the query first, then its ranked gallery.

    Args:
        height, width: of a tile's image, in pixels.
    """
    tile_width, row_height = width + 2 * FRAME + GAP, height + 2 * FRAME + 2 * LINE + GAP
    columns = max(len(tiles) for _, tiles in rows)
    canvas = np.full((HEADER + len(rows) * row_height, GAP + columns * tile_width + 2 * GAP, 3), 255, np.uint8)
    write(canvas, title, GAP, HEADER - 12, 0.5)
    for number, (heading, tiles) in enumerate(rows):
        top = HEADER + number * row_height
        write(canvas, heading, GAP, top + LINE - 6, 0.4)
        for column, tile in enumerate(tiles):
            left = GAP + column * tile_width + (2 * GAP if column else 0)
            draw_tile(canvas, tile, left, top + LINE, height, width)
    return cv2.imencode(".png", canvas)[1].tobytes()


def draw_tile(canvas: np.ndarray, tile: Tile, left: int, top: int, height: int, width: int) -> None:
    color = GREY if tile.correct is None else GREEN if tile.correct else RED
    right, bottom = left + width + 2 * FRAME, top + height + 2 * FRAME
    cv2.rectangle(canvas, (left, top), (right - 1, bottom - 1), color, -1)
    scale = min(height / tile.image.shape[0], width / tile.image.shape[1])
    size = max(round(tile.image.shape[1] * scale), 1), max(round(tile.image.shape[0] * scale), 1)
    image = cv2.resize(tile.image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)[..., ::-1]
    x, y = left + FRAME + (width - size[0]) // 2, top + FRAME + (height - size[1]) // 2
    canvas[top + FRAME : bottom - FRAME, left + FRAME : right - FRAME] = PAPER
    canvas[y : y + size[1], x : x + size[0]] = image
    write(canvas, tile.caption, left, bottom + LINE - 5, 0.36)


def write(canvas: np.ndarray, text: str, x: int, y: int, size: float) -> None:
    cv2.putText(canvas, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, INK, 1, cv2.LINE_AA)
