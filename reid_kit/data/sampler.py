"""Which images make a batch: P identities x K images, or all images in random order.

Both samplers are pure functions of (seed, epoch). They hand out draws, the position of a record and the seed of its
augmentation, so that a batch is the same in any process, with any number of workers, in a resumed run.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from reid_kit.errors import InputError


class Draw(NamedTuple):
    """A record's position and the seed of what happens to its image."""

    index: int
    seed: int


class EpochSampler:
    """Yields this process's rows of each batch of an epoch, from a starting position on.

    Args:
        batch_size: rows of a batch over all processes.
        rank, world_size: each process takes batch_size / world_size consecutive rows of every batch.
    """

    def __init__(self, batch_size: int, seed: int, rank: int, world_size: int):
        if batch_size % world_size:
            raise InputError(
                f"batches of {batch_size} images do not split over {world_size} processes; choose SAMPLER.P and "
                f"SAMPLER.K so that P x K is a multiple of {world_size}"
            )
        self.seed, self.batch_size = seed, batch_size
        rows = batch_size // world_size
        self._rows = slice(rank * rows, (rank + 1) * rows)
        self.set_epoch(0)

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """What the next iteration yields: the batches of `epoch` from position `start` on."""
        self._epoch, self._start = epoch, start

    def epoch_batches(self, epoch: int) -> list[list[int]]:
        """The record positions of each whole batch of an epoch."""
        raise NotImplementedError(f"{type(self).__name__} has no epoch_batches(epoch)")

    def random(self, epoch: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, epoch))

    def __iter__(self) -> Iterator[list[Draw]]:
        seeds = np.random.default_rng((self.seed, self._epoch, 1)).integers(2**31, size=(len(self), self.batch_size))
        batches = self.epoch_batches(self._epoch)
        for batch, batch_seeds in zip(batches[self._start :], seeds[self._start :].tolist()):
            yield [Draw(index, seed) for index, seed in zip(batch, batch_seeds)][self._rows]


class ShuffledSampler(EpochSampler):
    """All images in random order, in batches of one size; the rest that fills no batch is left to other epochs.

    Raises:
        InputError: fewer images than a batch holds.
    """

    def __init__(self, images: int, batch_size: int, seed: int = 0, rank: int = 0, world_size: int = 1):
        if images < batch_size:
            raise InputError(f"a batch of {batch_size} images asks for more than the {images} there are")
        self.images = images
        super().__init__(batch_size, seed, rank, world_size)

    def __len__(self) -> int:
        return self.images // self.batch_size

    def epoch_batches(self, epoch: int) -> list[list[int]]:
        order = self.random(epoch).permutation(self.images)[: len(self) * self.batch_size]
        return order.reshape(len(self), self.batch_size).tolist()


class IdentitySampler(EpochSampler):
    """P x K batches. Promised in every epoch:

    - every identity is seen, and none stands twice in a batch;
    - each gives K images, repeating one only where it has fewer than K;
    - over an epoch an identity's images come in turn: none a second time before all have come once, up to what the
      batch's own rule against repetition asks;
    - the epoch has `batches_per_epoch` batches: by default as many as hold the number of images, or as many as it
      takes to see every identity, whichever is more;
    - everything is a pure function of (seed, epoch, pool).

    Args:
        identities: (N,) the label of each record.
        p, k: identities a batch, images an identity.
        domains: (N,) the domain of each record: the K images of an identity then come from its domains in equal
            parts, as nearly as K allows (consumer-to-shop).
        hard_identity_pool: half of each batch's identities come from the pools of the other half, once
            `set_hard_identities` has given them (Ristani and Tomasi 2018).

    Raises:
        InputError: P above the number of identities; fewer than two domains; too few batches for every identity; a
            batch that does not split.
    """

    def __init__(
        self,
        identities: Sequence[int],
        p: int,
        k: int,
        seed: int = 0,
        batches_per_epoch: int | None = None,
        domains: Sequence[str | None] | None = None,
        hard_identity_pool: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ):
        if domains is not None and len(set(domains) - {None}) < 2:
            found = ", ".join(map(str, set(domains) - {None})) or "no domain"
            raise InputError(
                f"SAMPLER.DOMAINS is mixed, but the training images have {found} alone; set it to any, or give each "
                f"image one of two domains"
            )
        groups: dict[int, dict[str | None, list[int]]] = {}
        for index, identity in enumerate(identities):
            group = groups.setdefault(identity, {})
            group.setdefault(domains[index] if domains else None, []).append(index)
        self.groups = {identity: list(groups[identity].values()) for identity in sorted(groups)}
        if p > len(self.groups):
            raise InputError(
                f"SAMPLER.P is {p}, but the training set has {len(self.groups)} identities; set it to at most that"
            )
        self.p, self.k = p, k
        self.fresh = (p + 1) // 2 if hard_identity_pool else p  # identities of a batch that come from the pass
        self.pool: dict[int, Sequence[int]] | None = None
        least = -(-len(self.groups) // self.fresh)
        self.batches = batches_per_epoch or max(round(len(identities) / (p * k)), least)
        if self.batches < least:
            raise InputError(
                f"SAMPLER.BATCHES_PER_EPOCH is {self.batches}, but {len(self.groups)} identities, {self.fresh} a "
                f"batch, take {least}; set it to 0 or to at least that"
            )
        super().__init__(p * k, seed, rank, world_size)

    def __len__(self) -> int:
        return self.batches

    def set_hard_identities(self, pool: dict[int, Sequence[int]] | None) -> None:
        """The identities that each identity is confused with; None: batches from the passes alone."""
        self.pool = pool

    def epoch_batches(self, epoch: int) -> list[list[int]]:
        random = self.random(epoch)
        queues: dict[tuple[int, int], list[int]] = {}
        return [
            [index for identity in chosen for index in self._images(identity, queues, random)]
            for chosen in self._identities(random)
        ]

    def _identities(self, random: np.random.Generator) -> Iterator[list[int]]:
        """The identities of each batch, from shuffled passes over all of them."""
        everyone = list(self.groups)
        queue: list[int] = []

        def take(count: int, taken: list[int]) -> list[int]:
            """The next `count` identities of the passes that are not in `taken`; those passed over keep their turn."""
            nonlocal queue
            if sum(identity not in taken for identity in queue) < count:
                queue += [everyone[i] for i in random.permutation(len(everyone))]
            found: list[int] = []
            kept: list[int] = []
            for position, identity in enumerate(queue):
                if len(found) == count:
                    kept += queue[position:]
                    break
                (kept if identity in taken or identity in found else found).append(identity)
            queue = kept
            return found

        for _ in range(self.batches):
            chosen = take(self.fresh if self.pool else self.p, [])
            if self.pool:
                near = dict.fromkeys(other for identity in chosen for other in self.pool[identity])
                hard = [identity for identity in near if identity not in chosen]
                chosen += [hard[i] for i in random.permutation(len(hard))[: self.p - len(chosen)]]
                chosen += take(self.p - len(chosen), chosen)
            yield chosen

    def _images(self, identity: int, queues: dict, random: np.random.Generator) -> list[int]:
        """K images of an identity, in equal parts from its domains."""
        domains = self.groups[identity]
        first = int(random.integers(len(domains)))  # which domain gives the odd image
        shares = [len(range((number - first) % len(domains), self.k, len(domains))) for number in range(len(domains))]
        images: list[int] = []
        for number, (records, share) in enumerate(zip(domains, shares)):
            queue = queues.setdefault((identity, number), [])
            images += take_in_turn(records, share, queue, random)
        return images


def take_in_turn(records: list[int], count: int, queue: list[int], random: np.random.Generator) -> list[int]:
    """`count` of `records`, in turns over all of them; none twice unless there are fewer than `count`.

    `queue` holds what is left of the current turn and is changed.
    """
    taken: list[int] = []
    while len(taken) < count:
        if not queue:
            queue += [records[i] for i in random.permutation(len(records))]
        fresh = [record for record in queue if record not in taken]
        if not fresh and len(taken) < len(records):  # the turn's rest stands in the batch already: the next turn
            queue += [records[i] for i in random.permutation(len(records))]
            continue
        record = (fresh or queue)[0]
        queue.remove(record)
        taken.append(record)
    return taken
