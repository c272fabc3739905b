"""Six cameras: what stands behind the people, and what light, lens and sensor make of it."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from reid_kit.data.demo.drawing import ellipse, limb, points, polygon, smooth_noise


@dataclass(frozen=True)
class Camera:
    """A place and its camera.

    size: share of the picture's height that a person of height 1 fills. horizon: height of the wall's foot, from the
    top. views: how often front, back, left and right are seen. cast: factors on blue, green, red.
    """

    background: Callable[[np.ndarray, np.random.Generator, float], None]
    size: float
    horizon: float
    views: tuple[float, float, float, float]
    gain: float
    gamma: float
    cast: tuple[float, float, float]
    blur: float
    noise: float
    quality: int
    light: float  # brightness from left to right


def texture(canvas: np.ndarray, random: np.random.Generator, amount: float, cells: int) -> None:
    canvas *= 1 + amount * smooth_noise(random, *canvas.shape[:2], cells)[..., None]


def floor(canvas: np.ndarray, top: float, color) -> slice:
    rows = slice(int(top * canvas.shape[0]), canvas.shape[0])
    canvas[rows] = color
    return rows


def receding_lines(canvas: np.ndarray, top: float, color, offset: float, pitch: float, thickness: int) -> None:
    """Lines towards a vanishing point and across, as slabs and tiles show them."""
    height, width = canvas.shape[:2]
    y0 = top * height
    for number in range(-8, 9):
        x = width / 2 + (number + offset) * pitch * width
        cv2.line(canvas, (round(width / 2 + (x - width / 2) * 0.35), round(y0)), (round(x), height), color, thickness)
    for number in range(1, 9):
        y = y0 + (height - y0) * (number / 8) ** 1.8
        cv2.line(canvas, (0, round(y)), (width, round(y)), color, thickness)


def pavement(canvas, random, horizon):
    canvas[:] = (150, 148, 146)
    texture(canvas, random, 0.04, 5)
    floor(canvas, horizon, (138, 146, 150))
    receding_lines(canvas, horizon, (112, 118, 122), random.uniform(0, 1), 0.28, 3)
    texture(canvas, random, 0.05, 40)


def grass(canvas, random, horizon):
    canvas[:] = (120, 150, 130)
    for _ in range(26):  # hedge
        centre = random.uniform(0, canvas.shape[1]), random.uniform(0, horizon) * canvas.shape[0]
        radius = random.uniform(20, 50)
        ellipse(canvas, centre, (radius, radius), tuple(random.uniform(0.75, 1.15) * c for c in (52, 96, 62)))
    floor(canvas, horizon, (70, 138, 96))
    texture(canvas, random, 0.16, 60)
    height, width = canvas.shape[:2]
    x = random.uniform(0.2, 0.8) * width
    path = points((x - 18, horizon * height), (x + 18, horizon * height), (x + 110, height), (x - 90, height))
    polygon(canvas, path, (150, 172, 188))
    texture(canvas, random, 0.05, 90)


def brick_wall(canvas, random, horizon):
    canvas[:] = (70, 86, 150)
    height, width = canvas.shape[:2]
    shift = random.integers(0, 40)
    for row, y in enumerate(range(-int(random.integers(0, 16)), int(horizon * height), 17)):
        cv2.line(canvas, (0, y), (width, y), (128, 140, 160), 2)
        for x in range(-40 + shift + 20 * (row % 2), width + 40, 40):
            cv2.line(canvas, (x, y), (x, y + 17), (128, 140, 160), 2)
            shade = float(random.uniform(0.85, 1.1))
            canvas[max(y + 2, 0) : max(y + 16, 0), max(x + 2, 0) : max(x + 39, 0)] *= shade
    floor(canvas, horizon, (118, 124, 126))
    texture(canvas, random, 0.06, 50)


def shop_front(canvas, random, horizon):
    canvas[:] = (88, 92, 98)
    height, width = canvas.shape[:2]
    x = int(random.uniform(-0.6, 0.3) * width)
    for left in (x, x + int(0.95 * width)):
        right, top, bottom = left + int(0.8 * width), int(0.16 * height), int((horizon - 0.05) * height)
        cv2.rectangle(canvas, (left, top), (right, bottom), (205, 218, 222), -1)
        for _ in range(6):  # goods
            goods = random.uniform(left, right), random.uniform(0.4, horizon - 0.1) * height
            ellipse(canvas, goods, random.uniform(8, 26, 2), tuple(random.uniform(60, 220, 3)))
        cv2.rectangle(canvas, (left, top), (right, bottom), (48, 50, 56), 6)
    cv2.rectangle(canvas, (0, int(0.03 * height)), (width, int(0.12 * height)), (60, 60, 170), -1)
    floor(canvas, horizon, (150, 154, 158))
    receding_lines(canvas, horizon, (134, 138, 142), random.uniform(0, 1), 0.4, 2)
    texture(canvas, random, 0.04, 30)


def road(canvas, random, horizon):
    canvas[:] = (178, 176, 170)
    floor(canvas, horizon, (92, 90, 88))
    texture(canvas, random, 0.05, 50)
    height, width = canvas.shape[:2]
    kerb = int((horizon + 0.06) * height)
    cv2.rectangle(canvas, (0, int(horizon * height)), (width, kerb), (168, 170, 172), -1)
    cv2.line(canvas, (0, kerb), (width, kerb), (70, 70, 70), 5)
    slope, y = random.uniform(-40, 40), random.uniform(0.78, 0.98) * height
    for x in range(int(random.uniform(-80, 0)), width, 110):
        limb(canvas, (x, y + slope * x / width), (x + 60, y + slope * (x + 60) / width), 9, 9, (205, 208, 210))
    if random.random() < 0.5:  # a parked car
        x, y = random.uniform(-0.3, 0.9) * width, horizon * height
        color = tuple(random.uniform(50, 200, 3))
        polygon(canvas, points((x, y), (x + 20, y - 60), (x + 60, y - 100), (x + 170, y - 100), (x + 200, y)), color)
        polygon(canvas, points((x + 40, y - 60), (x + 70, y - 90), (x + 150, y - 90), (x + 170, y - 60)), (95, 90, 85))


def indoor_tiles(canvas, random, horizon):
    canvas[:] = (206, 214, 216)
    floor(canvas, horizon, (186, 196, 204))
    receding_lines(canvas, horizon, (160, 168, 176), random.uniform(0, 1), 0.22, 2)
    height, width = canvas.shape[:2]
    x = int(random.uniform(-0.2, 0.9) * width)
    cv2.rectangle(canvas, (x, int(0.1 * height)), (x + 70, int(horizon * height)), (120, 138, 160), -1)  # a door
    cv2.line(canvas, (0, int(horizon * height)), (width, int(horizon * height)), (110, 112, 116), 8)
    texture(canvas, random, 0.02, 8)


CAMERAS = {
    1: Camera(pavement, 0.86, 0.22, (0.45, 0.25, 0.15, 0.15), 1.05, 1.00, (1.02, 1.00, 0.97), 0.3, 3, 90, 0.10),
    2: Camera(grass, 0.80, 0.36, (0.15, 0.55, 0.15, 0.15), 1.12, 0.92, (0.86, 1.04, 1.05), 0.5, 4, 85, -0.18),
    3: Camera(brick_wall, 0.88, 0.62, (0.10, 0.10, 0.55, 0.25), 0.78, 1.10, (0.92, 0.97, 1.10), 0.6, 6, 80, 0.22),
    4: Camera(shop_front, 0.84, 0.66, (0.15, 0.10, 0.25, 0.50), 0.95, 1.05, (1.14, 1.02, 0.90), 0.4, 4, 85, -0.10),
    5: Camera(road, 0.76, 0.40, (0.25, 0.35, 0.20, 0.20), 0.62, 1.20, (1.18, 1.00, 0.88), 0.9, 9, 70, 0.05),
    6: Camera(indoor_tiles, 0.90, 0.50, (0.50, 0.30, 0.10, 0.10), 1.20, 0.88, (0.84, 0.98, 1.14), 0.2, 3, 92, 0.0),
}


def expose(picture: np.ndarray, camera: Camera, random: np.random.Generator) -> np.ndarray:
    """Light, lens and sensor: a float picture to the uint8 one that the camera stores."""
    height, width = picture.shape[:2]
    picture = picture * (1 + camera.light * np.linspace(-1, 1, width, dtype=np.float32))[None, :, None]
    picture = picture * np.array(camera.cast, np.float32) * camera.gain * random.uniform(0.88, 1.12)
    picture = 255 * np.clip(picture / 255, 0, 1) ** (camera.gamma * random.uniform(0.95, 1.05))
    picture = cv2.GaussianBlur(picture, (0, 0), camera.blur * random.uniform(0.7, 1.3) + 0.05)
    picture = picture + random.normal(0, camera.noise, (height, width, 3))
    return np.clip(picture, 0, 255).astype(np.uint8)
