"""Results as tables and as JSON."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from types import MappingProxyType

import numpy as np

from reid_kit.evaluation.retrieval import RetrievalResult
from reid_kit.report.markdown import markdown_table

FALSE_MATCH_RATES = (1e-4, 1e-3, 1e-2)


def result_table(
    results: Mapping[str, RetrievalResult],
    cmc_name: str = "CMC",
    nmi: Mapping[str, float | None] = MappingProxyType({}),
) -> str:
    """A Markdown table, in percent, of results by name; their protocols beneath.

    Args:
        cmc_name: "CMC", or "Recall" as metric learning calls it.
        nmi: normalised mutual information by name, a last column where there is any.
    """
    clustered = any(value is not None for value in nmi.values())
    ranks = sorted({k for result in results.values() for k in result.cmc})
    columns = ["mAP", *(f"{cmc_name}@{k}" for k in ranks), "mINP", *["NMI"] * clustered]
    rows = []
    for name, result in results.items():
        values = [result.mAP, *(result.cmc.get(k) for k in ranks), result.mINP, *[nmi.get(name)] * clustered]
        rows.append([name, *map(in_percent, values)])
    protocols = [f"{name}: {result.protocol}" for name, result in results.items()]
    return "\n".join([markdown_table(["", *columns], rows), "", *protocols])


def measured(result: RetrievalResult, nmi: float | None, measures: Iterable[str]) -> dict[str, float]:
    """The values of a table's columns, as `Protocol.measures` names them: mAP, mINP, NMI, CMC@k, Recall@k."""
    numbers = {"mAP": result.mAP, "mINP": result.mINP, "NMI": nmi}
    return {name: result.cmc[int(name.split("@")[1])] if "@" in name else numbers[name] for name in measures}


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


def verification_table(result: RetrievalResult) -> str:
    """A Markdown table of the share of true matches that a threshold finds, by the false ones that it lets through."""
    points = [(rate, result.histogram.at(rate)) for rate in FALSE_MATCH_RATES]
    rows = [(f"{rate:g}", f"{point.threshold:.4f}", in_percent(point.true_match_rate)) for rate, point in points]
    return markdown_table(["false-match rate", "threshold on the distance", "true-match rate"], rows)


def result_json(result: RetrievalResult) -> dict:
    """All of a result in types that JSON has; skipped queries have an average precision of null."""
    points = [] if result.histogram is None else [result.histogram.at(rate) for rate in FALSE_MATCH_RATES]
    return {
        "mAP": result.mAP,
        "mINP": result.mINP,
        "cmc": {str(k): value for k, value in result.cmc.items()},
        "queries": result.queries,
        "skipped": result.skipped,
        "gallery": result.gallery,
        "protocol": result.protocol,
        "average_precision": [None if np.isnan(value) else float(value) for value in result.average_precision],
        "first_match_rank": result.first_match_rank.tolist(),
        "verification": [asdict(point) for point in points],
    }
