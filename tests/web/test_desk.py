"""What the page does, without gradio."""

import hashlib
import json
import re
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch

from reid_kit.cli.main import run
from reid_kit.errors import InputError
from reid_kit.gallery import Entry, open_gallery
from reid_kit.model.embedder import Embedder
from reid_kit.operating_point import OperatingPoint
from reid_kit.web import uploads as bounds
from reid_kit.web.desk import Desk
from reid_kit.web.server import check_users, is_local, listen, serve
from reid_kit.web.tiles import found_html, same_html
from reid_kit.web.uploads import read_uploads

POINTS = (OperatingPoint(0.1, 0.6, 1e-3, (1e-4, 2e-3), 9000), OperatingPoint(0.3, 0.9, 1e-2, (8e-3, 2e-2), 9000))


@pytest.fixture
def desk(tmp_path):
    """Six pictures of three identities, of which the last is a box of a photo, under a model of random weights."""
    torch.manual_seed(0)
    gallery = open_gallery(tmp_path / "people", Embedder("test_resnet", "none", height=64, width=32))
    random = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    entries = []
    for number in range(6):
        path = tmp_path / f"photos/{number}.png"
        cv2.imwrite(str(path), random.integers(0, 255, (64, 32, 3), np.uint8))
        box = (0, 0, 20, 40) if number == 5 else None
        entries.append(Entry(str(path), box, f"<b>p{number // 2}", f"c{number % 2}"))
    gallery.add(entries)
    return Desk(gallery, tmp_path / "searches.jsonl")


def asked(tmp_path, *numbers):
    return read_uploads([tmp_path / f"photos/{number}.png" for number in numbers], tmp_path)


def lines(desk):
    return [json.loads(line) for line in desk.log.read_text().splitlines()]


def test_a_picture_finds_itself_first_and_the_log_says_what_was_shown(desk, tmp_path):
    found = desk.find(asked(tmp_path, 2, 3), "ann", threshold=1e-4, top=3)
    assert [query["matches"][0]["identity"] for query in found["queries"]] == ["<b>p1", "<b>p1"]
    assert [[row["match"] for row in query["matches"]] for query in found["queries"]] == [[True, False, False]] * 2
    assert found["queries"][0]["verdict"] == "match" and found["queries"][0]["matches"][0]["distance"] < 1e-6
    (line,) = lines(desk)
    file = (tmp_path / "photos/2.png").read_bytes()
    assert (line["who"], line["what"], line["pictures"][0]) == ("ann", "find", hashlib.sha256(file).hexdigest())
    assert line["time"].endswith("+00:00")
    assert [row["image"] for row in line["shown"][0]] == [row["image"] for row in found["queries"][0]["matches"]]


def test_answers_are_those_of_the_gallery(desk, tmp_path):
    picture = asked(tmp_path, 5)
    found = desk.find(picture, "ann", camera=["c0"], identity=["<b>p0", "<b>p1"], top=9)["queries"][0]
    direct = desk.gallery.search([picture[0].pixels], 9, camera=["c0"], identity=["<b>p0", "<b>p1"])[0]
    assert [row["image"] for row in found["matches"]] == [match.path for match in direct] and len(direct) == 2
    assert [row["distance"] for row in found["matches"]] == [match.distance for match in direct]
    assert found["verdict"] == "not judged" and {row["match"] for row in found["matches"]} == {None}
    two = asked(tmp_path, 0, 1)
    (pooled,) = desk.find(two, "ann", pool=True)["queries"]
    vectors = desk.gallery.vectors_of([upload.pixels for upload in two]).mean(0, keepdim=True)
    direct = desk.gallery.search(torch.nn.functional.normalize(vectors))[0]
    assert [row["image"] for row in pooled["matches"]] == [match.path for match in direct]
    assert pooled["pictures"] == ["0.png", "1.png"]


def test_those_who_ask_meanwhile_are_embedded_together(desk, tmp_path, monkeypatch):
    embed, first_is_at_it, sizes = desk.gallery._embed, threading.Event(), []

    def counted(pixels):
        sizes.append(len(pixels))
        while len(sizes) == 1 and len(desk._waiting) < 3:
            first_is_at_it.set()
            time.sleep(0.001)
        return embed(pixels)

    monkeypatch.setattr(desk.gallery, "_embed", counted)
    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(desk.find, asked(tmp_path, 0), "ann", top=1)
        assert first_is_at_it.wait(60)
        others = [threads.submit(desk.find, asked(tmp_path, *numbers), "ann", top=1) for numbers in ([1], [2, 3], [4])]
        found = [[query["matches"][0] for query in each.result()["queries"]] for each in (first, *others)]
    assert sizes == [1, 4]
    assert [[row["image"][-5] for row in rows] for rows in found] == [["0"], ["1"], ["2", "3"], ["4"]]
    assert len(lines(desk)) == 4


def test_a_thread_that_began_in_the_midst_of_a_search_embeds_on_the_desks_cores(desk, tmp_path, monkeypatch):
    embed, cores, seen = desk.gallery._embed, torch.get_num_threads(), []
    monkeypatch.setattr(desk, "_cores", 2)
    monkeypatch.setattr(desk.gallery, "_embed", lambda pixels: seen.append(torch.get_num_threads()) or embed(pixels))
    try:
        torch.set_num_threads(1)  # as a search in another thread has just done
        with ThreadPoolExecutor(1) as thread:
            thread.submit(desk.find, asked(tmp_path, 0), "ann").result()
    finally:
        torch.set_num_threads(cores)
    assert seen == [2]


def test_an_error_reaches_all_who_were_embedded_together_and_the_desk_goes_on(desk, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(desk.gallery, "_embed", lambda pixels: 1 / 0)
        with ThreadPoolExecutor(3) as threads:
            asking = [threads.submit(desk.find, asked(tmp_path, number), "ann") for number in range(3)]
            assert all(isinstance(each.exception(60), ZeroDivisionError) for each in asking)
    assert desk.find(asked(tmp_path, 0), "ann", top=1)["queries"][0]["matches"][0]["image"].endswith("0.png")


def test_same_or_not(desk, tmp_path):
    a, b = desk.gallery.vectors_of([upload.pixels for upload in asked(tmp_path, 0, 1)]).double()
    distance = float(1 - a @ b)
    for threshold, verdict in ((distance + 1e-6, "same"), (distance - 1e-6, "different"), (None, "not judged")):
        answer = desk.same(asked(tmp_path, 0, 1), "ann", threshold)
        assert (answer["verdict"], answer["distance"]) == (verdict, distance)
    assert len(lines(desk)) == 3 and verdict in same_html(answer, asked(tmp_path, 0, 1))
    with pytest.raises(InputError, match="two pictures are compared, got 1"):
        desk.same(asked(tmp_path, 0), "ann")


def test_a_deleted_entry_is_never_found_again(desk, tmp_path):
    row = desk.find(asked(tmp_path, 4), "ann", top=1)["queries"][0]["matches"][0]
    assert desk.delete(row["image"], row["box"], "ann") == {"deleted": 1}
    assert row["image"] not in [r["image"] for r in desk.find(asked(tmp_path, 4), "ann")["queries"][0]["matches"]]
    assert (tmp_path / "photos/4.png").exists() and open_gallery(tmp_path / "people").count() == 5
    with pytest.raises(InputError, match="no entry"):
        desk.delete(row["image"], row["box"], "ann")
    with pytest.raises(InputError, match="a box is four numbers"):
        desk.delete(row["image"], "1 2 x", "ann")
    with pytest.raises(InputError, match="no entry"):  # the key of an entry is its path and its box
        desk.delete(str(tmp_path / "photos/5.png"), "", "ann")
    assert desk.delete(str(tmp_path / "photos/5.png"), "0 0 20 40", "ann") == {"deleted": 1}


def test_html_shows_pictures_and_no_paths_or_tags_of_names(desk, tmp_path):
    uploads = asked(tmp_path, 0)
    page = found_html(desk.find(uploads, "ann", threshold=1e-4, top=6), uploads)
    assert page.count("data:image/jpeg;base64,") == 7 and str(tmp_path) not in page
    assert "<b>p0" not in page.replace("<b>&lt;b&gt;p0", "") and page.count("class='match'") == 1
    (tmp_path / "photos/1.png").unlink()
    page = found_html(desk.find(uploads, "ann", top=6), uploads)
    assert page.count("data:image/jpeg") == 6 and "the file is gone" in page


def test_thresholds_come_with_their_rates(desk, tmp_path):
    assert desk.threshold() is None and "not known" in desk.rates(0.2)
    about = desk.gallery.description
    desk.gallery.describe_as(type(about)(**{**vars(about), "thresholds": POINTS, "thresholds_from": "a test"}))
    assert desk.threshold() == 0.1
    assert "false-match rate of 0.001 (0.0001 to 0.002, 9,000 pairs)" in desk.rates(0.1)
    assert "at most 0.2500. The nearest that was measured" in desk.rates(0.25) and "of 0.01 " in desk.rates(0.25)


@pytest.mark.parametrize("wrong", [{"threshold": -1}, {"threshold": float("nan")}, {"top": 0}, {"top": 10**9}])
def test_numbers_out_of_range_are_refused(desk, tmp_path, wrong):
    with pytest.raises(InputError, match="in 0 .. 2|between 1 and 100"):
        desk.find(asked(tmp_path, 0), "ann", **wrong)


def test_nothing_is_shown_that_cannot_be_logged(desk, tmp_path):
    desk.log = tmp_path / "missing/searches.jsonl"
    for ask in (lambda: desk.find(asked(tmp_path, 0), "ann"), lambda: desk.delete("a", "", "ann")):
        with pytest.raises(InputError, match="no search goes unlogged"):
            ask()
    with pytest.raises(InputError, match="no search goes unlogged"):
        Desk(desk.gallery, tmp_path)


def bomb(path):
    """A PNG of a few bytes that promises 60,000 x 60,000 pixels."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    parts = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def test_what_is_no_picture_gets_one_clear_message(tmp_path, monkeypatch):
    monkeypatch.setattr("reid_kit.web.uploads.image_of", lambda *_: pytest.fail("it was decoded"))
    bomb(tmp_path / "bomb.png")
    wide = np.zeros((8000, 8000, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "wide.png"), wide)
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty.png").touch()
    (tmp_path / "heavy.jpg").write_bytes(bytes(bounds.BYTES + 1))
    for name, words in (
        ("bomb.png", "too many pixels|at most 50,000,000"),
        ("wide.png", "8,000 x 8,000 pixels; at most 50,000,000"),
        ("text.jpg", "no picture that can be read"),
        ("empty.png", "no picture that can be read"),
        ("heavy.jpg", "at most 16,777,216 were expected"),
        ("absent.jpg", "No such file"),
    ):
        with pytest.raises(InputError, match=words) as told:
            read_uploads([tmp_path / name], tmp_path)
        assert name in str(told.value) and str(tmp_path) not in str(told.value)
    for files, words in (
        ([], "give a picture"),
        (None, "give a picture"),
        (["a.png"] * 1000, "1,000 pictures at once"),
    ):
        with pytest.raises(InputError, match=words):
            read_uploads(files, tmp_path)


def test_a_truncated_picture_is_refused_without_its_place(desk, tmp_path):
    file = tmp_path / "cut.png"
    file.write_bytes((tmp_path / "photos/0.png").read_bytes()[:2000])
    with pytest.raises(InputError, match="image 'cut.png' is truncated"):
        read_uploads([file], tmp_path)


def test_no_file_elsewhere_is_read(desk, tmp_path):
    (tmp_path / "uploads").mkdir()
    (tmp_path / "uploads/link.png").symlink_to(tmp_path / "photos/0.png")
    for path in ("photos/0.png", "uploads/../photos/0.png", "uploads/link.png", "uploads_/0.png"):
        with pytest.raises(InputError, match="not named by their paths"):
            read_uploads([tmp_path / path], tmp_path / "uploads")


def test_an_open_address_needs_a_password():
    assert is_local("127.0.0.1") and is_local("127.1.2.3") and is_local("::1") and is_local("localhost")
    assert not any(map(is_local, ("0.0.0.0", "::", "192.168.0.1", "example.org", "")))
    with pytest.raises(InputError, match="needs a password"):
        serve(None, "0.0.0.0", 0)
    for user in ("ann:", "ann", ":secret", "", "ann:  "):
        with pytest.raises(InputError, match="NAME:PASSWORD, neither of them empty"):
            check_users([user])
    assert check_users(["ann:a:b"]) == [("ann", "a:b")]


def test_a_port_that_is_taken_is_one_clear_error():
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(InputError, match=f"cannot serve on 127.0.0.1 port {port}: .*choose another --port"):
            listen("127.0.0.1", port)
    for port in (-1, 70_000):
        with pytest.raises(InputError, match="choose another --port"):
            listen("127.0.0.1", port)


def test_the_command_says_what_is_missing(tmp_path, capsys, monkeypatch):
    assert run("serve", [str(tmp_path / "none"), "--checkpoint", "x.pt"]) == 2
    assert re.search("no gallery .*none", capsys.readouterr().err)
    monkeypatch.setenv("REID_KIT_USER", "ann:")
    assert run("serve", [str(tmp_path / "none"), "--checkpoint", "x.pt"]) == 2
    assert "neither of them empty" in capsys.readouterr().err
