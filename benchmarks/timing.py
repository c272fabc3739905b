"""Contenders timed in turn, so that what else the machine does hits all alike."""

import time
from collections.abc import Callable, Mapping

import torch


def seconds(run: Callable[[], object], device: str = "cpu") -> tuple[float, object]:
    """How long a call takes, and what it returns."""
    synchronize(device)
    start = time.perf_counter()
    found = run()
    synchronize(device)
    return time.perf_counter() - start, found


def in_turn(
    contenders: Mapping[str, Callable[[], object]], repeats: int, device: str = "cpu"
) -> tuple[dict[str, list[float]], dict[str, object]]:
    """By contender the seconds of each round, and what it returned last."""
    spent: dict[str, list[float]] = {name: [] for name in contenders}
    found: dict[str, object] = {}
    for _ in range(repeats):
        for name, run in contenders.items():
            took, found[name] = seconds(run, device)
            spent[name].append(took)
    return spent, found


def synchronize(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)
