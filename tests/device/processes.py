"""Two processes on the stand-in device, whose group refuses CPU tensors as NCCL does; started by `test_device.py`.

python -m tests.device.processes FOLDER
"""

import sys
import warnings

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from tests.device import stand_in

WORLD = 2
LOSSES = (
    "softmax",
    "triplet",
    "hierarchical_triplet",
    "soft_ranking_threshold",
    "binomial_deviance",
    "histogram",
    "hdc",
)


def work(rank: int, folder: str) -> None:
    stand_in.start()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    from reid_kit.evaluation import distances, evaluate_distances, evaluate_retrieval
    from reid_kit.losses.cross_batch_memory import CrossBatchMemory
    from reid_kit.training.hard_identities import HardIdentities
    from tests.device.examples import assert_same, sides
    from tests.losses.cases import DIMENSION, OPTIONS, build
    from tests.losses.pair_oracles import clustered

    device, distances.GALLERY_BLOCK = stand_in.DEVICE, 128
    q, g, *labels = sides(8, 40, 500)
    x, y = clustered([5, 3, 2, 1, 4, 1], seed=6, dimension=DIMENSION)
    x = x.float()

    def found(part: slice) -> dict:
        """Value and gradient of losses of every kind, and the pool of confusing identities, of a part of the batch."""
        cases = {name: build(name, OPTIONS.get(name, {}), torch.float32) for name in LOSSES}
        cases["memory"] = CrossBatchMemory(build("contrastive", {}, torch.float32), 20)
        outcomes, pool = {}, HardIdentities(6, 2)
        for name, loss in cases.items():
            leaf = x[part].to(device).requires_grad_()
            value = loss.to(device)(leaf, y[part].to(device))
            value.backward()
            outcomes[name] = value.detach().cpu(), leaf.grad.cpu()
        pool.observe(x[part].to(device), y[part].to(device))
        pool.end_epoch()
        return {**outcomes, "pool": pool.pool}

    def ranked() -> list:
        given = torch.cdist(q, g).to(device)
        return [
            evaluate_retrieval(q.to(device), g.to(device), *labels, histogram=True),
            evaluate_retrieval(q, g, *labels, device=device),
            evaluate_distances(given, *labels, histogram=True),
        ]

    alone, results = found(slice(None)), ranked()
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD)
    try:
        dist.all_reduce(torch.zeros(1))
        raise AssertionError("the group takes CPU tensors")
    except RuntimeError as error:
        assert "device type cpu" in str(error), error
    part = (slice(0, 9), slice(9, 16))[rank]
    shared = found(part)
    assert shared.pop("pool") == alone.pop("pool")
    for name, (value, gradient) in shared.items():
        torch.testing.assert_close(
            value, alone[name][0], rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name} {text}"
        )
        torch.testing.assert_close(gradient / WORLD, alone[name][1][part], rtol=1e-3, atol=1e-5)
    for one, other in zip(ranked(), results):
        assert_same(one, other)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    multiprocessing.spawn(work, (sys.argv[1],), nprocs=WORLD)
    print("two processes agree")
