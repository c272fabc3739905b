"""The benchmarks that wait for a GPU, or for a quiet machine, run."""

import re
import runpy
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(monkeypatch, name: str, *arguments: str) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(BENCHMARKS / name), run_name="__main__")


def test_what_a_card_is_asked(monkeypatch, tmp_path):
    run(monkeypatch, "on_gpu.py", "--device", "cpu", "--smoke", "--output", str(tmp_path / "table.md"))
    table = (tmp_path / "table.md").read_text()
    assert not re.search(r"\bNO\b", table), table
    for line in (
        "losses",
        "equal rows tie",
        "MSMT17: features on the CPU",
        "DETERMINISTIC",
        "waits for the GPU",
        "SRT",
    ):
        assert line in table


@pytest.mark.filterwarnings("ignore")
def test_the_trainer_beside_the_network(monkeypatch, capsys):
    size = ["--backbone", "test_resnet", "--height", "32", "--width", "32", "--identities", "4"]
    run(monkeypatch, "training.py", *size, "--steps", "1", "--rounds", "1", "--workers", "0")
    rows = [line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert rows == ["", "bare", "memory", "files, 0 workers", "decoding"]
