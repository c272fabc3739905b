"""A small model and data set in memory, to watch the trainer itself."""

from collections import namedtuple
from pathlib import Path

import torch
from torch import nn

from reid_kit.losses.base import EmbeddingLoss
from reid_kit.losses.weighted_sum import Term, WeightedSum
from reid_kit.training.optimizer import build_optimizer
from reid_kit.training.run_folder import RunFolder
from reid_kit.training.schedule import build_schedule
from reid_kit.training.trainer import Recipe, Trainer

Features = namedtuple("Features", "metric inference")
Batch = namedtuple("Batch", "images labels indices")


class ToyModel(nn.Module):
    """A convolution, batch normalisation and dropout: all that a resumed run can get wrong."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5))

    @property
    def backbone(self):
        return self.layers

    def forward(self, images):
        feature = self.layers(images.float() / 255).mean((2, 3))
        return Features(feature, feature)


class ToyLoss(EmbeddingLoss):
    """Distance of each embedding from the mean of the batch, away from 1."""

    needs_positives = False

    def compute(self, batch):
        self.active_fraction = batch.gallery.new_ones(())
        return (batch.anchors - batch.gallery.mean(0)).square().sum(1).sub(1).square().mean()


class ToySampler:
    def __init__(self, images=12, batch=4, seed=0):
        self.images, self.batch, self.seed, self.epoch, self.start, self.pool = images, batch, seed, 0, 0, None

    def __len__(self):
        return self.images // self.batch

    def set_epoch(self, epoch, start=0):
        self.epoch, self.start = epoch, start

    def set_hard_identities(self, pool):
        self.pool = pool

    def __iter__(self):
        order = torch.randperm(self.images, generator=torch.Generator().manual_seed(self.seed + self.epoch))
        yield from order.view(-1, self.batch)[self.start :]


class ToyLoader:
    def __init__(self, sampler, bad=None):
        generator = torch.Generator().manual_seed(3)
        self.images = torch.randint(0, 256, (sampler.images, 3, 8, 8), generator=generator, dtype=torch.uint8)
        self.sampler, self.bad = sampler, bad

    def __iter__(self):
        for indices in self.sampler:
            yield Batch(self.images[indices], indices // 2, indices)


def save(path, model, training, metrics):
    torch.save({"model": model.state_dict(), "training": training}, path)


def toy_trainer(
    folder, *, resume=False, loss=None, objective=None, test=None, hard_identities=None, device="cpu", **recipe
):
    """A trainer of 4 epochs of 3 batches over the toys, writing into `folder` (None: nowhere)."""
    torch.manual_seed(0)
    model, sampler = ToyModel().to(device), ToySampler()
    objective = (objective or WeightedSum([Term("toy", loss or ToyLoss(), 1.0, "metric")])).to(device)
    recipe = Recipe(**{"epochs": 4, "eval_every": 2, **recipe})
    optimizer = build_optimizer("adam", [(model.parameters(), 1.0)], lr=1e-2, weight_decay=1e-4)
    return Trainer(
        model=model,
        objective=objective,
        optimizer=optimizer,
        schedule=build_schedule("cosine", recipe.epochs * len(sampler), len(sampler), warmup_epochs=1),
        loader=ToyLoader(sampler),
        sampler=sampler,
        files=[Path(f"image_{index}.jpg") for index in range(sampler.images)],
        test=test or (lambda model: {"mAP": 0.5}),
        save=save,
        run=RunFolder(folder, "", resume) if folder else None,
        recipe=recipe,
        device=torch.device(device),
        hard_identities=hard_identities,
    )
