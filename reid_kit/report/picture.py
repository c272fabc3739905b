"""Ranked lists as a picture."""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

GREEN, RED, GREY, INK, PAPER = (80, 175, 76), (60, 60, 230), (150, 150, 150), (45, 40, 35), (255, 255, 255)  # BGR
FRAME, GAP, LINE, HEADER = 4, 8, 16, 34  # pixels
LEAST_WIDTH = 640  # pixels: room for the title
MARKS = {True: "✓", False: "✗", None: ""}  # beside the colours, which not everybody tells apart


class Tile(NamedTuple):
    """An image (H, W, 3) uint8 RGB with a caption of up to two lines; `correct` frames it green or red, None grey."""

    image: np.ndarray
    caption: str
    correct: bool | None = None


class Text(NamedTuple):
    """A line to write: where, how large in pixels, how wide at most, in what colour."""

    text: str
    x: int
    y: int
    size: int
    width: int
    color: tuple[int, int, int] = INK


def ranked_list_picture(
    rows: Sequence[tuple[str, Sequence[Tile]]], title: str, height: int, width: int, line_after: int = 0
) -> bytes:
    """A PNG of rows of tiles, each row under its heading: the query first, then its ranked gallery.

    Args:
        height, width: of a tile's image, in pixels.
        line_after: a line is drawn beneath so many rows, where there are more.
    """
    tile_width, row_height = width + 2 * FRAME + GAP, height + 2 * FRAME + 3 * LINE + GAP
    columns = max((len(tiles) for _, tiles in rows), default=0)
    wide = max(3 * GAP + columns * tile_width, LEAST_WIDTH)
    canvas = np.full((HEADER + len(rows) * row_height, wide, 3), 255, np.uint8)
    texts = [Text(title, GAP, GAP, 14, wide - 2 * GAP)]
    for number, (heading, tiles) in enumerate(rows):
        top = HEADER + number * row_height
        if number and number == line_after:
            canvas[top - GAP // 2] = INK
        texts.append(Text(heading, GAP, top, 12, wide - 2 * GAP))
        for column, tile in enumerate(tiles):
            left = GAP + column * tile_width + (2 * GAP if column else 0)
            texts += draw_tile(canvas, tile, left, top + LINE, height, width)
    write(canvas, texts)
    return cv2.imencode(".png", canvas)[1].tobytes()


def draw_tile(canvas: np.ndarray, tile: Tile, left: int, top: int, height: int, width: int) -> list[Text]:
    """Draws the image in its frame; returns the caption."""
    color = GREY if tile.correct is None else GREEN if tile.correct else RED
    right, bottom = left + width + 2 * FRAME, top + height + 2 * FRAME
    cv2.rectangle(canvas, (left, top), (right - 1, bottom - 1), color, -1)
    scale = min(height / tile.image.shape[0], width / tile.image.shape[1])
    size = max(round(tile.image.shape[1] * scale), 1), max(round(tile.image.shape[0] * scale), 1)
    image = cv2.resize(tile.image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)[..., ::-1]
    x, y = left + FRAME + (width - size[0]) // 2, top + FRAME + (height - size[1]) // 2
    canvas[top + FRAME : bottom - FRAME, left + FRAME : right - FRAME] = PAPER
    canvas[y : y + size[1], x : x + size[0]] = image
    mark = MARKS[tile.correct]
    indent = 12 if mark else 0
    lines = [
        Text(
            line, left + (0 if number else indent), bottom + number * LINE, 11, right - left - (0 if number else indent)
        )
        for number, line in enumerate(tile.caption.split("\n")[:2])
    ]
    return [Text(mark, left, bottom, 12, indent, color), *lines]


def write(canvas: np.ndarray, texts: Sequence[Text]) -> None:
    """Writes lines of any alphabet that the font has; what is too wide is cut."""
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    for text in texts:
        shown = shortened("".join(c if c.isprintable() else " " for c in text.text), font(text.size), text.width)
        draw.text((text.x, text.y), shown, text.color, font(text.size))
    canvas[:] = np.asarray(image)


def shortened(text: str, face: ImageFont.FreeTypeFont, width: int) -> str:
    """The text, or as much of it as fits into `width` pixels with three dots."""
    if len(text) <= width and face.getlength(text) <= width:
        return text
    kept = min(len(text), width)  # a letter is a pixel wide at least
    while kept and face.getlength(text[:kept] + "…") > width:
        kept -= 1
    return text[:kept] + "…"


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)
