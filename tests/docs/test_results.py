"""The ladder in docs/results.md is what docs/ladder.csv gives."""

import re
from pathlib import Path

import numpy as np

from reid_kit.report.comparisons import comparison_table

DOCS = Path(__file__).parents[2] / "docs"


def test_the_ladder_is_what_its_file_gives():
    text = (DOCS / "results.md").read_text()
    heads, *lines = (DOCS / "ladder.csv").read_text().splitlines()
    identities, *columns = np.loadtxt(lines, delimiter=",", unpack=True)
    second: dict[str, list[np.ndarray]] = {}
    for head, column in zip(heads.split(",")[1:], columns):
        name, seed = head.rsplit("-seed", 1)
        assert re.search(rf"\| {name} \(.+\) \| {seed} \| \**{100 * column.mean():.1f}\** \(", text), head
        if seed == "1":
            second[name] = [column]
    assert comparison_table(second, identities.astype(int)) in text
