import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reid_kit import files
from reid_kit.errors import InputError, unknown_name

OTHER = "choose another folder"


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


def test_cleaning_up_does_not_hide_the_first_error(tmp_path, monkeypatch):
    def read_only(*arguments, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(files.os, "replace", read_only)
    monkeypatch.setattr(Path, "unlink", read_only)
    with pytest.raises(InputError, match="cannot write .*a: Read-only file system"):
        files.write_atomically(tmp_path / "a", "text")


@pytest.mark.parametrize("name", ["n" * 255, "é" * 127])
def test_names_as_long_as_the_disk_allows(tmp_path, name):
    files.write_atomically(tmp_path / name, "text")
    assert (tmp_path / name).read_text() == "text"


def test_a_new_file_does_not_take_the_place_of_one_that_came_meanwhile(tmp_path):
    with pytest.raises(InputError, match="a exists, and nothing is written over it"):  # noqa: SIM117
        with files.new_file(tmp_path / "a", replace=False) as temporary:
            temporary.write_text("ours")
            (tmp_path / "a").write_text("theirs")
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_text() == "theirs"


def test_a_folder_is_held_by_one(tmp_path):
    folder = tmp_path / "new/run"
    with files.hold(folder, OTHER):
        with pytest.raises(InputError, match=rf"run is in use .*pid {os.getpid()} .*or {OTHER}"):  # noqa: SIM117
            with files.hold(folder, OTHER):
                pass
        (folder / "file").write_text("")
    with files.hold(folder, OTHER):
        pass
    assert [path.name for path in folder.iterdir()] == ["file"]
    with files.hold(tmp_path / "other/run", OTHER):
        pass
    assert not (tmp_path / "other").exists()  # nothing came of it


def test_a_lock_ends_with_its_process_however_that_ends(tmp_path):
    hold = f"from reid_kit.files import hold\nimport time\nwith hold({str(tmp_path)!r}, ''):\n  time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", hold])
    try:
        deadline = time.monotonic() + 60
        while not ((tmp_path / files.LOCK).exists() and (tmp_path / files.LOCK).read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with pytest.raises(InputError, match=f"pid {holder.pid} "):  # noqa: SIM117
            with files.hold(tmp_path, OTHER):
                pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait(60)
    assert (tmp_path / files.LOCK).exists()
    with files.hold(tmp_path, OTHER):
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_child_that_outlives_its_parent_holds_nothing(tmp_path):
    """As a worker of a killed run, which lives for some seconds more."""
    read, write = os.pipe()
    with files.hold(tmp_path, OTHER):
        child = os.fork()
        if not child:
            os.read(read, 1)
            os._exit(0)
    try:
        with files.hold(tmp_path, OTHER):
            pass
    finally:
        os.write(write, b"x")
        os.waitpid(child, 0)


def dead_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_the_next_holder_clears_what_the_dead_left(tmp_path):
    dead = dead_pid()
    left = [f".{files.short_hash('last.pt')}.{dead}.tmp", f".last.pt.{dead}.tmp", f".config.yaml.{dead}.tmp"]
    kept = [f".last.pt.{os.getpid()}.tmp", f".notes.{dead}.tmp", f"last.pt.{dead}.tmp", ".last.pt.tmp"]
    for name in left + kept:
        (tmp_path / name).write_text("")
    with files.hold(tmp_path, OTHER):
        assert {path.name for path in tmp_path.iterdir()} == {*kept, files.LOCK}


def test_a_folder_that_cannot_be_had_is_one_error(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file/below", tmp_path / ("n" * 300)):
        with pytest.raises(InputError, match=f"cannot write in the folder .*or {OTHER}"):  # noqa: SIM117
            with files.hold(folder, OTHER):
                pass


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"kind": "other"}', '{"name": "my own"}', "[" * 100_000])
def test_a_stamp_counts_where_it_parses_and_is_of_the_kind(tmp_path, content):
    (tmp_path / "stamp.json").write_text(content)
    with pytest.raises(InputError, match=f"is not this kind of ours: it holds stamp.json.*or {OTHER}"):
        files.take_folder(tmp_path, "stamp.json", "kind of ours", OTHER)
    (tmp_path / "stamp.json").write_text('{"kind": "kind of ours", "done": 3}')
    assert files.take_folder(tmp_path, "stamp.json", "kind of ours", OTHER)["done"] == 3


def test_only_own_names_are_removed(tmp_path):
    for name in ("top/a/1.jpg", "top/b/2.jpg", "top/b/thesis.txt", "top/3.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    files.remove_tree(tmp_path / "top", re.compile(r"[ab]/\d\.jpg"))
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert left == {"top", "top/b", "top/b/thesis.txt", "top/3.jpg"}


def test_unknown_name_gives_the_nearest_and_all():
    message = str(unknown_name("loss", "tripelt", ["softmax", "triplet"]))
    assert message == "unknown loss 'tripelt'. Did you mean 'triplet'? Choices: softmax, triplet"
