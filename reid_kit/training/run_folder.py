"""The folder of one run: what was asked, what happened, what came out."""

import json
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from reid_kit.errors import InputError
from reid_kit.files import write_atomically


class RunFolder:
    """config.yaml, log.txt, metrics.jsonl, TensorBoard events, last.pt, best.pt, results and pictures.

    A folder that holds a run is never written over: it is resumed, or the new run takes another name.
    """

    def __init__(self, path: str | Path, config: str, resume: bool = False):
        """Checks the folder; `open` makes it, so that a run which cannot be built leaves nothing behind.

        Args:
            config: the resolved config, as YAML text.
            resume: go on with the run that the folder holds.

        Raises:
            InputError: the folder holds a run and `resume` is not asked; or it is asked and there is none.
        """
        self.path = Path(path)
        self._config = config
        if self.last.exists() and not resume:
            raise InputError(
                f"{self.path} already holds a run, which is never written over. Go on with it: add --resume. "
                f"Start another: add TRAIN.OUTPUT and a new folder"
            )
        if resume and not self.last.exists():
            raise InputError(f"nothing to resume: {self.last} does not exist. Start the run without --resume")
        self._events: SummaryWriter | None = None

    def open(self) -> None:
        """Makes the folder and writes the config.

        Raises:
            InputError: the folder cannot be made or written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make the run folder {self.path}: {error.strerror}. Set TRAIN.OUTPUT") from error
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
        """Appends a line to metrics.jsonl and a point to each TensorBoard curve; `kind` is "train" or "test"."""
        self._append("metrics.jsonl", json.dumps({"kind": kind, "iteration": iteration, **values}))
        if self._events is None:
            self._events = SummaryWriter(str(self.path), purge_step=iteration)
        for name, value in values.items():
            self._events.add_scalar(f"{kind}/{name}", value, iteration)

    def _append(self, name: str, line: str) -> None:
        try:
            with open(self.path / name, "a") as file:
                file.write(line + "\n")
        except OSError as error:
            raise InputError(
                f"cannot write {self.path / name}: {error.strerror}. The checkpoints are intact; free some space, then "
                f"run the same command with --resume"
            ) from error

    def records(self) -> list[dict]:
        """The lines of metrics.jsonl, less a last one that a full disk or a killed process cut short."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def forget_after(self, iteration: int) -> None:
        """Drops what metrics.jsonl says of iterations after the one that a run is resumed at."""
        kept = [json.dumps(line) + "\n" for line in self.records() if line["iteration"] <= iteration]
        write_atomically(self.path / "metrics.jsonl", "".join(kept))

    def close(self) -> None:
        if self._events is not None:
            self._events.close()
            self._events = None
