import numpy as np
import pytest

from reid_kit.errors import InputError
from reid_kit.evaluation.statistics import holm, paired_difference
from reid_kit.report.comparisons import comparison_table

IDENTITIES = np.repeat(np.arange(50), 3)


def method(gain, runs, seed=0):
    generator = np.random.default_rng(seed)
    base = np.random.default_rng(7).uniform(0.2, 0.7, len(IDENTITIES))
    return [np.append(base + gain + generator.normal(0, 0.02, len(base)), np.nan) for _ in range(runs)]


RUNS = {"triplet": method(0, 3), "srt": method(0.1, 3, 1), "same": method(0.0, 3, 2)}
ALL = np.append(IDENTITIES, 99)  # whose query was skipped


def cells(table):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("| ")][
        1:
    ]


def test_each_with_each():
    rows = cells(comparison_table(RUNS, ALL))
    assert [row[0] for row in rows] == ["srt against triplet", "same against triplet", "same against srt"]
    assert [row[-1] for row in rows] == ["better", "cannot tell", "worse"]
    expected = [
        paired_difference(np.stack(RUNS[a])[:, :-1], np.stack(RUNS[b])[:, :-1], IDENTITIES)
        for a, b in (("triplet", "srt"), ("triplet", "same"), ("srt", "same"))
    ]
    for row, difference, p in zip(rows, expected, holm([each.p_value for each in expected])):
        interval = difference.interval
        assert row[1:4] == [
            f"{100 * interval.value:+.1f}",
            f"{100 * interval.low:+.1f} to {100 * interval.high:+.1f}",
            f"{p:.4f}",
        ]


def test_against_one():
    table = comparison_table(RUNS, ALL, against="srt")
    assert [row[0] for row in cells(table)] == ["triplet against srt", "same against srt"]
    assert "On the same 150 queries of 50 identities" in table and "Holm's correction for 2 comparisons" in table
    assert "scatter between queries and that between runs" in table


def test_one_run_each_says_so():
    assert "One run of a method says nothing" in comparison_table({name: runs[:1] for name, runs in RUNS.items()}, ALL)


def test_bad_input():
    with pytest.raises(InputError, match="--against raw: it is none of triplet, srt, same"):
        comparison_table(RUNS, ALL, against="raw")
    with pytest.raises(InputError, match=r"\[150, 151\] queries"):
        comparison_table({"a": RUNS["srt"], "b": [RUNS["same"][0][:-1]]}, ALL)
