"""Where in an image a model's parts find what they compare: activation maps over the images."""

import cv2
import numpy as np
import torch
from torch import Tensor

from reid_kit.data.records import JUNK, Record
from reid_kit.errors import InputError
from reid_kit.image import read_image, resize_and_cut
from reid_kit.inference.testing import TestSettings
from reid_kit.model.embedder import Embedder
from reid_kit.report.picture import Tile, ranked_list_picture

TILE_HEIGHT = 192  # pixels


@torch.no_grad()
def activation_maps(model: Embedder, images: Tensor) -> dict[str, Tensor]:
    """What each of the model's parts answers where, name -> (B, h, w) in 0 .. 1.

    The squared norm over channels at each place of the map that a part is pooled from (Zagoruyko and Komodakis 2017,
    eq. 1), divided by its greatest value in the image; 0 outside a stripe.

    Args:
        images: (B, 3, height, width) RGB in 0 .. 255.

    Raises:
        InputError: the model is an exported one.
    """
    if not hasattr(model, "backbone"):
        raise InputError("an exported model has no maps to draw; test the checkpoint it was made from")
    maps = model.backbone((images - model.mean) / model.std)
    found = {}
    for name, (source, part) in zip(model.level_names, model.pieces):
        answer = maps[source].float().square()
        if part is not None:
            inside = torch.zeros_like(answer)
            part.cut(inside).fill_(1)
            answer = answer * inside
        answer = answer.sum(1)
        found[name] = answer / answer.amax((1, 2), keepdim=True).clamp(min=1e-12)
    return found


def attention_picture(model: Embedder, records: list[Record], settings: TestSettings) -> bytes:
    """A PNG with a row for each record: the image, and over it the activation map of each part, red the highest."""
    training = model.training
    model.eval()
    read = [read_image(record.path, record.box if settings.use_box else None, record.source) for record in records]
    images = np.stack([resize_and_cut(image, settings.height, settings.width, settings.enlarge) for image in read])
    batch = torch.from_numpy(images).permute(0, 3, 1, 2).to(settings.device)
    maps = {name: values.cpu().numpy() for name, values in activation_maps(model, batch).items()}
    model.train(training)
    rows = []
    for number, (record, image) in enumerate(zip(records, images)):
        tiles = [Tile(image, str(record.identity)), *(Tile(over(image, m[number]), name) for name, m in maps.items())]
        camera = "" if record.camera is None else f", camera {record.camera}"
        rows.append((f"identity {record.identity}{camera}", tiles))
    title = "what each part answers to: the image, and its activation maps from blue (0) to red (highest)"
    return ranked_list_picture(rows, title, TILE_HEIGHT, round(TILE_HEIGHT * settings.width / settings.height))


def over(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(H, W, 3) RGB: the image under a map in 0 .. 1, enlarged to its size."""
    enlarged = cv2.resize(values, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    colours = cv2.applyColorMap(np.uint8(255 * enlarged), cv2.COLORMAP_JET)[..., ::-1]
    return cv2.addWeighted(image, 0.5, np.ascontiguousarray(colours), 0.5, 0)


def four_people(records: list[Record]) -> list[Record]:
    """The first image of four identities, spread over all of them."""
    first = {record.identity: record for record in reversed(records) if record.identity != JUNK}
    identities = sorted(first)
    chosen = np.linspace(0, len(identities) - 1, min(4, len(identities))).round().astype(int)
    return [first[identities[place]] for place in chosen]
