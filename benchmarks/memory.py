"""The most memory that a call holds."""

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

import torch


def peak_memory(run: Callable[[], object], device: str) -> float:
    """MB that a call holds at most, beside what was held before: of the GPU, or of the process; NaN where unknown."""
    gc.collect()
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not reset.exists():
        run()
        return float("nan")
    ctypes.CDLL(None).malloc_trim(0)  # what is free goes back to the system, or it would not be counted again
    reset.write_text("5")  # the peak starts anew
    before = kilobytes(status, "VmRSS")
    run()
    return (kilobytes(status, "VmHWM") - before) / 1024


def kilobytes(status: Path, key: str) -> int:
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(key))
