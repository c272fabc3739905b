"""An image file to pixels: decoded whole, cut to its box, resized."""

from pathlib import Path

import cv2
import numpy as np

from reid_kit.errors import InputError

Box = tuple[float, float, float, float]


def read_image(path: str | Path, box: Box | None = None, source: str | None = None) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an image file, cut to `box` (x1, y1, x2, y2 in pixels) after clipping it to the image.

    Args:
        source: the line of the list file that the box came from, for the error.

    Raises:
        InputError: the file is missing, empty, truncated or no image; the box is inverted or outside the image.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        listed = f", which {source} names" if source else ""
        raise InputError(f"cannot read image {path}{listed}: {error.strerror}") from error
    if not data:
        raise InputError(f"image {path} is empty (0 bytes); copy or unpack it again")
    whole = is_whole(data)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if whole else None
    if image is None:
        raise InputError(f"image {path} is {'damaged' if whole else 'truncated'} ({len(data)} bytes); copy it again")
    return image if box is None else crop(image, box, f"{path}{f' ({source})' if source else ''}")


def is_whole(data: bytes) -> bool:
    """Whether a JPEG or PNG file holds its end, whatever comes after it; other kinds are taken for whole.

    The decoder fills what is missing of a truncated file with grey and says nothing.
    """
    if data.startswith(b"\x89PNG"):
        return b"IEND" in data
    if not data.startswith(b"\xff\xd8"):
        return True
    place = 2  # over the segments before the scan: a thumbnail among them has an end of its own
    while data[place : place + 1] == b"\xff" and data[place + 1 : place + 2] != b"\xda":
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return data.find(b"\xff\xd9", place) >= 0


def crop(image: np.ndarray, box: Box, name: str) -> np.ndarray:
    """The part of an (H, W, 3) image within `box`, clipped to the image; `name` is for the error."""
    height, width = image.shape[:2]
    x1, y1 = max(round(box[0]), 0), max(round(box[1]), 0)
    x2, y2 = min(round(box[2]), width), min(round(box[3]), height)
    if x1 >= x2 or y1 >= y2:
        raise InputError(
            f"{name}: box {tuple(box)} holds no pixel of the {width} x {height} image; expected x1 < x2 and y1 < y2 "
            f"within it"
        )
    return image[y1:y2, x1:x2]


def resize_and_cut(image: np.ndarray, height: int, width: int, enlarge: float = 1.0) -> np.ndarray:
    """(H, W, 3) to `enlarge` times (height, width), and of that the centre: (height, width, 3)."""
    large = round(height * enlarge), round(width * enlarge)
    top, left = (large[0] - height) // 2, (large[1] - width) // 2
    return resize(image, *large)[top : top + height, left : left + width]


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H, W, 3) to (height, width, 3): by areas where both sides shrink, which keeps textures from aliasing."""
    if image.shape[:2] == (height, width):
        return image
    shrinks = image.shape[0] > height and image.shape[1] > width
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
