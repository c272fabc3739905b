"""The loss of docs/adding.md is one that works."""

import re
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
USE = """
import torch, reid_kit
x = torch.tensor([[0.0], [3.0], [10.0]], requires_grad=True)
loss = reid_kit.build_loss("pull")(x, torch.tensor([0, 0, 1]))
loss.backward()
assert abs(float(loss) - 3) < 1e-5 and x.grad.flatten().tolist() == [-1.0, 1.0, 0.0]
"""


def test_the_example_of_a_loss_runs():
    example = re.search(r"```python\n(.*?)```", (DOCS / "adding.md").read_text(), re.DOTALL)[1]
    done = subprocess.run([sys.executable, "-c", example + USE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
