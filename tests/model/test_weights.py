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
from reid_kit.model.weights import load_weights

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


def vit(**options):
    torch.manual_seed(4)
    network = timm.create_model("test_vit", num_classes=0, img_size=(64, 32), **options)
    return {key: value + 0.01 * torch.randn_like(value) for key, value in network.state_dict().items()}


def prefixed(prefix, state):
    return {f"{prefix}{key}": value for key, value in state.items()}


def others(state):
    """Another state of the same names, which must not be the one that is taken."""
    return {key: torch.zeros_like(value) for key, value in state.items()}


HEAD = {"classifier.weight": torch.zeros(5, 3)}


def dino(state):
    teacher = {**prefixed("backbone.", state), **prefixed("head.", HEAD)}
    return {"student": prefixed("module.backbone.", others(state)), "teacher": teacher, "epoch": 3}


def moco(state):
    keys = prefixed("module.encoder_k.", others(state))
    return {"state_dict": {**keys, **prefixed("module.encoder_q.", state), "module.queue": torch.zeros(3)}, "epoch": 7}


def moco_v3(state):
    momentum = prefixed("module.momentum_encoder.", others(state))
    return {"state_dict": {**momentum, **prefixed("module.base_encoder.", state)}}


def torchreid(state):
    optimizer = {"state": {0: {"step": torch.ones(1)}}, "param_groups": []}
    return {"state_dict": prefixed("module.", {**state, **HEAD}), "rank1": 0.9, "optimizer": optimizer}


def fast_reid(state):
    heads = {"heads.bnneck.bias": torch.zeros(3), "heads.weight": torch.zeros(2, 3), "pixel_mean": torch.zeros(3, 1, 1)}
    return {"model": {**prefixed("backbone.", state), **heads}, "iteration": 9}


def strong_baseline(state):
    return {**prefixed("base.", state), "bottleneck.weight": torch.zeros(3), **HEAD}


LAYOUTS = {
    "DINO": (dino, "left out 1 (head)"),
    "iBOT": (lambda state: {"state_dict": state}, "left out 0"),
    "MoCo": (moco, "(encoder_k, queue)"),
    "MoCo v3": (moco_v3, "(momentum_encoder)"),
    "torchreid": (torchreid, "left out 1 (classifier)"),
    "fast-reid": (fast_reid, "left out 3 (heads, pixel_mean)"),
    "reid-strong-baseline": (strong_baseline, "left out 2 (bottleneck, classifier)"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["test_resnet", "test_vit"])
def test_the_fields_layouts(tmp_path, state, kind, layout):
    state = vit() if kind == "test_vit" else {key: value + 1 for key, value in state.items()}
    content, left = LAYOUTS[layout]
    torch.save(content(state), tmp_path / "theirs.pth")
    built = backbone(tmp_path / "theirs.pth", kind)
    assert all(torch.equal(built.network.state_dict()[key], value) for key, value in state.items())
    assert f"theirs.pth: {len(state)} tensors taken" in built.loaded and left in built.loaded


@pytest.mark.parametrize("jigsaw", [False, True], ids=["plain", "with the jigsaw branch"])
def test_a_transreid_checkpoint(tmp_path, jigsaw):
    trained = vit()
    file = prefixed("base.", trained)
    if jigsaw:  # the last block and the norm that were trained are b1's
        for key in trained:
            if key.startswith("blocks.5."):
                file[key.replace("blocks.5.", "b1.0.")] = trained[key]
            if key.startswith("norm."):
                file[key.replace("norm.", "b1.1.")] = trained[key]
            if key.startswith(("blocks.5.", "norm.")):
                file[f"base.{key}"] = torch.zeros_like(trained[key])
    file |= {"base.sie_embed": torch.zeros(6, 1, 64), "bottleneck.weight": torch.zeros(64), **HEAD}
    torch.save(file, tmp_path / "transformer_120.pth")
    built = backbone(tmp_path / "transformer_120.pth", "test_vit")
    loaded = built.network.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in trained.items())
    assert "sie_embed" in built.loaded and "bottleneck" in built.loaded


def test_positions_of_a_grid_that_is_not_square(tmp_path):
    """A run's own of 4 x 2 patches, and TransReID's 21 x 10 of 256 x 128 pixels, to 16 x 8."""
    trained = vit()
    torch.save(trained, tmp_path / "own.pth")
    assert torch.equal(backbone(tmp_path / "own.pth", "test_vit").network.pos_embed, trained["pos_embed"])
    rows = torch.linspace(0, 1, 21).view(1, 21, 1, 1).expand(1, 21, 10, 64).reshape(1, 210, 64)
    trained["pos_embed"] = torch.cat([trained["pos_embed"][:, :1], rows], 1)
    torch.save(prefixed("base.", trained), tmp_path / "stride12.pth")
    network = Backbone("test_vit", str(tmp_path / "stride12.pth"), 2, (), 256, 128).network
    positions = network.pos_embed[0, 1:].view(16, 8, 64)
    torch.testing.assert_close(positions, positions[:, :1].expand(16, 8, 64), atol=1e-5, rtol=0)  # rows stay rows
    assert (positions[1:, 0, 0] > positions[:-1, 0, 0]).all()


def clip_tower(state):
    """A ViT's state with the names and shapes of CLIP's."""
    swaps = [("patch_embed.proj", "conv1"), ("norm_pre", "ln_pre"), ("blocks.", "transformer.resblocks.")]
    swaps += [("norm1", "ln_1"), ("norm2", "ln_2"), ("attn.qkv.", "attn.in_proj_"), ("attn.proj", "attn.out_proj")]
    swaps += [("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj"), ("cls_token", "class_embedding")]
    found = {}
    for key, value in state.items():
        name = f"ln_post{key[4:]}" if key.startswith("norm.") else key.replace("pos_embed", "positional_embedding")
        for mine, theirs in swaps:
            name = name.replace(mine, theirs)
        found[name] = value[0, 0] if key == "cls_token" else value[0] if key == "pos_embed" else value
    return {**found, "proj": torch.zeros(768, 32)}


@pytest.mark.parametrize("system", ["CLIP", "CLIP-ReID"])
def test_the_visual_tower_of_clip(tmp_path, system):
    name, size = "vit_base_patch32_clip_224", {"num_classes": 0, "depth": 1, "img_size": (64, 32)}
    trained = {key: torch.randn_like(value) for key, value in timm.create_model(name, **size).state_dict().items()}
    text = {"positional_embedding": torch.zeros(7, 3), "transformer.resblocks.0.ln_1.weight": torch.zeros(3)}
    if system == "CLIP":
        content = {**text, **prefixed("visual.", clip_tower(trained)), "logit_scale": torch.tensor(1.0)}
    else:
        text = prefixed("text_encoder.", text)
        content = {**prefixed("image_encoder.", clip_tower(trained)), **text, "classifier.weight": torch.zeros(3, 768)}
    torch.save(content, tmp_path / "clip.pt")
    network = timm.create_model(name, **size)
    said = load_weights(network, tmp_path / "clip.pt").said
    loaded = network.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in trained.items())
    assert f"{len(trained)} tensors taken" in said
    assert ("transformer" if system == "CLIP" else "text_encoder") in said


def test_resnet50_ibn_a_with_the_fields_file(tmp_path):
    """IBN-Net's names, written out for a block of each kind, and its arithmetic."""
    network = Backbone("resnet50_ibn_a", "none", 1, (), 64, 32).network
    state = network.state_dict()
    assert {"layer1.0.bn1.IN.weight", "layer1.0.bn1.BN.running_mean", "layer3.5.bn1.BN.bias"} <= state.keys()
    assert "layer4.0.bn1.weight" in state and "layer1.0.bn2.weight" in state and "layer4.0.bn1.IN.weight" not in state
    torch.save({**prefixed("module.", state), "module.fc.weight": torch.zeros(9, 2048)}, tmp_path / "ibn.pth")
    assert "left out 1 (fc)" in Backbone("resnet50_ibn_a", str(tmp_path / "ibn.pth"), 1, (), 64, 32).loaded
    norm = network.layer1[0].bn1.train()
    maps = torch.randn(4, 64, 5, 3) * 2 + 1
    found = norm(maps)
    by_image = (maps - maps.mean((2, 3), keepdim=True)) / maps.std((2, 3), keepdim=True, correction=0)
    by_batch = (maps - maps.mean((0, 2, 3), keepdim=True)) / maps.std((0, 2, 3), keepdim=True, correction=0)
    torch.testing.assert_close(found[:, :32], by_image[:, :32], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found[:, 32:], by_batch[:, 32:], atol=1e-4, rtol=1e-4)
    with pytest.raises(InputError, match="ibn.pth does not fit.*bn1.*Is MODEL.BACKBONE the right one"):
        Backbone("resnet50", str(tmp_path / "ibn.pth"), 1, (), 64, 32)


def test_a_file_of_another_transformer(tmp_path):
    torch.save({"teacher": prefixed("backbone.", vit())}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="other.pth does not fit.*missing, as"):
        backbone(tmp_path / "other.pth", "test_vit2")
    distilled = {**vit(), "dist_token": torch.zeros(1, 1, 64), "pos_embed": torch.zeros(1, 1 + 1 + 4 * 49, 64)}
    torch.save(distilled, tmp_path / "distilled.pth")  # 197 positions beside the class token are no grid
    with pytest.raises(InputError, match="1 of another shape, as pos_embed"):
        backbone(tmp_path / "distilled.pth", "test_vit")


def test_files_that_do_not_fit(tmp_path, state):
    missing = dict(list(state.items())[1:])
    torch.save(missing, tmp_path / "missing.pth")
    with pytest.raises(InputError, match=f"missing.pth does not fit.*1 missing, as {next(iter(state))}"):
        backbone(tmp_path / "missing.pth")
    deeper = {**state, "layer3.7.conv1.weight": torch.zeros(1)}  # of a network with more blocks
    torch.save(deeper, tmp_path / "deeper.pth")
    with pytest.raises(InputError, match="1 not known to the backbone, as layer3.7.conv1.weight"):
        backbone(tmp_path / "deeper.pth")
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
