"""What a gallery in a folder promises beside what every store does."""

import os
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import reid_kit
from reid_kit.errors import InputError
from reid_kit.gallery import Entry, approximate, folder
from reid_kit.gallery import gallery as gallery_module
from reid_kit.gallery.entries import stamp_of
from reid_kit.gallery.indexing import Indexed, index_images
from tests.end_to_end.commands import REPOSITORY, environment
from tests.gallery.test_stores import WIDTH, Model, entries, unit

WRITER = """
import os, sys
from tests.gallery.test_stores import *
from reid_kit.gallery import gallery as module
module.BATCH = 5
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        gallery = reid_kit.open_gallery(sys.argv[1], Model())
        turn = 0
        while True:
            gallery.add(entries(40), unit(40, seed=int(line)))
            gallery.delete([entry.path for entry in entries(40)[turn % 5 :: 7]])
            turn += 1
    print(child, flush=True)
    os.waitpid(child, 0)
    print("ended", flush=True)
"""


@pytest.fixture
def made(tmp_path):
    return reid_kit.open_gallery(tmp_path / "gallery", Model())


def test_killed_at_any_moment_it_opens_and_holds_whole_batches(made):
    random, seen = np.random.default_rng(0), set()
    place = environment() | {"PYTHONPATH": f"{REPOSITORY}:{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-c", WRITER, made.address]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=REPOSITORY, env=place, **pipes) as writers:
        for seed in range(60):
            print(seed, file=writers.stdin, flush=True)
            child = int(writers.stdout.readline())
            time.sleep(random.uniform(0.02, 0.3))
            os.kill(child, signal.SIGKILL)
            assert writers.stdout.readline() == "ended\n"
            opened = reid_kit.open_gallery(made.address, Model())
            found = {entry.path: vector for part, block in opened.batches() for entry, vector in zip(part, block)}
            assert len(found) == opened.count()
            for number, entry in enumerate(entries(40)):  # each has its own vector, of this turn or an earlier one
                if entry.path in found:
                    assert any(np.array_equal(found[entry.path], unit(40, seed=s)[number]) for s in range(seed + 1))
            seen.add(len(found))
            if seed > 10 and len(seen) > 2:  # a busy machine needs more turns to get that far
                break
        writers.stdin.close()
    made.add(entries(40), unit(40, seed=99))  # what was killed keeps nobody out
    assert made.count() == 40 and len(seen) > 2


def test_two_writers_at_once(made):
    other = reid_kit.open_gallery(made.address, Model())
    with made.writing():
        made.add(entries(2), unit(2))
        for call in (lambda: other.add(entries(2), unit(2)), lambda: other.delete(["a"])):
            with pytest.raises(InputError, match=f"is in use by another process .pid {os.getpid()}"):
                call()
        assert len(other.search(unit(1))[0]) == 2  # readers are let in
    other.add(entries(3), unit(3))


def test_a_search_while_others_write_sees_one_state(made, monkeypatch):
    made.add(entries(5), unit(5))
    other, nearest = reid_kit.open_gallery(made.address, Model()), folder.nearest_rows

    def interrupted(*arguments):
        monkeypatch.setattr(folder, "nearest_rows", nearest)
        other.delete([entries(5)[0].path])
        other.add([Entry("other")], unit(1, seed=7))  # in its place
        return nearest(*arguments)

    monkeypatch.setattr(folder, "nearest_rows", interrupted)
    paths = [match.path for match in made.search(unit(1), top=5)[0]]
    assert len(paths) == 5 and entries(5)[0].path not in paths and "other" in paths


def test_a_deleted_vector_leaves_the_disk_and_its_place_is_taken(made):
    made.add(entries(10), unit(10))
    file = made.folder / "vectors"
    held = unit(10)[3].numpy().tobytes()
    assert held in file.read_bytes()
    made.delete([entries(10)[3].path])
    assert held not in file.read_bytes()
    size = file.stat().st_size
    made.add([Entry("new")], unit(1, seed=5))
    assert file.stat().st_size == size and made.search(unit(1, seed=5))[0][0].path == "new"


def test_half_the_bytes(made, tmp_path):
    half = reid_kit.open_gallery(tmp_path / "half", Model(), number_type="float16")
    for gallery in (made, half):
        gallery.add(entries(200), unit(200))
    assert (half.folder / "vectors").stat().st_size * 2 == (made.folder / "vectors").stat().st_size
    found, exact = (gallery.search(unit(5, seed=1), top=1) for gallery in (half, made))
    assert [m[0].distance for m in found] == pytest.approx([m[0].distance for m in exact], abs=2e-3)


def test_a_full_disk_leaves_what_was_there(made, monkeypatch):
    made.add(entries(5), unit(5))
    monkeypatch.setattr(
        folder.os, "fsync", lambda number: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(InputError, match="vectors: No space left on device. What the gallery held before is intact"):
        made.add(entries(9), unit(9, seed=1))
    monkeypatch.undo()
    assert made.count() == 5 and np.array_equal(made.vectors_at(entries(5)), unit(5).numpy())
    made.add(entries(9), unit(9, seed=1))
    assert made.count() == 9


@pytest.mark.parametrize(
    "name, content", [("gallery.json", b"{"), ("gallery.json", b"[]"), ("gallery.json", b'{"kind": 1}')]
)
def test_a_damaged_description(made, name, content):
    (made.folder / name).write_bytes(content)
    with pytest.raises(InputError, match="is no gallery: its description cannot be read"):
        reid_kit.open_gallery(made.address)


def test_damaged_files(made):
    made.add(entries(5), unit(5))
    vectors = (made.folder / "vectors").read_bytes()
    (made.folder / "vectors").write_bytes(vectors[:-20])
    with pytest.raises(InputError, match="vectors is missing or shorter than its 5 entries"):
        reid_kit.open_gallery(made.address).search(unit(1))
    (made.folder / "vectors").write_bytes(vectors)
    (made.folder / "entries.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(InputError, match="entries.sqlite cannot be read"):
        reid_kit.open_gallery(made.address).search(unit(1))


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("three years of work")
    with pytest.raises(InputError, match="holds thesis.txt and no gallery.json: it is no gallery"):
        reid_kit.open_gallery(tmp_path, Model())
    with pytest.raises(InputError, match="thesis.txt is a file; a gallery is a folder"):
        reid_kit.open_gallery(tmp_path / "thesis.txt", Model())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("kind, directions", [("hnsw", WIDTH), ("hnsw", WIDTH - 2), ("ivfpq", WIDTH)])
def test_an_approximate_index_says_what_it_misses(made, kind, directions, monkeypatch):
    monkeypatch.setattr(approximate, "ADDED", 700)
    monkeypatch.setattr(approximate, "DIRECTIONS", directions)
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(60, WIDTH, generator=generator)
    vectors = F.normalize(centres.repeat(30, 1) + 0.3 * torch.randn(1800, WIDTH, generator=generator))
    made.add(entries(1800), vectors)
    made.delete([entries(1800)[0].path])
    about = made.build_approximate(kind).approximate
    assert about["kind"] == kind and about["entries"] == 1799 and 0.9 < about["recall"] <= 1
    opened = reid_kit.open_gallery(made.address)
    exact = made.nearest.__func__
    monkeypatch.setattr(folder, "nearest_rows", None)  # it is not asked
    found = opened.search(vectors[1:300], top=10)
    monkeypatch.undo()
    opened.describe_as(folder.replace(opened.description, approximate=None))
    expected = exact(opened, vectors[1:300], 10, folder.Where())
    shared = [len({m.path for m in a} & {m.path for m in b}) for a, b in zip(found, expected)]
    assert np.mean(shared) / 10 == pytest.approx(about["recall"], abs=0.05)
    assert [m[0].distance for m in found] == pytest.approx([m[0].distance for m in expected], abs=1e-6)
    made.delete([entries(1800)[5].path])  # the index is of other entries now
    assert made.search(vectors[5:6], top=1)[0][0].path != entries(1800)[5].path


def test_few_entries_need_no_approximate_index(made):
    made.add(entries(9), unit(9))
    with pytest.raises(InputError, match="9 entries need no approximate index"):
        made.build_approximate("hnsw")
    with pytest.raises(InputError, match="unknown kind of approximate index 'flat'"):
        made.build_approximate("flat")


@pytest.fixture
def photos(tmp_path):
    import cv2

    paths = [tmp_path / f"{number}.png" for number in range(12)]
    for number, path in enumerate(paths):
        cv2.imwrite(str(path), np.random.default_rng(number).integers(0, 256, (64, 32, 3), dtype=np.uint8))
    return paths


def listed(paths, **known):
    return [Entry(str(path), source="here", **known) for path in paths]


def test_index_embeds_what_is_new_or_changed(made, photos, monkeypatch):
    monkeypatch.setattr(gallery_module, "BATCH", 5)
    assert index_images(made, listed(photos[:8])) == Indexed(8, 0, 0, 0, 0, 0)
    embedded = []
    made.model.embed = lambda images, flip: embedded.extend(images) or unit(len(embedded))
    assert index_images(made, listed(photos[:8])) == Indexed(0, 0, 0, 8, 0, 0) and not embedded
    photos[2].write_bytes(photos[11].read_bytes() + b" ")
    assert index_images(made, listed(photos[1:10])) == Indexed(2, 1, 0, 6, 0, 0)
    assert len(embedded) == 3 and made.count() == 10
    assert index_images(made, listed(photos[1:10], camera="roof")) == Indexed(0, 0, 9, 0, 0, 0)
    assert made.search(unit(1), camera="roof", top=20)[0][0].stamp and made.names("camera") == ["roof"]
    made.add(listed(photos[11:12]), unit(1))
    made.add([Entry("elsewhere", source="there")], unit(1))
    photos[9].unlink()
    assert index_images(made, listed(photos[1:9], camera="roof"), prune=True) == Indexed(0, 0, 0, 8, 3, 0)
    assert {entry.path for part, _ in made.batches() for entry in part} == {*map(str, photos[1:9]), "elsewhere"}


def test_index_with_images_that_cannot_be_read(made, photos):
    photos[3].write_bytes(b"no image")
    photos[5].unlink()
    with pytest.raises(InputError, match="cannot read image .*5.png"):
        index_images(made, listed(photos))
    assert made.count() == 0
    with pytest.warns(UserWarning, match="left out"):
        assert index_images(made, listed(photos), on_bad_image="skip") == Indexed(12, 0, 0, 0, 0, 2)
    assert made.count() == 10
    with pytest.raises(InputError, match="0.png stands twice"):
        index_images(made, listed([photos[0], photos[0]]))
    boxes = [Entry(str(photos[0]), box) for box in (None, (0, 0, 9, 9), (9, 9, 20, 20))]
    assert index_images(made, boxes).new == 2 and made.count() == 12


def test_entries_are_readable_without_this_toolkit(made):
    made.add([Entry("a.jpg", identity="Ann", columns={"lot": "7"})], unit(1))
    with sqlite3.connect(made.folder / "entries.sqlite") as database:
        assert database.execute("SELECT row, path, identity, columns FROM entries").fetchall() == [
            (0, "a.jpg", "Ann", '{"lot": "7"}')
        ]
    assert stamp_of(__file__).split()[0] == str(os.path.getsize(__file__))
