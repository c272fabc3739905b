import os

import pytest

from reid_kit import image_files
from reid_kit.errors import InputError
from reid_kit.image_files import find_images
from tests.data import trees


def test_nested_and_linked_folders_and_every_suffix(tmp_path):
    names = ["a.jpg", "b/c.WEBP", "b/d/e.tif", "f.avif", "g.gif"]
    trees.touch(tmp_path / "photos", *names)
    trees.touch(tmp_path / "elsewhere", "h.png")
    (tmp_path / "photos/link").symlink_to(tmp_path / "elsewhere")
    found = find_images(tmp_path / "photos")
    assert found.paths == sorted(tmp_path / "photos" / name for name in [*names, "link/h.png"])
    assert found.left_out == []


def test_links_that_lead_back_are_followed_once(tmp_path):
    trees.touch(tmp_path, "a/1.jpg", "b/2.jpg")
    for number in range(12):  # each folder links to both: as many ways as there are numbers of 24 bits
        for name in ("a", "b"):
            (tmp_path / name / f"to{number}").symlink_to(tmp_path / ("a" if number % 2 else "b"))
    found = find_images(tmp_path)
    assert sorted(path.name for path in found.paths) == ["1.jpg", "2.jpg"]
    assert len(found.left_out) == 1 and "24 links" in found.left_out[0]


def test_what_is_no_image_is_counted_and_named(tmp_path):
    trees.touch(tmp_path, "1.jpg", "2.heic", "3.heic", "list.txt", "._1.jpg", ".hidden/4.jpg", "Thumbs.db")
    found = find_images(tmp_path)
    assert [path.name for path in found.paths] == ["1.jpg"]
    (words,) = found.left_out
    assert "3 files" in words and "2 of .heic" in words and "left out" in words


def test_folders_that_cannot_be_listed(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="no folder .*none"):
        find_images(tmp_path / "none")
    trees.touch(tmp_path, "a.txt")
    with pytest.raises(InputError, match="holds no image.*a.txt"):
        find_images(tmp_path)
    trees.touch(tmp_path, "1.jpg", "closed/2.jpg")

    listed = os.scandir

    def scandir(place):
        if place.name == "closed":
            raise PermissionError(13, "Permission denied", str(place))
        return listed(place)

    monkeypatch.setattr(image_files.os, "scandir", scandir)
    with pytest.raises(InputError, match="closed.*Permission denied"):
        find_images(tmp_path)
