"""The ladder's second part in docs/results.md is what docs/ladder.csv gives."""

import re
from pathlib import Path

import numpy as np

from reid_kit.report.comparisons import comparison_table

DOCS = Path(__file__).parents[2] / "docs"


def test_the_ladder_is_what_its_file_gives():
    text = (DOCS / "results.md").read_text()
    heads, *lines = (DOCS / "ladder.csv").read_text().splitlines()
    identities, *columns = np.loadtxt(lines, delimiter=",", unpack=True)
    runs: dict[str, list[np.ndarray]] = {}
    for head, column in zip(heads.split(",")[1:], columns):
        runs.setdefault(head.rsplit("-seed", 1)[0], []).append(column)
    for name, of_seeds in runs.items():
        assert re.search(rf"\| {name} \(.+\) \| \**{100 * np.mean(of_seeds):.1f}\** \(", text), name
    assert comparison_table(runs, identities.astype(int)) in text
