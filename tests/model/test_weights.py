import warnings
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from reid_kit.errors import InputError
from reid_kit.model.backbone import Backbone
from reid_kit.model.checkpoint import save_checkpoint
from reid_kit.model.embedder import Embedder

REAL = Path(__file__).parents[3] / "shared/weights/mobilenetv2_100_imagenet.safetensors"


def backbone(weights, name="test_resnet"):
    return Backbone(name, str(weights), 2, (), 64, 32)


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(3)
    return {key: value.contiguous() for key, value in backbone("none").network.state_dict().items()}


@pytest.mark.parametrize("form", ["safetensors", "pth", "wrapped", "prefixed"])
def test_a_local_file_in_its_usual_forms(tmp_path, state, form):
    path = tmp_path / ("weights.safetensors" if form == "safetensors" else "weights.pth")
    if form == "safetensors":
        save_file({**state, "fc.weight": torch.zeros(10, 4)}, path)
    else:
        content = {f"module.{key}": value for key, value in state.items()} if form == "prefixed" else state
        torch.save({"state_dict": content} if form == "wrapped" else content, path)
    loaded = backbone(path).network.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


def test_the_backbone_within_a_larger_model(tmp_path, state):
    content = {f"module.encoder_q.{key}": value for key, value in state.items()}
    content |= {f"module.encoder_k.{key}": value for key, value in list(state.items())[:-1]}
    torch.save({"state_dict": {**content, "module.head.weight": torch.zeros(2, 3)}, "epoch": 7}, tmp_path / "moco.pth")
    model = Embedder("test_resnet", "none", neck="bnneck", embedding_size=4, height=64, width=32)
    model.backbone.network.load_state_dict(state)
    save_checkpoint(tmp_path / "best.pt", model)
    for name in ("moco.pth", "best.pt"):
        loaded = backbone(tmp_path / name).network.state_dict()
        assert all(torch.equal(loaded[key], value) for key, value in state.items())


def test_a_transformer_takes_its_positions_to_another_size(tmp_path):
    torch.manual_seed(0)
    trained = timm.create_model("test_vit")  # 160 x 160 pixels, 10 x 10 tokens
    with torch.no_grad():
        rows = torch.linspace(0, 1, 10).view(1, 10, 1, 1).expand(1, 10, 10, 64)
        trained.pos_embed[:, 1:] = rows.reshape(1, 100, 64)
    torch.save(trained.state_dict(), tmp_path / "vit.pth")
    network = Backbone("test_vit", str(tmp_path / "vit.pth"), 2, (), 256, 128).network
    positions = network.pos_embed[0, 1:].view(16, 8, 64)
    assert torch.equal(network.pos_embed[0, 0], trained.pos_embed[0, 0])
    torch.testing.assert_close(positions, positions[:, :1].expand(16, 8, 64), atol=1e-5, rtol=0)  # rows stay rows
    assert (positions[1:, 0, 0] > positions[:-1, 0, 0]).all()
    assert torch.equal(network.blocks[0].attn.qkv.weight, trained.blocks[0].attn.qkv.weight)


def test_files_that_do_not_fit(tmp_path, state):
    missing = dict(list(state.items())[1:])
    torch.save(missing, tmp_path / "missing.pth")
    with pytest.raises(InputError, match=f"missing.pth does not fit.*1 missing, as {next(iter(state))}"):
        backbone(tmp_path / "missing.pth")
    torch.save({**state, "more": torch.zeros(1)}, tmp_path / "more.pth")
    with pytest.raises(InputError, match="1 not known to the backbone, as more"):
        backbone(tmp_path / "more.pth")
    (tmp_path / "text.pth").write_text("weights")
    with pytest.raises(InputError, match="text.pth .*cannot be read: it is truncated"):
        backbone(tmp_path / "text.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(InputError, match="list.pth holds no named tensors"):
        backbone(tmp_path / "list.pth")
    with pytest.raises(InputError, match="no such file. Give imagenet, none, or the path"):
        backbone(tmp_path / "none.pth")


def test_offline_says_what_to_do(monkeypatch):
    def offline(*arguments, **options):
        if options["pretrained"]:
            raise OSError("no network")
        raise AssertionError("asked for random weights")

    monkeypatch.setattr("timm.create_model", offline)
    with pytest.raises(
        InputError, match="weights of resnet50 cannot be downloaded.*MODEL.WEIGHTS path.*MODEL.WEIGHTS none"
    ):
        backbone("imagenet", "resnet50")
    with pytest.raises(InputError, match="no ImageNet weights of botnet50ts_256 can be downloaded"):
        backbone("imagenet", "botnet50ts_256")


@pytest.mark.skipif(not REAL.exists(), reason="the ImageNet weights are not here")
def test_the_real_mobilenet():
    network = Backbone("mobilenetv2_100", str(REAL), 1, (), 128, 64)
    assert network.channels == [1280]


def embedder(weights, size=5):
    return Embedder("test_resnet", str(weights), neck="bnneck", embedding_size=size, height=64, width=32)


def test_a_checkpoint_gives_its_head_and_neck_too(tmp_path):
    torch.manual_seed(0)
    first = embedder("none")
    first(torch.randint(0, 256, (4, 3, 64, 32), dtype=torch.uint8))  # statistics of its own
    save_checkpoint(tmp_path / "best.pt", first)
    state = first.state_dict()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second = embedder(tmp_path / "best.pt").state_dict()
    assert all(torch.equal(second[key], value) for key, value in state.items())
    with pytest.warns(UserWarning, match="best.pt gives the backbone.*anew.*embedding.weight"):
        other = embedder(tmp_path / "best.pt", size=6).state_dict()
    assert all(torch.equal(other[key], value) for key, value in state.items() if key.startswith("backbone."))


def test_a_headless_checkpoint_says_what_begins_anew(tmp_path):
    save_checkpoint(tmp_path / "best.pt", Embedder("test_resnet", "none", height=64, width=32))
    with pytest.warns(UserWarning, match="anew.*embedding.weight.*neck"):
        embedder(tmp_path / "best.pt")


def test_weights_that_no_network_can_take(tmp_path, state):
    key = next(iter(state))
    torch.save({**state, key: torch.full_like(state[key], float("nan"))}, tmp_path / "a.pth")
    with pytest.raises(InputError, match=f"a.pth: {key} holds NaN"):
        backbone(tmp_path / "a.pth")
    torch.save({**state, key: torch.zeros(3, 7)}, tmp_path / "a.pth")
    with pytest.raises(InputError, match=rf"1 of another shape, as {key} \(\(3, 7\) there"):
        backbone(tmp_path / "a.pth")
    torch.save({1: torch.zeros(3)}, tmp_path / "a.pth")
    with pytest.raises(InputError, match="no named tensors"):
        backbone(tmp_path / "a.pth")
