"""Images kept in a cache are those of the files, whoever writes and whatever is left half done."""

import os
import shutil

import cv2
import numpy as np
import pytest
import torch

from reid_kit.data.augment import train_transform
from reid_kit.data.cache import DiskCache, RamCache
from reid_kit.data.loader import TrainLoader
from reid_kit.data.records import Record
from reid_kit.data.sampler import IdentitySampler
from reid_kit.errors import InputError
from reid_kit.image import read_resized

SIZE = (16, 8)
KINDS = ("ram", "disk")


@pytest.fixture
def records(tmp_path):
    random, found = np.random.default_rng(0), []
    for index in range(8):
        path = tmp_path / f"{index}.png"
        cv2.imwrite(str(path), random.integers(0, 256, (40, 20, 3), dtype=np.uint8))
        found.append(Record(path, index // 2, box=(1, 2, 17, 34)))
    return found


def cache_of(kind, tmp_path, limit=1e9):
    return RamCache(8, SIZE, limit) if kind == "ram" else DiskCache(tmp_path / "cache", limit)


def batches(records, cache=None, workers=0, use_box=False):
    labels = [record.identity for record in records]
    found = []
    for epoch in range(2):
        sampler = IdentitySampler(labels, 2, 2)
        sampler.set_epoch(epoch)
        transform = train_transform(*SIZE, erasing=0.5)
        found += list(TrainLoader(records, labels, sampler, transform, workers, use_box, cache=cache))
    return found


def read(cache, record, index=0, box=None):
    return cache.read(index, record.path, box, None, SIZE)


def without_decoding(monkeypatch):
    def fail(*parameters):
        raise AssertionError("it was decoded again")

    monkeypatch.setattr("reid_kit.data.cache.read_resized", fail)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_batches_are_the_same_with_a_cache(records, tmp_path, kind, workers):
    cache = cache_of(kind, tmp_path)
    for one, two in zip(batches(records), batches(records, cache, workers), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two))


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_workers_have_read_is_not_decoded_again(records, tmp_path, monkeypatch, kind):
    cache = cache_of(kind, tmp_path)
    expected = batches(records, cache, workers=1)
    without_decoding(monkeypatch)
    for one, two in zip(expected, batches(records, cache), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two))


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_changed_is_read_again(records, tmp_path, kind):
    cache, path = cache_of(kind, tmp_path), records[0].path
    before = read(cache, records[0])
    cv2.imwrite(str(path), np.full((40, 20, 3), 9, np.uint8))
    assert np.all(read(cache, records[0]) == 9) and not np.all(before == 9)
    status = path.stat()
    cv2.imwrite(str(path), np.full((40, 20, 3), 7, np.uint8))  # as many bytes
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert path.stat().st_size == status.st_size and np.all(read(cache, records[0]) == 7)
    path.unlink()
    with pytest.raises(InputError, match="0.png"):
        read(cache, records[0])


@pytest.mark.parametrize("kind", KINDS)
def test_who_changes_an_image_does_not_change_the_cache(records, tmp_path, kind):
    cache = cache_of(kind, tmp_path)
    expected = read(cache, records[0]).copy()
    for _ in range(2):
        image = read(cache, records[0])
        assert np.array_equal(image, expected)
        image[:] = 0


def test_two_runs_share_a_folder_and_boxes_and_sizes_are_kept_apart(records, tmp_path, monkeypatch):
    one, two = (cache_of("disk", tmp_path) for _ in range(2))
    whole, cut, small = read(one, records[0]), read(one, records[0], box=records[0].box), (8, 4)
    reduced = one.read(0, records[0].path, None, None, small)
    assert reduced.shape == (8, 4, 3) and not np.array_equal(whole, cut)
    without_decoding(monkeypatch)
    assert np.array_equal(read(two, records[0], index=5), whole)
    assert np.array_equal(read(two, records[0], box=records[0].box), cut)
    assert np.array_equal(two.read(0, records[0].path, None, None, small), reduced)


def kept(tmp_path):
    return [path for path in (tmp_path / "cache").glob("*/*") if path.is_file()]


def test_damaged_and_half_written_files_are_not_taken(records, tmp_path):
    cache = cache_of("disk", tmp_path)
    expected = read(cache, records[0])
    (file,) = kept(tmp_path)
    whole = file.read_bytes()
    for content in (b"", whole[:-1], whole + b"x", whole[:50] + bytes([whole[50] ^ 1]) + whole[51:]):
        file.write_bytes(content)
        assert np.array_equal(read(cache, records[0]), expected)
        assert file.read_bytes() == whole
    leftover = file.with_name(f".{'0' * 12}.{2**22 + 1}.tmp")  # of a process that is no more
    leftover.write_bytes(whole[:9])
    cache_of("disk", tmp_path)
    assert kept(tmp_path) == [file]


def test_a_ram_entry_half_written_is_not_taken(records, tmp_path):
    cache = cache_of("ram", tmp_path)
    expected = read(cache, records[0])
    cache.images[0, 3] ^= 1
    assert np.array_equal(read(cache, records[0]), expected)


def test_no_more_is_kept_than_the_limit(records, tmp_path):
    image = 3 * SIZE[0] * SIZE[1]
    with pytest.warns(UserWarning, match="room for 3 of 8 images"):
        ram = cache_of("ram", tmp_path, 3.5 * image)
    assert len(ram.images) == 3
    disk = cache_of("disk", tmp_path, 256 * (image - 1))
    for index, record in enumerate(records):
        for cache in (ram, disk):
            assert np.array_equal(read(cache, record, index), read_resized(record.path, None, None, SIZE))
    assert kept(tmp_path) == []


def test_a_folder_that_vanishes_costs_only_speed(records, tmp_path):
    cache = cache_of("disk", tmp_path)
    expected = read(cache, records[0])
    shutil.rmtree(tmp_path / "cache")
    assert np.array_equal(read(cache, records[0]), expected)


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"thesis.txt.*DATA.CACHE_FOLDER"):
        cache_of("disk", tmp_path)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["thesis.txt"]
    with pytest.raises(InputError, match="DATA.CACHE_FOLDER"):
        DiskCache(tmp_path / "cache/thesis.txt", 1e9)
