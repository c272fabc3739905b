"""index, search, verify, calibrate and group, as a user runs them."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
import safetensors.torch
import timm
import torch

import reid_kit
from reid_kit.cli.main import run
from reid_kit.config import load_config
from reid_kit.data.readers import load_dataset
from reid_kit.gallery import open_gallery
from reid_kit.model.checkpoint import save_checkpoint
from reid_kit.model.embedder import Embedder
from tests.end_to_end.commands import tiny


@pytest.fixture(scope="module")
def home(demo_root, tmp_path_factory):
    """A folder with a checkpoint of random weights and photos, and the table of them."""
    home = tmp_path_factory.mktemp("home")
    torch.manual_seed(0)
    for name, size in (("model", 8), ("other", 6)):
        model = Embedder("test_resnet", "none", embedding_size=size, height=64, width=32)
        config = load_config(None, [*tiny(demo_root, home), "MODEL.EMBEDDING_SIZE", str(size)])
        save_checkpoint(home / f"{name}.pt", model, config=config.dump(), dataset="demo")
    (home / "photos").mkdir()
    rows = []
    for record in load_dataset("demo", demo_root).query:
        name = f"photo {len(rows):03}.jpg"
        shutil.copy(record.path, home / "photos" / name)
        rows.append(
            f"photos/{name};{record.identity_name}, “Ann”;door {record.camera_name};2026-11-25;aisle {len(rows)}"
        )
    (home / "photos.csv").write_text("\ufeff" + "\r\n".join(["Path;identity;camera;time;shelf", *rows]) + "\r\n")
    return home


@pytest.fixture
def indexed(home, tmp_path, monkeypatch, capsys):
    """The name of a gallery of the table, in the current folder."""
    monkeypatch.chdir(tmp_path)
    assert run("index", ["people", "--checkpoint", str(home / "model.pt"), "--table", str(home / "photos.csv")]) == 0
    capsys.readouterr()
    return ["people", "--checkpoint", str(home / "model.pt")]


def photo(home, number=0):
    return sorted((home / "photos").iterdir())[number]


def answers(folder):
    return json.loads((folder / "matches.json").read_text())["queries"]


def test_all_that_a_table_says_is_found_again(home, indexed, tmp_path, capsys):
    asked = ["--image", str(photo(home, 3)), str(photo(home, 4)), "--top", "4", "--output", "found"]
    assert run("search", [*indexed, *asked]) == 0
    printed = capsys.readouterr().out
    assert "“Ann”" in printed and "not judged" in printed and "no threshold is known" in printed
    first, second = answers(tmp_path / "found")
    assert len(first["matches"]) == 4 and first["verdict"] == "not judged"
    best = first["matches"][0]
    assert best["path"] == str(photo(home, 3)) and best["distance"] == pytest.approx(0, abs=1e-6)
    assert (
        best["columns"] == {"shelf": "aisle 3"} and best["time"] == "2026-11-25" and best["camera"].startswith("door ")
    )
    rows = list(csv.DictReader((tmp_path / "found/matches.csv").read_text().splitlines()))
    assert len(rows) == 8 and rows[0]["shelf"] == "aisle 3" and rows[0]["rank"] == "1"
    assert [row["path"] for row in rows[4:]] == [match["path"] for match in second["matches"]]
    assert run("search", [*indexed, *asked[:-2], "--top", "1", "--output", "found"]) == 0  # its own files are replaced
    assert len(answers(tmp_path / "found")[0]["matches"]) == 1
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/matches.csv").write_text("three years of work")
    assert run("search", [*indexed, *asked[:-1], "thesis"]) == 2
    assert (tmp_path / "thesis/matches.csv").read_text() == "three years of work"


def test_calibrated_thresholds_decide(home, indexed, tmp_path, capsys):
    assert run("search", [*indexed, "--image", str(photo(home)), "--false-match-rate", "0.01"]) == 2
    assert "no threshold is known: calibrate the gallery" in capsys.readouterr().err
    assert run("calibrate", ["people", "--false-match-rate", "0.1", "0.01", "1e-9"]) == 0
    printed = capsys.readouterr().out
    assert "pairs across cameras" in printed and "1e-09: no threshold; it is less than one of" in printed
    points = open_gallery("people").description.thresholds
    for rate, point in zip((0.01, 0.1), points, strict=True):
        assert point.interval[0] <= point.false_match_rate <= rate and point.false_match_rate < point.interval[1]
        assert point.pairs > 100
    for rate, expected in (("0.1", points[1]), ("0.05", points[0])):
        asked = ["--image", str(photo(home)), "--false-match-rate", rate, "--top", "999", "--output", rate]
        assert run("search", [*indexed, *asked]) == 0
        found = answers(tmp_path / rate)[0]
        assert found["verdict"] == "match" and max(m["distance"] for m in found["matches"]) <= expected.threshold
        printed = capsys.readouterr().out
        assert f"at most {expected.threshold:.4f}: on" in printed and "entries, fewer than --top 999" in printed
    whole = open_gallery("people", home / "model.pt").search([photo(home)], top=999)[0]
    assert [m["path"] for m in found["matches"]] == [m.path for m in whole if m.distance <= points[0].threshold]
    assert run("search", [*indexed, "--image", str(photo(home)), "--false-match-rate", "1e-5"]) == 2
    assert "no threshold is known for a false-match rate of 1e-05: the strictest" in capsys.readouterr().err
    pair = [str(photo(home)), str(photo(home, 1))]
    for threshold, word in (("0", "different"), ("2", "same")):
        assert run("verify", [*indexed[1:], "--threshold", threshold, *pair]) == 0
        assert capsys.readouterr().out.startswith(f"{word}: cosine distance ")
    assert (
        run("verify", [*indexed[1:], "--gallery", "people", pair[0], pair[0]]) == 2
    )  # below the default rate there is none
    assert run("verify", [*indexed[1:], "--gallery", "people", "--false-match-rate", "0.1", pair[0], pair[0]]) == 0
    assert "same: cosine distance" in capsys.readouterr().out


def test_nothing_near_enough_is_no_match(home, indexed, tmp_path, capsys):
    asked = ["--image", str(photo(home)), "--not-camera", "door c1", "--threshold", "0", "--output", "none"]
    camera = open_gallery("people", home / "model.pt").search([photo(home)], top=1)[0][0].camera
    asked[3] = camera
    assert run("search", [*indexed, *asked]) == 0
    assert "no match" in capsys.readouterr().out
    found = answers(tmp_path / "none")[0]
    assert found["verdict"] == "no match" and found["matches"] == [] and found["nearest"] > 0
    assert next(csv.DictReader((tmp_path / "none/matches.csv").read_text().splitlines()))["verdict"] == "no match"


def test_pooled_and_reranked(home, indexed, tmp_path):
    pair = [str(photo(home)), str(photo(home, 1))]
    assert run("search", [*indexed, "--image", *pair, "--pool", "--top", "3", "--output", "pooled"]) == 0
    (found,) = answers(tmp_path / "pooled")
    assert found["query"] == pair
    model = reid_kit.load_model(home / "model.pt")
    mean = torch.nn.functional.normalize(model.embed(pair).mean(0, keepdim=True))
    expected = open_gallery("people").search(mean, top=3)[0]
    assert [match["path"] for match in found["matches"]] == [match.path for match in expected]
    assert run("search", [*indexed, "--image", *pair, "--rerank", "--top", "30", "--output", "reranked"]) == 0
    gallery = open_gallery("people")
    entries, vectors = next(gallery.batches())
    for query, found in zip(model.embed(pair), answers(tmp_path / "reranked")):
        order = reid_kit.k_reciprocal_distance(query[None], vectors)[0].argsort()
        assert [match["path"] for match in found["matches"]][:10] == [
            entries[place].path for place in order[:10].tolist()
        ]


def test_a_gallery_follows_its_folder(home, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(home / "photos", "photos")
    asked = ["album", "--checkpoint", str(home / "model.pt"), "--images", "photos"]
    count = len(list((tmp_path / "photos").iterdir()))
    assert run("index", asked) == 0 and f"{count} new" in capsys.readouterr().out
    (tmp_path / "photos/photo 000.jpg").unlink()
    shutil.copy("photos/photo 001.jpg", "photos/photo 002.jpg")
    with pytest.warns(UserWarning, match="1 files of matches are gone, as .*photo 000.jpg"):
        assert run("search", [*asked[:3], "--image", str(photo(home)), "--output", "found"]) == 0
    assert run("index", [*asked, "--prune"]) == 0
    assert f"1 changed, {count - 2} unchanged, 1 removed" in capsys.readouterr().out
    (tmp_path / "photos/photo 003.jpg").write_bytes(b"")
    assert run("index", asked) == 2 and "photo 003.jpg is empty" in capsys.readouterr().err
    with pytest.warns(UserWarning, match="left out: .*photo 003.jpg is empty"):
        assert run("index", [*asked, "DATA.ON_BAD_IMAGE", "skip"]) == 0


def test_boxes_of_one_photo_are_entries(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "boxes.csv").write_text(
        f"path,identity,x1,y1,x2,y2\n{photo(home)},top,0,0,30,40\n{photo(home)},bottom,0,40,30,90\n{photo(home)},all,,,,\n"
    )
    assert run("index", ["boxes", "--checkpoint", str(home / "model.pt"), "--table", "boxes.csv"]) == 0
    model, whole = reid_kit.load_model(home / "model.pt"), reid_kit.gallery.gallery.read_image(photo(home))
    gallery = open_gallery("boxes", model)
    for box, identity in (((0, 0, 30, 40), "top"), ((0, 40, 30, 90), "bottom")):
        match = gallery.search(model.embed_boxes(whole, [box]), top=1)[0][0]
        assert match.identity == identity and match.box == box and match.distance == pytest.approx(0, abs=1e-6)
    assert gallery.search([photo(home)], top=1)[0][0].identity == "all"


def test_groups_are_a_table_to_train_on(home, indexed, tmp_path, capsys):
    assert run("group", ["people", "--output", "grouped", "--distance", "0.6"]) == 0
    assert "BCubed, precision" in capsys.readouterr().out
    tables = [tmp_path / f"grouped/{name}.csv" for name in ("groups", "ungrouped")]
    grouped, rows = (list(csv.DictReader(table.read_text().splitlines())) for table in tables)
    assert {"path", "identity", "camera"} == grouped[0].keys() and grouped[0]["camera"].startswith("door ")
    assert sorted(row["path"] for row in grouped + rows) == [str(path) for path in sorted((home / "photos").iterdir())]
    assert run("group", ["people", "--output", "grouped", "--distance", "0.3"]) == 0  # in place of what it wrote before
    count = json.loads((tmp_path / "grouped/groups.json").read_text())["groups"]
    assert len(list((tmp_path / "grouped/sheets").iterdir())) == count
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/groups.csv").write_text("corrected for three years")
    assert run("group", ["people", "--output", "thesis"]) == 2
    assert "holds groups.csv, and is left alone" in capsys.readouterr().err


def test_a_backbone_without_training(home, demo_root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=0)
    safetensors.torch.save_file(network.state_dict(), "weights.safetensors")
    asked = ["base", "--config", "demo_srt", "--images", str(home / "photos"), "DATA.HEIGHT", "64", "DATA.WIDTH", "32"]
    assert run("index", [*asked, "MODEL.BACKBONE", "test_resnet"]) == 2
    assert "demo_srt has MODEL.WEIGHTS none: without training its features say nothing" in capsys.readouterr().err
    asked += ["MODEL.BACKBONE", "test_resnet", "MODEL.WEIGHTS", "weights.safetensors"]
    assert run("index", asked) == 0
    entries, vectors = next(open_gallery("base").batches())
    pixels = Embedder("test_resnet", "weights.safetensors", height=64, width=32)
    expected = pixels.embed([entry.path for entry in entries])
    torch.testing.assert_close(torch.from_numpy(vectors), expected)
    asked = asked[1:3] + asked[5:]
    assert run("extract", [*asked, "--images", str(home / "photos"), "--output", "a.npz", "TEST.METRIC", "cosine"]) == 0
    torch.testing.assert_close(torch.nn.functional.normalize(torch.from_numpy(np.load("a.npz")["features"])), expected)
    capsys.readouterr()
    assert run("test", [*asked, "--data", "demo", "--root", str(demo_root)]) == 0
    printed = capsys.readouterr().out
    assert (
        "tested is test_resnet with its pre-trained weights as it is" in printed
        and "demo_srt-untrained on demo" in printed
    )
    assert list(tmp_path.glob("runs/demo_srt-untrained/*/results.json"))


@pytest.mark.parametrize(
    "command, words",
    [
        ("search none --checkpoint MODEL --image PHOTO", "no gallery none; `reid-kit index none"),
        ("search people --checkpoint OTHER --image PHOTO", "was made by another model: test_resnet at 64 x 32"),
        ("search people --checkpoint MODEL", "nothing to search for: give --image FILE or --images DIR"),
        ("search people --image PHOTO", "give either --checkpoint FILE, or --config FILE"),
        ("search people --checkpoint MODEL --image nowhere.jpg", "nowhere.jpg"),
        ("search people --checkpoint MODEL --image PHOTO --camera door", "no camera 'door' .*near are 'door c"),
        ("search people --checkpoint MODEL --image PHOTO --top 0", "--top must be at least 1"),
        (
            "search people --checkpoint MODEL --image PHOTO --threshold 3",
            "--threshold lies on the cosine distance, in 0 .. 2",
        ),
        ("search people --checkpoint MODEL --image PHOTO --threshold nan", "--threshold lies on the cosine distance"),
        ("search people --checkpoint MODEL --image PHOTO --threshold 1 --false-match-rate 0.1", "not both"),
        ("index people --checkpoint MODEL", "give one of --images DIR, --table FILE, --data NAME and"),
        ("index people --checkpoint OTHER --images PHOTOS", "was made by another model"),
        ("index people --checkpoint MODEL --images PHOTOS TEST.FLIP true", "has flip False, asked for was True"),
        ("index people --checkpoint MODEL --images PHOTOS --ann hnsw", "entries need no approximate index"),
        ("index PHOTOS --checkpoint MODEL --images PHOTOS", "is no gallery; choose another"),
        ("index people --checkpoint MODEL --table nowhere.csv", "nowhere.csv"),
        ("calibrate people --false-match-rate 2", "a false-match rate lies above 0 and is at most 1"),
        ("calibrate people --false-match-rate 1e-9", "too few labelled entries for these rates; nothing was kept"),
        ("group people --output grouped --distance 1", "distance must lie between 0 and 1"),
    ],
)
def test_bad_input(home, indexed, command, words, capsys, tmp_path):
    known = {"MODEL": home / "model.pt", "OTHER": home / "other.pt", "PHOTO": photo(home), "PHOTOS": home / "photos"}
    name, *arguments = [str(known.get(word, word)) for word in command.split()]
    assert run(name, arguments) == 2
    error = capsys.readouterr().err
    assert re.search(words, error), error
    assert not (tmp_path / "grouped").exists()


@pytest.mark.parametrize(
    "text, words",
    [
        ("identity,camera\na,b\n", "the header must name path"),
        ("path,path\na,b\n", "each column once"),
        ("path,identity\n", "has a header and no rows"),
        ("path,identity\na.jpg\n", "table.csv:2: 1 fields, the header has 2"),
        ("path,identity\n,x\n", "table.csv:2: path must not be empty"),
        ("path,x1,y1,x2,y2\na.jpg,1,2,3\n", "table.csv:2: 4 fields"),
        ("path,x1,y1,x2,y2\na.jpg,1,2,3,\n", "table.csv:2: a box has all of x1, y1, x2, y2 or none"),
        ("path,x1,y1,x2,y2\na.jpg,1,2,3,1e999\n", "table.csv:2: box (1.0, 2.0, 3.0, inf); expected finite numbers"),
        ("path,x1,y1,x2,y2\na.jpg,5,2,3,4\n", "is inverted or empty"),
        ("path\na.jpg\n./a.jpg\n", "cannot read image"),
    ],
)
def test_tables_that_cannot_be_read(home, tmp_path, capsys, text, words):
    (tmp_path / "table.csv").write_text(text)
    asked = ["--checkpoint", str(home / "model.pt"), "--table", str(tmp_path / "table.csv")]
    assert run("index", [str(tmp_path / "gallery"), *asked]) == 2
    assert words in capsys.readouterr().err and not (tmp_path / "gallery/vectors").exists()
