"""Brushes of the demo renderer. Pictures are drawn SCALE times too large in BGR float and shrunk at the end."""

import sys
from collections.abc import Iterable

import cv2
import numpy as np
from tqdm import tqdm

SCALE = 4
Color = tuple[float, float, float]


def bar(numbers: Iterable[int], title: str) -> Iterable[int]:
    """`numbers`, with a sign of life on a terminal: drawing takes half a minute."""
    return tqdm(numbers, desc=title, leave=False, disable=not sys.stderr.isatty())


def points(*xy: tuple[float, float]) -> np.ndarray:
    return np.round(np.array(xy)).astype(np.int32)


def polygon(canvas: np.ndarray, xy: np.ndarray, color: Color | int) -> None:
    cv2.fillPoly(canvas, [xy], color, cv2.LINE_AA)


def limb(canvas: np.ndarray, start, end, width_start: float, width_end: float, color: Color | int) -> None:
    """A tapered limb with round ends."""
    start, end = np.array(start, float), np.array(end, float)
    along = end - start
    across = np.array([-along[1], along[0]]) / max(np.hypot(*along), 1e-6) / 2
    corners = (
        start + across * width_start,
        end + across * width_end,
        end - across * width_end,
        start - across * width_start,
    )
    polygon(canvas, points(*corners), color)
    for centre, width in ((start, width_start), (end, width_end)):
        cv2.circle(canvas, tuple(points(centre)[0].tolist()), max(round(width / 2), 1), color, -1, cv2.LINE_AA)


def ellipse(canvas: np.ndarray, centre, axes, color: Color | int, begin: float = 0, end: float = 360) -> None:
    centre, axes = points(centre)[0].tolist(), points(axes)[0].tolist()
    cv2.ellipse(canvas, centre, axes, 0, begin, end, color, -1, cv2.LINE_AA)


def smooth_noise(random: np.random.Generator, height: int, width: int, cells: int) -> np.ndarray:
    """(height, width) smooth noise with mean 0 and deviation about 1; `cells` blobs across."""
    coarse = random.standard_normal((max(cells * height // width, 2), cells)).astype(np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


PATTERNS = {  # name -> where the second colour is, from rows and columns counted in pitches
    "stripes": lambda y, x: y.astype(int) % 2 + 0 * x < 1,
    "bars": lambda y, x: 0 * y + x.astype(int) % 2 < 1,
    "checks": lambda y, x: (y.astype(int) + x.astype(int)) % 2 < 1,
    "dots": lambda y, x: (y % 2 - 1) ** 2 + (x % 2 - 1) ** 2 < 0.36,
}


def pattern(name: str, shape: tuple[int, int], color: Color, second: Color, pitch: int) -> Color | np.ndarray:
    """A cloth: a colour where it is plain, else a (height, width, 3) picture."""
    if name == "plain":
        return color
    y, x = np.ogrid[: shape[0], : shape[1]]
    on = PATTERNS[name](y / pitch, x / pitch)
    return np.where(on[..., None], np.array(second, np.float32), np.array(color, np.float32))


def jitter(color: Color, random: np.random.Generator, amount: float = 10) -> Color:
    return tuple(float(np.clip(c + random.normal(0, amount), 4, 250)) for c in color)


def finish(canvas: np.ndarray, height: int, width: int) -> np.ndarray:
    """The drawn canvas shrunk to (height, width, 3) float32."""
    return cv2.resize(canvas.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
