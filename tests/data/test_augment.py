import pickle

import cv2
import numpy as np
import pytest

from reid_kit.data import policies
from reid_kit.data.augment import IMAGENET_MEAN, test_transform, train_transform


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(1, 256, (40, 20, 3), dtype=np.uint8)


def test_a_pure_function_of_image_and_seed(picture):
    one = train_transform(40, 20, erasing=0.5, color_jitter=0.3)
    two = train_transform(40, 20, erasing=0.5, color_jitter=0.3)
    first = [one(picture, seed) for seed in range(30)]
    for seed in reversed(range(30)):  # another object, another order
        assert np.array_equal(two(picture, seed), first[seed])
    assert len({image.tobytes() for image in first}) > 25


def test_flips_with_their_probability(picture):
    transform = train_transform(40, 20, flip=0.3, pad=0)
    outcomes = [transform(picture, seed) for seed in range(1000)]
    flipped = sum(np.array_equal(image, picture[:, ::-1]) for image in outcomes)
    assert sum(np.array_equal(image, picture) for image in outcomes) == 1000 - flipped
    assert 250 < flipped < 350


def test_crops_a_padded_image_anywhere(picture):
    transform = train_transform(40, 20, flip=0, pad=2)
    padded = np.pad(picture, ((2, 2), (2, 2), (0, 0)))
    windows = {padded[y : y + 40, x : x + 20].tobytes(): (y, x) for y in range(5) for x in range(5)}
    seen = {windows[transform(picture, seed).tobytes()] for seed in range(500)}
    assert len(seen) == 25


def test_enlarged_before_the_crop(picture):
    transform = train_transform(40, 20, flip=0, pad=0, enlarge=1.5)
    assert transform(picture, 0).shape == (40, 20, 3)
    assert len({transform(picture, seed).tobytes() for seed in range(50)}) > 20
    centre = test_transform(40, 20, enlarge=1.5)(picture, 0)
    assert np.array_equal(centre, test_transform(60, 30)(picture, 0)[10:50, 5:25])


def test_erasing_fills_a_rectangle_with_the_mean(picture):
    transform = train_transform(40, 20, flip=0, pad=0, erasing=0.5)
    shares = []
    for seed in range(600):
        image = transform(picture, seed)
        filled = (image == IMAGENET_MEAN).all(2) & (picture != IMAGENET_MEAN).any(2)
        assert np.array_equal(image[~filled], picture[~filled])
        if filled.any():
            rows, columns = np.flatnonzero(filled.any(1)), np.flatnonzero(filled.any(0))
            assert filled.sum() == len(rows) * len(columns)
            shares.append(filled.mean())
    assert 250 < len(shares) < 350
    assert 0.01 < min(shares) and max(shares) < 0.45


def test_colours_change_with_jitter_alone(picture):
    image = train_transform(40, 20, flip=0, pad=0, color_jitter=0.4)(picture, 1)
    assert image.dtype == np.uint8 and not np.array_equal(image, picture)


@pytest.mark.parametrize("name", ["grey", "blur", "trivial", "rand", "grey_patch"])
def test_each_change_with_its_probability(picture, name):
    transform, certain = (train_transform(40, 20, flip=0, pad=0, **{name: p}) for p in (0.3, 1.0))
    changed = [not np.array_equal(transform(picture, seed), picture) for seed in range(400)]
    always = np.mean([not np.array_equal(certain(picture, seed), picture) for seed in range(100)])
    assert always > 0.8  # one kind of TrivialAugment changes nothing, and a patch may be of no size
    assert abs(np.mean(changed) - 0.3 * always) < 0.08
    again = train_transform(40, 20, flip=0, pad=0, **{name: 1.0})
    assert all(np.array_equal(again(picture, seed), certain(picture, seed)) for seed in (7, 3, 7))
    result = certain(picture, 1)
    assert result.shape == (40, 20, 3) and result.dtype == np.uint8


def test_a_grey_image_and_a_grey_patch_keep_the_brightness(picture):
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None].repeat(3, axis=2)
    assert np.abs(train_transform(40, 20, flip=0, pad=0, grey=1.0)(picture, 0).astype(int) - grey).max() <= 1
    patched = train_transform(40, 20, flip=0, pad=0, grey_patch=1.0)
    before, shares = picture.copy(), []
    for seed in range(100):
        image = patched(picture, seed)
        turned = (image == grey).all(2)
        assert np.array_equal(image[~turned], picture[~turned])
        rows, columns = np.flatnonzero((image != picture).any((1, 2))), np.flatnonzero((image != picture).any((0, 2)))
        assert turned[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        shares.append(turned.mean())
    assert 0.01 < min(shares) and max(shares) < 0.45
    assert np.array_equal(picture, before)


def test_the_kinds_of_trivial_augment_differ(picture):
    transform = train_transform(40, 20, flip=0, pad=0, trivial=1.0)
    assert len({transform(picture, seed).tobytes() for seed in range(100)}) > 60


def test_a_transform_can_be_handed_to_a_process(picture):
    steps = {"grey": 0.5, "blur": 0.5, "trivial": 0.5, "rand": 0.5, "grey_patch": 0.5}
    for step in policies.changes(1.0) + policies.changes(0.3) + [policies.GreyPatch()]:
        pickle.loads(pickle.dumps(step))
    assert train_transform(40, 20, **steps)(picture, 3).shape == (40, 20, 3)


def test_at_test_only_the_size_changes(picture):
    transform = test_transform(80, 40)
    assert transform(picture, 0).shape == (80, 40, 3)
    assert np.array_equal(transform(picture, 0), transform(picture, 1))


def test_the_steps_are_independent_of_each_other(picture):
    transform = train_transform(40, 20, flip=0.5, pad=0, erasing=0.5)
    whole = picture.astype(int)
    outcomes = []
    for seed in range(400):
        image = transform(picture, seed).astype(int)
        flipped = np.sum(image == whole[:, ::-1]) > np.sum(image == whole)
        outcomes.append((flipped, not np.array_equal(image, whole[:, ::-1] if flipped else whole)))
    counts = [outcomes.count(pair) for pair in ((False, False), (False, True), (True, False), (True, True))]
    assert min(counts) > 60, counts
