"""The smaller commands, and that both ways to call them are the same."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from reid_kit import evaluate_retrieval, load_model
from reid_kit.build import build_loader, label_map
from reid_kit.cli import compare, make_demo
from reid_kit.cli.main import COMMANDS, run
from reid_kit.config import config_from_text
from reid_kit.data.readers import load_dataset
from tests.end_to_end.commands import REPOSITORY, tiny
from tests.end_to_end.commands import command as command_line


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_tool_and_a_help(command, capsys):
    tool = (REPOSITORY / f"tools/{command}.py").read_text()
    assert 'if __name__ == "__main__":' in tool  # processes that are not forked import it
    with pytest.raises(SystemExit) as end:
        run(command, ["--help"])
    assert end.value.code == 0
    assert "usage" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_a_help_or_a_mistyped_option_waits_for_no_library(command):
    """Importing torch alone takes seconds."""
    check = f"""
import sys
from reid_kit.cli.main import run
for arguments in (["--help"], ["--confg", "x"]):
    try:
        run({command!r}, arguments)
    except SystemExit:
        pass
heavy = {{"torch", "timm", "albumentations", "sklearn", "matplotlib"}} & set(sys.modules)
sys.exit(str(heavy) if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout and "unrecognized" in done.stderr or "required" in done.stderr


@pytest.mark.parametrize("text", ["[gloo/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:5", "NCCL error"])
def test_a_lost_process_is_one_line(monkeypatch, capsys, text):
    def main(arguments):
        raise RuntimeError(text)

    monkeypatch.setattr(make_demo, "main", main)
    with pytest.raises(RuntimeError):
        run("make_demo", [])
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run("make_demo", []) == 2
    assert capsys.readouterr().err == "error: another process ended; its error stands above\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_any_command(monkeypatch, capsys, number):
    monkeypatch.setattr(make_demo, "main", lambda arguments: os.kill(os.getpid(), number))
    before = signal.getsignal(number)
    assert run("make_demo", []) == 130
    assert capsys.readouterr().err == "stopped\n" and signal.getsignal(number) == before


def test_a_signal_while_libraries_are_imported(tmp_path):
    (tmp_path / "torch.py").write_text("import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(60)")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        command_line("train", "--config", "x"), capture_output=True, text=True, env={"PYTHONPATH": path}
    )
    assert (done.returncode, done.stderr) == (130, "stopped\n")


def test_the_console_script_lists_them():
    done = subprocess.run([sys.executable, "-m", "reid_kit.cli.main", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert all(command.replace("_", "-") in done.stdout for command in COMMANDS)


def test_the_demo_is_the_same_every_time(tmp_path, demo_root):
    from reid_kit.data.demo import write_demo

    write_demo(tmp_path / "demo", train=12, test=8)
    files = sorted(path.relative_to(demo_root) for path in demo_root.rglob("*") if path.is_file())
    assert files == sorted(
        path.relative_to(tmp_path / "demo") for path in (tmp_path / "demo").rglob("*") if path.is_file()
    )
    assert all((demo_root / file).read_bytes() == (tmp_path / "demo" / file).read_bytes() for file in files)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "demo").rglob("*")}
    write_demo(tmp_path / "demo", train=12, test=8)  # already there: left alone
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "demo").rglob("*")} == before
    write_demo(tmp_path / "demo", train=3, test=2)  # a demo, but another one: rendered again
    assert len(list((tmp_path / "demo/people/bounding_box_train").iterdir())) < 50


def test_a_folder_of_something_else_is_not_touched(tmp_path, capsys):
    (tmp_path / "photo.jpg").write_bytes(b"mine")
    assert run("make_demo", ["--root", str(tmp_path)]) == 2
    assert "is not this demo data" in capsys.readouterr().err
    assert (tmp_path / "photo.jpg").read_bytes() == b"mine"


def test_the_doctor_finds_the_demo_fit(demo_root, capsys):
    assert run("doctor", ["--data", "demo", "--root", str(demo_root)]) == 0
    assert "fit to use" in capsys.readouterr().out


def test_the_doctor_names_a_broken_image(demo_root, capsys):
    image = sorted((demo_root / "people/query").iterdir())[0]
    whole = image.read_bytes()
    try:
        image.write_bytes(b"")
        assert run("doctor", ["--data", "demo", "--root", str(demo_root)]) == 2
        printed = capsys.readouterr()
        assert f"problem: image {image} is empty" in printed.out and "1 problems" in printed.err
    finally:
        image.write_bytes(whole)


def test_compare_trains_each_once(demo_root, tmp_path, capsys):
    configs = [str(REPOSITORY / f"configs/market_{name}.yaml") for name in ("softmax", "srt")]
    keys = tiny(demo_root, tmp_path, TRAIN__EPOCHS="1")
    for key in ("LOSS.TERMS", "TRAIN.OUTPUT"):  # of the configs, and set for each run
        at = keys.index(key)
        keys = [*keys[:at], *keys[at + 2 :]]
    arguments = [*configs, *keys[:2], "--seeds", "2", "--output", str(tmp_path / "compare"), *keys[2:]]
    assert run("compare", arguments) == 0
    first = capsys.readouterr().out
    assert first.count("epoch 1/1") == 4
    assert "market_softmax" in (tmp_path / "compare/compare.md").read_text() and " ± " in first
    assert len((tmp_path / "compare/compare.csv").read_text().splitlines()) == 5
    assert run("compare", arguments) == 0
    assert "epoch 1/1" not in capsys.readouterr().out


def test_compare_prints_what_the_tables_of_each_set_print():
    rows = {
        "people": [{"mAP": 0.5, "CMC@1": 0.25}, {"mAP": 0.7, "CMC@1": 0.75}],
        "street": [{"mAP": 0.1, "CMC@20": 1.0}],
    }
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in compare.markdown(rows).splitlines()]
    assert table[0] == ["", "mAP", "CMC@1", "CMC@20", "seeds"]
    assert table[2] == ["people", "60.0 ± 14.1", "50.0 ± 35.4", "-", "2"]
    assert table[3] == ["street", "10.0", "-", "100.0", "1"]
    lines = compare.comma_separated(rows).splitlines()
    assert lines[0] == "config,seed,mAP,CMC@1,CMC@20" and lines[3] == "street,0,0.1,,1.0"


def test_levels_are_trained_and_tested(demo_root, tmp_path, capsys):
    keys = tiny(
        demo_root,
        tmp_path / "run",
        TRAIN__EPOCHS="1",
        MODEL__LEVELS="[low, middle, high]",
        MODEL__EMBEDDING_SIZE="8",
        LOSS__TERMS="[{name: ranked_list}]",
        TEST__METRIC="cosine",
    )
    assert run("train", ["--config", str(REPOSITORY / "configs/market_srt.yaml"), *keys]) == 0
    trained = json.loads((tmp_path / "run/results.json").read_text())
    assert run("test", ["--checkpoint", str(tmp_path / "run/best.pt")]) == 0
    tested = json.loads((tmp_path / "run/test_demo/results.json").read_text())
    assert tested["mAP"] == trained["mAP"]
    dataset, device = load_dataset("demo", demo_root), torch.device("cpu")
    for level in ("low", "high"):  # each alone, from the same checkpoint
        assert run("test", ["--checkpoint", str(tmp_path / "run/best.pt"), "TEST.LEVELS", f"[{level}]"]) == 0
        found = (tmp_path / "run").glob("test_demo*/results.json")
        alone = json.loads(max(found, key=lambda path: path.stat().st_mtime_ns).read_text())
        assert f"levels {level}" in alone["protocol"]
        model = load_model(tmp_path / "run/best.pt", "cpu")
        images = [[record.path for record in side] for side in (dataset.query, dataset.gallery)]
        place = ["low", "middle", "high"].index(level)
        sides = [model.embed(side).view(-1, 3, 8)[:, place] for side in images]
        labels = [[record.identity for record in side] for side in (dataset.query, dataset.gallery)]
        cameras = [[record.camera for record in side] for side in (dataset.query, dataset.gallery)]
        expected = evaluate_retrieval(*sides, *labels, *cameras, metric="cosine", device=device)
        assert alone["mAP"] == pytest.approx(expected.mAP, abs=1e-4) and alone["mAP"] != tested["mAP"]
    arguments = ["--checkpoint", str(tmp_path / "run/best.pt"), "--data", "demo", "TEST.LEVELS", "[low, high]"]
    assert run("extract", [*arguments, "--output", str(tmp_path / "two.npz")]) == 0
    assert np.load(tmp_path / "two.npz")["features"].shape[1] == 16
    model = load_model(tmp_path / "run/best.pt", "cpu")
    assert model.level_sizes == [8, 8, 8]
    images = [record.path for record in load_dataset("demo", demo_root).query[:4]]
    levels = model.embed(images).view(4, 3, 8).norm(dim=2)
    torch.testing.assert_close(levels, torch.full((4, 3), 3**-0.5))  # each level weighs the same
    fresh = config_from_text((tmp_path / "run/config.yaml").read_text())
    assert fresh.MODEL.LEVELS == ["low", "middle", "high"]


def test_consumers_are_searched_for_in_shops(demo_root, tmp_path):
    keys = tiny(
        demo_root,
        tmp_path / "run",
        TRAIN__EPOCHS="1",
        DATA__NAME="demo_consumer_to_shop",
        DATA__HEIGHT="48",
        DATA__WIDTH="48",
        DATA__USE_BOX="true",
        SAMPLER__DOMAINS="mixed",
    )
    assert run("train", ["--config", str(REPOSITORY / "configs/demo_consumer2shop_srt_bbox.yaml"), *keys]) == 0
    config = config_from_text((tmp_path / "run/config.yaml").read_text())
    dataset = load_dataset("demo_consumer_to_shop", demo_root)
    _, sampler = build_loader(config, dataset.train, label_map(dataset.train))
    for batch in sampler.epoch_batches(0):
        for first in range(0, len(batch), config.SAMPLER.K):
            records = [dataset.train[index] for index in batch[first : first + config.SAMPLER.K]]
            assert len({record.identity for record in records}) == 1
            assert [sum(record.domain == name for record in records) for name in ("consumer", "shop")] == [2, 2]
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert (results["queries"], results["gallery"]) == (len(dataset.query), len(dataset.gallery))
    assert {record.domain for record in dataset.query} == {"consumer"}
    assert {record.domain for record in dataset.gallery} == {"shop"}
