"""Several processes that act as one: rows gathered with their gradients, sums and means over all ranks.

Each function works in a single process too, where it costs nothing. With W processes the losses built on
`gather_rows` and `mean_over_processes` give, after the averaging of gradients that DistributedDataParallel
does, the gradient and the value of one process on the whole batch.
"""

import os
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from reid_kit.errors import InputError

Result = TypeVar("Result")
PATIENCE = timedelta(minutes=30)  # that a process waits for the others, while the first one writes results say


def start_processes() -> None:
    """Joins the processes that torchrun started; does nothing in a run of one process."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or dist.is_initialized():
        return
    if not torch.cuda.is_available():
        dist.init_process_group("gloo", timeout=PATIENCE)
        return
    # of as many as this process sees: a scheduler may show each its own
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    torch.cuda.set_device(device)
    # both: what is on the CPU is summed up too, and all of it with TRAIN.DEVICE cpu
    dist.init_process_group("cpu:gloo,cuda:nccl", timeout=PATIENCE, device_id=device)


def leave_processes() -> None:
    """The end of `start_processes`, once every process has done its work."""
    if dist.is_initialized():
        dist.destroy_process_group()


def world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if world_size() > 1 else 0


def sum_over_processes(value: Tensor) -> Tensor:
    """The sum of `value` over all ranks, outside the graph."""
    value = value.detach().clone()
    if world_size() > 1:
        dist.all_reduce(value)
    return value


def mean_over_processes(total: Tensor, count: Tensor | int) -> Tensor:
    """`total / count` with both summed over all ranks; 0, still connected to the graph, where the count is 0.

    The value is that of one process on the whole batch. The gradient is W times this rank's share, which the
    averaging over W ranks turns into the gradient of one process.
    """
    if world_size() == 1 and not isinstance(count, Tensor):
        return total / max(count, 1)  # a number need not travel to the device
    count = count.to(total) if isinstance(count, Tensor) else total.new_full((), count)
    share = total / sum_over_processes(count).clamp(min=1)
    if world_size() == 1:
        return share
    return sum_over_processes(share) + world_size() * (share - share.detach())


def wait_for_all() -> None:
    """Returns once every rank has called it, so that files which one rank wrote are there for the others."""
    if world_size() > 1:
        dist.barrier()


def from_first(value: Result) -> Result:
    """The first process's `value`, on every rank."""
    if world_size() == 1:
        return value
    told = [value]
    dist.broadcast_object_list(told)
    return told[0]


def in_agreement(action: Callable[[], Result]) -> Result:
    """What `action` gives, once it has gone well on every rank; each rank calls this with its own.

    Raises:
        InputError: of `action`, on the first rank that it failed on; the others leave without a word.
    """
    if world_size() == 1:
        return action()
    result = error = None
    try:
        result = action()
    except InputError as bad:
        error = bad
    failed = [False] * world_size()
    dist.all_gather_object(failed, error is not None)
    if not any(failed):
        return result
    if rank() != failed.index(True):
        raise SystemExit(2)
    raise error


def row_counts(rows: int, device: torch.device) -> list[int]:
    """How many rows every rank holds, in the order of ranks."""
    if world_size() == 1:
        return [rows]
    counts = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(world_size())]
    dist.all_gather(counts, torch.tensor([rows], device=device))
    return torch.cat(counts).tolist()


def gather_rows(rows: Tensor) -> Tensor:
    """The rows of all ranks, in the order of ranks, (sum of n_r, ...); counts may differ between ranks.

    Its backward sums what every rank asks of a row and returns it to the row's owner.
    """
    return _GatherRows.apply(rows) if world_size() > 1 else rows


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows: Tensor) -> Tensor:
        counts = row_counts(len(rows), rows.device)
        padded = rows.new_zeros((max(counts), *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        ctx.first, ctx.count = sum(counts[: rank()]), len(rows)
        return torch.cat([part[:count] for part, count in zip(parts, counts)])

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return sum_over_processes(gradient.contiguous())[ctx.first : ctx.first + ctx.count]
