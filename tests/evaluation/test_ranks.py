from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from reid_kit.evaluation import ranks as ranks_module
from reid_kit.evaluation.ranks import others_ahead, others_ahead_on_device


@pytest.mark.parametrize("compared, most", [(2**25, 256), (700, 256), (2**25, 3)])
def test_the_count_of_a_gpu_equals_that_of_the_cpu(compared, most, monkeypatch):
    """Run on the CPU, where the tensor operations are the same."""
    for name, value in {"COMPARED": compared, "MOST_COMPARED": most, "GALLERY_BLOCK": 7}.items():
        monkeypatch.setattr(ranks_module, name, value)
    random = np.random.default_rng(most)
    order = random.integers(0, 9, (20, 50)).astype(np.float32)
    order[random.random(order.shape) < 0.2] = np.inf
    nearest = np.sort(random.integers(0, 9, (20, 6)).astype(np.float32), axis=1)
    nearest[3:5, 2:] = nearest[5] = np.inf  # fewer matches, and none
    expected = (order[:, None] <= nearest[:, :, None]).sum(2)
    order, nearest = torch.from_numpy(order), torch.from_numpy(nearest)
    assert np.array_equal(others_ahead_on_device(order, nearest), expected)
    assert others_ahead_on_device(order, nearest[:, :0]).shape == (20, 0)
    with ThreadPoolExecutor(2) as threads:
        assert np.array_equal(others_ahead(order, nearest, threads), expected)
