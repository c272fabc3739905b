"""W processes give the value, and after averaging the gradient, of one process on the whole batch."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from reid_kit.losses.cross_batch_memory import CrossBatchMemory
from tests.losses.cases import CASES, DIMENSION, build
from tests.losses.pair_oracles import clustered

ROWS = {3: [6, 2, 8], 2: [9, 7]}  # of each process: unequal, and with identities of one rank alone
pytestmark = pytest.mark.filterwarnings("ignore:.*without any positive pair")


def whole_batch():
    return clustered([5, 3, 2, 1, 4, 1], seed=6, dimension=DIMENSION)


def outcomes(x, y):
    """Value, gradient by the embeddings and by the loss's own weights, of every loss, and of one with a memory."""
    found = {}
    for case in CASES:
        found[case.id] = outcome(build(*case.values), x, y)
    remembering = CrossBatchMemory(build("triplet", {}), 100)
    outcome(remembering, x, y)
    found["memory"] = outcome(remembering, x, y)
    return found


def outcome(loss, x, y):
    leaf = x.clone().requires_grad_()
    value = loss(leaf, y)
    own = list(loss.parameters())
    gradients = torch.autograd.grad(value, [leaf, *own], allow_unused=True)
    return value.detach(), gradients[0], [g for g in gradients[1:] if g is not None]


def process(rank, folder):
    """One of max(ROWS) processes: it takes part in every world that is large enough to hold it."""
    torch.set_num_threads(1)
    x, y = whole_batch()
    for world, rows in ROWS.items():
        if rank >= world:
            continue
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet{world}", rank=rank, world_size=world)
        start = sum(rows[:rank])
        part = slice(start, start + rows[rank])
        torch.save(outcomes(x[part], y[part]), f"{folder}/{rank}_of_{world}.pt")
        dist.barrier()
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gloo")
    multiprocessing.spawn(process, (str(folder),), nprocs=max(ROWS))
    return folder


@pytest.fixture(scope="module", params=ROWS)
def shared(request, folder):
    return [torch.load(folder / f"{rank}_of_{request.param}.pt") for rank in range(request.param)]


@pytest.fixture(scope="module")
def alone():
    return outcomes(*whole_batch())


@pytest.mark.parametrize("case", [case.id for case in CASES] + ["memory"])
def test_equal_to_one_process(case, shared, alone):
    value, gradient, own = alone[case]
    parts = [part[case] for part in shared]
    for part in parts:  # every rank prints the value of the whole batch
        torch.testing.assert_close(part[0], value, rtol=1e-7, atol=1e-9)
    averaged = torch.cat([part[1] for part in parts]) / len(parts)
    torch.testing.assert_close(averaged, gradient, rtol=1e-6, atol=1e-9)
    for mine, theirs in zip(own, zip(*(part[2] for part in parts)), strict=True):
        torch.testing.assert_close(sum(theirs) / len(parts), mine, rtol=1e-6, atol=1e-9)
