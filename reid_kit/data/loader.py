"""Records to batches of uint8 images, read by worker processes."""

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data._utils.signal_handling import _error_if_any_worker_fails

from reid_kit.data.augment import Transform
from reid_kit.data.cache import SHARED_MEMORY, DiskCache, RamCache
from reid_kit.data.records import Record
from reid_kit.data.sampler import Draw, EpochSampler
from reid_kit.distributed import world_size
from reid_kit.errors import InputError
from reid_kit.image import read_image, read_resized

PREFETCH = 2  # batches that each worker reads ahead
PATIENCE = 300  # seconds that a batch may take


class TrainBatch(NamedTuple):
    """images (B, 3, H, W) uint8 RGB in channels-last memory, labels (B,) int64, indices (B,) int64 into the records."""

    images: Tensor
    labels: Tensor
    indices: Tensor


class RecordImages(Dataset):
    """The transformed image of a draw, or the error that kept it from being read."""

    def __init__(
        self,
        records: Sequence[Record],
        transform: Transform,
        use_box: bool,
        cache: RamCache | DiskCache | None = None,
    ):
        self.records, self.transform, self.use_box, self.cache = records, transform, use_box, cache

    def __getitem__(self, draw: Draw) -> tuple[int, np.ndarray | InputError]:
        record = self.records[draw.index]
        try:
            if self.use_box and record.box is None:
                raise InputError(f"{record.path} has no box; set DATA.USE_BOX to false or annotate it")
            box = record.box if self.use_box else None
            size = getattr(self.transform, "resized", None)  # a function of your own gets the whole image
            if size is None:
                image = read_image(record.path, box, record.source)
            elif self.cache is None:
                image = read_resized(record.path, box, record.source, size)
            else:
                image = self.cache.read(draw.index, record.path, box, record.source, size)
        except InputError as error:
            return draw.index, error
        return draw.index, self.transform(image, draw.seed)


class Loader:
    """Iterates over batches; errors of the workers surface here, in the main process, as they were raised.

    `on_bad_image`: "error" raises the first InputError; "skip" leaves the image out and warns of it once.
    `in_step`: the processes take their batches together, and none may leave one out.
    """

    in_step = False

    def __init__(self, images: RecordImages, batches, batch_size: int, workers: int, on_bad_image: str):
        self.on_bad_image, self.workers, self.batch_size = on_bad_image, workers, batch_size
        self.skipped: set[int] = set()
        if "forkserver" in multiprocessing.get_all_start_methods():  # it imports torch once for all workers
            multiprocessing.set_forkserver_preload([__name__])
        self._loader = DataLoader(
            images,
            batch_sampler=batches,
            num_workers=workers,
            collate_fn=_collate,
            worker_init_fn=_start_worker,
            prefetch_factor=PREFETCH if workers else None,
            timeout=PATIENCE if workers else 0,
            pin_memory=torch.cuda.is_initialized(),  # by who chose a GPU: of no use to a CPU
            persistent_workers=workers > 0,
        )

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields (images, indices); a batch none of whose images could be read is left out.

        Raises:
            InputError: an image cannot be read, or no image of a batch that other processes would wait for; a worker
                ended or gives nothing; the shared memory would not hold the batches.
        """
        for images, indices, errors in self._batches() if self.workers else self._loader:
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

    def _batches(self) -> Iterator[tuple[Tensor, Tensor, list[tuple[int, InputError]]]]:
        """What the workers hand over; whatever keeps them from it is an error within bounded time."""
        self._check_shared_memory()
        try:
            with _deaths_are_errors():
                batches = iter(self._loader)
            while True:
                with _deaths_are_errors():
                    batch = next(batches, None)
                if batch is None:
                    return
                yield batch
        except (RuntimeError, OSError) as error:
            if str(error).startswith("Caught "):  # raised by the code that a worker ran
                raise
            why = str(error.__cause__ or error).splitlines()[0].strip(" .")  # the cause knows the signal
            raise InputError(
                f"the processes that read images (DATA.WORKERS {self.workers}) failed: {why}. A killed one mostly "
                f"means that memory ran out, a timeout that a disk hangs or {SHARED_MEMORY} is full. Lower "
                f"DATA.WORKERS (0 reads in the main process); a training run goes on with --resume"
            ) from error

    def _check_shared_memory(self) -> None:
        """Batches that find no room there are dropped, and waited for in vain."""
        try:
            disk = os.statvfs(SHARED_MEMORY)
        except (OSError, AttributeError):  # no Linux
            return
        images = self._loader.dataset
        batch = self.batch_size * images.transform(np.zeros((8, 8, 3), np.uint8), 0).nbytes
        waiting = min(self.workers * PREFETCH + 1, len(self))  # and the one in use
        needed = waiting * batch * int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        free = disk.f_bavail * disk.f_frsize
        if needed > free:
            raise InputError(
                f"{SHARED_MEMORY} has {free / 1e6:,.1f} MB free, and DATA.WORKERS {self.workers} with batches of "
                f"{self.batch_size} images may need {needed / 1e6:,.1f} MB there. Lower DATA.WORKERS (0 needs none) or "
                f"the batch (TEST.BATCH_SIZE; SAMPLER.P in training), or give the container more: docker run --shm-size"
            )


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
        cache: RamCache | DiskCache | None = None,
    ):
        rows = sampler.batch_size // world_size()
        super().__init__(RecordImages(records, transform, use_box, cache), sampler, rows, workers, on_bad_image)
        self.labels = torch.tensor(labels)

    def __iter__(self) -> Iterator[TrainBatch]:
        for images, indices in super().__iter__():
            if len(indices) == 1 and world_size() == 1:
                # one image has no pairs, and no deviation to be normalised by
                warnings.warn("a batch of which one image could be read is left out", stacklevel=2)
                continue
            labels = self.labels[indices]
            yield TrainBatch(images, labels.pin_memory() if indices.is_pinned() else labels, indices)


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
        cache: RamCache | DiskCache | None = None,
    ):
        draws = [Draw(index, 0) for index in range(len(records))]
        batches = [draws[first : first + batch_size] for first in range(0, len(draws), batch_size)]
        super().__init__(RecordImages(records, transform, use_box, cache), batches, batch_size, workers, on_bad_image)


def _collate(items: list[tuple[int, np.ndarray | InputError]]) -> tuple[Tensor, Tensor, list[tuple[int, InputError]]]:
    good = [(index, image) for index, image in items if not isinstance(image, InputError)]
    errors = [(index, error) for index, error in items if isinstance(error, InputError)]
    images = np.stack([image for _, image in good]) if good else np.empty((0, 1, 1, 3), np.uint8)
    return torch.from_numpy(images).permute(0, 3, 1, 2), torch.tensor([index for index, _ in good]), errors


def _start_worker(worker: int) -> None:
    """One thread, and no answer to Ctrl-C or to the first SIGTERM: they go to the whole group of processes, whose main
    one still wants its batch. It ends the workers itself."""
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))


@contextmanager
def _deaths_are_errors() -> Iterator[None]:
    """Within it a worker's death is an error at once; torch's own handler would raise it anywhere, even in the midst of
    a checkpoint. Off the main thread, and on Windows, it takes PATIENCE seconds to be found."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        yield
        return
    before = signal.signal(signal.SIGCHLD, lambda *_: _error_if_any_worker_fails())
    try:
        _error_if_any_worker_fails()
        yield
    finally:
        signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)
