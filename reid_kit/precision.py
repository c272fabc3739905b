"""In which precision the device computes: where autocast ends, and what float32 has to mean."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch


def without_autocast(device: torch.device):
    """A context in which nothing is cast, whatever the caller has chosen."""
    kind = device.type  # old releases do not know of every device, and raise where autocast is switched off there
    known = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if known else nullcontext()


@contextmanager
def float32_products() -> Iterator[None]:
    """Matrix products and convolutions in full float32, and any algorithm, whatever the process trains with.

    Deterministic algorithms are asked of training alone: what is counted here does not depend on the order.
    """
    sides = [torch.backends.cuda.matmul, torch.backends.mkldnn.matmul, torch.backends.cudnn.conv]
    sides = [side for side in sides if hasattr(side, "fp32_precision")]  # since torch 2.9; it refuses the old names
    before = [side.fp32_precision for side in sides]
    old = None if sides else (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32)
    strict = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        for side in sides:
            side.fp32_precision = "ieee"
        if old:
            torch.set_float32_matmul_precision("highest")
            torch.backends.cudnn.allow_tf32 = False
        torch.use_deterministic_algorithms(False)
        yield
    finally:
        for side, value in zip(sides, before):
            side.fp32_precision = value
        if old:
            torch.set_float32_matmul_precision(old[0])
            torch.backends.cudnn.allow_tf32 = old[1]
        torch.use_deterministic_algorithms(strict[0], warn_only=strict[1])
