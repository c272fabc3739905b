"""A run's curves as a picture."""

import io
from collections.abc import Sequence

from matplotlib.figure import Figure


def training_curves(records: Sequence[dict], epoch_length: int) -> bytes:
    """A PNG of the loss terms, the learning rate and the test metrics over the epochs.

    Args:
        records: the lines of metrics.jsonl. epoch_length: iterations of an epoch.
    """
    figure = Figure(figsize=(12, 7), layout="constrained")
    train, test = ([record for record in records if record["kind"] == kind] for kind in ("train", "test"))
    (losses, shares), (rates, metrics) = figure.subplots(2, 2)

    def draw(axes, rows: list[dict], name: str, label: str, scale: float = 1.0, marker: str = "") -> None:
        rows = [row for row in rows if name in row]
        epochs = [row["iteration"] / epoch_length for row in rows]
        axes.plot(epochs, [scale * row[name] for row in rows], label=label, lw=1, marker=marker)

    for name in train[0] if train else ():
        if name not in ("kind", "iteration"):
            axes = rates if name == "lr" else shares if name.endswith("_active") else losses
            draw(axes, train, name, name.removesuffix("_active"))
    for name in ("mAP", "CMC@1"):
        draw(metrics, test, name, name, 100, "o")
    titles = {losses: "loss", shares: "active fraction", rates: "learning rate", metrics: "evaluations, %"}
    for axes, title in titles.items():
        axes.set(title=title, xlabel="epoch")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()
