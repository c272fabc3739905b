"""What others wrote, damaged in every way: one InputError with the file's name, in bounded time."""

import os
import struct
import zipfile

import h5py
import numpy as np
import pytest
import scipy.io

from reid_kit.errors import InputError, shortened, unknown_name
from reid_kit.reading import read_bytes, read_mat, read_npz, read_text, regular_file


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    (tmp_path / "large").write_bytes(bytes(11))
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name, words in (
        ("pipe", "a pipe, a device"),
        ("endless", "a pipe, a device"),
        (".", "it is a folder"),
        ("none", "No such file"),
        ("n" * 300, "File name too long"),
        ("loop", "symbolic links"),
        ("large/below", "Not a directory"),
        ("a\0b", "no file can be called so"),
        ("a\ud800b", "no file can be called so"),
    ):
        with pytest.raises(InputError, match=words) as error:
            regular_file(tmp_path / name, f"the list {name}")
        assert "the list" in str(error.value) and str(error.value).encode()
    with pytest.raises(InputError, match="11 bytes, at most 10"):
        read_bytes(tmp_path / "large", "the list", 10)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_as_editors_and_spreadsheets_save_it(tmp_path, encoding):
    (tmp_path / "a.txt").write_bytes("änn\r\nbob\rcid\n".encode(encoding))
    assert read_text(tmp_path / "a.txt", "a.txt") == "änn\nbob\ncid\n"


def test_what_is_no_text(tmp_path):
    (tmp_path / "a.txt").write_bytes("ann\nänn".encode("latin-1"))
    with pytest.raises(InputError, match="a.txt is not UTF-8 text.*byte 4"):
        read_text(tmp_path / "a.txt", "a.txt")
    (tmp_path / "a.txt").write_bytes(b"ann\nb\0b")
    with pytest.raises(InputError, match="a.txt is no text.*line 2"):
        read_text(tmp_path / "a.txt", "a.txt")


def test_a_damaged_npz_is_never_taken(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, features=np.arange(40, dtype=np.float32), other=np.arange(3))
    whole, random = path.read_bytes(), np.random.default_rng(0)
    assert read_npz(path, ["features"]).keys() == {"features"}
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[random.integers(len(whole))] ^= 1 << random.integers(8)
        path.write_bytes(damaged)
        try:
            found = read_npz(path)
        except InputError as error:
            assert str(path) in str(error)
        else:  # a bit that nobody reads, as of a date
            assert all(np.array_equal(array, np.arange(len(array))) for array in found.values())
    for size in (0, 3, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match="a.npz"):
            read_npz(path)


def test_an_array_that_would_fill_the_memory(tmp_path):
    path = tmp_path / "bomb.npz"
    header = b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + b"{'descr': '<f4', 'fortran_order': False, 'shape': (%d,)}"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("features.npy", (header % 10**17).ljust(127) + b"\n")
    with pytest.raises(InputError, match="bomb.npz"):
        read_npz(path)


def test_mat_files_of_old_and_new_matlab(tmp_path):
    path, array = tmp_path / "a.mat", np.arange(6.0).reshape(2, 3)
    scipy.io.savemat(path, {"f": array})
    assert np.array_equal(read_mat(path, ["f"], "features")["f"], array)
    with pytest.raises(InputError, match="a.mat has no array g; it holds f. Expected features"):
        read_mat(path, ["g"], "features")
    path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(InputError, match="a.mat cannot be read.*Expected features"):
        read_mat(path, ["f"], "features")
    with h5py.File(path, "w", userblock_size=512) as file:
        file["f"] = array.T
        file.create_dataset("cell", (2,), dtype=h5py.ref_dtype)
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    assert np.array_equal(read_mat(path, ["f"], "features")["f"], array)
    with pytest.raises(InputError, match="a.mat.*cell holds no numbers"):
        read_mat(path, ["cell"], "features")


def test_messages_stay_short():
    assert len(shortened("x" * 10**6)) < 200 and len(shortened([["y" * 10**5] * 1000] * 1000)) < 500
    assert "digits" in shortened(10**5000)
    assert len(str(unknown_name("key", "z" * 10**6, ["a"]))) < 400
