"""The proof that an exported graph gives the features of the model it was made from."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from reid_kit.errors import InputError
from reid_kit.model.embedder import Embedder
from reid_kit.model.exported import IMAGENET, start_session

BATCHES = (1, 2, 7, 64)
LEAST_COSINE = {False: 0.9999, True: 0.999}  # by whether the graph computes in half
MOST_CONFUSION = 0.25  # of what sets the pictures apart; two rows that change places differ by twice of it


class Parity(NamedTuple):
    """Of one batch size: the least cosine of a row with the model's, and the largest difference of a number."""

    batch: int
    cosine: float
    difference: float


def prove(proto, model: Embedder, inputs: str, half: bool) -> list[Parity]:
    """Compares a graph on onnxruntime with its model on random pictures.

    Raises:
        InputError: a row of a batch differs from the model's, or from what the graph gives for that picture alone.
    """
    session = start_session(proto)
    pictures = random_pictures(max(BATCHES), model.height, model.width)
    expected = features_of(model, pictures)
    mean, std = (np.reshape(values, (3, 1, 1)) for values in IMAGENET)
    fed = (pictures if inputs == "pixels" else (pictures / 255 - mean) / std).astype(np.float32)

    def run(first: int, last: int) -> np.ndarray:
        return session.run(["features"], {"images": fed[first:last]})[0]

    found = {size: run(0, size) for size in BATCHES}
    least = LEAST_COSINE[half]
    parities = [compare(found[size], expected[:size], least, f"a batch of {size}") for size in BATCHES]
    alone = np.concatenate([run(row, row + 1) for row in range(max(BATCHES))])
    compare(found[max(BATCHES)], alone, least, f"a batch of {max(BATCHES)} against each picture alone")
    return parities


def compare(found: np.ndarray, expected: np.ndarray, least: float, title: str) -> Parity:
    """Rows of length 1 against those expected.

    Raises:
        InputError: another shape, a cosine that is not above `least`, or rows that differ by more than a part of what
            sets them apart, as they do where rows of features that all lie near each other have changed places.
    """
    if found.shape != expected.shape:
        raise refused(title, f"has shape {found.shape}, expected {expected.shape}")
    rows, wanted = found.astype(np.float64), expected.astype(np.float64)
    cosine = (rows * wanted).sum(1) / (np.linalg.norm(rows, axis=1) * np.linalg.norm(wanted, axis=1))
    if not (cosine > least).all():  # NaN is not
        raise refused(title, f"has a row with cosine {cosine.min():.6f} to the model's, expected above {least}")
    if np.abs(np.linalg.norm(rows, axis=1) - 1).max() > 1e-3:
        raise refused(title, "has rows that are not of length 1")
    apart = np.square(wanted - wanted.mean(0)).sum()
    if len(rows) > 1 and np.square(rows - wanted).sum() > MOST_CONFUSION * apart:
        raise refused(title, "tells the pictures apart otherwise than the model does")
    return Parity(len(rows), float(cosine.min()), float(np.abs(rows - wanted).max()))


def refused(title: str, what: str) -> InputError:
    return InputError(f"the exported graph does not give the model's features: {title} {what}. Nothing was written")


def features_of(model: Embedder, pictures: np.ndarray) -> np.ndarray:
    training, device = model.training, model.mean.device
    model.eval()
    with torch.no_grad():
        parts = [F.normalize(model(part.to(device)).inference.float()) for part in torch.from_numpy(pictures).split(16)]
    model.train(training)
    return torch.cat(parts).cpu().numpy()


def random_pictures(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """(count, 3, height, width) uint8: patches of random colours, each picture of another brightness, and noise."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        coarse = random.uniform(0, 1, (random.integers(2, 9), random.integers(2, 5), 3)) * random.uniform(60, 255)
        picture = cv2.resize(coarse.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
        found.append(np.clip(picture + random.normal(0, 12, picture.shape), 0, 255).astype(np.uint8))
    return np.stack(found).transpose(0, 3, 1, 2).copy()


def parity_table(parities: Sequence[Parity]) -> str:
    return "\n".join(
        f"  batch {parity.batch:3}: cosine {parity.cosine:.7f} or more, largest difference {parity.difference:.1e}"
        for parity in parities
    )
