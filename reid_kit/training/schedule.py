"""The learning rate as a pure function of the iteration."""

import math
from collections.abc import Callable, Sequence

Schedule = Callable[[int], float]  # iteration -> factor on the base learning rate


def build_schedule(
    name: str,
    iterations: int,
    epoch_length: int,
    *,
    warmup_epochs: float = 0.0,
    steps: Sequence[float] = (),
    gamma: float = 0.1,
    decay_start: float = 0.0,
    end_factor: float = 0.001,
) -> Schedule:
    """The factor on the base learning rate at each iteration (counted from 0) of a run of `iterations`.

    name: "constant"; "step" (times `gamma` at each epoch of `steps`); "cosine" (to `end_factor` at the end);
        "exponential" (from epoch `decay_start` to `end_factor` at the end, as in triplet-reid's recipe).
    warmup_epochs: linear from 0.01 to 1, on top of the schedule.
    """
    warmup, start = warmup_epochs * epoch_length, decay_start * epoch_length

    def progress(iteration: int, since: float) -> float:
        return min(max(iteration - since, 0) / max(iterations - since, 1), 1.0)

    decays: dict[str, Schedule] = {
        "constant": lambda i: 1.0,
        "step": lambda i: gamma ** sum(i >= step * epoch_length for step in steps),
        "cosine": lambda i: end_factor + (1 - end_factor) * (1 + math.cos(math.pi * progress(i, warmup))) / 2,
        "exponential": lambda i: end_factor ** progress(i, start),
    }
    decay = decays[name]
    return lambda i: decay(i) * (0.01 + 0.99 * min((i + 1) / warmup, 1.0) if warmup else 1.0)
