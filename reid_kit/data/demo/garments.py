"""Rendered garments: what stays the same of an item, and scenes that show it whole among other things."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from reid_kit.data.demo.cameras import CAMERAS, expose
from reid_kit.data.demo.drawing import (
    SCALE,
    Color,
    bar,
    ellipse,
    finish,
    jitter,
    limb,
    pattern,
    points,
    polygon,
    smooth_noise,
)

SIZE = 144  # of a scene, in pixels
KINDS = ("shirt", "jacket", "dress", "trousers", "skirt")
COLORS = [(45, 40, 40), (225, 225, 222), (40, 40, 160), (120, 80, 45), (70, 120, 60), (50, 150, 200), (150, 120, 190)]
CLOTHS = ("plain", "stripes", "bars", "checks", "dots")
SKIN = [(165, 190, 228), (130, 165, 205), (95, 130, 175)]
STREETS, STUDIO = (1, 2, 3, 4, 6), ((236, 238, 240), (214, 218, 222), (226, 214, 210))


@dataclass(frozen=True)
class Item:
    """A garment's cut and cloth. Lengths are shares of its box."""

    kind: str
    color: Color
    second: Color
    cloth: str
    pitch: int
    width: float
    flare: float
    sleeve: float
    collar: bool
    belt: Color | None


def draw_item(random: np.random.Generator) -> Item:
    """A new item."""

    def of(colors):
        return jitter(colors[random.integers(len(colors))], random, 12)

    return Item(
        kind=KINDS[random.integers(len(KINDS))],
        color=of(COLORS),
        second=of(COLORS),
        cloth=CLOTHS[random.integers(len(CLOTHS))],
        pitch=int(random.integers(3, 8)) * SCALE,
        width=float(random.uniform(0.5, 0.7)),
        flare=float(random.uniform(0.9, 1.35)),
        sleeve=float(random.choice([0.25, 0.55, 0.85])),
        collar=bool(random.random() < 0.4),
        belt=of(COLORS) if random.random() < 0.3 else None,
    )


def paint_item(canvas: np.ndarray, item: Item, box, random: np.random.Generator, worn: bool) -> None:
    """Draws an item that fills `box` (x1, y1, x2, y2) of a float32 canvas; with `worn` a body shows around it."""
    x1, y1, x2, y2 = box
    w, h = x2 - x1, y2 - y1

    def at(right: float, down: float) -> tuple[float, float]:
        return x1 + w * (0.5 + right), y1 + h * down

    if worn:
        paint_body(canvas, item, at, h, jitter(SKIN[random.integers(len(SKIN))], random, 5))
    mask = np.zeros(canvas.shape[:2], np.uint8)
    outline(mask, item, at, w)
    left, top, width, height = cv2.boundingRect(mask)
    part = np.s_[top : top + height, left : left + width]
    if not width * height:
        return
    cloth = pattern(item.cloth, (height, width), item.color, item.second, item.pitch)
    folds = 1 + 0.08 * smooth_noise(random, height, width, 6)[..., None]
    canvas[part] += mask[part][..., None] / np.float32(255) * (np.array(cloth, np.float32) * folds - canvas[part])
    if item.collar and item.kind in ("shirt", "jacket", "dress"):
        for side in (-1, 1):
            polygon(canvas, points(at(0, 0.02), at(side * 0.14, 0.0), at(side * 0.1, 0.13)), item.second)
    if item.kind == "jacket":
        cv2.line(canvas, *(tuple(points(at(0, down))[0].tolist()) for down in (0.04, 0.99)), item.second, 3)
    if item.belt is not None and item.kind != "shirt":
        height = {"dress": 0.45, "jacket": 0.6}.get(item.kind, 0.03)
        limb(canvas, at(-0.24, height), at(0.24, height), 9, 9, item.belt)


def outline(mask: np.ndarray, item: Item, at, w: float) -> None:
    """The item's shape; it touches all four sides of its box."""
    half, hem = item.width / 2, min(item.width / 2 * item.flare, 0.5)
    if item.kind == "trousers":
        for side in (-1, 1):
            polygon(
                mask, points(at(side * 0.5 * 0.8, 0), at(side * 0.5, 1), at(side * 0.2, 1), at(0, 0.35), at(0, 0)), 255
            )
    elif item.kind == "skirt":
        polygon(mask, points(at(-0.28, 0), at(0.28, 0), at(0.5, 1), at(-0.5, 1)), 255)
    else:
        waist = 0.45 if item.kind == "dress" else 0.6
        right = [(0.12, 0), (half, 0.06), (half * 0.85, waist), (hem if item.kind == "dress" else half, 1)]
        polygon(mask, points(*(at(x, y) for x, y in right), *(at(-x, y) for x, y in reversed(right))), 255)
        length = item.sleeve * (0.5 if item.kind == "dress" else 0.85)
        for side in (-1, 1):
            limb(mask, at(side * (half - 0.04), 0.11), at(side * 0.44, 0.11 + length), w * 0.15, w * 0.12, 255)


def paint_body(canvas: np.ndarray, item: Item, at, h: float, skin: Color) -> None:
    """Head and legs, or trunk and shoes, of somebody who wears the item."""
    if item.kind in ("trousers", "skirt"):
        limb(canvas, at(0, -0.5), at(0, 0.02), h * 0.3, h * 0.26, (120, 120, 125))
        ellipse(canvas, at(0, -0.78), (h * 0.1, h * 0.14), skin)
        for side in (-1, 1):
            limb(canvas, at(side * 0.25, 0.9), at(side * 0.25, 1.12), h * 0.07, h * 0.06, skin)
        return
    ellipse(canvas, at(0, -0.14), (h * 0.09, h * 0.13), skin)
    limb(canvas, at(0, -0.05), at(0, 0.04), h * 0.08, h * 0.1, skin)
    for side in (-1, 1):
        limb(canvas, at(side * 0.14, 0.95), at(side * 0.15, 1.5), h * 0.12, h * 0.09, (85, 78, 75))
        limb(canvas, at(side * 0.44, 0.6), at(side * 0.45, 0.75), h * 0.06, h * 0.05, skin)


def scene(item: Item, random: np.random.Generator, shop: bool) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """A (144, 144, 3) uint8 BGR picture with the item, and its box (x1, y1, x2, y2) in pixels.

    A shop shows it alone or on a model before a plain wall, with other items beside; a consumer shows it in the
    street, worn, with passing garments and clutter, in another light.
    """
    side = SIZE * SCALE
    canvas = np.zeros((side, side, 3), np.float32)
    if shop:
        canvas[:] = STUDIO[random.integers(len(STUDIO))]
    else:
        camera = CAMERAS[int(random.choice(STREETS))]
        camera.background(canvas, random, camera.horizon)
    tall = {"dress": 1.5, "trousers": 1.7, "skirt": 1.0}.get(item.kind, 1.15)
    height = side * random.uniform(0.46, 0.6) if shop else side * random.uniform(0.38, 0.55)
    width = height / tall
    x, y = side * random.uniform(0.42, 0.58) - width / 2, side * random.uniform(0.26, 0.34)
    for left in (0.02, 0.7):  # what else is in the picture
        if random.random() < (0.6 if shop else 0.85):
            other = draw_item(random)
            h = side * random.uniform(0.3, 0.5)
            top, start = side * random.uniform(0.2, 0.5), side * (left + random.uniform(-0.04, 0.04))
            paint_item(canvas, other, (start, top, start + h / 1.4, top + h), random, worn=not shop)
    paint_item(canvas, item, (x, y, x + width, y + height), random, worn=not shop or random.random() < 0.6)
    picture = finish(canvas, SIZE, SIZE)
    if shop:
        picture = np.clip(picture + random.normal(0, 2, picture.shape), 0, 255).astype(np.uint8)
    else:
        if random.random() < 0.3:
            ellipse(picture, (random.uniform(0, SIZE), SIZE), (18, 30), tuple(random.uniform(40, 200, 3)))
        picture = expose(picture, camera, random)
    box = [round(value / SCALE) for value in (x, y, x + width, y + height)]
    return picture, tuple(int(np.clip(value, 0, SIZE)) for value in box)


def write_garments(root: Path, seed: int, train: int, test: int) -> None:
    """Writes in-shop/ and consumer-to-shop/ in DeepFashion's two layouts.

    Args:
        train, test: items of each.
    """
    random = np.random.default_rng((seed, 7))
    write_in_shop(root / "in-shop", random, train, test)
    write_consumer_to_shop(root / "consumer-to-shop", random, train, test)


def write_in_shop(folder: Path, random: np.random.Generator, train: int, test: int) -> None:
    partition, boxes = [], []
    for number in bar(range(1, train + test + 1), "garments in shops"):
        item, name = draw_item(random), f"id_{number:08d}"
        for view in range(6):
            file = f"img/{item.kind}/{name}/{view + 1:02d}_1_front.jpg"
            picture, box = scene(item, random, shop=random.random() < 0.5)
            save(folder / file, picture)
            status = "train" if number <= train else "query" if view < 2 else "gallery"
            partition.append(f"{file} {name} {status}")
            boxes.append(f"{file} 1 1 {' '.join(map(str, box))}")
    write_list(folder / "Eval/list_eval_partition.txt", "image_name item_id evaluation_status", partition)
    write_list(folder / "Anno/list_bbox_inshop.txt", "image_name clothes_type pose_type x_1 y_1 x_2 y_2", boxes)


def write_consumer_to_shop(folder: Path, random: np.random.Generator, train: int, test: int) -> None:
    pairs, boxes = [], []
    for number in bar(range(1, train + test + 1), "garments in streets"):
        item, name = draw_item(random), f"id_{number:08d}"
        files: dict[str, list[str]] = {"comsumer": [], "shop": []}  # the spelling of the real file names
        for domain, count in (("comsumer", random.integers(3, 5)), ("shop", random.integers(2, 4))):
            for view in range(int(count)):
                file = f"img/{item.kind}/{name}/{domain}_{view + 1:02d}.jpg"
                picture, box = scene(item, random, shop=domain == "shop")
                save(folder / file, picture)
                files[domain].append(file)
                boxes.append(f"{file} 1 {1 if domain == 'shop' else 2} {' '.join(map(str, box))}")
        status = "train" if number <= train else "test"
        pairs += [f"{one} {two} {name} {status}" for one in files["comsumer"] for two in files["shop"]]
    header = "image_pair_name_1 image_pair_name_2 item_id evaluation_status"
    write_list(folder / "Eval/list_eval_partition.txt", header, pairs)
    write_list(
        folder / "Anno/list_bbox_consumer2shop.txt", "image_name clothes_type source_type x_1 y_1 x_2 y_2", boxes
    )


def save(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_QUALITY, 92])


def write_list(path: Path, columns: str, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([str(len(lines)), columns, *lines]) + "\n")
