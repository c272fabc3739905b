"""Pictures of strangers: bounded in number, bytes and pixels before anything decodes them."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from reid_kit.errors import InputError, shortened
from reid_kit.image import image_of
from reid_kit.reading import read_bytes

MOST = 20  # pictures at once
BYTES = 16 * 2**20  # of a picture
PIXELS = 50_000_000
KINDS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")


@dataclass(frozen=True)
class Upload:
    """pixels: (H, W, 3) uint8 RGB. sha256: of the file."""

    name: str
    sha256: str
    pixels: np.ndarray


def read_uploads(files: Sequence[str | Path] | None, folder: Path) -> list[Upload]:
    """Reads files that lie below `folder`, whatever paths a sender made up.

    Raises:
        InputError: no picture or too many; one that lies elsewhere, is too large, has too many pixels, or is none.
    """
    if not files:
        raise InputError("give a picture first")
    if len(files) > MOST:
        raise InputError(f"{len(files):,} pictures at once are too many; give at most {MOST}")
    return [_read(uploaded(file, folder)) for file in files]


def uploaded(file: str | Path, folder: Path) -> Path:
    """
    Raises:
        InputError: the file does not lie below `folder`.
    """
    path = Path(file).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise InputError("pictures are uploaded, not named by their paths or addresses")
    return path


def _read(file: Path) -> Upload:
    name = shortened(file.name)
    data = read_bytes(file, f"picture {name}", BYTES)
    try:  # the header alone is read here
        with Image.open(io.BytesIO(data), formats=KINDS) as header:
            width, height = header.size
    except Image.DecompressionBombError as error:
        raise InputError(f"picture {name} has too many pixels; at most {PIXELS:,} are taken") from error
    except Exception as error:  # Pillow raises almost anything on bytes that are no picture
        raise InputError(f"{name} is no picture that can be read; give one of {', '.join(KINDS)}") from error
    if width * height > PIXELS:
        raise InputError(
            f"picture {name} has {width:,} x {height:,} pixels; at most {PIXELS:,} are taken, so make it smaller"
        )
    return Upload(file.name, hashlib.sha256(data).hexdigest(), image_of(data, name))
