"""What transformers have besides maps: class tokens, overlapping patches, vectors of cameras; and hub names."""

import copy
import warnings
from pathlib import Path

import pytest
import torch

from reid_kit import load_model
from reid_kit.data.records import Record
from reid_kit.errors import InputError
from reid_kit.inference.testing import known_cameras
from reid_kit.model import backbone as backbones
from reid_kit.model.backbone import Backbone
from reid_kit.model.checkpoint import save_checkpoint
from reid_kit.model.embedder import Embedder

IMAGES = torch.randint(0, 256, (3, 3, 64, 32), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def embedder(backbone="test_vit", **options):
    torch.manual_seed(0)
    return Embedder(backbone, "none", **{"height": 64, "width": 32, **options}).eval()


def test_the_class_token_the_patches_or_both():
    tokens = None
    for pooling in ("cls", "patch", "both", "max"):
        model = embedder(pooling=pooling)
        tokens = model.backbone.network.forward_features((IMAGES - model.mean) / model.std)
        expected = {
            "cls": tokens[:, 0],
            "patch": tokens[:, 1:].mean(1),
            "both": torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], 1),
            "max": tokens[:, 1:].amax(1),
        }[pooling]
        torch.testing.assert_close(model(IMAGES).metric, expected)
        assert model.embedding_size == expected.shape[1]
    assert tokens.shape[1] == 1 + 4 * 2


def test_patches_are_a_map_of_the_image():
    """As the convolution that makes the patches lays them out."""
    network = Backbone("test_vit", "none", 2, (), 64, 32).eval()
    assert network(torch.zeros(1, 3, 64, 32))[0].shape == (1, 64, 4, 2)
    torch.manual_seed(0)
    image = torch.randn(1, 3, 64, 32)
    projected = network.network.patch_embed.proj(image)
    tokens = projected.flatten(2).transpose(1, 2)
    torch.testing.assert_close(network.as_map(torch.cat([torch.zeros(1, 1, 64), tokens], 1)), projected)


def test_class_token_beside_stripes():
    model = embedder(pooling="cls", parts=[{"stripes": 2}], own_stage=True)
    tokens = model.backbone.network.forward_features((IMAGES - model.mean) / model.std)
    whole = torch.nn.functional.normalize(tokens[:3, 0])
    torch.testing.assert_close(model(IMAGES).metric[:, :64], whole)
    upper = torch.nn.functional.normalize(tokens[3:, 1:5].mean(1))
    torch.testing.assert_close(model(IMAGES).metric[:, 64:128], upper)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"backbone": "test_resnet", "pooling": "cls"}, "need a transformer with a class token; test_resnet has none"),
        ({"backbone": "swin_tiny_patch4_window7_224", "pooling": "both"}, "class token; swin_tiny"),
        ({"backbone": "test_resnet", "pooling": "patch"}, "POOLING patch is for transformers"),
        ({"pooling": "cls", "levels": ("middle", "high")}, "LEVELS go with POOLING average, max or gem"),
        ({"backbone": "test_resnet", "patch_stride": 8}, "PATCH_STRIDE 8 is not possible for test_resnet"),
        ({"patch_stride": 17}, "leaves out pixels between the patches of 16 x 16 pixels of test_vit; give at most 16"),
        ({"backbone": "test_resnet", "cameras": [1]}, "CAMERA_EMBEDDING is not possible for test_resnet"),
        ({"backbone": "levit_128s", "drop_path": 0.1, "cameras": [1]}, "not possible for levit_128s"),
        ({"backbone": "bn_inception", "drop_path": 0.1}, "DROP_PATH is not possible for bn_inception"),
    ],
    ids=str,
)
def test_what_a_network_cannot_do(options, words):
    with pytest.raises(InputError, match=words):
        embedder(**options)


def test_overlapping_patches(tmp_path):
    plain, dense = embedder(), embedder(patch_stride=12)
    assert dense.backbone.network.patch_embed.grid_size == (5, 2) and dense.backbone.rows == 5
    assert dense(IMAGES).metric.shape == (3, 64)
    same = embedder(patch_stride=16)
    torch.testing.assert_close(same(IMAGES).metric, plain(IMAGES).metric)
    with torch.no_grad():  # positions that are a slope stay one
        slope = torch.linspace(0, 1, 4).view(1, 4, 1, 1).expand(1, 4, 2, 64).reshape(1, 8, 64)
        plain.backbone.network.pos_embed[:, 1:] = slope
    save_checkpoint(tmp_path / "plain.pt", plain)
    positions = Backbone("test_vit", str(tmp_path / "plain.pt"), 2, (), 64, 32, patch_stride=12).network.pos_embed
    rows = positions[0, 1:].view(5, 2, 64)
    torch.testing.assert_close(rows, rows[:, :1, :1].expand(5, 2, 64), atol=1e-5, rtol=0)
    assert (rows[1:, 0, 0] > rows[:-1, 0, 0]).all()
    save_checkpoint(tmp_path / "dense.pt", dense)
    torch.testing.assert_close(load_model(tmp_path / "dense.pt", "cpu")(IMAGES).metric, dense(IMAGES).metric)


def test_drop_path_leaves_out_blocks_in_training_alone():
    model = embedder(drop_path=0.5)
    torch.testing.assert_close(model(IMAGES).metric, model(IMAGES).metric)
    model.train()
    assert not torch.allclose(model(IMAGES).metric, model(IMAGES).metric)
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in model.backbone.network.blocks]
    assert rates == sorted(rates) and rates[-1] == pytest.approx(0.5)


def with_cameras():
    model = embedder(cameras=[3, 7, 8], camera_weight=3.0)
    with torch.no_grad():
        model.cameras.vectors.normal_()
    return model


def test_a_cameras_vector_is_added_to_all_tokens():
    model = with_cameras()
    seen = []
    model.backbone.network.blocks[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model(IMAGES, torch.tensor([7, 3, 5]))
    model(IMAGES)
    added = seen[0] - seen[1]
    vectors = model.cameras.vectors - model.cameras.vectors.mean(0)
    for row, vector in zip(added, (vectors[1], vectors[0], torch.zeros(64))):  # 5 is unknown
        torch.testing.assert_close(row, (3.0 * vector).expand(9, 64), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(vectors.sum(0), torch.zeros(64), atol=1e-5, rtol=0)  # unknown is the average camera


def test_a_checkpoint_and_a_copy_know_their_cameras(tmp_path):
    model = with_cameras()
    save_checkpoint(tmp_path / "best.pt", model)
    expected = model(IMAGES, torch.tensor([7, 3, 8])).metric
    assert not torch.allclose(expected, model(IMAGES).metric)
    for other in (load_model(tmp_path / "best.pt", "cpu"), copy.deepcopy(model)):
        torch.testing.assert_close(other(IMAGES, torch.tensor([7, 3, 8])).metric, expected)
        torch.testing.assert_close(other(IMAGES).metric, model(IMAGES).metric)


def test_a_camera_that_training_never_saw():
    model = with_cameras()
    records = [Record(Path("a.jpg"), 1, camera) for camera in (7, 4, None, 9)]
    with pytest.warns(UserWarning, match="cameras 4, 9 .*not in the training set, which has 3, 7, 8"):
        numbers = known_cameras(model, records)
    assert numbers.tolist() == [7, 4, -1, 9]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert known_cameras(model, records[:1]).tolist() == [7]
        assert known_cameras(embedder(), records) is None


def test_names_of_the_hub(monkeypatch, tmp_path):
    asked = []

    def config_of(name):
        asked.append(name)
        return {"mean": (0.1, 0.2, 0.3), "std": (1.0, 1.0, 1.0), "hf_hub_id": name}, "test_vit", {"depth": 2}

    monkeypatch.setattr(backbones, "load_model_config_from_hf", config_of)
    model = embedder("hf-hub:someone/small")
    assert asked == ["someone/small"] and len(model.backbone.network.blocks) == 2
    assert model.backbone.mean == (0.1, 0.2, 0.3)
    save_checkpoint(tmp_path / "best.pt", model)
    monkeypatch.setattr(backbones, "load_model_config_from_hf", None)  # a checkpoint needs no hub
    torch.testing.assert_close(load_model(tmp_path / "best.pt", "cpu")(IMAGES).metric, model(IMAGES).metric)

    def offline(name):
        raise OSError("no network")

    monkeypatch.setattr(backbones, "load_model_config_from_hf", offline)
    with pytest.raises(InputError, match="hf-hub:someone/small: its description cannot be read.*OSError"):
        embedder("hf-hub:someone/small")
