"""A model's features of a list of images."""

import sys

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm


@torch.inference_mode()
def extract_features(
    model: nn.Module,
    loader: DataLoader,
    device: torch.device,
    *,
    feature: str = "inference",
    flip: bool = False,
    autocast: bool = False,
    title: str = "features",
) -> tuple[Tensor, Tensor]:
    """Features of all images of a test loader, and the positions of their records.

    Returns:
        (N, D) float32 features on the CPU and (N,) int64 record positions: fewer than the records where unreadable
        images were skipped. With `flip` a feature is the mean over the image and its mirror image.
    """
    training = model.training
    model.eval()
    features, positions = [torch.empty(0, model.embedding_size)], [torch.empty(0, dtype=torch.int64)]
    for images, indices in tqdm(loader, desc=title, unit="batch", leave=False, disable=not sys.stderr.isatty()):
        images = images.to(device, non_blocking=True)
        views = [images, images.flip(-1)] if flip else [images]
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            found = [getattr(model(view), feature).float() for view in views]
        features.append((sum(found) / len(found)).cpu())
        positions.append(indices)
    model.train(training)
    return torch.cat(features), torch.cat(positions)
