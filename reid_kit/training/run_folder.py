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
        """Opens the folder.

        Args:
            config: the resolved config, as YAML text.
            resume: go on with the run that the folder holds.

        Raises:
            InputError: the folder holds a run and `resume` is not asked; or it is asked and there is none.
        """
        self.path = Path(path)
        holds_run = (self.path / "config.yaml").exists()
        if holds_run and not resume:
            raise InputError(
                f"{self.path} already holds a run, which is never written over. Go on with it: add --resume. "
                f"Start another: add TRAIN.OUTPUT and a new folder"
            )
        if resume and not self.last.exists():
            raise InputError(f"nothing to resume: {self.last} does not exist. Start the run without --resume")
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path / "config.yaml", config)
        self._events: SummaryWriter | None = None

    @property
    def last(self) -> Path:
        return self.path / "last.pt"

    @property
    def best(self) -> Path:
        return self.path / "best.pt"

    def log(self, line: str) -> None:
        """Appends a line to log.txt."""
        with open(self.path / "log.txt", "a") as file:
            file.write(line + "\n")

    def record(self, kind: str, iteration: int, values: dict[str, float]) -> None:
        """Appends a line to metrics.jsonl and a point to each TensorBoard curve; `kind` is "train" or "test"."""
        with open(self.path / "metrics.jsonl", "a") as file:
            file.write(json.dumps({"kind": kind, "iteration": iteration, **values}) + "\n")
        if self._events is None:
            self._events = SummaryWriter(str(self.path), purge_step=iteration)
        for name, value in values.items():
            self._events.add_scalar(f"{kind}/{name}", value, iteration)

    def records(self) -> list[dict]:
        """The lines of metrics.jsonl."""
        path = self.path / "metrics.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def forget_after(self, iteration: int) -> None:
        """Drops what metrics.jsonl says of iterations after the one that a run is resumed at."""
        kept = [json.dumps(line) + "\n" for line in self.records() if line["iteration"] <= iteration]
        write_atomically(self.path / "metrics.jsonl", "".join(kept))

    def close(self) -> None:
        if self._events is not None:
            self._events.close()
            self._events = None
