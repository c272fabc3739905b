"""Choosing without the test set, and comparing with intervals: the commands, in this process."""

import json
import shutil

import pytest
import yaml

from reid_kit.cli.main import run
from reid_kit.cli.tune import search_space
from reid_kit.model.checkpoint import load_checkpoint
from tests.end_to_end.commands import tiny

HELD_OUT = {"DATA__VALIDATION": "0.25", "TRAIN__EVAL_EVERY": "1", "TRAIN__EPOCHS": "2"}


def config_file(folder, demo_root, name="tiny.yaml", **changes):
    words = tiny(demo_root, folder / "unused", **changes)
    tree = {}
    for key, value in zip(words[::2], words[1::2]):
        section, word = key.split(".")
        if key != "TRAIN.OUTPUT":
            tree.setdefault(section, {})[word] = yaml.safe_load(value)
    (folder / name).write_text(yaml.safe_dump(tree))
    return str(folder / name)


def test_best_weights_are_chosen_on_identities_held_out(tmp_path, demo_root, capsys):
    file = config_file(tmp_path, demo_root, **HELD_OUT)
    assert run("train", ["--config", file, "TRAIN.OUTPUT", str(tmp_path / "run")]) == 0
    assert "demo held out" in capsys.readouterr().out
    best = load_checkpoint(tmp_path / "run/best.pt")
    assert len(best["labels"]) == 9  # of 12 identities
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert "checkpoint: best on held-out training identities, a share of 0.25, fold 0" in results["protocol"]
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    held_out = [line["mAP"] for line in lines if line["kind"] == "test"]
    last = load_checkpoint(tmp_path / "run/last.pt")
    assert len(held_out) == 2 and last["training"]["best_mAP"] == max(held_out) != results["mAP"]
    assert best["metrics"]["mAP"] == results["mAP"] and best["protocol"] == results["protocol"]
    low, high = results["intervals"]["mAP"]
    assert low < results["mAP"] < high
    assert "95 % intervals: mAP" in (tmp_path / "run/results.md").read_text()
    assert 0 <= results["map_at_r"] <= results["r_precision"] <= 1


def test_a_finished_run_without_its_best_weights_names_a_way_on(tmp_path, demo_root, capsys):
    words = ["--config", config_file(tmp_path, demo_root, TRAIN__EPOCHS="1"), "TRAIN.OUTPUT", str(tmp_path / "run")]
    assert run("train", words) == 0
    (tmp_path / "run/best.pt").unlink()
    assert run("train", [*words, "--resume"]) == 2
    assert "last.pt: give that to tools/test.py" in capsys.readouterr().err


def test_rows_are_compared_query_for_query(tmp_path, demo_root, capsys):
    files = [
        config_file(tmp_path, demo_root, f"{name}.yaml", TRAIN__EPOCHS="1", LOSS__TERMS=terms)
        for name, terms in (("softmax", "[{name: softmax}]"), ("triplet", "[{name: triplet}]"))
    ]
    words = [*files, "--output", str(tmp_path / "compared")]
    assert run("compare", [*words, "--against", "triplte"]) == 2
    assert "'triplet'" in capsys.readouterr().err
    assert run("compare", [*words, "--against", "triplet"]) == 0
    table = (tmp_path / "compared/compare.md").read_text()
    assert "softmax against triplet" in table and "Holm's correction for 1 comparisons" in table
    assert "One run of a method says nothing" in table


def test_a_search_that_is_broken_off_goes_on(tmp_path, demo_root, capsys, monkeypatch):
    optuna = pytest.importorskip("optuna", reason="optuna is an extra: pip install reid_kit[tune]")
    file = config_file(tmp_path, demo_root, **{**HELD_OUT, "TRAIN__EPOCHS": "1"})
    words = ["--config", file, "--output", str(tmp_path / "tune"), "--search", "OPTIMIZER.LR", "1e-4", "1e-2", "log"]
    words += ["--search", "MODEL.POOLING", "[average, gem]"]

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr("reid_kit.cli.tune.train", killed)
        assert run("tune", [*words, "--trials", "2"]) == 130
    assert run("tune", [*words, "--trials", "2"]) == 0
    capsys.readouterr()
    study = optuna.load_study(study_name="tune", storage=f"sqlite:///{tmp_path / 'tune/study.db'}")
    states = [trial.state.name for trial in study.trials]
    assert states == ["FAIL", "COMPLETE", "COMPLETE"]
    assert study.trials[0].params == study.trials[1].params  # the trial that was broken off
    best = yaml.safe_load((tmp_path / "tune/best.yaml").read_text())
    assert best["OPTIMIZER"]["LR"] == study.best_params["OPTIMIZER.LR"]
    assert best["MODEL"]["POOLING"] == study.best_params["MODEL.POOLING"]
    assert (tmp_path / "tune/tune.png").read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob("tune/*/results.json"))  # the test set was not looked at
    assert run("tune", [*words, "--trials", "2", "SAMPLER.K", "2"]) == 2
    assert "another config" in capsys.readouterr().err


def test_a_search_that_came_to_no_trial_gives_way_to_another(tmp_path, demo_root, capsys):
    pytest.importorskip("optuna", reason="optuna is an extra: pip install reid_kit[tune]")
    file = config_file(tmp_path, demo_root, **{**HELD_OUT, "TRAIN__EPOCHS": "1"})
    words = ["--config", file, "--output", str(tmp_path / "tune"), "--trials", "1"]
    lr, pooling = ["--search", "OPTIMIZER.LR", "1e-4", "1e-2"], ["--search", "MODEL.POOLING", "[average, gem]"]
    assert run("tune", [*words, "DATA.ROOT", str(tmp_path / "nowhere"), *lr]) == 2
    assert run("tune", [*words, *pooling]) == 0
    shutil.rmtree(tmp_path / "tune/trial-000")  # to free space: the trial's numbers are still there
    assert run("tune", [*words, *lr]) == 2
    assert "other keys" in capsys.readouterr().err and (tmp_path / "tune/study.db").exists()


def test_a_long_value_of_a_list_stays_whole():
    terms = [{"name": "softmax", "label_smoothing": 0.1}, {"name": "triplet", "margin": "soft"}, {"name": "circle"}]
    _, space = search_space(["LOSS.TERMS", yaml.safe_dump([terms, terms[:1]], default_flow_style=True, width=10_000)])
    assert [yaml.safe_load(choice) for choice in space.choices] == [terms, terms[:1]]


@pytest.mark.parametrize(
    "words, message",
    [
        (["--search", "OPTIMIZER.LR", "1e-4", "1e-2"], "add DATA.VALIDATION"),
        (["DATA.VALIDATION", "0.25", "--search", "OPTIMIZER.LR"], "expected KEY LEAST MOST"),
        (["DATA.VALIDATION", "0.25", "--search", "OPTIMIZER.LR", "1", "0.1"], "LEAST below MOST"),
        (["DATA.VALIDATION", "0.25", "--search", "OPTIMIZER.LR", "0", "0.1", "log"], "above 0 for log"),
        (["DATA.VALIDATION", "0.25", "--search", "OPTIMIZER.LR", "0.1", "fast"], "OPTIMIZER.LR must be"),
        (["DATA.VALIDATION", "0.25", "--search", "MODEL.POOLING", "[average"], "--search MODEL.POOLING [average"),
        (["DATA.VALIDATION", "0.25", "--search", "OPTIMIZER.LRR", "0", "1"], "OPTIMIZER.LR"),
        (["DATA.VALIDATION", "0.25", "--search", "MODEL.POOLING", "average", "gem"], "is no number"),
        (["DATA.VALIDATION", "0.25", "--search", "MODEL.POOLING", "[average, gen]"], "gem"),
        (["DATA.VALIDATION", "0.25", "--search", "DATA.VALIDATION", "0.1", "0.2"], "could not be compared"),
        (["DATA.VALIDATION", "0.25", "--search", "SAMPLER.K", "[2, 2]"], "that differ"),
        (["DATA.VALIDATION", "0.25", *["--search", "SAMPLER.K", "2", "4"] * 2], "SAMPLER.K is searched twice"),
        (["DATA.VALIDATION", "0.25", "SAMPLER.K", "2", "--search", "SAMPLER.K", "2", "4"], "searched and set"),
        (["DATA.VALIDATION", "0.25", "TRAIN.OUTPUT", "x", "--search", "SAMPLER.K", "2", "4"], "TRAIN.OUTPUT would"),
    ],
)
def test_searches_that_cannot_be(tmp_path, words, message, capsys):
    pytest.importorskip("optuna", reason="optuna is an extra: pip install reid_kit[tune]")
    assert run("tune", ["--config", "demo_srt", "--output", str(tmp_path / "tune"), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "tune").exists()
