"""compare: a row is of one config and its settings, and no run or table is taken for another."""

import json
from pathlib import Path

import pytest

from reid_kit.cli import compare
from reid_kit.cli.main import run
from tests.end_to_end.commands import refused, snapshot


@pytest.fixture
def comparing(monkeypatch, tmp_path):
    """compare with a training that writes its config and a number at once; returns the trained folders."""
    done = []

    def train(config, resume):
        folder = Path(config.TRAIN.OUTPUT)
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(config.dump())
        measures = {"mAP": 0.1 + len(done) / 10, "CMC@1": 0.5, "mINP": 0.2}
        queries = {"query_ids": [1, 1, 2], "average_precision": [0.1, None, 0.3]}
        (folder / "results.json").write_text(json.dumps({"measures": measures, **queries}))
        done.append(str(folder))

    monkeypatch.setattr(compare, "train", train)
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "srt.yaml").write_text(f"MODEL: {{EMBEDDING_SIZE: {16 if place == 'a' else 32}}}")
    monkeypatch.chdir(tmp_path)
    return done


def test_two_configs_of_one_name_have_a_row_each(comparing, tmp_path, capsys):
    assert run("compare", ["a/srt.yaml", "b/srt.yaml", "--output", "cmp"]) == 0
    assert comparing == ["cmp/a-srt-seed0", "cmp/b-srt-seed0"]
    printed = capsys.readouterr().out
    assert "a-srt | 10.0" in printed and "b-srt | 20.0" in printed
    assert run("compare", ["a/srt.yaml", "b/srt.yaml", "--output", "cmp"]) == 0 and len(comparing) == 2
    refused(capsys, "compare", ["a/srt.yaml", "./a/srt.yaml", "--output", "cmp"], "a config is given twice")
    assert run("compare", ["demo_srt", "demo_softmax.yaml", "--output", "by_name", "TRAIN.EPOCHS", "3"]) == 0
    assert comparing[2:] == ["by_name/demo_srt-seed0", "by_name/demo_softmax-seed0"]
    refused(capsys, "compare", ["TRAIN.EPOCHS", "3"], "give the configs first")


def test_a_finished_run_of_other_keys_is_not_taken(comparing, tmp_path, capsys):
    assert run("compare", ["a/srt.yaml", "--output", "cmp"]) == 0
    before = snapshot(tmp_path)
    more = ["OPTIMIZER.LR", "0.5", "TRAIN.EPOCHS", "3"]
    refused(
        capsys,
        "compare",
        ["a/srt.yaml", "--output", "cmp", *more],
        "OPTIMIZER.LR was 0.0003, is 0.5",
        "TRAIN.EPOCHS was",
    )
    assert snapshot(tmp_path) == before
    assert run("compare", ["a/srt.yaml", "--output", "cmp", "DATA.WORKERS", "1"]) == 0  # no number depends on it


def test_a_table_with_other_rows_is_kept(comparing, tmp_path):
    assert run("compare", ["a/srt.yaml", "--output", "cmp"]) == 0
    (tmp_path / "b/other.yaml").write_text("MODEL: {EMBEDDING_SIZE: 8}")
    first = (tmp_path / "cmp/compare.md").read_text()
    assert run("compare", ["b/other.yaml", "--output", "cmp"]) == 0
    assert (tmp_path / "cmp/compare.md").read_text() == first and len(list((tmp_path / "cmp").glob("*.md"))) == 2
    assert run("compare", ["a/srt.yaml", "b/other.yaml", "--output", "cmp"]) == 0  # the first row and one more
    assert "other" in (tmp_path / "cmp/compare.md").read_text()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"mAP": 1}', '{"measures": [1]}', '{"measures": {"mAP": "x"}}']
)
def test_results_that_do_not_parse_are_told(comparing, capsys, content):
    assert run("compare", ["a/srt.yaml", "--output", "cmp"]) == 0
    Path("cmp/srt-seed0/results.json").write_text(content)
    refused(capsys, "compare", ["a/srt.yaml", "--output", "cmp"], "srt-seed0/results.json cannot be read")
    Path("cmp/srt-seed0/config.yaml").unlink()
    refused(capsys, "compare", ["a/srt.yaml", "--output", "cmp"], "without config.yaml")


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["TRAIN.SEED", "7"], "TRAIN.SEED would have no effect"),
        (["TRAIN.OUTPUT", "x"], "TRAIN.OUTPUT would have no effect"),
        (["--seeds", "0"], "--seeds must be at least 1"),
        (["--seeds", "-1"], "--seeds must be at least 1"),
    ],
)
def test_compare_sets_seed_and_folder_itself(comparing, capsys, arguments, words):
    refused(capsys, "compare", ["a/srt.yaml", "--output", "cmp", *arguments], words)
    assert not comparing
