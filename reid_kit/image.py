"""An image file to pixels: decoded whole, cut to its box, resized."""

import io
import math
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from reid_kit.errors import InputError
from reid_kit.reading import read_bytes

Box = tuple[float, float, float, float]
LIMIT = 2**29  # bytes of an image file


def read_image(path: str | Path, box: Box | None = None, source: str | None = None) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an image file, cut to `box` (x1, y1, x2, y2 in pixels) after clipping it to the image.

    Args:
        source: the line of the list file that the box came from, for the error.

    Raises:
        InputError: the file is missing, empty, no regular file, truncated or no image; the box is inverted or outside
            the image.
    """
    data = read_bytes(path, f"image {path}{f', which {source} names,' if source else ''}", LIMIT)
    if not data:
        raise InputError(f"image {path} is empty (0 bytes); copy or unpack it again")
    end = end_of(data)
    why = ""
    try:
        image = None if end < 0 else cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    except (cv2.error, MemoryError) as error:  # a header that promises more pixels than there can be
        image, why = None, f"; the decoder says: {' '.join(str(error).split())[:200]}"
    if image is not None and data.startswith(b"\xff\xd8") and is_cut(data[:end], image):
        image, end = None, -1
    if image is None:
        state = "truncated" if end < 0 else "damaged, or of a kind that OpenCV cannot read"
        raise InputError(f"image {path} is {state} ({len(data)} bytes); copy it again{why}")
    return image if box is None else crop(image, box, f"{path}{f' ({source})' if source else ''}")


def end_of(data: bytes) -> int:
    """Where the end mark of a JPEG or PNG file stands, -1 where it has none; other kinds end with their data.

    Of older OpenCVs the decoder fills what is missing of a truncated file with grey and says nothing.
    """
    if data.startswith(b"\x89PNG"):
        return data.find(b"IEND")
    if not data.startswith(b"\xff\xd8"):
        return len(data)
    place = 2  # over the segments before the scan: a thumbnail among them has an end of its own
    while data[place : place + 1] == b"\xff" and data[place + 1 : place + 2] != b"\xda":
        filled = data[place + 1 : place + 2] == b"\xff"  # any number of fill bytes may stand before a marker
        place += 1 if filled else 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return data.find(b"\xff\xd9", place)


def is_cut(data: bytes, image: np.ndarray) -> bool:
    """Whether the scan of a JPEG, given without its end mark, stops before its last block of pixels.

    The decoder paints what is missing in grey of luma 128. Where the last corner of the decoded image is of another,
    that is the answer; else Pillow decodes the scan once more and is left waiting for more data where it is cut. A
    progressive file has its grey refined by later scans: its last one is cut if what follows it changes the image.
    """
    turned = b"Exif\0\0" in data[:64]  # the decoder may have turned the image: any corner may be the last
    corners = [(-1, -1), (0, 0), (0, -1), (-1, 0)] if turned else [(-1, -1)]
    lumas = (299 * r + 587 * g + 114 * b for r, g, b in (image[corner].tolist() for corner in corners))
    progressive = b"\xff\xc2" in data
    if not progressive and all(abs(luma - 128_000) > 1500 for luma in lumas):
        return False
    try:
        if not progressive:  # 16 bytes, as the decoder looks ahead
            Image.open(io.BytesIO(data + bytes(16))).load()
            return False
        more = bytes(range(255))
        first, second = (Image.open(io.BytesIO(data + rest + b"\xff\xd9")).tobytes() for rest in (b"", more))
        return first != second
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return "truncated" in str(error)


def crop(image: np.ndarray, box: Box, name: str) -> np.ndarray:
    """The part of an (H, W, 3) image within `box`, clipped to the image; `name` is for the error."""
    height, width = image.shape[:2]
    if not all(map(math.isfinite, box)):
        raise InputError(f"{name}: box {tuple(box)} holds NaN or infinity; expected pixels")
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
