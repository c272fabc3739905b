"""What happens to an image between the file and the network: resized, and in training also varied."""

import os
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # its import asks the network for a newer release
import albumentations as A  # noqa: E402

from reid_kit.data.policies import GreyPatch, rand_augment, trivial_augment  # noqa: E402
from reid_kit.image import resize, resize_and_cut  # noqa: E402

Transform = Callable[[np.ndarray, int], np.ndarray]  # (H, W, 3) uint8 and a seed -> (height, width, 3) uint8
IMAGENET_MEAN = (124, 116, 104)  # RGB, 0 to 255


def test_transform(height: int, width: int, enlarge: float = 1.0) -> Transform:
    """Resizing to `enlarge` times (height, width) and cutting the centre; the seed is of no account."""
    return partial(_resized, height=height, width=width, enlarge=enlarge)


test_transform.__test__ = False  # no test case, whatever its name


# No lambda and no function within a function: processes that are not forked take what they run as a pickle.
def _resized(image: np.ndarray, seed: int, height: int, width: int, enlarge: float) -> np.ndarray:
    return resize_and_cut(image, height, width, enlarge)


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
    large = round(height * enlarge), round(width * enlarge)
    steps: list = []
    if pad:
        steps.append(A.Pad(padding=pad, border_mode=cv2.BORDER_CONSTANT, fill=0))
    if pad or large != (height, width):
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
    return partial(_varied, compose=A.Compose(steps), large=large)


def _varied(image: np.ndarray, seed: int, compose: A.Compose, large: tuple[int, int]) -> np.ndarray:
    compose.set_random_seed(seed)
    return compose(image=resize(image, *large))["image"]
