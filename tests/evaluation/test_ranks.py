from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from reid_kit.evaluation import ranks as ranks_module
from reid_kit.evaluation.ranks import others_ahead, others_ahead_on_device


@pytest.mark.parametrize("block", [7, 4096])
def test_the_count_of_a_gpu_equals_that_of_the_cpu(block, monkeypatch):
    """Run on the CPU, where the tensor operations are the same."""
    monkeypatch.setattr(ranks_module, "GALLERY_BLOCK", block)
    random = np.random.default_rng(block)
    order = random.integers(0, 9, (20, 50)).astype(np.float32)
    order[random.random(order.shape) < 0.2] = np.inf
    owner = np.sort(random.integers(0, 20, 60))
    starts = np.searchsorted(owner, np.arange(21))
    values = np.concatenate([np.sort(random.integers(0, 9, n)) for n in np.diff(starts)]).astype(np.float32)
    found = 1 + np.arange(60) - starts[owner]
    expected = [(order[row] <= value).sum() for row, value in zip(owner, values)]
    assert others_ahead_on_device(torch.from_numpy(order), owner, found, values).tolist() == expected
    with ThreadPoolExecutor(2) as threads:
        assert others_ahead(order.copy(), starts, values, threads).tolist() == expected
    nobody = np.zeros(0, np.int64)
    assert others_ahead_on_device(torch.from_numpy(order), nobody, nobody, np.zeros(0, np.float32)).tolist() == []
