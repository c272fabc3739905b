"""Where a run's numbers go beside metrics.jsonl: TensorBoard, MLflow, Weights & Biases."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from reid_kit.errors import InputError, unknown_name
from reid_kit.files import write_atomically


class Tracker(Protocol):
    """One place that keeps curves. Made anew when a run is resumed: it goes on with the curves that are there."""

    def __init__(self, folder: Path, config: Mapping[str, object], iteration: int):
        """
        Args:
            folder: of the run, which names it. config: "SECTION.KEY" -> value. iteration: the first to be recorded.
        """

    def record(self, kind: str, iteration: int, values: Mapping[str, float]) -> None:
        """A point on each of the curves "kind/name"."""

    def close(self) -> None: ...


class TensorBoard:
    """Event files in the run folder."""

    def __init__(self, folder: Path, config: Mapping[str, object], iteration: int):
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder), purge_step=iteration)

    def record(self, kind: str, iteration: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(f"{kind}/{name}", value, iteration)

    def close(self) -> None:
        self.writer.close()


class MLflow:
    """Experiment `reid_kit` of the server in MLFLOW_TRACKING_URI, or of mlflow.db in the run folder."""

    def __init__(self, folder: Path, config: Mapping[str, object], iteration: int):
        from mlflow.tracking import MlflowClient

        self.client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{folder.resolve() / 'mlflow.db'}"))
        self.run = remembered(folder / "mlflow_run.txt", lambda: self.begin(folder.name, config))

    def begin(self, name: str, config: Mapping[str, object]) -> str:
        found = self.client.get_experiment_by_name("reid_kit")
        experiment = found.experiment_id if found else self.client.create_experiment("reid_kit")
        run = self.client.create_run(experiment, run_name=name).info.run_id
        for key, value in config.items():
            self.client.log_param(run, key, value)
        return run

    def record(self, kind: str, iteration: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.client.log_metric(self.run, f"{kind}/{name.replace('@', '_at_')}", value, step=iteration)

    def close(self) -> None:
        self.client.set_terminated(self.run)


class WeightsAndBiases:
    """Project `reid_kit`, offline in the run folder unless WANDB_MODE says online; `wandb sync` sends it later."""

    def __init__(self, folder: Path, config: Mapping[str, object], iteration: int):
        import wandb

        self.run = wandb.init(
            project="reid_kit",
            name=folder.name,
            id=remembered(folder / "wandb_run.txt", lambda: uuid4().hex),
            resume="allow",
            dir=folder,
            mode=os.environ.get("WANDB_MODE", "offline"),
            config=dict(config),
            settings=wandb.Settings(silent=True, console="off"),
        )

    def record(self, kind: str, iteration: int, values: Mapping[str, float]) -> None:
        self.run.log({f"{kind}/{name}": value for name, value in values.items()} | {"iteration": iteration})

    def close(self) -> None:
        self.run.finish()


TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WeightsAndBiases}


def check_trackers(names: Sequence[str]) -> None:
    """Raises InputError for a name of LOG.TRACKERS that is not known."""
    for name in names:
        if name not in TRACKERS:
            raise unknown_name("tracker in LOG.TRACKERS:", name, TRACKERS)


def open_trackers(names: Sequence[str], folder: Path, config: Mapping[str, object], iteration: int) -> list[Tracker]:
    """The trackers of a run, by their names in TRACKERS.

    Raises:
        InputError: a library that is not installed.
    """
    opened = []
    for name in names:
        try:
            opened.append(TRACKERS[name](folder, config, iteration))
        except ImportError as error:
            raise InputError(
                f"LOG.TRACKERS {name} needs a library that is not installed ({error}): pip install 'reid_kit[{name}]', "
                f"or take {name} out"
            ) from error
    return opened


def remembered(file: Path, make) -> str:
    """The text of a file, which is made where there is none."""
    if not file.exists():
        write_atomically(file, make())
    return file.read_text()
