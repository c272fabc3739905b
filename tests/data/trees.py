"""Small trees in the official layouts, of stub images."""

from pathlib import Path

import cv2
import numpy as np

STUB = cv2.imencode(".png", np.full((8, 4, 3), 120, np.uint8))[1].tobytes()


def touch(folder: Path, *names: str, content: bytes = STUB) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def market(folder: Path) -> Path:
    """Two training identities; two test identities in two cameras, a distractor and a piece of junk."""
    touch(
        folder / "bounding_box_train", *(f"{i:04}_c{c}s1_00{n}_01.jpg" for i in (2, 7) for c in (1, 2) for n in (1, 2))
    )
    touch(folder / "query", "0001_c1s1_001_00.jpg", "0003_c3s1_001_00.jpg")
    touch(
        folder / "bounding_box_test",
        "0001_c1s1_002_00.jpg",
        "0001_c2s1_002_00.jpg",
        "0003_c6s2_002_00.jpg",
        "0000_c4s1_001_00.jpg",
        "-1_c5s1_001_00.jpg",
    )
    touch(folder / "bounding_box_train", "Thumbs.db", ".hidden.jpg")
    return folder
