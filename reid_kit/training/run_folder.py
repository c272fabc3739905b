"""The folder of one run: what was asked, what happened, what came out."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import yaml

from reid_kit.errors import InputError
from reid_kit.files import write_atomically
from reid_kit.training.trackers import Tracker, check_trackers, open_trackers

# what a run writes, beside TensorBoard's events and Weights & Biases' folder
FILES = (
    "config.yaml", "log.txt", "metrics.jsonl", "last.pt", "best.pt", "results.json", "results.md", "result_curves.png",
    "ranked_list.png", "worst_queries.png", "curves.png", "queries.parquet", "mlflow.db", "mlflow_run.txt",
    "wandb_run.txt",
)  # fmt: skip
BEFORE_THE_FIRST_STEP = {"config.yaml", "last.pt"}  # what a run has written then


class RunFolder:
    """config.yaml, log.txt, metrics.jsonl, TensorBoard events, last.pt, best.pt, results and pictures.

    A folder that holds anything of a run is never written over: it is resumed, or the new run takes another name. Only
    a run that ended before its first step has nothing to lose. Whoever writes here holds the folder (`files.hold`).
    """

    def __init__(
        self,
        path: str | Path,
        config: str,
        resume: bool = False,
        read_state: Callable[[Path], Mapping | None] = lambda path: None,
        trackers: Sequence[str] = ("tensorboard",),
    ):
        """Checks the folder; `open` makes it, so that a run which cannot be built leaves nothing behind.

        Args:
            config: the resolved config, as YAML text.
            resume: go on with the run that the folder holds.
            read_state: the training state in a checkpoint.
            trackers: names of `training.trackers`.

        Raises:
            InputError: the folder holds a run and `resume` is not asked; or it is asked and there is none.
        """
        self.path = Path(path)
        self._config = config
        found = self._found()
        if resume and not self.last.exists():
            raise InputError(f"nothing to resume: {self.last} does not exist. Start the run without --resume")
        self.anew = not resume and set(found) <= BEFORE_THE_FIRST_STEP and not self._made_a_step(read_state)
        if found and not (resume or self.anew):
            way_on = "Go on with it: add --resume. " if self.last.exists() else "It has no last.pt to go on from. "
            raise InputError(
                f"{self.path} already holds a run ({', '.join(found)}), which is never written over. {way_on}"
                f"Start another: add TRAIN.OUTPUT and a new folder"
            )
        check_trackers(trackers)
        self._trackers, self._opened = trackers, list[Tracker]()

    def _found(self) -> list[str]:
        """What the folder holds of a run; a file without content is nothing."""
        if not self.path.is_dir():
            return []
        names = sorted(path.name for path in self.path.iterdir() if not path.exists() or path.stat().st_size)
        return [name for name in names if name in FILES or name.startswith("events.out.tfevents.")]

    def _made_a_step(self, read_state: Callable[[Path], Mapping | None]) -> bool:
        """Whether last.pt is of a later moment than the run's beginning, or tells nothing."""
        if not self.last.exists():
            return (self.path / "config.yaml").exists()  # last.pt comes first: this is somebody's own
        with suppress(InputError):
            state = read_state(self.last)
            return state is None or (state.get("epoch"), state.get("position")) != (0, 0)
        return True

    def open(self) -> None:
        """Makes the folder.

        Raises:
            InputError: the folder cannot be made or written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if self.anew:
                self.last.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"cannot make the run folder {self.path}: {error.strerror}. Set TRAIN.OUTPUT") from error

    def write_config(self) -> None:
        """Writes config.yaml. Once last.pt is there: together they tell a run from a config of somebody's own."""
        write_atomically(self.path / "config.yaml", self._config)

    @property
    def last(self) -> Path:
        return self.path / "last.pt"

    @property
    def best(self) -> Path:
        return self.path / "best.pt"

    def log(self, line: str) -> None:
        """Appends a line to log.txt."""
        self._append("log.txt", line)

    def record(self, kind: str, iteration: int, values: dict[str, float]) -> None:
        """Appends a line to metrics.jsonl and a point to each tracker's curves; `kind` is "train" or "test"."""
        self._append("metrics.jsonl", json.dumps({"kind": kind, "iteration": iteration, **values}))
        for tracker in self._opened_at(iteration):
            tracker.record(kind, iteration, values)

    def _opened_at(self, iteration: int) -> list[Tracker]:
        """The trackers, which are opened at the first iteration that is recorded."""
        if not self._opened:
            sections = (yaml.safe_load(self._config) or {}).items()
            flat = {
                f"{name}.{key}": value
                for name, keys in sections
                if isinstance(keys, dict)
                for key, value in keys.items()
            }
            self._opened = open_trackers(self._trackers, self.path, flat, iteration)
        return self._opened

    def _append(self, name: str, line: str) -> None:
        try:
            with open(self.path / name, "a") as file:
                file.write(line + "\n")
        except OSError as error:
            raise InputError(
                f"cannot write {self.path / name}: {error.strerror}. The checkpoints are intact; free some space, then "
                f"run the same command with --resume"
            ) from error

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    def records(self) -> list[dict]:
        """The lines of metrics.jsonl, less a last one that a full disk or a killed process cut short.

        Raises:
            InputError: a line is no record of a run.
        """
        lines = self.metrics.read_text(errors="replace").splitlines(keepends=True) if self.metrics.exists() else []
        found = []
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line) if line.endswith("\n") else None
            except (ValueError, RecursionError):
                record = {}
            if record is not None:
                if not isinstance(record, dict) or not {"kind", "iteration"} <= record.keys():
                    raise InputError(f"{self.metrics}:{number} is no line of a run; take it out, then run again")
                found.append(record)
        return found

    def length(self) -> int:
        """Bytes of metrics.jsonl: what a checkpoint keeps of it."""
        return self.metrics.stat().st_size if self.metrics.exists() else 0

    def cut(self, length: int) -> None:
        """Takes from metrics.jsonl what was written after the checkpoint that a run is resumed from.

        By length and not by iteration: a test has the iteration of the checkpoint before it.
        """
        if self.length() > length:
            os.truncate(self.metrics, length)

    def close(self) -> None:
        while self._opened:
            self._opened.pop().close()
