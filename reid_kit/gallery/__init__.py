"""A model's vectors of many images, kept, searched and described: add, search, delete, count, describe."""

from reid_kit.gallery.address import open_gallery
from reid_kit.gallery.entries import Entry, Match

__all__ = ["Entry", "Match", "open_gallery"]
