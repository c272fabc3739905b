import copy

import pytest
import torch
import torch.nn.functional as F

from reid_kit import load_model
from reid_kit.build_objective import build_objective
from reid_kit.config import load_config
from reid_kit.errors import InputError
from reid_kit.losses import build_loss
from reid_kit.model.checkpoint import save_checkpoint
from reid_kit.model.embedder import Embedder

IMAGES = torch.randint(0, 256, (4, 3, 64, 32), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
LABELS = torch.tensor([0, 0, 1, 1])
BACKBONES = {"test_resnet": 96, "test_vit": 64, "mobilenetv2_100": 1280, "convnext_atto": 320}


def embedder(backbone="test_resnet", parts=(), **options):
    torch.manual_seed(0)
    return Embedder(backbone, "none", **{"height": 64, "width": 32, "parts": parts, **options})


@pytest.mark.parametrize("own_stage", [False, True])
@pytest.mark.parametrize("backbone, channels", BACKBONES.items())
def test_each_part_is_a_piece_of_the_map_with_a_head_of_its_own(backbone, channels, own_stage):
    parts = [{"stripes": 2, "whole": True, "pooling": "max"}, {"channels": 4, "embedding_size": 5}]
    model = embedder(backbone, parts, own_stage=own_stage, neck="bnneck").eval()
    names = ["global", "stripes2.whole", "stripes2.1", "stripes2.2", *(f"channels4.{n}" for n in range(1, 5))]
    assert model.level_names == names and model.level_sizes == [channels] * 4 + [5] * 4
    maps = model.backbone((IMAGES - model.mean) / model.std)
    assert len(maps) == (3 if own_stage else 1)
    if own_stage:  # copies begin alike, and see the same
        torch.testing.assert_close(maps[1], maps[0])
        with torch.no_grad():
            for number, copied in enumerate(stages(model)):
                for parameter in copied.parameters():
                    parameter.mul_(1 + 0.1 * number)
        maps = model.backbone((IMAGES - model.mean) / model.std)
        assert not torch.allclose(maps[1], maps[2])
    of_stripes, of_channels = maps[1:] if own_stage else (maps[0], maps[0])
    half = of_stripes.shape[2] // 2
    pieces = [maps[0].mean((2, 3)), of_stripes.amax((2, 3))]
    pieces += [of_stripes[:, :, :half].amax((2, 3)), of_stripes[:, :, half:].amax((2, 3))]
    for group, head in zip(of_channels.split(channels // 4, dim=1), model.heads[4:]):
        pieces.append(F.linear(group.mean((2, 3)), head.embedding.weight, head.embedding.bias))
    features = model(IMAGES)
    torch.testing.assert_close(features.metric, torch.cat([F.normalize(piece) for piece in pieces], 1))
    assert features.inference.shape == (4, model.embedding_size)
    torch.testing.assert_close(features.inference[:, :channels].norm(dim=1), torch.ones(4))


def stages(model):
    return next(module for module in model.modules() if type(module).__name__ == "Copies").stages


def test_a_checkpoint_knows_its_parts(tmp_path):
    model = embedder("test_resnet", [{"stripes": 2}], own_stage=True, neck="bnneck")
    model(IMAGES)
    save_checkpoint(tmp_path / "best.pt", model.eval())
    loaded = load_model(tmp_path / "best.pt", "cpu")
    assert torch.equal(loaded(IMAGES).inference, model(IMAGES).inference)
    images = list(IMAGES.permute(0, 2, 3, 1).numpy())
    assert loaded.embed(images).shape == (4, 3 * 96)
    copy.deepcopy(loaded)(IMAGES)  # as averaged weights are made


def test_parts_beside_levels():
    model = embedder("test_resnet", [{"stripes": 2}], levels=("middle", "high")).eval()
    assert model.level_names == ["middle", "high", "stripes2.1", "stripes2.2"]
    maps = model.backbone((IMAGES - model.mean) / model.std)
    upper, lower = maps[1].chunk(2, dim=2)
    expected = [F.normalize(piece.mean((2, 3))) for piece in (*maps, upper, lower)]
    torch.testing.assert_close(model(IMAGES).inference, torch.cat(expected, 1))


def objective(model, terms):
    return build_objective(load_config(None, ["LOSS.TERMS", str(terms)]), 2, model)


def test_terms_are_means_over_the_parts_that_they_name():
    model = embedder("test_resnet", [{"stripes": 2, "whole": True}], neck="bnneck").train()
    features = model(IMAGES)
    triplet, smooth = build_loss("triplet_batch_hard"), 0.1
    pieces = dict(zip(model.level_names, features.metric.split(model.level_sizes, dim=1)))
    for wanted, named in {
        "[]": list(pieces),
        "global": ["global"],
        "[stripes2.whole, global]": ["global", "stripes2.whole"],
        "stripes2": ["stripes2.whole", "stripes2.1", "stripes2.2"],
    }.items():
        total, values = objective(model, f"[{{name: triplet_batch_hard, parts: {wanted}}}]")(features, LABELS)
        expected = sum(triplet(pieces[name], LABELS) for name in named) / len(named)
        torch.testing.assert_close(total, expected)
    terms = f"[{{name: softmax, label_smoothing: {smooth}}}, {{name: triplet_batch_hard, parts: global}}]"
    both = objective(model, terms)
    assert sum(parameter.numel() for parameter in both.parameters()) == 4 * 2 * 96  # a classifier for each part
    both(features, LABELS)[0].backward()
    assert all(head.neck.weight.grad is not None for head in model.heads)


@pytest.mark.parametrize(
    "parts, words",
    [
        (
            [{"stripes": 3}],
            "3 stripes do not divide the 2 rows of this backbone's map.*DATA.HEIGHT or",
        ),
        ([{"channels": 7}], "7 channels do not divide the 96 channels.*here 2, 3, 4, 6, 8, 12, 16 would"),
        ([{"stripes": 1}], "stripes must be a whole number of at least 2"),
        ([{"stripes": "two"}], "stripes must be a whole number of at least 2"),
        ([{"stripes": 2}, {"stripes": 2}], "gives stripes: 2 twice"),
        ([{"stripes": 2, "channels": 2}], r"PARTS\[0\] must be like"),
        ([{"stripe": 2}], r"PARTS\[0\] must be like \{stripes: 2\}"),
        (["stripes"], r"PARTS\[0\] must be like"),
        ([{"stripes": 2, "hole": True}], r"option of MODEL.PARTS\[0\]: 'hole'.*Did you mean 'whole'"),
        ([{"stripes": 2, "whole": "yes"}], "whole must be true or false"),
        ([{"stripes": 2, "pooling": "cls"}], "a part has no class token"),
        ([{"stripes": 2, "pooling": "mean"}], "pooling 'mean'"),
    ],
    ids=str,
)
def test_parts_that_cannot_be(parts, words):
    with pytest.raises(InputError, match=words):
        embedder("test_resnet", parts)


def test_what_has_no_last_stage_to_copy():
    with pytest.raises(InputError, match="OWN_STAGE is not possible for bn_inception"):
        embedder("bn_inception", [{"stripes": 2}], own_stage=True)
    with pytest.raises(InputError, match="beside MODEL.PARTS end with high"):
        embedder("test_resnet", [{"stripes": 2}], levels=("low", "middle"))


@pytest.mark.parametrize(
    "term, words",
    [
        ("{name: softmax, parts: [globl]}", r"one of parts of LOSS.TERMS\[0\]: 'globl'.*Did you mean 'global'"),
        ("{name: softmax, parts: 3}", "must be a name or a list of names, got 3; there are global, stripes2.1"),
        ("{name: hdc, parts: global}", "hdc divides all features itself and takes no parts"),
    ],
)
def test_terms_of_parts_that_are_not_there(term, words):
    with pytest.raises(InputError, match=words):
        objective(embedder("test_resnet", [{"stripes": 2}]), f"[{term}]")
