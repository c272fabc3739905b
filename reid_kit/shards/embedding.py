"""The shards that a process writes: its images go through the model as one stream, cut where a shard ends."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm

from reid_kit.data.augment import Transform, test_transform
from reid_kit.data.loader import Loader
from reid_kit.errors import InputError
from reid_kit.image import read_resized
from reid_kit.inference.features import extract_features
from reid_kit.inference.testing import TestSettings, check_size
from reid_kit.shards.folder import ShardFolder
from reid_kit.shards.listing import Item

Row = tuple[int, Item]  # its number in the list
Batch = tuple[Tensor, Tensor]  # images, and the numbers of their rows


def write_shards(
    model: nn.Module, folder: ShardFolder, wanted: Sequence[int], settings: TestSettings, bar: tqdm
) -> None:
    """Embeds the images of the shards `wanted`, in one stream, and writes each shard once it is whole.

    In memory are the features of one shard, whatever their number. Of a row with a box, that part of the image is
    embedded. What cannot be read and is to be skipped has no row in its shard.

    Args:
        bar: gets the number of images that are done.

    Raises:
        InputError: an image cannot be read; the model takes no images of this size; the disk is full.
    """
    check_size(model, settings)
    images = Images(test_transform(settings.height, settings.width, settings.enlarge))
    batches = Batches(folder, wanted, settings.batch_size)
    stream = Stream(Loader(images, batches, settings.batch_size, settings.workers, settings.on_bad_image), bar)
    for shard in wanted:
        features, rows = extract_features(
            model,
            stream.within(folder.slice(shard)),
            settings.device,
            feature=settings.feature,
            flip=settings.flip,
            autocast=settings.autocast,
            title="",
        )
        if settings.levels:
            features = features[:, model.columns(settings.levels)]
        folder.write(shard, rows.numpy(), F.normalize(features) if settings.metric == "cosine" else features)


class Images(Dataset):
    """The transformed image of a row, or the error that kept it from being read."""

    def __init__(self, transform: Transform):
        self.transform = transform

    def __getitem__(self, row: Row) -> tuple[int, np.ndarray | InputError]:
        number, (entry, member) = row
        try:
            image = read_resized(member or entry.path, entry.box, None, self.transform.resized)
        except InputError as error:
            return number, error
        return number, self.transform(image, 0)


class Batches:
    """The rows of shards in batches, none of which crosses the end of a shard; read from the list bit by bit."""

    def __init__(self, folder: ShardFolder, wanted: Sequence[int], size: int):
        self.folder, self.wanted, self.size = folder, wanted, size

    def __len__(self) -> int:
        return sum(-(-len(self.folder.slice(shard)) // self.size) for shard in self.wanted)

    def __iter__(self) -> Iterator[list[Row]]:
        for shard in self.wanted:
            rows = zip(self.folder.slice(shard), self.folder.items(shard), strict=True)
            while batch := list(islice(rows, self.size)):
                yield batch


class Stream:
    """Batches of images, handed out up to the end of a shard."""

    def __init__(self, batches: Iterable[Batch], bar: tqdm):
        self.batches, self.bar = iter(batches), bar
        self.ahead: list[Batch] = []  # of the next shard

    def within(self, rows: range) -> Iterator[Batch]:
        for batch in chain(self.ahead, self.batches):
            self.ahead = []
            if int(batch[1][0]) not in rows:
                self.ahead = [batch]
                return
            yield batch
            self.bar.update(len(batch[1]))
            if int(batch[1][-1]) == rows[-1]:  # whatever comes next, the shard is whole
                return
