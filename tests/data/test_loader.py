import cv2
import numpy as np
import pytest
import torch

from reid_kit.data import loader
from reid_kit.data.augment import test_transform, train_transform
from reid_kit.data.loader import TestLoader, TrainLoader
from reid_kit.data.records import Record
from reid_kit.data.sampler import IdentitySampler
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
