"""Records to batches of uint8 images, read by worker processes."""

import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from reid_kit.data.augment import Transform
from reid_kit.data.records import Record
from reid_kit.data.sampler import Draw, EpochSampler
from reid_kit.distributed import world_size
from reid_kit.errors import InputError
from reid_kit.image import read_image


class TrainBatch(NamedTuple):
    """images (B, 3, H, W) uint8 RGB in channels-last memory, labels (B,) int64, indices (B,) int64 into the records."""

    images: Tensor
    labels: Tensor
    indices: Tensor


class RecordImages(Dataset):
    """The transformed image of a draw, or the error that kept it from being read."""

    def __init__(self, records: Sequence[Record], transform: Transform, use_box: bool):
        self.records, self.transform, self.use_box = records, transform, use_box

    def __getitem__(self, draw: Draw) -> tuple[int, np.ndarray | InputError]:
        record = self.records[draw.index]
        try:
            if self.use_box and record.box is None:
                raise InputError(f"{record.path} has no box; set DATA.USE_BOX to false or annotate it")
            image = read_image(record.path, record.box if self.use_box else None, record.source)
        except InputError as error:
            return draw.index, error
        return draw.index, self.transform(image, draw.seed)


class Loader:
    """Iterates over batches; errors of the workers surface here, in the main process, as they were raised.

    `on_bad_image`: "error" raises the first InputError; "skip" leaves the image out and warns of it once.
    `in_step`: the processes take their batches together, and none may leave one out.
    """

    in_step = False

    def __init__(self, images: RecordImages, batches, workers: int, on_bad_image: str):
        self.on_bad_image = on_bad_image
        self.skipped: set[int] = set()
        self._loader = DataLoader(
            images,
            batch_sampler=batches,
            num_workers=workers,
            collate_fn=_collate,
            worker_init_fn=_one_thread,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0,
        )

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields (images, indices); a batch none of whose images could be read is left out.

        Raises:
            InputError: an image cannot be read, or no image of a batch that other processes would wait for.
        """
        for images, indices, errors in self._loader:
            for index, error in errors:
                if self.on_bad_image == "error":
                    raise error
                if index not in self.skipped:
                    self.skipped.add(index)
                    warnings.warn(f"left out: {error}", stacklevel=2)
            if len(indices):
                yield images, indices
            elif self.in_step and world_size() > 1:
                raise InputError(f"none of the {len(errors)} images of a process's batch could be read: {errors[0][1]}")


class TrainLoader(Loader):
    """Yields `TrainBatch`es in the order of the sampler."""

    in_step = True

    def __init__(
        self,
        records: Sequence[Record],
        labels: Sequence[int],
        sampler: EpochSampler,
        transform: Transform,
        workers: int = 0,
        use_box: bool = False,
        on_bad_image: str = "error",
    ):
        super().__init__(RecordImages(records, transform, use_box), sampler, workers, on_bad_image)
        self.labels = torch.tensor(labels)

    def __iter__(self) -> Iterator[TrainBatch]:
        for images, indices in super().__iter__():
            yield TrainBatch(images, self.labels[indices], indices)


class TestLoader(Loader):
    """Yields (images, indices) of all records in their order."""

    __test__ = False  # no test case, whatever its name

    def __init__(
        self,
        records: Sequence[Record],
        transform: Transform,
        batch_size: int,
        workers: int = 0,
        use_box: bool = False,
        on_bad_image: str = "error",
    ):
        draws = [Draw(index, 0) for index in range(len(records))]
        batches = [draws[first : first + batch_size] for first in range(0, len(draws), batch_size)]
        super().__init__(RecordImages(records, transform, use_box), batches, workers, on_bad_image)


def _collate(items: list[tuple[int, np.ndarray | InputError]]) -> tuple[Tensor, Tensor, list[tuple[int, InputError]]]:
    good = [(index, image) for index, image in items if not isinstance(image, InputError)]
    errors = [(index, error) for index, error in items if isinstance(error, InputError)]
    images = np.stack([image for _, image in good]) if good else np.empty((0, 1, 1, 3), np.uint8)
    return torch.from_numpy(images).permute(0, 3, 1, 2), torch.tensor([index for index, _ in good]), errors


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(0)
