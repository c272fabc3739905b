"""What a gallery promises, on both stores."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import reid_kit
from reid_kit.errors import InputError
from reid_kit.gallery import Entry, Match
from reid_kit.gallery.entries import Where
from reid_kit.image import read_image
from reid_kit.operating_point import OperatingPoint

WIDTH = 8


class Model:
    """An embedder of a few numbers: the mean colour of an image's quarters."""

    height, width, embedding_size, arguments, fingerprint = 64, 32, WIDTH, {"backbone": "quarters"}, "a" * 64
    thresholds = (OperatingPoint(0.1, 0.9, 0.001, (0.0005, 0.002), 10_000),)

    def embed(self, images, batch_size=64, flip=False):
        pixels = (image if isinstance(image, np.ndarray) else read_image(image) for image in images)
        rows = [torch.tensor(image[::8, ::8].reshape(-1)[:WIDTH].astype(np.float32)) + 1 for image in pixels]
        return F.normalize(torch.stack(rows)) if rows else torch.empty(0, WIDTH)


@pytest.fixture(params=["folder", "milvus"])
def address(request, tmp_path):
    if request.param == "milvus":
        pytest.importorskip("pymilvus", reason="the extra [milvus] is not installed")
        pytest.importorskip("milvus_lite", reason="the extra [milvus] is not installed")
    return str(tmp_path / ("gallery" if request.param == "folder" else "gallery.db"))


@pytest.fixture
def gallery(address):
    return reid_kit.open_gallery(address, Model())


def unit(count, seed=0):
    return F.normalize(torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed)))


ODD = "quote \" back \\ slash, {brace} 'é' 二 %_"


def entries(count):
    return [
        Entry(
            f"{ODD}/{n}.jpg",
            None if n % 2 else (0, 1.5, 20, 30),
            f"p{n % 7}",
            f"c{n % 3}",
            f"12:0{n % 10}",
            {"lot": ODD},
        )
        for n in range(count)
    ]


def test_search_gives_the_nearest_with_all_that_is_known_of_them(gallery, address):
    vectors, known, queries = unit(50), entries(50), unit(5, seed=1)
    assert gallery.add(known, vectors) == gallery.count() == 50
    for again in (False, True):
        found = reopened(gallery, address) if again else gallery
        ranked = found.search(queries, top=7)
        apart = 1 - queries.double() @ vectors.double().T
        for row, matches in zip(apart, ranked):
            nearest = row.argsort()[:7]
            assert [replace_distance(match) for match in matches] == [known[place] for place in nearest.tolist()]
            assert [match.distance for match in matches] == pytest.approx(row[nearest].tolist(), abs=1e-6)
        assert [match.path for match in found.search(vectors[:1], top=1)[0]] == [known[0].path]
        assert found.search(vectors[:1], top=1)[0][0].distance == pytest.approx(0, abs=1e-6)


def reopened(gallery, address):
    if address.endswith(".db"):
        gallery.client.close()  # Lite lets one in at a time
    return reid_kit.open_gallery(address)


def replace_distance(match: Match) -> Entry:
    return Entry(**{name: value for name, value in vars(match).items() if name != "distance"})


def test_names_choose_where_to_look(gallery):
    gallery.add(entries(30), unit(30))
    queries = unit(3, seed=1)
    for where, kept in (
        ({"camera": "c1"}, lambda m: m.camera == "c1"),
        ({"not_camera": ["c0", "c1"]}, lambda m: m.camera == "c2"),
        ({"identity": ("p3", "p4"), "not_camera": "c1"}, lambda m: m.identity in ("p3", "p4") and m.camera != "c1"),
    ):
        everything = gallery.search(queries, top=30)
        expected = [[m.path for m in matches if kept(m)] for matches in everything]
        assert [[m.path for m in matches] for matches in gallery.search(queries, top=30, **where)] == expected
        assert expected[0]
    with pytest.raises(InputError, match="no camera 'c9' in the gallery .*near are 'c"):
        gallery.search(queries, camera="c9")
    with pytest.raises(InputError, match="no identity 'p33' .*near are 'p3'"):
        gallery.search(queries, identity=["p33"])


def test_what_is_added_again_is_replaced_and_what_is_deleted_is_gone(gallery, address):
    known, vectors = entries(20), unit(20)
    gallery.add(known, vectors)
    gallery.add([replace(known[3], identity="new", columns={})], vectors[19:])
    assert gallery.count() == 20
    nearest = gallery.search(vectors[19:], top=2)[0]
    assert {match.path for match in nearest} == {known[3].path, known[19].path}
    assert gallery.search(vectors[19:], top=1, identity="new")[0][0].columns == {}
    assert gallery.delete([known[0], known[1].path, "not there"]) == 2
    assert gallery.delete(identity="p5") == 3 and gallery.count() == 15
    gallery = reopened(gallery, address)
    paths = {match.path for match in gallery.search(vectors[:1], top=50)[0]}
    assert len(paths) == 15 and not paths & {known[place].path for place in (0, 1, 5, 12, 19)} - {known[3].path}
    gallery.add(known, vectors)
    assert gallery.count() == 20 and len(gallery.search(vectors[:1], top=50)[0]) == 20


def test_labels_change_and_vectors_stay(gallery):
    known, vectors = entries(4), unit(4)
    gallery.add(known, vectors)
    gallery.relabel([replace(known[2], camera="roof", columns={"a": "b"})])
    match = gallery.search(vectors[2:3], top=1)[0][0]
    assert (match.camera, match.columns, match.path) == ("roof", {"a": "b"}, known[2].path)
    np.testing.assert_allclose(gallery.vectors_at(known[1:3]), vectors[1:3], atol=1e-6)


def test_it_can_be_read_whole(gallery):
    known, vectors = entries(2500), unit(2500)
    gallery.add(known, vectors)
    read = {entry.path: vector for part, block in gallery.batches() for entry, vector in zip(part, block)}
    assert len(read) == 2500
    np.testing.assert_allclose([read[entry.path] for entry in known], vectors, atol=1e-6)
    assert sum(len(part) for part, block in gallery.batches(vectors=False) if block is None) == 2500


def test_it_describes_itself(gallery, address):
    gallery.add(entries(9), unit(9))
    points = (OperatingPoint(0.3, 0.8, 0.01, (0.005, 0.02), 500),)
    assert gallery.describe()["thresholds_from"] == "the test of the training run"
    gallery.describe_as(replace(gallery.description, thresholds=points, thresholds_from="here"))
    about = reopened(gallery, address).describe()
    expected = {"entries": 9, "identities": 7, "cameras": 3, "backbone": "quarters", "height": 64, "width": 32}
    expected |= {"flip": False, "metric": "cosine", "size": WIDTH, "thresholds_from": "here", "fingerprint": "a" * 64}
    assert {name: about[name] for name in expected} == expected
    assert about["thresholds"] == ({**vars(points[0])},)


def test_images_are_read_embedded_and_named(gallery, tmp_path):
    import cv2

    paths = []
    for number in range(20):
        paths.append(tmp_path / f"{number}.png")
        cv2.imwrite(str(paths[-1]), np.random.default_rng(number).integers(0, 256, (64, 32, 3), dtype=np.uint8))
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="bad.png"):
        gallery.add([*paths[:3], tmp_path / "bad.png"])
    with pytest.warns(UserWarning, match="left out: .*bad.png"):
        assert gallery.add([*paths, tmp_path / "bad.png"], on_bad_image="skip") == 20
    matches = gallery.search([paths[4], paths[5]], top=3)
    assert [found[0].path for found in matches] == [str(paths[4]), str(paths[5])]
    status = os.stat(paths[4])
    assert matches[0][0].stamp == f"{status.st_size} {status.st_mtime_ns}"


def test_bad_input(gallery, address):
    with pytest.raises(InputError, match="is empty; add images first"):
        gallery.search(unit(1))
    gallery.add(entries(3), unit(3))
    for call, words in (
        (lambda: gallery.add(entries(2), unit(3)), r"vectors must be \(2, 8\)"),
        (lambda: gallery.add(entries(2), torch.ones(2, 9)), r"vectors must be \(2, 8\)"),
        (lambda: gallery.add(entries(2), torch.ones(2, WIDTH)), "2 vectors are not L2-normalised, first 0"),
        (lambda: gallery.add(entries(1), torch.full((1, WIDTH), torch.nan)), "1 vectors are not L2-normalised"),
        (lambda: gallery.search(torch.ones(2, WIDTH)), "not L2-normalised"),
        (lambda: gallery.search(unit(1), top=0), "top must be at least 1"),
        (lambda: gallery.add([Entry("a", camera=3)], unit(1)), "is text, got 3"),
        (lambda: gallery.add(["nowhere.jpg"], on_bad_image="ignore"), "unknown on_bad_image"),
        (lambda: gallery.add(["nowhere.jpg"]), "cannot read image .*nowhere.jpg"),
    ):
        with pytest.raises(InputError, match=words):
            call()
    assert len(gallery.search(unit(1), top=99)[0]) == gallery.count() == 3
    other = Model()
    other.fingerprint = "b" * 64
    if address.endswith(".db"):
        gallery.client.close()
    with pytest.raises(InputError, match="was made by another model: quarters at 64 x 32, weights aaaaaaaaaaaa"):
        reid_kit.open_gallery(address, other)
    for changed, words in (
        ({"flip": True}, "has flip False, asked for was True"),
        ({"metric": "l2"}, "unknown metric"),
    ):
        with pytest.raises(InputError, match=words):
            reid_kit.open_gallery(address, Model(), **changed)
    with pytest.raises(InputError, match="no gallery .*; `reid-kit index .* makes one"):
        reid_kit.open_gallery(address.replace("gallery", "none"))


def test_a_gallery_of_a_later_version(gallery, address):
    later = {**json.loads(gallery.description.as_json()), "format": 2, "unheard of": 1}
    if address.endswith(".db"):
        row = {"key": "about", "text": json.dumps(later), "vector": [0.0, 0.0]}
        gallery.client.upsert("reid_kit_about", [row])
        gallery.client.close()
    else:
        (gallery.folder / "gallery.json").write_text(json.dumps(later))
    with pytest.raises(InputError, match="a gallery of format 2, this version reads up to 1; update reid_kit"):
        reid_kit.open_gallery(address)


def test_nothing_in_a_chosen_camera(gallery):
    gallery.add(entries(6), unit(6))
    assert gallery.nearest(unit(2), 3, Where(camera=("c0",), identity=("p1",))) == [[], []]
