"""A gallery as its users see it: five verbs, whatever store is behind them."""

import dataclasses
import difflib
import warnings
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from reid_kit.errors import InputError, unknown_name
from reid_kit.gallery.entries import Description, Entry, Match, Where, as_entry, checked
from reid_kit.image import read_image

BATCH = 512  # entries that are written at once, all or none
AHEAD = 8  # images that are read while others are embedded
UNIT = 1e-3  # by which the length of an L2-normalised vector may differ from 1

Names = str | Collection[str] | None


class Gallery(ABC):
    """Entries with a vector each. `model` is None where nothing but vectors is added and searched for."""

    def __init__(self, address: str, description: Description, model=None):
        self.address, self.description, self.model = address, description, model

    def add(
        self,
        images: Iterable[Entry | str | Path],
        vectors: np.ndarray | Tensor | None = None,
        *,
        on_bad_image: str = "error",
    ) -> int:
        """Embeds images and keeps them; one that is there already is replaced.

        They are read one by one and written in whole batches: what was written when an error comes stays.

        Args:
            images: files, or entries that say more of them; their paths become absolute.
            vectors: (N, D) L2-normalised, as `embed` gives them, for entries of any path; nothing is read then.
            on_bad_image: "error", or "skip", which leaves an image that cannot be read out and warns of it.

        Returns:
            How many were written.

        Raises:
            InputError: an image cannot be read; vectors of another width or length; no model; the disk is full; another
                process writes.
        """
        with self.writing():
            if vectors is not None:
                entries = [checked(e if isinstance(e, Entry) else Entry(str(e))) for e in images]
                vectors = self._checked(vectors, len(entries))
                for first in range(0, len(entries), BATCH):
                    self.write(entries[first : first + BATCH], vectors[first : first + BATCH])
                return len(entries)
            if on_bad_image not in ("error", "skip"):
                raise unknown_name("on_bad_image", on_bad_image, ("error", "skip"))
            images, written = iter(images), 0
            for first in images:
                kept: list[Entry] = []
                batch = chain([first], islice(images, BATCH - 1))
                vectors = self._embed(self._read(batch, kept, on_bad_image))
                self.write(kept, vectors)
                written += len(kept)
            return written

    def search(
        self,
        queries: Iterable[np.ndarray | str | Path] | np.ndarray | Tensor,
        top: int = 10,
        *,
        camera: Names = None,
        not_camera: Names = None,
        identity: Names = None,
    ) -> list[list[Match]]:
        """The `top` nearest entries of each query, nearest first; fewer where there are fewer.

        Args:
            queries: images, as `embed` takes them, or their (Q, D) vectors.
            camera, not_camera, identity: names, to look among these or outside those alone.

        Raises:
            InputError: an image that cannot be read; an empty gallery; a camera or identity that is not there.
        """
        if top < 1:
            raise InputError(f"top must be at least 1, got {top}")
        asked = {"camera": camera, "not_camera": not_camera, "identity": identity}
        where = Where(**{name: self._known(name.removeprefix("not_"), names) for name, names in asked.items()})
        found = self.nearest(self.vectors_of(queries), top, where)
        if not any(found) and not self.count():
            raise InputError(f"the gallery {self.address} is empty; add images first (reid-kit index)")
        return found

    def describe(self) -> dict:
        """What the gallery says of itself, with its number of entries, identities and cameras."""
        counts = {"entries": self.count(), "identities": len(self.names("identity"))}
        counts["cameras"] = len(self.names("camera"))
        return {"address": self.address, **dataclasses.asdict(self.description), **counts}

    @abstractmethod
    def delete(self, images: Iterable[Entry | str | Path] = (), *, identity: Names = None) -> int:
        """Removes entries, with their vectors, and returns how many there were.

        Args:
            images: entries, or paths, which stand for all boxes of a file.
            identity: names whose entries go.
        """

    @abstractmethod
    def count(self) -> int:
        """The number of entries."""

    @abstractmethod
    def write(self, entries: list[Entry], vectors: Tensor) -> None:
        """Keeps entries with their vectors, all or none; of the same key they replace what is there."""

    @abstractmethod
    def relabel(self, entries: list[Entry]) -> None:
        """Changes what is known of entries that are there; their vectors stay."""

    @abstractmethod
    def nearest(self, vectors: Tensor, top: int, where: Where) -> list[list[Match]]:
        """The nearest entries of each of the (Q, D) vectors."""

    @abstractmethod
    def batches(self, vectors: bool = True) -> Iterator[tuple[list[Entry], np.ndarray | None]]:
        """All entries, with their (n, D) float32 vectors where these are asked for, some thousand at a time."""

    @abstractmethod
    def vectors_at(self, entries: list[Entry]) -> np.ndarray:
        """(n, D) float32 vectors of one or more entries that are there."""

    @abstractmethod
    def names(self, column: str) -> list[str]:
        """The cameras or identities that there are, sorted, without ""."""

    @abstractmethod
    def describe_as(self, description: Description) -> None:
        """Keeps another description."""

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Within it, no other process writes."""
        yield

    def vectors_of(self, queries: Iterable[np.ndarray | str | Path] | np.ndarray | Tensor) -> Tensor:
        """(Q, D) L2-normalised vectors of images, embedded as the gallery's are; vectors are checked and returned."""
        if getattr(queries, "ndim", 0) == 2:
            return self._checked(queries, len(queries))
        return self._embed(queries)

    def _embed(self, images: Iterable) -> Tensor:
        if self.model is None:
            raise InputError(f"the gallery {self.address} was opened without a model; give one, or give vectors")
        return self.model.embed(images, flip=self.description.flip)

    def _read(self, images: Iterable[Entry | str | Path], kept: list[Entry], on_bad_image: str) -> Iterator[np.ndarray]:
        """The pixels of images, read ahead; `kept` gets the entries of those that could be read."""
        wanted = getattr(self.model, "resized", None)  # what `embed` would ask for of a path
        with ThreadPoolExecutor(AHEAD) as threads:
            waiting: deque[Future] = deque()
            for image in chain(images, [None] * AHEAD):
                waiting.append(threads.submit(_pixels, image, wanted))
                if len(waiting) > AHEAD:
                    try:
                        found = waiting.popleft().result()
                    except InputError as error:
                        if on_bad_image == "error":
                            raise
                        warnings.warn(f"left out: {error}", stacklevel=2)
                        continue
                    if found:
                        kept.append(found[0])
                        yield found[1]

    def _checked(self, vectors: np.ndarray | Tensor, count: int) -> Tensor:
        vectors = torch.as_tensor(vectors).detach().cpu().float()
        if vectors.shape != (count, self.description.size):
            expected = f"({count}, {self.description.size})"
            raise InputError(f"vectors must be {expected} for the gallery {self.address}, got {tuple(vectors.shape)}")
        wrong = ~((vectors.norm(dim=1) - 1).abs() < UNIT)
        if wrong.any():
            raise InputError(
                f"{int(wrong.sum())} vectors are not L2-normalised, first {int(wrong.nonzero()[0])}; give them as "
                f"`embed` does"
            )
        return vectors

    def _known(self, column: str, names: Names) -> tuple[str, ...]:
        names = () if names is None else (names,) if isinstance(names, str) else tuple(names)
        there = self.names(column) if names else []
        for name in set(names).difference(there):
            near = difflib.get_close_matches(name, there, n=3, cutoff=0)
            hint = f"near are {', '.join(map(repr, near))}" if near else f"its entries have no {column}"
            raise InputError(f"no {column} {name!r} in the gallery {self.address}; {hint}")
        return names


def _pixels(image: Entry | str | Path | None, wanted: tuple[int, int] | None) -> tuple[Entry, np.ndarray] | None:
    if image is None:  # behind the last one
        return None
    entry = as_entry(image)
    return entry, read_image(entry.path, entry.box, wanted=wanted)
