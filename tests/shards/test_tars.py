"""Tars as WebDataset lays them out, whole, damaged and odd."""

import io
import json
import tarfile
import tracemalloc

import pytest

from reid_kit.errors import InputError
from reid_kit.reading import read_bytes
from reid_kit.shards.listing import items_of_tars, tars_of
from reid_kit.shards.tars import columns_of, read_samples


def write_tar(path, members, **options):
    with tarfile.open(path, "w", **options) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def read(tar):
    left_out = []
    samples = list(read_samples(tar, left_out))
    return [(member.name, read_bytes(member, "it", 1000), columns_of(texts)) for member, texts in samples], left_out


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_samples_and_what_stands_beside_them(tmp_path, form):
    long = "folder/" * 12 + "é" * 30
    members = [
        ("__meta__.json", b"{}"),
        ("./a.JSON", json.dumps({"Identity": "0002", "camera": 3, "shelf": [1], "none": None}).encode()),
        ("./a.jpg", b"image a"),
        ("x.y/b.png", b"image b"),
        ("x.y/b.cls", b" 17\n"),
        ("x.y/b.txt", b"ein Mann"),
        (f"{long}.jpg", b"image c"),
        ("d.seg.png", b"mask"),
        ("x.y/._a.jpg", b"of macOS"),
        ("e.json", b'{"identity": "1"}'),
    ]
    found, left_out = read(write_tar(tmp_path / "a.tar", members, format=form))
    assert found == [
        ("a.jpg", b"image a", {"identity": "0002", "camera": "3", "shelf": "[1]"}),
        ("x.y/b.png", b"image b", {"identity": "17", "txt": "ein Mann"}),
        (f"{long}.jpg", b"image c", {}),
    ]
    assert len(left_out) == 1 and "1 of seg.png" in left_out[0] and "1 of texts without an image" in left_out[0]


IMAGES = [(f"{number}.jpg", bytes([number]) * 700) for number in range(4)]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data[: 512 + 300], "unexpected end of data"),  # within the first image
        (lambda data: data[: 3 * 1536 + 600], "unexpected end of data"),  # within the last
        (lambda data: data[:1536] + b"\x01" * 512 + data[2048:], "no member begins at byte 1,536"),
        (lambda data: b"", "empty file"),
        (lambda data: bytes(1024), "holds no image"),
        (lambda data: b"no tar at all" * 100, "cannot be read"),
    ],
)
def test_damaged_tars_are_named(tmp_path, damage, words):
    tar = write_tar(tmp_path / "a.tar", IMAGES)
    tar.write_bytes(damage(tar.read_bytes()))
    with pytest.raises(InputError, match=f"a.tar.*{words}"):
        read(tar)
    with pytest.raises(InputError, match=f"a.tar.*{words}"):
        list(items_of_tars([str(tar)], "error"))
    whole = write_tar(tmp_path / "b.tar", IMAGES)
    with pytest.warns(UserWarning, match=f"left out, from there on: .*a.tar.*{words}"):
        found = list(items_of_tars([str(tar), str(whole)], "skip"))
    assert [item.entry.path for item in found[-4:]] == [f"{whole}/{name}" for name, _ in IMAGES]


def test_tars_that_cannot_be_used(tmp_path):
    write_tar(tmp_path / "two.tar", [("a.jpg", b"1"), ("a.png", b"2")])
    write_tar(tmp_path / "list.tar", [("a.jpg", b"1"), ("a.json", b"[1]")])
    write_tar(tmp_path / "broken.tar", [("a.jpg", b"1"), ("a.json", b"{")])
    write_tar(tmp_path / "box.tar", [("a.jpg", b"1"), ("a.json", b'{"x1": 3, "y1": 0, "x2": 1, "y2": 4}')])
    with tarfile.open(tmp_path / "packed.tar", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a.jpg"))
    for name, words in (
        ("two", "the sample /a has two images, a.jpg and a.png"),
        ("list", "a.json must hold names and values"),
        ("broken", "a.json cannot be read"),
        ("box", "inverted or empty"),
        ("packed", "a tar that is whole and not compressed"),
        ("none", "none.tar: No such file"),
    ):
        with pytest.raises(InputError, match=words):
            list(items_of_tars([str(tmp_path / f"{name}.tar")], "error"))
    more = [("a.jpg", b"1"), ("a.json", b"{"), ("b.jpg", b"2"), ("b.cls", b"\xff"), ("c.jpg", b"3"), ("c.cls", b"7")]
    tar = write_tar(tmp_path / "more.tar", more)
    with pytest.warns(UserWarning, match="b.cls cannot be read.*UTF-8"):
        (item,) = items_of_tars([str(tar)], "skip")
    assert item.member.name == "c.jpg" and item.entry.identity == "7" and item.entry.source == str(tar)


def test_patterns(tmp_path):
    for number in range(8, 12):
        write_tar(tmp_path / f"a-{number:03}.tar", IMAGES)
    names = [str(tmp_path / f"a-{number:03}.tar") for number in range(8, 12)]
    assert (
        tars_of([str(tmp_path / "a-{008..011}.tar")]) == tars_of([str(tmp_path / "a-*.tar")]) == tars_of(names) == names
    )
    with pytest.raises(InputError, match="given twice"):
        tars_of([names[0], str(tmp_path / "a-{008..009}.tar")])
    with pytest.raises(InputError, match="no tar is called"):
        tars_of([str(tmp_path / "b*.tar")])


def test_memory_does_not_grow_with_the_members(tmp_path):
    peaks = []
    for count in (100, 1000):
        tar = write_tar(tmp_path / f"{count}.tar", ((f"{number:06}.jpg", b"") for number in range(count)))
        tracemalloc.start()
        try:
            assert sum(1 for _ in read_samples(tar, [])) == count
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0] + 2**14
