"""A run from start to end, broken off and resumed, on one process and on two."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from tests.end_to_end.commands import REPOSITORY, command, environment, run, tiny

CONFIG = REPOSITORY / "configs/market_srt.yaml"


def train(root, output, *flags, launcher=None, **changes):
    arguments = ["--config", CONFIG, *flags, *tiny(root, output, **changes)]
    return run("train", *arguments, launcher=launcher)


def metrics(folder):
    """The lines of metrics.jsonl, "test" as 1 and "train" as 0."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{**line, "kind": float(line["kind"] == "test")} for line in lines]


def last_weights(folder):
    return torch.load(folder / "last.pt", weights_only=True)["training"]["model"]


@pytest.fixture(scope="module")
def whole(demo_root, tmp_path_factory):
    """An unbroken run and what it printed."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    done = train(demo_root, folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_a_run_says_what_it_did_and_leaves_it(whole):
    folder, printed = whole
    assert {path.name for path in folder.iterdir()} >= {
        "config.yaml", "log.txt", "metrics.jsonl", "last.pt", "best.pt", "results.json", "results.md",
        "ranked_list.png", "curves.png",
    }  # fmt: skip
    assert "identities" in printed and "epoch 3/3" in printed and str(folder / "ranked_list.png") in printed
    results = json.loads((folder / "results.json").read_text())
    assert f"{100 * results['mAP']:.1f}" in printed and results["protocol"] in printed
    assert results["mAP"] == pytest.approx(max(line["mAP"] for line in metrics(folder) if line["kind"]))
    assert any(path.name.startswith("events") for path in folder.iterdir())


def broken_off(root, output, number, launcher=None, **changes):
    """A run that got a signal after its first epoch: its exit status and what it said. The signal goes to the group,
    as from a terminal or a cluster's queue: workers and other processes get it too."""
    process = subprocess.Popen(
        command("train", "--config", CONFIG, *tiny(root, output, **changes), launcher=launcher),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
        if (output / "log.txt").exists() and "epoch 1/3" in (output / "log.txt").read_text():
            break
    os.killpg(process.pid, number)
    said = process.communicate(timeout=120)[1]
    state = torch.load(output / "last.pt", weights_only=True)["training"]
    assert state["epoch"] < 3, "the run ended before it was killed"
    return process.returncode, said


@pytest.mark.parametrize("number, workers, every", [(signal.SIGKILL, "0", "1"), (signal.SIGTERM, "2", "0")])
def test_a_killed_run_resumes_to_the_same_weights(whole, demo_root, tmp_path, number, workers, every):
    keys = {"TRAIN__CHECKPOINT_EVERY": every, "DATA__WORKERS": workers}
    status, said = broken_off(demo_root, tmp_path / "run", number, **keys)
    assert status == (130 if number == signal.SIGTERM else -number)
    assert "Traceback" not in said and (number == signal.SIGKILL or said.count("stopp") == 2)

    resumed = train(demo_root, tmp_path / "run", "--resume", TRAIN__CHECKPOINT_EVERY=every)
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed at epoch" in resumed.stdout
    mine, theirs = last_weights(tmp_path / "run"), last_weights(whole[0])
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.mark.parametrize("before, after", [(None, TWO), (TWO, None)], ids=["one, then two", "two, then one"])
def test_a_stopped_run_resumes_on_another_number_of_processes(whole, demo_root, tmp_path, before, after):
    broken_off(demo_root, tmp_path / "run", signal.SIGTERM, launcher=before, TRAIN__CHECKPOINT_EVERY="1")
    resumed = train(demo_root, tmp_path / "run", "--resume", launcher=after, TRAIN__CHECKPOINT_EVERY="1")
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed at epoch" in resumed.stdout
    same_losses(tmp_path / "run", whole[0])


def test_two_processes_equal_one(whole, demo_root, tmp_path):
    done = train(demo_root, tmp_path / "run", launcher=TWO)
    assert done.returncode == 0, done.stderr
    same_losses(tmp_path / "run", whole[0])
    assert "Warning" not in done.stderr


def same_losses(mine, theirs):
    """In float32 Adam turns the rounding of a gradient near 0 into a step of its learning rate, so that weights differ
    after a few steps, by machine; tests/training/test_processes.py compares them in float64. A loss moves by less."""
    mine, theirs = metrics(mine), metrics(theirs)
    assert len(mine) == len(theirs)
    for one, two in zip(mine, theirs):
        assert one == pytest.approx(two, rel=1e-2, abs=1e-2)


def test_the_checkpoint_is_all_that_a_test_needs(whole, tmp_path):
    done = run("test", "--checkpoint", whole[0] / "best.pt")
    assert done.returncode == 0, done.stderr
    files = whole[0] / "results.json", whole[0] / "test_demo/results.json"
    trained, tested = (json.loads(file.read_text()) for file in files)
    assert tested["mAP"] == trained["mAP"] and tested["average_precision"] == trained["average_precision"]


def test_a_test_with_other_settings(whole):
    done = run("test", "--checkpoint", whole[0] / "best.pt", "TEST.FLIP", "true", "TEST.METRIC", "cosine")
    assert done.returncode == 0, done.stderr
    assert "cosine distance" in done.stdout
    settings = json.loads((whole[0] / "test_demo_metric_cosine_flip/results.json").read_text())["test"]
    assert settings["FLIP"] is True


def test_a_test_with_re_ranking(whole):
    done = run("test", "--checkpoint", whole[0] / "best.pt", "--rerank")
    assert done.returncode == 0, done.stderr
    assert "k-reciprocal re-ranked distance" in done.stdout and (whole[0] / "test_demo_rerank/results.json").exists()


def test_a_finished_run_is_not_written_over(whole, demo_root):
    before = (whole[0] / "last.pt").read_bytes()
    done = train(demo_root, whole[0])
    assert done.returncode == 2 and "already holds a run" in done.stderr and "Traceback" not in done.stderr
    assert (whole[0] / "last.pt").read_bytes() == before


def test_a_run_resumes_with_its_own_config(whole, demo_root):
    done = train(demo_root, whole[0], "--resume", OPTIMIZER__LR="1e-5")
    assert done.returncode == 2
    assert "OPTIMIZER.LR was 0.0003, is 1e-05" in done.stderr


def test_dry_run_prints_and_trains_nothing(demo_root, tmp_path):
    done = train(demo_root, tmp_path / "run", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "BACKBONE: test_resnet" in done.stdout and "million parameters" in done.stdout and "query" in done.stdout
    assert not (tmp_path / "run").exists()
