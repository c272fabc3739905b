"""A run's curves as a picture."""

import io
from collections.abc import Sequence

from matplotlib.figure import Figure


def training_curves(records: Sequence[dict]) -> bytes:
    """A PNG of the loss terms and of the test metrics over the iterations, from the lines of metrics.jsonl."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    train, test = ([record for record in records if record["kind"] == kind] for kind in ("train", "test"))
    losses, shares, metrics = figure.subplots(1, 3)
    for name in train[0] if train else ():
        if name in ("kind", "iteration", "lr"):
            continue
        axes = shares if name.endswith("_active") else losses
        axes.plot([r["iteration"] for r in train], [r[name] for r in train], label=name.removesuffix("_active"), lw=1)
    for name in ("mAP", "CMC@1"):
        metrics.plot([r["iteration"] for r in test], [100 * r[name] for r in test], marker="o", label=name)
    for axes, title in ((losses, "loss"), (shares, "active fraction"), (metrics, "test, %")):
        axes.set(title=title, xlabel="iteration")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
