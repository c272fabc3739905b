"""OSNet: its blocks against plain functions of their weights, what its streams see, and the field's weight files."""

import pytest
import torch
import torch.nn.functional as F

from reid_kit.model.backbone import Backbone
from reid_kit.model.osnet import OSNETS, Block


def settled(module):
    """Batch norms with statistics of their own, in test mode."""
    for norm in module.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    return module.eval()


def plain_block(state, maps, projected):
    def norm(name, found):
        return F.batch_norm(
            found, *(state[f"{name}.{what}"] for what in ("running_mean", "running_var", "weight", "bias"))
        )

    def wide(name, found):
        return norm(f"{name}.bn", F.conv2d(found, state[f"{name}.conv.weight"]))

    def light(name, found):
        found = F.conv2d(found, state[f"{name}.conv1.weight"])
        return norm(
            f"{name}.bn", F.conv2d(found, state[f"{name}.conv2.weight"], padding=1, groups=len(found[0]))
        ).relu()

    narrow, total = wide("conv1", maps).relu(), 0
    for names in (
        ["conv2a"],
        *([f"conv2{letter}.{i}" for i in range(scale)] for scale, letter in zip((2, 3, 4), "bcd")),
    ):
        stream = narrow
        for name in names:
            stream = light(name, stream)
        seen = F.adaptive_avg_pool2d(stream, 1)
        hidden = F.conv2d(seen, state["gate.fc1.weight"], state["gate.fc1.bias"]).relu()
        total = total + stream * F.conv2d(hidden, state["gate.fc2.weight"], state["gate.fc2.bias"]).sigmoid()
    return (wide("conv3", total) + (wide("downsample", maps) if projected else maps)).relu()


@pytest.mark.parametrize("inputs", [32, 64])
def test_a_block_is_the_papers(inputs):
    block = settled(Block(inputs, 64)).double()
    maps = torch.randn(3, inputs, 7, 5, dtype=torch.float64)
    torch.testing.assert_close(block(maps), plain_block(block.state_dict(), maps, inputs != 64))


def test_streams_see_3_5_7_and_9_pixels():
    block = settled(Block(64, 64))
    for stream, pixels in zip((block.conv2a, block.conv2b, block.conv2c, block.conv2d), (3, 5, 7, 9)):
        maps = torch.rand(1, 16, 15, 15, requires_grad=True)
        with torch.no_grad():
            for weights in stream.parameters():
                weights.abs_()  # so that nothing cancels, and no ReLU is shut by the sum
            for norm in stream.modules():
                if isinstance(norm, torch.nn.BatchNorm2d):
                    norm.running_mean.zero_()
        stream(maps)[0, :, 7, 7].sum().backward()
        rows = maps.grad.abs().sum((0, 1, 3)).nonzero().flatten()
        assert rows.tolist() == list(range(7 - pixels // 2, 8 + pixels // 2))


@pytest.mark.parametrize("name, channels", list(zip(OSNETS, (512, 384, 256, 128))))
def test_the_fields_files_are_taken(name, channels, tmp_path):
    """As torchreid writes them: with its 512-d layer and its classifier, under module."""
    network = settled(Backbone(name, "none", 2, (), 64, 32)).network
    state = {f"module.{key}": value for key, value in network.state_dict().items()}
    for key in ("fc.0.weight", "fc.1.running_mean", "classifier.weight"):
        state[f"module.{key}"] = torch.zeros(3)
    torch.save({"state_dict": state, "epoch": 1}, tmp_path / "osnet.pth")
    backbone = Backbone(name, str(tmp_path / "osnet.pth"), 1, ("low", "middle", "high"), 64, 32).eval()
    assert "left out 3 (fc, classifier)" in backbone.loaded
    low, middle, high = backbone(torch.rand(2, 3, 64, 32))
    assert low.shape[2:] == middle.shape[2:] == high.shape[2:] == (8, 4) and high.shape[1] == channels
    assert {"conv1.conv.weight", "conv2.0.conv2d.3.conv2.weight", "conv2.2.0.bn.bias", "conv4.0.gate.fc2.bias"} <= set(
        network.state_dict()
    )
