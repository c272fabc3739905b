"""AutoAugment's children as albumentations transforms, and grey patches."""

import os

import cv2
import numpy as np

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # its import asks the network for a newer release
import albumentations as A  # noqa: E402


class GreyPatch(A.Erasing):
    """Turns a rectangle grey instead of erasing it (local greyscale transfer; Gong et al. 2021)."""

    def apply(self, img: np.ndarray, holes: np.ndarray, seed: int = 0, **params) -> np.ndarray:
        img = img.copy()
        for left, top, right, bottom in holes:
            patch = img[top:bottom, left:right]
            patch[:] = cv2.cvtColor(np.ascontiguousarray(patch), cv2.COLOR_RGB2GRAY)[..., None]
        return img


def trivial_augment(probability: float) -> A.BaseCompose:
    """One change of a random kind and strength, up to the widest of TrivialAugment (Mueller and Hutter 2021)."""
    return A.OneOf(changes(1.0), p=probability)


def rand_augment(probability: float) -> A.BaseCompose:
    """Two changes of random kinds, up to 0.3 of the widest strength (RandAugment, Cubuk et al. 2020: N 2, M 9)."""
    return A.SomeOf(changes(0.3), n=2, replace=True, p=probability)


def changes(strength: float) -> list:
    """The fourteen kinds, each up to `strength` times its widest: a shear of 45, a turn of 30 degrees, a third of the
    image, nearly black and white; pixels that come in from outside are black."""
    lowest, highest = 1 - 0.99 * strength, 1 + 0.99 * strength
    shift, still = (-strength / 3, strength / 3), (0.0, 0.0)
    shear = (-45 * strength, 45 * strength)
    factor, fixed = (lowest, highest), (1.0, 1.0)
    return [
        A.NoOp(p=1),
        A.Affine(shear={"x": shear, "y": still}, p=1),
        A.Affine(shear={"x": still, "y": shear}, p=1),
        A.Affine(translate_percent={"x": shift, "y": still}, p=1),
        A.Affine(translate_percent={"x": still, "y": shift}, p=1),
        A.Affine(rotate=(-30 * strength, 30 * strength), p=1),
        A.ColorJitter(factor, fixed, fixed, still, p=1),
        A.ColorJitter(fixed, factor, fixed, still, p=1),
        A.ColorJitter(fixed, fixed, factor, still, p=1),
        A.Sharpen(alpha=(0.0, strength), p=1),
        A.Posterize(num_bits=(round(8 - 6 * strength), 8), p=1),
        A.Solarize(threshold_range=(1 - strength, 1.0), p=1),
        A.AutoContrast(p=1),
        A.Equalize(p=1),
    ]
