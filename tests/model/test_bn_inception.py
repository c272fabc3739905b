import pytest
import torch

from reid_kit.errors import InputError
from reid_kit.model.backbone import Backbone
from reid_kit.model.bn_inception import BNInception
from reid_kit.model.embedder import Embedder

PARTS = ("conv", "conv_bn", "fc", "fc_bn")


def test_shapes_and_names_are_those_of_the_shared_weights():
    state = BNInception().state_dict()
    expected = {
        "conv1_7x7_s2.weight": (64, 3, 7, 7),
        "conv2_3x3.weight": (192, 64, 3, 3),
        "inception_3a_1x1.weight": (64, 192, 1, 1),
        "inception_3b_pool_proj_bn.running_var": (64,),
        "inception_3c_3x3.weight": (160, 128, 3, 3),
        "inception_4a_1x1.weight": (224, 576, 1, 1),
        "inception_4d_double_3x3_2.bias": (192,),
        "inception_4e_double_3x3_reduce.weight": (192, 608, 1, 1),
        "inception_5a_1x1.weight": (352, 1056, 1, 1),
        "inception_5b_pool_proj.weight": (128, 1024, 1, 1),
    }
    assert {name: tuple(state[name].shape) for name in expected} == expected
    assert len([name for name in state if name.endswith("_bn.weight")]) == 69
    assert sum(parameter.numel() for parameter in BNInception().parameters()) == 11_295_240 - 1_025_000  # no classifier


def test_max_pools_begin_at_the_first_pixel():
    """The shared weights come from Caffe, whose pools of stride 2 have no padding and round sizes up."""
    network, maps = BNInception().eval(), torch.rand(1, 320, 6, 6)
    pooled = network.block("3c", maps)[:, 160 + 96 :]
    expected = torch.empty_like(pooled)
    for row in range(3):
        for column in range(3):
            window = maps[:, :, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
            expected[:, :, row, column] = window.amax((2, 3))
    assert torch.equal(pooled, expected)
    assert network.forward_features(torch.zeros(1, 3, 200, 100)).shape == (1, 1024, 7, 3)  # 25 and 13 rows on the way


def test_as_a_backbone_with_levels():
    backbone = Backbone("bn_inception", "none", 2, ("low", "middle", "high"), 64, 64).eval()
    maps = backbone(torch.zeros(1, 3, 64, 64))
    assert [tuple(m.shape[1:]) for m in maps] == [(1024, 1, 1), (1024, 1, 1), (1024, 2, 2)]


def test_auxiliary_blocks_are_those_of_googlenet():
    """At the papers' 227 pixels: pools of 5 with stride 3 that round up, 128 channels, 1,024 outputs, by hand."""
    levels = ("low", "middle", "high")
    network = BNInception(levels, 227, 227).eval()
    names = {name for name in network.state_dict() if name.startswith("loss")}
    assert {name.split(".")[0] for name in names} == {f"loss{i}_{part}" for i in (1, 2) for part in PARTS}
    assert network.loss1_fc.in_features == 128 * 4 * 4 and network.loss2_fc.in_features == 128 * 2 * 2
    images, seen = torch.randn(2, 3, 227, 227), {}
    for block in ("loss1", "loss2"):
        getattr(network, f"{block}_conv").register_forward_pre_hook(lambda _, x, b=block: seen.update({b: x[0]}))
    with torch.no_grad():
        last, found = network.forward_intermediates(images)
        plain = BNInception()
        plain.load_state_dict(network.state_dict(), strict=False)
        _, maps = plain.eval().forward_intermediates(images)
        assert maps[0].shape[1:] == (576, 14, 14) and maps[1].shape[1:] == (1056, 7, 7)
        torch.testing.assert_close(found[2], last)
        for block, source, result in zip(("loss1", "loss2"), maps, found):
            side = source.shape[2]
            cells = [
                [source[:, :, y : y + 5, x : x + 5].mean((2, 3)) for x in range(0, side - 2, 3)]
                for y in range(0, side - 2, 3)
            ]
            pooled = torch.stack([torch.stack(row, -1) for row in cells], -2)
            torch.testing.assert_close(seen[block], pooled)
            hidden = getattr(network, f"{block}_conv_bn")(getattr(network, f"{block}_conv")(pooled)).relu()
            expected = getattr(network, f"{block}_fc_bn")(getattr(network, f"{block}_fc")(hidden.flatten(1))).relu()
            torch.testing.assert_close(result[:, :, 0, 0], expected)


@pytest.mark.parametrize("size", [(32, 32), (33, 90), (224, 224), (256, 128), (100, 199)])
def test_auxiliary_blocks_fit_any_image(size):
    model = Embedder("bn_inception", "none", embedding_size=3, levels=["low", "middle"], height=size[0], width=size[1])
    assert model.eval()(torch.zeros(1, 3, *size)).metric.shape == (1, 6)


def test_weights_with_and_without_auxiliary_blocks(tmp_path):
    levels, path = ("low", "middle", "high"), str(tmp_path / "bn_inception.pth")
    state = BNInception(levels, 64, 64).state_dict()
    torch.save({**state, "loss1_classifier.weight": torch.zeros(1000, 1024)}, path)
    backbone = Backbone("bn_inception", path, 2, levels, 64, 64)
    assert not list(backbone.new_parameters())
    assert torch.equal(backbone.network.loss2_fc.weight, state["loss2_fc.weight"])
    single = Backbone("bn_inception", path, 2, (), 64, 64)  # what it has no use for is left out
    assert not any(name.startswith("loss") for name in single.network.state_dict())
    old = {name: value[None] if "_bn." in name and value.ndim else value for name, value in state.items()}
    torch.save({name: value for name, value in old.items() if not name.startswith("loss")}, path)
    with pytest.warns(UserWarning, match="holds no loss1_conv.weight"):
        backbone = Backbone("bn_inception", path, 2, levels, 64, 64)
    assert torch.equal(backbone.network.conv1_7x7_s2_bn.weight, state["conv1_7x7_s2_bn.weight"])
    assert len(list(backbone.new_parameters())) == 2 * len(PARTS) * 2
    assert len([*backbone.new_parameters(), *backbone.given_parameters()]) == len(list(backbone.parameters()))


def test_the_channels_are_turned_and_scaled_as_the_weights_expect():
    model = Embedder("bn_inception", "none", height=64, width=64).eval()
    seen = []
    model.backbone.network.conv1_7x7_s2.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    image = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    image[0, 0], image[0, 2] = 200, 30  # red, blue
    model(image)
    torch.testing.assert_close(seen[0][0, :, 0, 0], torch.tensor([30.0 - 104, 0 - 117, 200 - 128]), atol=1e-3, rtol=0)


def test_its_weights_come_from_a_file(tmp_path):
    with pytest.raises(
        InputError,
        match=r"no ImageNet weights of bn_inception.*bn_inception-52deb4733.pth.*BGR.*MODEL.BACKBONE resnet50",
    ):
        Backbone("bn_inception", "imagenet", 2, (), 64, 64)
    state = {**BNInception().state_dict(), "last_linear.weight": torch.zeros(1000, 1024)}
    torch.save(state, tmp_path / "bn_inception.pth")
    loaded = Backbone("bn_inception", str(tmp_path / "bn_inception.pth"), 2, (), 64, 64).network.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in state.items() if name in loaded)
