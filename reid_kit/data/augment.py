"""What happens to an image between the file and the network: resized, and in training also varied."""

import os
import random
from dataclasses import dataclass

import cv2
import numpy as np

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # its import asks the network for a newer release
import albumentations as A  # noqa: E402

from reid_kit.data.policies import GreyPatch, rand_augment, trivial_augment  # noqa: E402
from reid_kit.image import resize, resize_and_cut  # noqa: E402

IMAGENET_MEAN = (124, 116, 104)  # RGB, 0 to 255


@dataclass(frozen=True)
class Transform:
    """(H, W, 3) uint8 and a seed to (height, width, 3) uint8: resized to `enlarge` times that, then varied by `compose`
    or, without one, cut to its centre. A pure function, whatever it was called with before."""

    height: int
    width: int
    enlarge: float = 1.0
    compose: A.Compose | None = None

    @property
    def resized(self) -> tuple[int, int]:
        """(height, width) that an image is resized to before anything else."""
        return round(self.height * self.enlarge), round(self.width * self.enlarge)

    def __call__(self, image: np.ndarray, seed: int) -> np.ndarray:
        if self.compose is None:
            return resize_and_cut(image, self.height, self.width, self.enlarge)
        # One pair of generators for all steps. `set_random_seed` gives each step its own, which costs more, and all of
        # the same seed: then an image is erased just when it is flipped.
        self.compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
        return self.compose(image=resize(image, *self.resized))["image"]


def test_transform(height: int, width: int, enlarge: float = 1.0) -> Transform:
    """Resizing to `enlarge` times (height, width) and cutting the centre; the seed is of no account."""
    return Transform(height, width, enlarge)


test_transform.__test__ = False  # no test case, whatever its name


def train_transform(
    height: int,
    width: int,
    *,
    flip: float = 0.5,
    pad: int = 10,
    enlarge: float = 1.0,
    erasing: float = 0.0,
    color_jitter: float = 0.0,
    grey: float = 0.0,
    blur: float = 0.0,
    trivial: float = 0.0,
    rand: float = 0.0,
    grey_patch: float = 0.0,
) -> Transform:
    """Resizing to `enlarge` times (height, width), a black border of `pad` pixels, a random crop, and variations.

    Args:
        flip: probability of a horizontal flip.
        erasing: probability of filling a rectangle of 2 to 40 % of the image with the mean colour of ImageNet
            (random erasing, Zhong et al. 2020).
        color_jitter: strength of brightness, contrast and saturation changes, 0 to 1.
        grey, blur, trivial, rand, grey_patch: probabilities of a grey image, of a Gaussian blur of 0.1 to 2 pixels, of
            TrivialAugment, of RandAugment, and of a rectangle turned grey, of the size of an erased one.

    Returns:
        A pure function of the image and the seed.
    """
    steps: list = []
    if pad:
        steps.append(A.Pad(padding=pad, border_mode=cv2.BORDER_CONSTANT, fill=0))
    if pad or Transform(height, width, enlarge).resized != (height, width):
        steps.append(A.RandomCrop(height, width))
    if flip:
        steps.append(A.HorizontalFlip(p=flip))
    if color_jitter:
        steps.append(
            A.ColorJitter([1 - color_jitter, 1 + color_jitter], *[[1 - color_jitter, 1 + color_jitter]] * 2, 0, p=1)
        )
    if trivial:
        steps.append(trivial_augment(trivial))
    if rand:
        steps.append(rand_augment(rand))
    if grey:
        steps.append(A.ToGray(p=grey))
    if blur:
        steps.append(A.GaussianBlur(sigma_limit=(0.1, 2.0), p=blur))
    if grey_patch:
        steps.append(GreyPatch(scale=(0.02, 0.4), ratio=(0.3, 1 / 0.3), p=grey_patch))
    if erasing:
        steps.append(A.Erasing(scale=(0.02, 0.4), ratio=(0.3, 1 / 0.3), fill=IMAGENET_MEAN, p=erasing))
    return Transform(height, width, enlarge, A.Compose(steps))
