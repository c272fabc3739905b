import numpy as np
import pytest
import torch

from reid_kit.evaluation import neighbours
from reid_kit.evaluation.distances import exact_products
from reid_kit.evaluation.neighbours import Neighbours


@pytest.mark.parametrize("block", [1024, 90, 8])
@pytest.mark.parametrize("total, queries", [(301, 40), (301, 300), (12, 1)])
def test_equal_to_all_distances_in_float64(total, queries, block, monkeypatch):
    monkeypatch.setattr(neighbours, "CORE_BLOCK", block)  # also fewer than the neighbours
    random = np.random.default_rng(block)
    rows = torch.from_numpy(random.standard_normal((total, 7)).astype(np.float32))
    rows[-3:] = rows[1]  # duplicates, whose distances are 0 but for rounding
    between = torch.empty(queries, total - queries)
    with exact_products() as threads:
        found = Neighbours(rows, rows.square().sum(1), 11, between, threads)
    expected = (rows[:, None].double() - rows[None].double()).square().sum(2)
    near = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(found.nearest.double(), expected.topk(11, largest=False).values, **near)
    torch.testing.assert_close(expected.gather(1, found.positions), found.nearest.double(), **near)
    assert found.positions[:, 0].tolist() == list(range(total))
    assert all(len(set(row)) == 11 for row in found.positions.tolist())
    torch.testing.assert_close(found.farthest.double(), expected.amax(1), **near)
    torch.testing.assert_close(between.double(), expected[:queries, queries:], **near)
