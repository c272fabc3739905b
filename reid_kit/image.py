"""An image file to pixels: decoded whole, cut to its box, resized."""

import io
import math
import struct
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from reid_kit.errors import InputError
from reid_kit.reading import Member, read_bytes

Box = tuple[float, float, float, float]
LIMIT = 2**29  # bytes of an image file
REDUCED = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}
SPARE = {8: 3.0, 4: 1.6, 2: 1.6}  # times the wanted size that the reduced picture has at the least
SHIFT = 0.25  # pixels of the wanted size, at the most, by which rounding its size moves its far edges, in all


def read_image(
    path: str | Path | Member, box: Box | None = None, source: str | None = None, wanted: tuple[int, int] | None = None
) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an image file, or of one in a tar, cut to `box` (x1, y1, x2, y2 in pixels) after clipping
    it to the image.

    Args:
        source: the line of the list file that the box came from, for the error.
        wanted: (height, width) that it will be resized to: a much larger JPEG without a box is then decoded at a half,
            a quarter or an eighth, see `reduction`. After `resize` the picture is the same within a mean absolute
            difference of 1 of 255, about what the JPEG's own coding has changed (docs/performance.md).

    Raises:
        InputError: the file is missing, empty, no regular file, truncated or no image; the box is inverted or outside
            the image.
    """
    data = read_bytes(path, f"image {path}{f', which {source} names,' if source else ''}", LIMIT)
    image = image_of(data, path, wanted if box is None else None)
    return image if box is None else crop(image, box, f"{path}{f' ({source})' if source else ''}")


def image_of(data: bytes, name: str | Path | Member, wanted: tuple[int, int] | None = None) -> np.ndarray:
    """(H, W, 3) uint8 RGB of the content of an image file, as `read_image` gives it; `name` is for the error.

    Raises:
        InputError: it is empty, truncated or no image.
    """
    if not data:
        raise InputError(f"image {name} is empty (0 bytes); copy or unpack it again")
    end = end_of(data)
    why = ""
    try:
        image = None if end < 0 else decode(data, wanted)
    except (cv2.error, MemoryError) as error:  # a header that promises more pixels than there can be
        image, why = None, f"; the decoder says: {' '.join(str(error).split())[:200]}"
    if image is not None and data.startswith(b"\xff\xd8") and is_cut(data[:end], image):
        image, end = None, -1
    if image is None:
        state = "truncated" if end < 0 else "damaged, or of a kind that OpenCV cannot read"
        raise InputError(f"image {name} is {state} ({len(data)} bytes); copy it again{why}")
    return image


def decode(data: bytes, wanted: tuple[int, int] | None) -> np.ndarray | None:
    """(H, W, 3) uint8 RGB, reduced where `wanted` allows it; None where OpenCV cannot read the data."""
    pixels = np.frombuffer(data, np.uint8)
    size = jpeg_size(data) if wanted else None
    factor = reduction(size, wanted) if size else 1
    if factor == 1:
        return cv2.imdecode(pixels, cv2.IMREAD_COLOR_RGB)
    image = cv2.imdecode(pixels, REDUCED[factor])
    return image if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def reduction(size: tuple[int, int], wanted: tuple[int, int]) -> int:
    """8, 4, 2 or 1: by how much a picture of `size` may be reduced on decoding before it is resized to `wanted`.

    Each pixel of the reduced picture stands for so many of the file's; the last of a row or column may stand for a part
    of them, and then the resized picture is stretched by that part. What is smaller than SPARE times `wanted`, or
    stretched by more than SHIFT, differs more from the whole picture's averages.
    """
    for factor in REDUCED:
        stretch = sum((-side % factor) / side * target for side, target in zip(size, wanted))
        if stretch <= SHIFT and all(side >= SPARE[factor] * factor * target for side, target in zip(size, wanted)):
            return factor
    return 1


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) by the header of a JPEG; None of other files, and of one that the decoder may turn."""
    if not data.startswith(b"\xff\xd8") or b"Exif\0\0" in data[:64]:
        return None
    for place in segments(data):
        kind = data[place + 1]
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC) and place + 9 <= len(data):  # a start of frame
            return struct.unpack(">HH", data[place + 5 : place + 9])
    return None


def segments(data: bytes) -> Iterator[int]:
    """Where the segments of a JPEG before its scan begin, and last where they end."""
    place = 2
    while data[place : place + 1] == b"\xff" and data[place + 1 : place + 2] not in (b"\xda", b""):
        if data[place + 1] == 0xFF:  # any number of fill bytes may stand before a marker
            place += 1
            continue
        yield place
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    yield min(place, len(data) - 2)


def end_of(data: bytes) -> int:
    """Where the end mark of a JPEG or PNG file stands, -1 where it has none; other kinds end with their data.

    Of older OpenCVs the decoder fills what is missing of a truncated file with grey and says nothing.
    """
    if data.startswith(b"\x89PNG"):
        return data.find(b"IEND")
    if not data.startswith(b"\xff\xd8"):
        return len(data)
    *_, scan = segments(data)  # over the segments before it: a thumbnail among them has an end of its own
    return data.find(b"\xff\xd9", scan)


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


def read_resized(path: str | Path | Member, box: Box | None, source: str | None, size: tuple[int, int]) -> np.ndarray:
    """An image file as `read_image` gives it, resized to `size` (height, width): what a network is shown of it."""
    return resize(read_image(path, box, source, wanted=size), *size)


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
