"""The commands as a user runs them, on a demo that takes seconds."""

import os
import subprocess
import sys
from pathlib import Path

from reid_kit.cli import main

REPOSITORY = Path(__file__).parents[2]

# a network small enough that an epoch takes a second
TINY = {
    "DATA.NAME": "demo",
    "DATA.HEIGHT": "64",
    "DATA.WIDTH": "32",
    "DATA.WORKERS": "0",
    "SAMPLER.P": "6",
    "SAMPLER.K": "4",
    "MODEL.BACKBONE": "test_resnet",
    "MODEL.WEIGHTS": "none",
    "MODEL.NECK": "bnneck",
    "TRAIN.EPOCHS": "3",
    "TRAIN.EVAL_EVERY": "2",
    "LOSS.TERMS": "[{name: soft_ranking_threshold, thresholds: hard, margin: soft}, {name: softmax}]",
}


def tiny(root: Path, output: Path, **changes: str) -> list[str]:
    """KEY VALUE arguments of a run of seconds; `changes` are given as SECTION__KEY."""
    keys = {**TINY, "DATA.ROOT": str(root), "TRAIN.OUTPUT": str(output)}
    keys.update({key.replace("__", "."): value for key, value in changes.items()})
    return [text for pair in keys.items() for text in pair]


def command(tool: str, *arguments: object, launcher: list[str] | None = None) -> list[str]:
    start = launcher or [sys.executable]
    return [*start, str(REPOSITORY / "tools" / f"{tool}.py"), *map(str, arguments)]


def environment() -> dict[str, str]:
    """One thread, no hub: the same arithmetic everywhere."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def run(tool: str, *arguments: object, launcher: list[str] | None = None) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(tool, *arguments, launcher=launcher), capture_output=True, text=True, env=environment(), timeout=300
    )


def refused(capsys, command, arguments, *words):
    """The command ends with one error that holds these words."""
    assert main.run(command, [str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("error: ") == 1 and all(word in error for word in words), error


def snapshot(folder):
    """All files and what is in them."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
