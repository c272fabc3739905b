"""Results as tables and as JSON."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from types import MappingProxyType

import numpy as np

from reid_kit.evaluation.retrieval import RetrievalResult
from reid_kit.evaluation.statistics import result_intervals
from reid_kit.operating_point import OperatingPoint
from reid_kit.report.markdown import markdown_table


def result_table(
    results: Mapping[str, RetrievalResult],
    cmc: str = "CMC",
    nmi: Mapping[str, float | None] = MappingProxyType({}),
) -> str:
    """A Markdown table, in percent, of results by name; their protocols beneath.

    Args:
        cmc: "CMC", or "Recall" as metric learning calls it.
        nmi: normalised mutual information by name, a last column where there is any.
    """
    clustered = any(value is not None for value in nmi.values())
    ranks = sorted({k for result in results.values() for k in result.cmc})
    columns = ["mAP", *(f"{cmc}@{k}" for k in ranks), "mINP", *["NMI"] * clustered]
    rows = []
    for name, result in results.items():
        values = [result.mAP, *(result.cmc.get(k) for k in ranks), result.mINP, *[nmi.get(name)] * clustered]
        rows.append([name, *map(in_percent, values)])
    protocols = [f"{name}: {result.protocol}" for name, result in results.items()]
    intervals = [f"{name}: {interval_line(result)}" for name, result in results.items()]
    return "\n".join([markdown_table(["", *columns], rows), "", *protocols, "", *intervals])


def interval_line(result: RetrievalResult) -> str:
    """The 95 % intervals of a result, in percent."""
    ends = [
        f"{name} {in_percent(each.low)} to {in_percent(each.high)}" for name, each in result_intervals(result).items()
    ]
    return f"95 % intervals: {', '.join(ends)}, by a bootstrap over identities"


def measured(result: RetrievalResult, nmi: float | None, measures: Iterable[str]) -> dict[str, float]:
    """The values of a table's columns, as `Protocol.measures` names them: mAP, mINP, NMI, CMC@k, Recall@k."""
    numbers = {"mAP": result.mAP, "mINP": result.mINP, "NMI": nmi}
    numbers |= {f"{name}@{k}": value for name in ("CMC", "Recall") for k, value in result.cmc.items()}
    return {name: numbers[name] for name in measures if numbers.get(name) is not None}


def in_percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def box_table(results: Mapping[tuple[str, str, bool], RetrievalResult], ranks: Mapping[str, int]) -> str:
    """A Markdown table of fashion results without and with the bounding box side by side, in percent; what it is worth.

    Args:
        results: by row, dataset and whether the box was used.
        ranks: by dataset, the k of CMC@k.
    """
    columns = [(dataset, box, measure) for dataset in ranks for box in (False, True) for measure in ("mAP", "CMC")]
    heads = [
        f"{dataset} {'w/' if box else 'w/o'} box, {'mAP' if measure == 'mAP' else f'CMC@{ranks[dataset]}'}"
        for dataset, box, measure in columns
    ]

    def cell(row: str, dataset: str, box: bool, measure: str) -> str:
        found = results.get((row, dataset, box))
        return in_percent(found and (found.mAP if measure == "mAP" else found.cmc[ranks[dataset]]))

    rows = [[row, *(cell(row, *column) for column in columns)] for row in dict.fromkeys(row for row, _, _ in results)]
    lines = [markdown_table(["", *heads], rows), ""]
    for (row, dataset, box), found in results.items():
        if box and (row, dataset, False) in results:
            gain = 100 * (found.mAP - results[row, dataset, False].mAP)
            lines.append(f"{row} on {dataset}: the box is worth {gain:+.1f} points of mAP")
    return "\n".join(lines)


def cmc_name(same_sets: Iterable[bool]) -> str:
    """What CMC@k is called: "Recall" as in metric learning, where each set is its own gallery."""
    return "Recall" if all(same_sets) else "CMC"


def threshold_table(points: Mapping[float, OperatingPoint], distance: str) -> str:
    """A Markdown table of thresholds, what they find and what they let through, with 95 % intervals."""
    if not points:
        return "No thresholds: there are too few pairs of different identities for the false-match rates of this table."
    rows = [
        (
            f"{rate:g}",
            f"{point.threshold:.4f}",
            f"{point.false_match_rate:.2g} ({' to '.join(f'{end:.2g}' for end in point.interval)})",
            f"{in_percent(point.true_match_rate)} ({' to '.join(map(in_percent, point.true_match_interval))})",
            f"{point.pairs:,}",
        )
        for rate, point in points.items()
    ]
    heads = ["asked for", f"threshold ({distance})", "false-match rate", "true-match rate, %", "of pairs"]
    return f"{markdown_table(heads, rows)}\n\nIn brackets: 95 % intervals, by how much groups of identities differ"


def points_json(points: Mapping[float, OperatingPoint]) -> list[dict]:
    """Operating points in types that JSON has, with the false-match rate that each was asked for."""
    return [{"asked": rate, **asdict(point)} for rate, point in points.items()]


def result_json(result: RetrievalResult) -> dict:
    """All of a result in types that JSON has; skipped queries have an average precision of null."""
    return {
        "mAP": result.mAP,
        "mINP": result.mINP,
        "intervals": {name: [each.low, each.high] for name, each in result_intervals(result).items()},
        "r_precision": result.r_precision,
        "map_at_r": result.map_at_r,
        "cmc": {str(k): value for k, value in result.cmc.items()},
        "queries": result.queries,
        "skipped": result.skipped,
        "gallery": result.gallery,
        "protocol": result.protocol,
        "query_ids": result.query_ids.tolist(),
        "average_precision": [None if np.isnan(value) else float(value) for value in result.average_precision],
        "first_match_rank": result.first_match_rank.tolist(),
        "verification": points_json(result.histogram.points()) if result.histogram else [],
    }
