"""Several processes share the gallery and return, to the bit, what one returns."""

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from reid_kit import evaluate_retrieval
from reid_kit.evaluation import distances as distances_module


def evaluate():
    distances_module.GALLERY_BLOCK = 320  # several blocks, and a last one that is not whole
    distances_module.CORE_BLOCK = 128  # other products in each process
    random = np.random.default_rng(0)
    g, gi = random.standard_normal((2000, 24)).astype(np.float32), random.integers(-1, 60, 2000)
    q, qi = random.standard_normal((130, 24)).astype(np.float32), random.integers(1, 60, 130)
    result = evaluate_retrieval(q, g, qi, gi, random.integers(0, 4, 130), random.integers(0, 4, 2000), histogram=True)
    counts = np.concatenate([result.histogram.positives, result.histogram.negatives])
    return result.average_precision, result.first_match_rank, counts, result.mAP, result.protocol


def process(rank, world, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    torch.save(evaluate(), f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize("world", [2, 4])
def test_bit_equal_to_one_process(world, tmp_path, monkeypatch):
    multiprocessing.spawn(process, (world, str(tmp_path)), nprocs=world)
    for name in ("GALLERY_BLOCK", "CORE_BLOCK"):
        monkeypatch.setattr(distances_module, name, getattr(distances_module, name))  # restored afterwards
    alone = evaluate()
    for rank in range(world):
        shared = torch.load(tmp_path / f"{rank}.pt", weights_only=False)
        assert np.array_equal(shared[0], alone[0], equal_nan=True)
        assert np.array_equal(shared[1], alone[1]) and np.array_equal(shared[2], alone[2])
        assert shared[3:] == alone[3:]
