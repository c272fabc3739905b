"""Nothing of the user's is lost, and no number is silently of something else."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from reid_kit import load_dataset, load_model
from reid_kit.cli import extract
from reid_kit.cli import test as test_command
from reid_kit.cli.main import run
from reid_kit.files import LOCK, hold
from tests.end_to_end.commands import REPOSITORY, refused, snapshot, tiny

CONFIG = str(REPOSITORY / "configs/market_srt.yaml")


@pytest.fixture(scope="module")
def trained(demo_root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lost") / "run"
    keys = tiny(demo_root, folder, TRAIN__EPOCHS="2", TRAIN__EVAL_EVERY="1", TEST__METRIC="cosine")
    assert run("train", ["--config", CONFIG, *keys]) == 0
    return folder


# train


def test_a_run_folder_that_another_process_holds(trained, demo_root, capsys):
    before = snapshot(trained)
    keys = tiny(demo_root, trained, TRAIN__EPOCHS="2", TRAIN__EVAL_EVERY="1", TEST__METRIC="cosine")
    with hold(trained, ""):
        for flags in ([], ["--resume"]):
            refused(capsys, "train", ["--config", CONFIG, *flags, *keys], "is in use", f"pid {os.getpid()}")
    refused(capsys, "train", ["--config", CONFIG, *keys], "already holds a run")
    assert snapshot(trained) == before


@pytest.fixture
def linked(demo_root, tmp_path):
    """A demo whose images can be taken away."""
    root = tmp_path / "demo"
    for path in (demo_root / "people").rglob("*.jpg"):
        place = root / path.relative_to(demo_root)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(path)
    return root


def test_an_error_before_the_first_step_is_in_nobody_s_way(linked, demo_root, tmp_path, capsys):
    keys = tiny(linked, tmp_path / "run", TRAIN__EPOCHS="1")
    images = sorted((linked / "people/bounding_box_train").iterdir())
    for image in images:
        image.unlink()
        image.write_bytes(b"")
    refused(capsys, "train", ["--config", CONFIG, *keys], "is empty")
    assert (tmp_path / "run/last.pt").exists()
    for image in images:
        image.write_bytes((demo_root / image.relative_to(linked)).read_bytes())
    assert run("train", ["--config", CONFIG, *keys, "OPTIMIZER.LR", "0.001"]) == 0
    assert "LR: 0.001" in (tmp_path / "run/config.yaml").read_text()


def test_a_resume_on_other_images(trained, linked, capsys):
    """The same identities, some images fewer."""
    keys = tiny(linked, trained, TRAIN__EPOCHS="2", TRAIN__EVAL_EVERY="1", TEST__METRIC="cosine")
    before = snapshot(trained)
    sorted((linked / "people/bounding_box_train").iterdir())[0].unlink()
    refused(capsys, "train", ["--config", CONFIG, "--resume", *keys], "was trained on other images", "images")
    assert snapshot(trained) == before


def test_the_run_folder_of_an_empty_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run("train", ["--config", CONFIG, "--dry-run", *tiny(tmp_path, "''")])
    assert "OUTPUT: runs/market_srt" in capsys.readouterr().out


def test_results_come_last_and_say_how_the_weights_were_chosen(trained):
    results = json.loads((trained / "results.json").read_text())
    assert "checkpoint: best of the test-set evaluations" in results["protocol"]
    assert "inference feature, 64 x 32 pixels, whole image, no flip" in results["protocol"]
    times = {path.name: path.stat().st_mtime_ns for path in trained.iterdir() if not path.name.startswith("test_")}
    assert max(times, key=times.get) == "results.json"
    assert len(results["query_paths"]) == len(results["average_precision"])
    assert not (trained / LOCK).exists()


def test_the_best_weights_and_their_card_say_what_the_test_found_and_how_it_measured(trained, tmp_path):
    results, model = json.loads((trained / "results.json").read_text()), load_model(trained / "best.pt", "cpu")
    assert model.facts["protocol"] == results["protocol"] and model.facts["metrics"] == results["measures"]
    model.save_pretrained(tmp_path / "shared")
    card = (tmp_path / "shared/README.md").read_text()
    assert f"Protocol: {results['protocol']}" in card and f"- mAP: {100 * results['mAP']:.1f} %" in card


def test_thresholds_are_in_the_units_of_embed(trained, demo_root):
    model = load_model(trained / "best.pt", "cpu")
    dataset = load_dataset("demo", demo_root)
    query, gallery = (model.embed([r.path for r in side]).double() for side in (dataset.query, dataset.gallery))
    distances = (1 - query @ gallery.T).numpy()
    who, where = (np.array([[getattr(r, name) for r in dataset.gallery]]) for name in ("identity", "camera"))
    mine = np.array([[r.identity, r.camera] for r in dataset.query])
    junk = who == -1
    same = who == mine[:, :1]
    matches = distances[same & (where != mine[:, 1:]) & ~junk]
    others = distances[~same & ~junk]
    points = json.loads((trained / "results.json").read_text())["thresholds"]
    assert model.thresholds and len(points) == len(model.thresholds)
    for point, noted in zip(model.thresholds, points):
        assert point.pairs == len(others) and noted["threshold"] == point.threshold
        assert noted["asked"] * len(others) >= 1
        assert point.false_match_rate == pytest.approx((others <= point.threshold).mean(), abs=2 / len(others))
        assert point.true_match_rate == pytest.approx((matches <= point.threshold).mean(), abs=2 / len(matches))
        assert point.interval[0] <= point.false_match_rate <= point.interval[1]
        assert point.false_match_rate <= noted["asked"]


# test


def test_results_of_other_settings_go_to_other_folders(trained, demo_root, tmp_path, capsys):
    """Each in its own, and the same command again finds it."""
    folders = {}
    best, last = ["--checkpoint", trained / "best.pt"], ["--checkpoint", trained / "last.pt"]
    link = tmp_path / "demo"
    link.mkdir()
    for name in ("people", "garments"):
        (link / name).symlink_to(demo_root / name)
    ways = [
        best, last, [*best, "TEST.FLIP", "true"], [*best, "TEST.METRIC", "euclidean"], [*best, "DATA.HEIGHT", "96"],
        [*best, "TEST.AVERAGE_PRECISION", "trapezoid"], [*best, "--rerank"], [*best, "--rerank", "--k1", "5"],
        [*best, "--rerank", "--lambda", "0"], [*best, "--expand", "2"], [*best, "--root", link], best,
    ]  # fmt: skip
    for way in ways:
        assert run("test", [str(argument) for argument in way]) == 0
        printed = capsys.readouterr().out
        folder = next(line for line in printed.splitlines() if "results.json" in line).split(": ")[1].split(",")[0]
        results = json.loads(Path(folder).read_text())
        assert results["protocol"] in printed
        folders.setdefault(folder, []).append(results["protocol"])
    assert len(folders) == len(ways) - 1
    lines = [line for found in folders.values() for line in set(found)]
    assert len(set(lines)) == len(lines) - 1  # all but the root is told by the protocol line
    assert any("checkpoint: last epoch" in line for line in lines) and any("96 x 32 pixels" in line for line in lines)
    assert any("(k1 5, k2 5, lambda 0.3)" in line for line in lines) and any("lambda 0)" in line for line in lines)


def test_a_folder_of_somebody_s_own_is_not_written_in(trained, capsys):
    own = trained / "test_demo_metric_euclidean_flip"
    own.mkdir()
    (own / "results.md").write_text("three years of work")
    arguments = ["--checkpoint", trained / "best.pt", "TEST.FLIP", "true", "TEST.METRIC", "euclidean"]
    refused(capsys, "test", arguments, str(own), "it holds results.md", "left alone")
    assert snapshot(own) == {own / "results.md": b"three years of work"}


def test_checkpoints_and_files_of_one_name_have_a_row_each(trained, tmp_path, capsys):
    for place, seed in (("a", 0), ("b", 1)):
        (tmp_path / place / "run").mkdir(parents=True)
        (tmp_path / place / "run/best.pt").write_bytes((trained / "best.pt").read_bytes())
        random = np.random.default_rng(seed)
        split = np.array(["query"] * 5 + ["gallery"] * 15)
        arrays = {"features": random.normal(size=(20, 4)), "identities": np.arange(20) % 5, "split": split}
        np.savez(tmp_path / place / "f.npz", **arrays)
    both = [str(tmp_path / place / "run/best.pt") for place in "ab"] + [str(trained / "last.pt")]
    assert run("test", [text for path in both for text in ("--checkpoint", path)]) == 0
    printed = capsys.readouterr().out
    assert all(f"| {path} on demo" in printed for path in both[:2]) and "| run on demo" not in printed
    files = [str(tmp_path / place / "f.npz") for place in "ab"]
    assert run("test", [text for path in [*files, files[0]] for text in ("--features", path)]) == 0
    printed = capsys.readouterr().out
    assert all(printed.count(f"| {path} ") == 1 for path in files)
    assert all(Path(path).with_name("test_f.npz").joinpath("results.json").exists() for path in files)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["MODEL.BACKBONE", "resnet50", "OPTIMIZER.LR", "5"], ["MODEL.BACKBONE, OPTIMIZER.LR would have no effect"]),
        (["TRAIN.SEED", "1"], ["TRAIN.SEED would have no effect"]),
        (["TRAIN.AMP", "false", "DATA.VALIDATION", "0.2"], ["TRAIN.AMP, DATA.VALIDATION would have no effect"]),
        (["DATA.CACHE", "ram"], ["DATA.CACHE ram would have no effect", "disk"]),
        (["--alpha", "2"], ["--alpha would have no effect", "--expand"]),
        (["--k1", "2"], ["--k1 would have no effect", "--rerank"]),
        (["--lambda", "0"], ["--lambda would have no effect"]),
        (["--expand", "2", "--alpha", "inf"], ["alpha must be at least 0 and finite"]),
        (["--expand", "2", "--alpha", "nan"], ["alpha must be at least 0 and finite"]),
        (["--expand", "0"], ["--expand takes a number"]),
        (["--features", "f.npz"], ["--checkpoint would have no effect"]),
        (["MODEL.BACKBON", "x"], ["unknown config key", "MODEL.BACKBONE"]),
    ],
    ids=str,
)
def test_what_can_have_no_effect_is_refused(trained, capsys, arguments, words):
    before = snapshot(trained)
    refused(capsys, "test", ["--checkpoint", trained / "best.pt", *arguments], *words)
    assert snapshot(trained) == before


def test_features_are_not_of_a_dataset(tmp_path, capsys):
    for more in (["--data", "demo"], ["--root", "x"], ["TEST.FLIP", "true"], ["DATA.HEIGHT", "9"]):
        refused(capsys, "test", ["--features", tmp_path / "f.npz", *more], f"{more[0]} would have no effect")


@pytest.mark.parametrize(
    "notes, words",
    [
        ("no json", "its notes cannot be read"),
        ("[1]", "its notes must hold names and values"),
        ('{"metric": "manhattan"}', "unknown metric 'manhattan'"),
        ('{"metric": ["cosine"]}', "unknown metric"),
        ('{"protocol": {"camera_aware": 3, "same_set": false, "ranks": [1], "nmi": false}}', "another kind"),
        ('{"protocol": {"same_set": false, "ranks": [1], "nmi": false, "x": 1}}', "protocol cannot be read"),
        ('{"protocol": {"ranks": ["a"]}}', "ranks are whole numbers"),
        ('{"protocol": {"camera_aware": true, "ranks": [1]}}', "asks for queries or cameras"),
    ],
)
def test_notes_that_this_toolkit_did_not_write(tmp_path, capsys, notes, words):
    split = np.array(["query"] * 2 + ["gallery"] * 4)
    arrays = {"features": np.eye(6), "identities": np.arange(6) % 2, "split": split, "notes": np.array(notes)}
    np.savez(tmp_path / "f.npz", **arrays)
    refused(capsys, "test", ["--features", tmp_path / "f.npz"], "f.npz", words)
    assert [path.name for path in tmp_path.iterdir()] == ["f.npz"]


def test_names_of_folders():
    assert test_command.folder_name("demo", {}) == "test_demo"
    assert test_command.folder_name("demo", {"flip": True, "alpha": 3.0}) == "test_demo_flip_alpha_3.0"
    one, two = (test_command.folder_name("demo", {"root": root}) for root in ("/a/b", "/a/c"))
    assert one != two and "/" not in one


# extract


def test_extract_leaves_what_it_did_not_make(trained, demo_root, tmp_path, capsys):
    photo = sorted((demo_root / "people/query").iterdir())[0]
    arguments = ["--checkpoint", trained / "best.pt", "--images", photo, "--output", tmp_path / "out.npz"]
    for folder, content in (("out.partial", "thesis.txt"), ("out.npz.partial", "features")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / content).write_text("three years of work")
    before = snapshot(tmp_path)
    refused(capsys, "extract", arguments, "out.npz.partial", "it holds features", "left alone")
    assert snapshot(tmp_path) == before
    (tmp_path / "out.npz.partial/features").unlink()
    assert run("extract", [str(argument) for argument in arguments]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"out.npz", "out.partial"}
    assert snapshot(tmp_path / "out.partial") == {tmp_path / "out.partial/thesis.txt": b"three years of work"}
    refused(capsys, "extract", arguments, "out.npz exists")


def test_extract_at_the_same_time_is_refused(trained, demo_root, tmp_path, capsys):
    folder = demo_root / "people/query"
    arguments = ["--checkpoint", trained / "best.pt", "--images", folder, "--output", tmp_path / "o.npz"]
    with hold(tmp_path / "o.npz.partial", ""):
        refused(capsys, "extract", arguments, "is in use", f"pid {os.getpid()}")
    refused(capsys, "extract", [*arguments, "--root", "x"], "--root would have no effect")
    refused(capsys, "extract", [*arguments, "SAMPLER.P", "3"], "SAMPLER.P would have no effect")


def test_rows_that_are_gone_are_not_made_up(trained, demo_root, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(extract, "PART", 5)
    embed = extract.embed_records
    calls = []

    def broken(*parameters):
        calls.append(0)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return embed(*parameters)

    monkeypatch.setattr(extract, "embed_records", broken)
    folder = demo_root / "people/query"
    arguments = ["--checkpoint", trained / "best.pt", "--images", folder, "--output", tmp_path / "o.npz"]
    assert run("extract", [str(argument) for argument in arguments]) == 130
    (tmp_path / "o.npz.partial/features").unlink()
    refused(capsys, "extract", arguments, "its rows do not reach as far")


def test_an_existing_picture_is_not_written_over(tmp_path, capsys):
    (tmp_path / "weights.png").write_text("mine")
    refused(capsys, "plot_loss_weights", ["--output", tmp_path / "weights.png"], "weights.png exists")
    assert (tmp_path / "weights.png").read_text() == "mine"


def test_the_checkpoint_keeps_how_it_was_chosen(trained):
    content = {name: torch.load(trained / f"{name}.pt", weights_only=True)["chosen"] for name in ("best", "last")}
    assert content == {"best": "best of the test-set evaluations", "last": "last epoch"}
