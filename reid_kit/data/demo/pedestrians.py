"""Rendered pedestrians before six cameras, written in Market-1501's layout."""

from pathlib import Path

import cv2
import numpy as np

from reid_kit.data.demo.cameras import CAMERAS, Camera, expose
from reid_kit.data.demo.drawing import SCALE, bar, finish, limb
from reid_kit.data.demo.people import Person, draw_person, paint_person, random_view

HEIGHT, WIDTH = 128, 64
VIEWS_OF_A_CAMERA = (3, 4)  # images of an identity in a camera: at least, at most


def render(person: Person | None, camera: Camera, random: np.random.Generator, cut: float = 0.0) -> np.ndarray:
    """A (128, 64, 3) uint8 BGR picture of a person (None: nobody) as a detector cuts it.

    Args:
        cut: how badly the box sits, 0 for a usual one; 1 leaves a part of a person.
    """
    canvas = np.zeros((HEIGHT * SCALE, WIDTH * SCALE, 3), np.float32)
    camera.background(canvas, random, camera.horizon)
    height, width = canvas.shape[:2]
    size = camera.size * height * random.uniform(0.92, 1.1)
    x = width * (0.5 + random.normal(0, 0.05))
    y = height * (0.5 + camera.size / 2 + random.normal(0, 0.025) + 0.02)
    if random.random() < 0.15:  # somebody behind
        beside = x + width * random.choice([-1, 1]) * random.uniform(0.35, 0.55)
        other, view = draw_person(random), random_view(random, camera.views)
        paint_person(canvas, other, (beside, y - 0.06 * height), size * 0.85, view, random)
    if person is not None:
        if cut:
            x, y, size = (
                x + width * random.uniform(-0.5, 0.5) * cut,
                y + height * random.uniform(-0.6, 0.7) * cut,
                size * 1.5,
            )
        paint_person(canvas, person, (x, y), size, random_view(random, camera.views), random)
    if random.random() < 0.14:
        occlude(canvas, random)
    return expose(finish(canvas, HEIGHT, WIDTH), camera, random)


def occlude(canvas: np.ndarray, random: np.random.Generator) -> None:
    """A pole, a bicycle or a passer-by before the person."""
    height, width = canvas.shape[:2]
    kind = random.integers(3)
    x = width * random.uniform(0.1, 0.9)
    if kind == 0:
        limb(canvas, (x, 0), (x, height), 22, 26, tuple(random.uniform(60, 140) for _ in range(3)))
    elif kind == 1:
        y, radius = height * 0.88, 55
        for centre in (x - 60, x + 70):
            cv2.circle(canvas, (round(centre), round(y)), radius, (30, 30, 32), 6, cv2.LINE_AA)
        color = tuple(random.uniform(40, 200) for _ in range(3))
        for a, b in (
            ((-60, 0), (0, -70)),
            ((0, -70), (60, -70)),
            ((60, -70), (70, 0)),
            ((60, -70), (0, 0)),
            ((0, -70), (0, 0)),
        ):
            limb(canvas, (x + a[0], y + a[1]), (x + b[0], y + b[1]), 8, 8, color)
    else:
        edge = width * random.choice([0.02, 0.98])
        paint_person(
            canvas, draw_person(random), (edge, height * 1.08), height, random_view(random, [0.25] * 4), random
        )


def write_people(folder: Path, seed: int, train: int, test: int, distractors: int, junk: int) -> None:
    """Writes bounding_box_train, query and bounding_box_test.

    Args:
        train, test: identities. distractors, junk: images.
    """
    random = np.random.default_rng(seed)
    frame = 0

    def write(split: str, identity: int, camera: int, person: Person | None, cut: float = 0.0) -> None:
        nonlocal frame
        frame += int(random.integers(5, 60))
        name = f"{'-1' if identity < 0 else f'{identity:04d}'}_c{camera}s1_{frame:06d}_01.jpg"
        picture = render(person, CAMERAS[camera], random, cut)
        cv2.imwrite(str(folder / split / name), picture, [cv2.IMWRITE_JPEG_QUALITY, CAMERAS[camera].quality])

    for split in ("bounding_box_train", "query", "bounding_box_test"):
        (folder / split).mkdir(parents=True)
    for identity in bar(range(1, train + test + 1), "people"):
        person = draw_person(random)
        for camera in random.choice(list(CAMERAS), random.integers(3, 5), replace=False).tolist():
            images = int(random.integers(*VIEWS_OF_A_CAMERA, endpoint=True))
            if identity <= train:
                for _ in range(images):
                    write("bounding_box_train", identity, camera, person)
            else:
                write("query", identity, camera, person)
                for _ in range(images - 1):
                    write("bounding_box_test", identity, camera, person)
    for _ in range(distractors):
        write("bounding_box_test", 0, int(random.integers(1, 7)), draw_person(random))
    for _ in range(junk):
        somebody = draw_person(random) if random.random() < 0.7 else None
        write("bounding_box_test", -1, int(random.integers(1, 7)), somebody, cut=1.0)
