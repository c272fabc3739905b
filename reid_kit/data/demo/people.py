"""Rendered pedestrians: what stays the same of an identity, and how a body shows it from one side in one stride."""

from dataclasses import dataclass

import cv2
import numpy as np

from reid_kit.data.demo.drawing import Color, ellipse, jitter, limb, pattern, points, polygon, smooth_noise

# BGR, as few as a street shows, so that many people share a garment's colour
UPPER_COLORS = [(40, 36, 36), (225, 225, 222), (120, 118, 115), (96, 52, 34)]
UPPER_COLORS += [(40, 38, 150), (60, 105, 50), (60, 150, 190), (160, 140, 200)]
LOWER_COLORS = [(42, 38, 38), (110, 74, 50), (135, 120, 100), (90, 120, 150), (60, 62, 66)]
SKINS = [(165, 190, 228), (130, 165, 205), (95, 130, 175), (60, 85, 125)]
HAIR = [(25, 25, 30), (35, 50, 80), (80, 130, 175), (130, 130, 135), (30, 45, 110)]
BAGS = [(35, 35, 40), (40, 40, 130), (110, 70, 40), (70, 110, 140)]
CLOTHS = ["plain", "plain", "plain", "stripes", "checks", "bars"]
VIEWS = ("front", "back", "left", "right")


@dataclass(frozen=True)
class Person:
    """An identity's body and clothes."""

    height: float
    build: float
    skin: Color
    hair: Color
    long_hair: bool
    hat: Color | None
    upper: Color
    cloth: str
    second: Color
    sleeves: str  # long | short
    jacket: Color | None  # open over the upper garment
    lower: Color
    legs: str  # trousers | shorts | skirt
    shoes: Color
    bag: str  # none | backpack | shoulder
    bag_color: Color


def draw_person(random: np.random.Generator) -> Person:
    """A new identity."""

    def of(colors, amount=9):
        return jitter(colors[random.integers(len(colors))], random, amount)

    return Person(
        height=float(random.uniform(0.9, 1.06)),
        build=float(random.uniform(0.86, 1.2)),
        skin=of(SKINS, 5),
        hair=of(HAIR, 6),
        long_hair=bool(random.random() < 0.4),
        hat=of(UPPER_COLORS) if random.random() < 0.12 else None,
        upper=of(UPPER_COLORS),
        cloth=CLOTHS[random.integers(len(CLOTHS))],
        second=of(UPPER_COLORS),
        sleeves="short" if random.random() < 0.4 else "long",
        jacket=of(UPPER_COLORS) if random.random() < 0.22 else None,
        lower=of(LOWER_COLORS),
        legs=("trousers", "trousers", "trousers", "shorts", "skirt")[random.integers(5)],
        shoes=of([(40, 40, 45), (220, 220, 220), (60, 80, 120)]),
        bag=("none", "none", "backpack", "shoulder")[random.integers(4)],
        bag_color=of(BAGS),
    )


def paint_person(
    canvas: np.ndarray, person: Person, foot: tuple[float, float], size: float, view: str, random: np.random.Generator
) -> None:
    """Draws a person on a float32 canvas.

    Args:
        foot: (x, y) between the feet. size: pixels from sole to crown of a person of height 1.
        view: the side that is seen, one of VIEWS.
    """
    body = Body(canvas.shape[:2], person, foot, size * person.height, view, random)
    for color, mask in body.layers():
        x, y, width, height = cv2.boundingRect(mask)
        part = np.s_[y : y + height, x : x + width]
        cloth = (color[part] if isinstance(color, np.ndarray) else np.array(color, np.float32)) * body.shade[part]
        canvas[part] += mask[part][..., None] / np.float32(255) * (cloth - canvas[part])


class Body:
    """One posture, as (color or cloth, mask) layers from back to front; u is a 100th of the body's height."""

    def __init__(self, shape, person: Person, foot, height: float, view: str, random: np.random.Generator):
        self.shape, self.p, self.view, self.random = shape, person, view, random
        self.u = u = height / 100
        self.x, self.y = foot
        self.side = view in ("left", "right")
        self.sign = 1 if view == "right" else -1
        self.phase = random.uniform(-1, 1)
        self.lean = random.normal(0, 1.0) * u
        self.w = person.build * (0.68 if self.side else 1.0)
        folds = 0.07 * smooth_noise(random, *shape, 9) + 0.04 * smooth_noise(random, *shape, 22)
        across = np.clip((np.arange(shape[1]) - self.x) / (16 * u), -1, 1) * random.choice([-1, 1])
        self.shade = ((1 + folds) * (1 + 0.16 * across))[..., None].astype(np.float32)

    def at(self, right: float, up: float) -> tuple[float, float]:
        """Body coordinates, in u from the foot, to pixels."""
        return self.x + right * self.u + self.lean * up / 100, self.y - up * self.u

    def layer(self, color, draw) -> tuple[np.ndarray, np.ndarray]:
        mask = np.zeros(self.shape, np.uint8)
        draw(mask)
        return color, mask

    def layers(self):
        p = self.p
        stride = self.phase * (9 if self.side else 3)
        far, near = (-1, 1) if self.sign > 0 else (1, -1)
        yield self.shadow()
        if p.bag == "backpack" and self.side:
            yield self.backpack()
        yield from self.arm(far, -stride)
        yield from self.leg(far, stride)
        yield from self.leg(near, -stride)
        if p.legs == "skirt":
            yield self.layer(p.lower, lambda m: polygon(m, self.outline([(6.5, 54), (11, 31)]), 255))
        if p.long_hair and self.view != "back":  # falls behind the shoulders
            yield self.long_hair()
        yield from self.torso()
        yield from self.arm(near, stride)
        if p.bag == "backpack" and self.view == "back":
            yield self.backpack()
        if p.bag == "shoulder":
            yield from self.shoulder_bag()
        yield from self.head()

    def outline(self, half_widths) -> np.ndarray:
        """A polygon through (half width, height) pairs, mirrored about the body's axis."""
        right = [self.at(half * self.w, up) for half, up in half_widths]
        left = [self.at(-half * self.w, up) for half, up in reversed(half_widths)]
        return points(*right, *left)

    def shadow(self):
        mask = np.zeros(self.shape, np.uint8)
        ellipse(mask, self.at(0, 0), (13 * self.u, 2.6 * self.u), 110)
        return (25, 25, 25), mask

    def leg(self, which: int, stride: float):
        p, u = self.p, self.u
        gap = 1.2 if self.side else 4.2
        hip = self.at(which * gap * self.w, 50)
        foot_lift = max(stride * which, 0) * 0.25
        knee = self.at(which * gap * self.w + stride * 0.6 * self.sign, 27 + foot_lift)
        ankle = self.at(which * gap * self.w + stride * self.sign, 4 + foot_lift)
        thick = 8.4 * p.build * u
        bare = p.legs in ("shorts", "skirt")
        yield self.layer(p.skin if bare else p.lower, lambda m: limb(m, knee, ankle, thick * 0.72, thick * 0.5, 255))
        if not bare:
            yield self.layer(p.lower, lambda m: limb(m, knee, ankle, thick * 0.85, thick * 0.72, 255))
        yield self.layer(
            p.skin if p.legs == "skirt" else p.lower, lambda m: limb(m, hip, knee, thick * 1.1, thick * 0.85, 255)
        )
        toe = 5.0 * self.sign if self.side else which * 1.0
        tip = (ankle[0] + toe * u, ankle[1] + 2.2 * u)
        yield self.layer(p.shoes, lambda m: limb(m, (ankle[0], ankle[1] + 1.6 * u), tip, 4.6 * u, 4.0 * u, 255))

    def torso(self):
        p = self.p
        shape = [(4.5, 83.5), (10.5, 81), (10.2, 70), (8.6, 60), (9.2, 51)]
        cloth = pattern(p.cloth, self.shape, p.upper, p.second, max(int(3.4 * self.u), 2))
        yield self.layer(cloth, lambda m: polygon(m, self.outline(shape), 255))
        if p.jacket is None:
            return
        if self.view == "front":  # open: the garment shows between the halves
            for s in (-1, 1):
                half = [(s * 3.0, 83), (s * 11, 81.5), (s * 11, 66), (s * 10.2, 48), (s * 4.6, 48)]
                xy = points(*(self.at(x * self.w, up) for x, up in half))
                yield self.layer(p.jacket, lambda m, xy=xy: polygon(m, xy, 255))
        else:
            yield self.layer(
                p.jacket, lambda m: polygon(m, self.outline([(4.8, 84), (11, 81.5), (11, 66), (10.2, 48)]), 255)
            )

    def arm(self, which: int, stride: float):
        p, u = self.p, self.u
        reach = 2.0 if self.side else 11.2
        shoulder = self.at(which * reach * self.w, 79.5)
        swing = stride * 0.8 * self.sign if self.side else which * 1.6
        elbow = self.at(which * (reach + (0 if self.side else 1.4)) * self.w + swing * 0.6, 64)
        hand = self.at(which * (reach + (0 if self.side else 1.6)) * self.w + swing * 1.5, 50 + abs(stride) * 0.3)
        sleeve = p.jacket or p.upper
        long = p.sleeves == "long" or p.jacket is not None
        thick = 5.2 * p.build * u
        yield self.layer(sleeve if long else p.skin, lambda m: limb(m, elbow, hand, thick * 0.85, thick * 0.62, 255))
        yield self.layer(sleeve, lambda m: limb(m, shoulder, elbow, thick * 1.1, thick * 0.95, 255))
        yield self.layer(p.skin, lambda m: ellipse(m, hand, (2.1 * u, 2.5 * u), 255))

    def backpack(self):
        p = self.p
        if self.side:
            back = -self.sign
            xy = points(*(self.at(back * x * self.w, up) for x, up in [(7, 80), (16, 78), (17, 60), (8, 57)]))
            return self.layer(p.bag_color, lambda m: polygon(m, xy, 255))
        return self.layer(
            p.bag_color, lambda m: polygon(m, self.outline([(6, 81), (8, 78), (8.2, 60), (6.5, 57)]), 255)
        )

    def shoulder_bag(self):
        p, u = self.p, self.u
        hang = 1 if self.view in ("front", "right") else -1
        strap, bag = self.at(-hang * 5 * self.w, 82), self.at(hang * 11 * self.w, 53)
        yield self.layer(p.bag_color, lambda m: limb(m, strap, bag, 1.5 * u, 1.5 * u, 255))
        corners = [(-5, -2), (5, -2), (5.4, 8), (-5.4, 8)]
        corners = points(*((bag[0] + x * u, bag[1] + y * u) for x, y in corners))
        yield self.layer(p.bag_color, lambda m: polygon(m, corners, 255))

    def head(self):
        p, u = self.p, self.u
        turn = 1.2 * self.sign if self.side else 0
        neck_low, neck_high, centre = self.at(0, 82), self.at(turn * 0.4, 88), self.at(turn, 92.6)
        yield self.layer(p.skin, lambda m: limb(m, neck_low, neck_high, 4.6 * u, 4.4 * u, 255))
        if p.long_hair and self.view == "back":
            yield self.long_hair()
        yield self.layer(p.skin, lambda m: ellipse(m, centre, (4.9 * u, 6.4 * u), 255))
        crown = self.at(turn - (1.3 * self.sign if self.side else 0), 94.4)
        if self.view == "back":
            yield self.layer(p.hair, lambda m: ellipse(m, self.at(0, 93.2), (5.3 * u, 6.4 * u), 255))
        else:
            yield self.layer(p.hair, lambda m: ellipse(m, crown, (5.3 * u, 5.4 * u), 255, 180, 360))
            if self.side:
                behind = self.at(turn - 2.6 * self.sign, 93)
                yield self.layer(p.hair, lambda m: ellipse(m, behind, (3.0 * u, 5.2 * u), 255))
            else:
                yield self.layer((50, 45, 50), self.face)
        if p.hat:
            yield self.layer(p.hat, lambda m: ellipse(m, self.at(turn, 95.5), (5.8 * u, 5.2 * u), 255, 180, 360))

    def long_hair(self):
        behind = -self.sign * 2.4 if self.side else 0
        return self.layer(self.p.hair, lambda m: ellipse(m, self.at(behind, 88), (6.2 * self.u, 11 * self.u), 255))

    def face(self, mask: np.ndarray) -> None:
        for s in (-1, 1):
            ellipse(mask, self.at(s * 1.9, 92.6), (0.75 * self.u, 0.5 * self.u), 200)
        ellipse(mask, self.at(0, 88.8), (1.5 * self.u, 0.4 * self.u), 130)


def random_view(random: np.random.Generator, weights) -> str:
    return VIEWS[random.choice(len(VIEWS), p=weights)]
