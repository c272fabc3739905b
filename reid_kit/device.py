"""The device to compute on, once it has computed, and the memory of a CPU that computes for long."""

import ctypes
import sys

import torch

from reid_kit.errors import InputError, shortened


def usable_device(device: str | torch.device, name: str = "device") -> torch.device:
    """The device, once it has added two numbers: some are known to torch and compute nothing.

    Args:
        name: what gave it, for the error.

    Raises:
        InputError: it is not there, or cannot compute.
    """
    try:
        one = torch.ones(1, device=device)
        (one + one).item()
        return one.device
    except (RuntimeError, AssertionError, ImportError, AttributeError, TypeError, ValueError) as error:
        why = str(error).split("\n")[0][:200]
        raise InputError(f"{name} {shortened(device)} cannot be used here ({why}); cpu always can") from error


def keep_freed_memory() -> None:
    """Has this process keep the memory that it frees, for its next tensors; on Linux with glibc, else nothing happens.

    Otherwise each large tensor is mapped anew and its pages are cleared at their first touch, and a step of training
    has hundreds of them: a fifth to a quarter of its time on the CPU (docs/performance.md). The process holds its peak
    to its end.
    """
    allocator = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(allocator, "mallopt"):
        trim_threshold, mappings = -1, -4  # as malloc.h numbers them
        allocator.mallopt(mappings, 0)
        allocator.mallopt(trim_threshold, (1 << 31) - 1)
