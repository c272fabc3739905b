"""What a person sees while a run goes on: a bar on a terminal, plain lines elsewhere."""

import shutil
import sys
import time
from datetime import timedelta

from tqdm import tqdm

COLUMNS = 79  # of a line in the log; metrics.jsonl has all values


def seconds(value: float) -> str:
    return str(timedelta(seconds=round(value)))


class EpochProgress:
    """One epoch's progress with images/s, running means of the values, and the time left in the whole run."""

    def __init__(self, title: str, start: int, batches: int, batches_left_after: int):
        self.title, self.batches, self.left_after = title, batches, batches_left_after
        self.begun, self.start, self.position, self.images = time.perf_counter(), start, start, 0
        self.summed = 0  # batches whose values are known
        self.sums: dict[str, float] = {}
        self.bar = tqdm(total=batches, bar_format="{desc}", leave=False, disable=not sys.stderr.isatty())

    def add(self, values: dict[str, float]) -> None:
        """Takes the logged values of a batch, which may be known later than the batch is done."""
        self.summed += 1
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def update(self, images: int) -> None:
        """Counts one batch of `images`."""
        self.position += 1
        self.images += images
        percent = 100 * self.position // self.batches
        self.bar.set_description_str(
            self.line(f"{self.title} {percent:3} %", shutil.get_terminal_size().columns - 1), refresh=False
        )
        self.bar.update()

    @property
    def means(self) -> dict[str, float]:
        return {name: total / max(self.summed, 1) for name, total in self.sums.items()}

    def line(self, start: str, columns: int) -> str:
        """Time left, images/s and the means, what matters most first, as far as a line holds them."""
        done = max(self.position - self.start, 1)
        pace = (time.perf_counter() - self.begun) / done
        left = pace * (self.batches - self.position + self.left_after)
        means = self.means
        first = {name: means.pop(name) for name in ("loss", "lr") if name in means}
        shown = [f"{name} {value:.4g}" for name, value in {**first, **means}.items()]
        line = start
        for part in [f"{seconds(left)} left", f"{self.images / (pace * done):.0f} images/s", *shown]:
            if len(f"{line}  {part}") > columns:
                break
            line += f"  {part}"
        return line

    def close(self) -> str:
        """Ends the bar; returns the epoch's line for the log."""
        self.bar.close()
        return self.line(f"{self.title}:", COLUMNS)
