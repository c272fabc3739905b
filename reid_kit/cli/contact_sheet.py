"""Rows of images from files, as search and group show them."""

from collections.abc import Sequence

import numpy as np

from reid_kit.errors import InputError
from reid_kit.image import Box, read_image
from reid_kit.report.picture import Tile, ranked_list_picture

HEIGHT = 128  # of a tile, in pixels
Cell = tuple[str, Box | None, str, bool | None]  # path, box, caption, and whether it is a match


def contact_sheet(rows: Sequence[tuple[str, Sequence[Cell]]], title: str, height: int, width: int) -> bytes:
    """A PNG of rows of images under their headings; one that cannot be read is grey.

    Args:
        height, width: of the model's input, whose shape the tiles have.
    """
    drawn = [
        (heading, [Tile(_pixels(path, box), caption, matches) for path, box, caption, matches in cells])
        for heading, cells in rows
    ]
    return ranked_list_picture(drawn, title, HEIGHT, max(round(HEIGHT * width / height), 1))


def _pixels(path: str, box: Box | None) -> np.ndarray:
    try:
        return read_image(path, box)
    except InputError:
        return np.full((HEIGHT, HEIGHT // 2, 3), 200, np.uint8)
