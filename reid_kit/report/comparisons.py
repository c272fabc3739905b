"""Which of several methods is better: differences on the same queries, with interval and verdict."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from reid_kit.errors import InputError
from reid_kit.evaluation.statistics import holm, paired_difference, verdict
from reid_kit.report.markdown import markdown_table


def comparison_table(
    runs: Mapping[str, Sequence[np.ndarray]], identities: np.ndarray, against: str | None = None
) -> str:
    """A Markdown table of the differences in mAP, in points; how they were made stands beneath.

    Args:
        runs: by method, the (Q,) average precisions of the queries in each of its runs, NaN where a query was skipped.
        identities: (Q,) of the queries. against: the method that the others are compared with; None: each with each.

    Raises:
        InputError: `against` is none of the methods, or the runs are of other queries.
    """
    if against is not None and against not in runs:
        raise InputError(f"--against {against}: it is none of {', '.join(runs)}")
    sizes = {len(run) for method in runs.values() for run in method} | {len(identities)}
    if len(sizes) > 1:
        raise InputError(f"the runs were tested on {sorted(sizes)} queries, and are compared query for query")
    counted = ~np.isnan([run for method in runs.values() for run in method]).any(0)
    values = {name: np.stack(method)[:, counted] for name, method in runs.items()}
    pairs = [(against, name) for name in runs if name != against] if against else list(combinations(runs, 2))
    found = [paired_difference(values[first], values[second], identities[counted]) for first, second in pairs]
    corrected = holm([difference.p_value for difference in found])
    rows = []
    for (first, second), difference, p_value in zip(pairs, found, corrected):
        interval = difference.interval
        ends = f"{100 * interval.low:+.1f} to {100 * interval.high:+.1f}"
        points = f"{100 * interval.value:+.1f}"
        rows.append([f"{second} against {first}", points, ends, f"{p_value:.4f}", verdict(difference, p_value)])
    table = markdown_table(["", "mAP, points", "95 % interval", "p", "verdict"], rows)
    single = any(len(method) == 1 for method in runs.values())
    scatter = (
        "One run of a method says nothing of the scatter between its trainings, which is then not in the interval."
        if single
        else "The intervals hold the scatter between queries and that between runs."
    )
    people = len(np.unique(identities[counted]))
    return (
        f"{table}\n\nOn the same {counted.sum():,} queries of {people:,} identities. p: by permutation, Holm's "
        f"correction for {len(pairs)} comparisons. {scatter}"
    )
