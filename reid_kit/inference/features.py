"""A model's features of a list of images."""

import sys
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from tqdm import tqdm

from reid_kit.precision import float32_products

BATCHES_HELD = 16  # whose features are fetched from the device at once: it would wait for each


@torch.inference_mode()
@float32_products()
def extract_features(
    model: nn.Module,
    loader: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
    *,
    feature: str = "inference",
    flip: bool = False,
    autocast: bool = False,
    title: str = "features",
    cameras: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Features of all images of a test loader, and the positions of their records.

    Args:
        title: of the progress bar on a terminal; "" for none.
        cameras: (N,) numbers of the records' cameras, for a model that takes them.

    Returns:
        (N, D) float32 features on the CPU and (N,) int64 record positions: fewer than the records where unreadable
        images were skipped. With `flip` a feature is the mean over the image and its mirror image.
    """
    training = model.training
    model.eval()
    features, positions, held = [torch.empty(0, model.embedding_size)], [torch.empty(0, dtype=torch.int64)], []
    hidden = not (title and sys.stderr.isatty())
    for images, indices in tqdm(loader, desc=title, unit="batch", leave=False, disable=hidden):
        images = images.to(device, non_blocking=True)
        views = [images, images.flip(-1)] if flip else [images]
        known = [] if cameras is None else [cameras[indices].to(device)]
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            found = [getattr(model(view, *known), feature).float() for view in views]
        held.append(sum(found) / len(found))
        positions.append(indices)
        if len(held) == BATCHES_HELD:
            features.append(torch.cat(held).cpu())
            held = []
    model.train(training)
    return torch.cat([*features, *(rows.cpu() for rows in held)]), torch.cat(positions)
