import multiprocessing
import os
import resource
import signal
import time
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from reid_kit.data import loader
from reid_kit.data.augment import test_transform, train_transform
from reid_kit.data.loader import TestLoader, TrainLoader
from reid_kit.data.records import Record
from reid_kit.data.sampler import IdentitySampler, ShuffledSampler
from reid_kit.errors import InputError
from reid_kit.image import read_image


@pytest.fixture
def records(tmp_path):
    random = np.random.default_rng(0)
    found = []
    for index in range(12):
        path = tmp_path / f"{index:02}.png"
        cv2.imwrite(str(path), random.integers(0, 256, (16, 8, 3), dtype=np.uint8))
        found.append(Record(path, index // 3, box=(1, 2, 7, 14), source=f"boxes.txt:{index + 3}"))
    return found


def train_batches(records, workers=0, on_bad_image="error", start=0):
    labels = [record.identity for record in records]
    sampler = IdentitySampler(labels, 2, 3)
    sampler.set_epoch(1, start)
    transform = train_transform(16, 8, erasing=0.5)
    return list(TrainLoader(records, labels, sampler, transform, workers, on_bad_image=on_bad_image))


def test_batches_are_the_same_whatever_the_workers(records):
    alone = train_batches(records)
    for workers in (1, 2):
        for one, two in zip(alone, train_batches(records, workers), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, two))
    for one, two in zip(alone[1:], train_batches(records, start=1), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two))


def test_a_training_batch(records):
    for images, labels, indices in train_batches(records):
        assert images.shape == (6, 3, 16, 8) and images.dtype == torch.uint8
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert labels.tolist() == [records[index].identity for index in indices.tolist()]


@pytest.mark.parametrize("use_box", [False, True])
def test_test_batches_hold_all_records_in_order(records, use_box):
    batches = list(TestLoader(records, test_transform(16, 8), 5, workers=1, use_box=use_box))
    assert [len(indices) for _, indices in batches] == [5, 5, 2]
    assert torch.cat([indices for _, indices in batches]).tolist() == list(range(12))
    record = records[6]
    image = test_transform(16, 8)(read_image(record.path, record.box if use_box else None), 0)
    assert np.array_equal(batches[1][0][1].permute(1, 2, 0).numpy(), image)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_image_stops_with_its_path_alone(records, workers):
    records[4].path.write_bytes(b"")
    with pytest.raises(InputError) as error:
        list(TestLoader(records, test_transform(16, 8), 5, workers))
    assert str(error.value) == f"image {records[4].path} is empty (0 bytes); copy or unpack it again"


def test_a_bad_image_is_skipped_and_named_once(records):
    for index in (4, 5, 6, 7, 8, 9):
        records[index].path.write_bytes(b"")
    batches = TestLoader(records, test_transform(16, 8), 5, on_bad_image="skip")
    with pytest.warns(UserWarning, match="left out: image .*04.png is empty") as caught:
        first = torch.cat([indices for _, indices in batches])
    assert first.tolist() == [0, 1, 2, 3, 10, 11]
    assert len(caught) == 6
    assert torch.cat([indices for _, indices in batches]).tolist() == first.tolist()


def test_no_process_leaves_out_a_batch_that_others_wait_for(records, monkeypatch):
    for record in records:
        record.path.write_bytes(b"")
    with pytest.warns(UserWarning, match="left out"):
        assert train_batches(records, on_bad_image="skip") == []
    monkeypatch.setattr(loader, "world_size", lambda: 2)
    with pytest.warns(UserWarning), pytest.raises(InputError, match="none of the 6 images of a process's batch"):
        train_batches(records, on_bad_image="skip")


def test_a_record_without_its_box(records):
    records[0] = Record(records[0].path, 0)
    with pytest.raises(InputError, match="00.png has no box; set DATA.USE_BOX to false"):
        list(TestLoader(records, test_transform(16, 8), 5, use_box=True))


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_workers_that_are_not_forked(records, monkeypatch, method):
    """macOS, Windows, and Linux from Python 3.14 on: what a worker is given goes through a pickle."""
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method(method, force=True)
    try:
        found = train_batches(records, workers=1)
    finally:
        multiprocessing.set_start_method(before, force=True)
    for one, two in zip(train_batches(records), found, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two))


def test_batches_that_shared_memory_cannot_hold_are_refused(records, monkeypatch):
    needed = (2 * loader.PREFETCH + 1) * 64 * 32 * 3  # what two workers read ahead, and the batch in use
    for free in (needed, needed - 1):
        monkeypatch.setattr(loader.os, "statvfs", lambda path, free=free: SimpleNamespace(f_bavail=free, f_frsize=1))
        batches = TestLoader(records, test_transform(64, 32), batch_size=1, workers=2)
        if free == needed:
            assert len(list(batches)) == len(records)
        else:
            with pytest.raises(InputError, match="DATA.WORKERS 2 .*TEST.BATCH_SIZE.*--shm-size"):
                next(iter(batches))


def kill(image, seed):
    os.kill(os.getpid(), signal.SIGKILL)


def wait(image, seed):
    if os.getpid() != MAIN:
        time.sleep(20)
    return image


def fail(image, seed):
    raise ZeroDivisionError


MAIN = os.getpid()


def test_a_worker_that_is_killed_is_one_error_at_once(records, monkeypatch):
    monkeypatch.setattr(loader.Loader, "_check_shared_memory", lambda self: None)  # it would call `kill` here
    with pytest.raises(InputError, match="DATA.WORKERS 1.* is killed by signal: Killed.*--resume"):
        list(TestLoader(records, kill, 5, workers=1))


def test_a_worker_that_gives_nothing_is_not_waited_for_without_end(records, monkeypatch):
    monkeypatch.setattr(loader, "PATIENCE", 1)
    with pytest.raises(InputError, match="timed out after 1 seconds.*DATA.WORKERS"):
        list(TestLoader(records, wait, 5, workers=1))


def test_a_fault_of_the_code_keeps_its_traceback(records, monkeypatch):
    monkeypatch.setattr(loader.Loader, "_check_shared_memory", lambda self: None)
    with pytest.raises(ZeroDivisionError):
        list(TestLoader(records, fail, 5, workers=1))


def test_the_death_of_a_worker_that_waits_disturbs_nothing_else(records):
    """torch raises it wherever the main process happens to be, as in the midst of writing a checkpoint."""
    batches = TestLoader(records, test_transform(16, 8), 5, workers=1)
    assert len(list(batches)) == 3
    worker = batches._loader._iterator._workers[0].pid
    os.kill(worker, signal.SIGKILL)
    os.waitid(os.P_PID, worker, os.WEXITED | os.WNOWAIT)  # here torch's handler would raise
    with pytest.raises(InputError, match="is killed by signal"):
        list(batches)


def test_too_many_open_files(records):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/dev/fd")) + 1, hard))
    try:
        with pytest.raises(InputError, match="Too many open files"):
            list(TestLoader(records, test_transform(16, 8), 5, workers=2))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_leaves_the_workers_at_work(records, number):
    """Who is asked to stop still wants the batch that it waits for."""
    batches = TestLoader(records, test_transform(16, 8), 5, workers=1)
    for count, _ in enumerate(batches):
        if count == 0:
            os.kill(batches._loader._iterator._workers[0].pid, number)
    assert count == 2


def test_a_batch_of_which_one_image_is_left_is_left_out(records):
    for record in records[1:4]:
        record.path.write_bytes(b"")
    sampler = ShuffledSampler(8, 4)
    sampler.epoch_batches = lambda epoch: [[0, 1, 2, 3], [4, 5, 6, 7]]
    loader = TrainLoader(records, [0] * len(records), sampler, test_transform(8, 8), on_bad_image="skip")
    with pytest.warns(UserWarning, match="one image could be read is left out"):
        batches = list(loader)
    assert [batch.indices.tolist() for batch in batches] == [[4, 5, 6, 7]]
