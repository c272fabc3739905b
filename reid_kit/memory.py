"""What becomes of memory that a process has freed."""

import ctypes
import sys


def keep_freed_memory() -> None:
    """Has this process keep the memory that it frees, for its next tensors; on Linux with glibc, else nothing happens.

    Otherwise each large tensor is mapped anew and its pages are cleared at their first touch, and a step of training
    or a batch that is embedded has hundreds of them: a fifth to a quarter of its time on the CPU (docs/performance.md).
    The process then holds its peak to its end.
    """
    allocator = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(allocator, "mallopt"):
        trim_threshold, mappings = -1, -4  # as malloc.h numbers them
        allocator.mallopt(mappings, 0)
        allocator.mallopt(trim_threshold, (1 << 31) - 1)
