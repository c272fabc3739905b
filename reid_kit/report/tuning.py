"""The trials of a search: a table, and a picture of the mAP against each key."""

import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from reid_kit.report.markdown import markdown_table
from reid_kit.report.tables import in_percent


@dataclass(frozen=True)
class Trial:
    """folder: of its run. values: of the keys that were searched. mAP: on the identities held out, in [0, 1]."""

    folder: str
    values: dict[str, object]
    mAP: float


def trial_table(trials: Sequence[Trial]) -> str:
    """A Markdown table of the trials, the best first."""
    rows = [
        [trial.folder, *(f"{value:.4g}" if isinstance(value, float) else str(value) for value in trial.values.values())]
        + [in_percent(trial.mAP)]
        for trial in sorted(trials, key=lambda trial: -trial.mAP)
    ]
    return markdown_table(["", *trials[0].values, "held-out mAP, %"], rows)


def tuning_curves(trials: Sequence[Trial], logarithmic: Collection[str] = ()) -> bytes:
    """A PNG: the mAP over the trials with the best so far, and against each key.

    Args:
        logarithmic: keys whose axis is so.
    """
    keys = list(trials[0].values)
    figure = Figure(figsize=(4 * (len(keys) + 1), 3.6), layout="constrained")
    history, *panels = figure.subplots(1, len(keys) + 1, sharey=True, squeeze=False)[0]
    values = [100 * trial.mAP for trial in trials]
    numbers = range(1, len(trials) + 1)
    history.scatter(numbers, values, s=18)
    history.step(numbers, [max(values[:number]) for number in numbers], where="post", lw=1, color="black")
    history.set(xlabel="trial; the line: best so far", ylabel="mAP on identities held out, %")
    for key, axes in zip(keys, panels):
        points = axes.scatter([trial.values[key] for trial in trials], values, s=18, c=list(numbers))
        axes.set(xlabel=key, xscale="log" if key in logarithmic else axes.get_xscale())
    figure.colorbar(points, ax=panels, label="trial")
    for axes in (history, *panels):
        axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
