"""The CMC curve and the distances of a result as a picture."""

import io

import numpy as np
from matplotlib.figure import Figure

from reid_kit.evaluation.retrieval import RetrievalResult
from reid_kit.evaluation.verification import DistanceHistogram

RANKS = 50
BARS = 128


def result_curves(result: RetrievalResult, name: str) -> bytes:
    """A PNG: CMC@1 to CMC@50, and the histograms of distances with the thresholds of the report."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    cmc, distances = figure.subplots(1, 2)
    found = np.sort(result.first_match_rank[result.first_match_rank > 0])
    ranks = np.arange(1, RANKS + 1)
    cmc.plot(ranks, 100 * np.searchsorted(found, ranks, side="right") / result.queries, marker=".")
    cmc.set(
        title=f"{name}: CMC".replace("$", r"\$"), xlabel="rank", ylabel="queries with a match at that rank or before, %"
    )
    cmc.set_ylim(0, 102)
    cmc.grid(alpha=0.3)
    if result.histogram is not None:
        draw_distances(distances, result.histogram)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def draw_distances(axes, histogram: DistanceHistogram) -> None:
    edges = histogram.edges[:: len(histogram.positives) // BARS]
    for counts, label, color in (
        (histogram.negatives, "other identities", "tab:red"),
        (histogram.positives, "same identity", "tab:green"),
    ):
        bars = counts.reshape(BARS, -1).sum(1)
        axes.stairs(100 * bars / max(bars.sum(), 1), edges, fill=True, alpha=0.5, color=color, label=label)
    for (rate, point), style in zip(histogram.points().items(), (":", "--", "-")):
        label = f"false matches {rate:g}: {100 * point.true_match_rate:.1f} % of true ones"
        axes.axvline(point.threshold, color="black", lw=1, ls=style, label=label)
    seen = np.flatnonzero(histogram.positives + histogram.negatives)
    axes.set(xlim=(histogram.edges[seen[0]], histogram.edges[seen[-1] + 1]), xlabel="distance", ylabel="pairs, %")
    axes.set_title("distances of query and gallery")
    axes.legend(fontsize=8)
