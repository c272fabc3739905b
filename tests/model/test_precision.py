"""Features are float32 and equal with and without autocast, but for what the backbone rounds."""

import pytest
import torch

from reid_kit.model.embedder import Embedder
from reid_kit.precision import float32_products


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("pooling", ["average", "max", "gem"])
def test_features_are_float32_under_autocast(pooling, training):
    torch.manual_seed(0)
    model = Embedder("test_resnet", "none", pooling=pooling, embedding_size=5, neck="bnneck", height=32, width=32)
    model.train(training)
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    with torch.autocast("cpu", torch.bfloat16):
        maps = model.backbone((images.float() - model.mean) / model.std)[0]
        found = model(images)
    assert maps.dtype == torch.bfloat16 and {each.dtype for each in found} == {torch.float32}
    torch.testing.assert_close(found, model.heads[0](maps.float()), rtol=1e-5, atol=1e-5)


STATES = {
    "neither": lambda: None,
    "old": lambda: torch.set_float32_matmul_precision("medium"),
    "cuda": lambda: setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32"),
    "cpu": lambda: setattr(torch.backends.mkldnn.matmul, "fp32_precision", "bf16"),
    "all": lambda: setattr(torch.backends, "fp32_precision", "tf32"),
}


@pytest.mark.skipif(not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="torch has the old names alone")
@pytest.mark.parametrize("state", STATES)
def test_products_are_exact_whatever_was_chosen_by_whichever_name(state):
    sides = torch.backends, torch.backends.cuda.matmul, torch.backends.mkldnn.matmul, torch.backends.cudnn.conv
    first = [side.fp32_precision for side in sides]
    try:
        STATES[state]()
        before = [side.fp32_precision for side in sides]
        torch.use_deterministic_algorithms(True)
        with float32_products():
            assert [side.fp32_precision for side in sides[1:]] == ["ieee"] * 3
            assert not torch.are_deterministic_algorithms_enabled()
        assert [side.fp32_precision for side in sides] == before
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_float32_matmul_precision("highest") if state == "old" else None
        for side, value in zip(sides, first):
            side.fp32_precision = value
