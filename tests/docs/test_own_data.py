"""Every command of docs/own_data.md, on a small model."""

import re
import subprocess
import sys

import cv2
import numpy as np
import pytest

from tests.end_to_end.commands import REPOSITORY, environment

SMALL = ["DATA.HEIGHT", "32", "DATA.WIDTH", "32", "DATA.WORKERS", "0", "SAMPLER.P", "3", "TRAIN.EPOCHS", "1"]
SMALL += ["MODEL.BACKBONE", "test_resnet", "MODEL.WEIGHTS", "none"]


@pytest.fixture
def home(tmp_path):
    """A folder of photos and a table of them, with the toolkit's tools and configs beside."""
    random = np.random.default_rng(0)
    rows = ["path,identity,split,camera,x1,y1,x2,y2"]
    for split, identities in (("train", "abcd"), ("query", "ef"), ("gallery", "efg")):
        for identity in identities:
            for number in range(4):
                path = tmp_path / f"photos/{split}/{identity}/{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), random.integers(0, 256, (40, 40, 3), dtype=np.uint8))
                camera = 1 if split == "query" else 2
                rows.append(f"{split}/{identity}/{number}.png,{identity},{split},{camera},2,2,38,38")
    (tmp_path / "photos/dataset.csv").write_text("\n".join(rows) + "\n")
    for name in ("tools", "configs"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    return tmp_path


def test_the_commands_run(home):
    text = (REPOSITORY / "docs/own_data.md").read_text()
    commands = [
        line.split() for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()
    ]
    assert len(commands) == 6
    for command in commands:
        small = SMALL if "tools/train.py" in command else []
        done = subprocess.run(
            [sys.executable, *command[1:], *small], cwd=home, capture_output=True, text=True, env=environment()
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"
    assert (home / "runs/own_images/ranked_list.png").exists() and (home / "gallery.npz").exists()
    assert (home / "runs/own_table/results.json").exists()
