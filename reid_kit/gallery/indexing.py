"""Bringing a gallery up to date with a list of images: what is new or changed is embedded, the rest is left."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from reid_kit.errors import InputError
from reid_kit.gallery.entries import Entry, stamped
from reid_kit.gallery.gallery import Gallery

RELABELLED = 512  # at a time


@dataclass(frozen=True)
class Indexed:
    """How many entries were embedded for being new, or for a file that changed; got other labels; stayed; were removed;
    and how many images could not be read."""

    new: int
    changed: int
    relabelled: int
    unchanged: int
    removed: int
    left_out: int


def index_images(
    gallery: Gallery,
    wanted: Iterable[Entry],
    *,
    prune: bool = False,
    on_bad_image: str = "error",
    progress: Callable[[list[Entry]], Iterable[Entry]] = iter,
) -> Indexed:
    """Makes the gallery hold `wanted`.

    Args:
        prune: remove the entries of the same sources that are not wanted any more.
        on_bad_image: "error" or "skip", see `Gallery.add`. What is skipped and was there before stays as it was.
        progress: wraps the entries that are embedded.

    Raises:
        InputError: an image that is listed twice or cannot be read; another process writes.
    """
    by_key: dict[tuple[str, str], Entry] = {}
    for entry in wanted:
        entry = stamped(entry, on_bad_image)
        if entry.key in by_key:
            raise InputError(f"{entry.path} stands twice among the images to index; give boxes, or take one out")
        by_key[entry.key] = entry
    sources = {entry.source for entry in by_key.values()}
    with gallery.writing():
        known: dict[tuple[str, str], Entry] = {}
        gone: list[Entry] = []
        for entries, _ in gallery.batches(vectors=False):
            known |= {entry.key: entry for entry in entries if entry.key in by_key}
            gone += [entry for entry in entries if entry.key not in by_key and entry.source in sources]
        new = [entry for key, entry in by_key.items() if key not in known]
        changed = [entry for key, entry in by_key.items() if key in known and entry.stamp != known[key].stamp]
        same = [entry for key, entry in by_key.items() if key in known and entry.stamp == known[key].stamp]
        relabelled = [entry for entry in same if entry != known[entry.key]]
        written = gallery.add(progress(new + changed), on_bad_image=on_bad_image)
        for first in range(0, len(relabelled), RELABELLED):
            gallery.relabel(relabelled[first : first + RELABELLED])
        removed = gallery.delete(gone) if prune and gone else 0
    return Indexed(
        len(new), len(changed), len(relabelled), len(same) - len(relabelled), removed, len(new + changed) - written
    )
