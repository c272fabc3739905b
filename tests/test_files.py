import errno

import pytest

from reid_kit import files
from reid_kit.errors import InputError, unknown_name


def test_writes_text_and_bytes_and_leaves_nothing_else(tmp_path):
    files.write_atomically(tmp_path / "a", "text")
    files.write_atomically(tmp_path / "a", b"bytes")
    assert (tmp_path / "a").read_bytes() == b"bytes"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    files.write_atomically(path, "old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(InputError, match="last.pt.*No space left on device.*intact"):
        files.write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_unknown_name_gives_the_nearest_and_all():
    message = str(unknown_name("loss", "tripelt", ["softmax", "triplet"]))
    assert message == "unknown loss 'tripelt'. Did you mean 'triplet'? Choices: softmax, triplet"
