"""The GPU's paths without a GPU: see `stand_in.py`. Each file runs in a process of its own, as torch allows one device
of a kind, for good, and as an error within a backward of it ends the process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.device.stand_in import AVAILABLE

pytestmark = pytest.mark.skipif(
    not AVAILABLE, reason="this torch has no Python backends, which the stand-in device needs"
)
ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    found = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600
    )
    assert found.returncode == 0, f"{found.stdout[-8000:]}\n{found.stderr[-4000:]}"


def test_losses_evaluator_and_training_on_a_device():
    run("-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", "tests/device/checks.py")


def test_processes_that_share_no_cpu_tensors(tmp_path):
    run("-m", "tests.device.processes", str(tmp_path))
