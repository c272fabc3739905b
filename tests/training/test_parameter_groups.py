import pytest
import torch

from reid_kit.errors import InputError
from reid_kit.model.embedder import Embedder
from reid_kit.training.optimizer import build_optimizer
from reid_kit.training.parameter_groups import by_depth, refined


def vit(**options):
    return Embedder("test_vit", "none", height=64, width=32, neck="bnneck", cameras=[1, 2], **options)


def by_name(model, groups):
    """name -> (rate, decays) of each trained parameter."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(p)]: (rate, decays) for parameters, rate, decays in groups for p in parameters}


def test_rates_fall_layer_by_layer():
    model = vit()
    network = model.backbone.network
    groups = [*by_depth(network, model.backbone.parameters(), 0.5), (model.head_parameters(), 2.0)]
    found = by_name(model, refined(groups, (model,), 1.0, True))
    blocks = [found[f"backbone.network.blocks.{n}.attn.qkv.weight"][0] for n in range(6)]
    assert blocks == [0.5 ** (5 - n) for n in range(6)]  # the last norm is of the last block's layer
    assert found["backbone.network.norm.weight"][0] == 1.0
    stem = {found[f"backbone.network.{name}"][0] for name in ("cls_token", "pos_embed", "patch_embed.proj.weight")}
    assert stem == {0.5**6}
    assert found["heads.0.neck.weight"][0] == 2.0
    assert found["cameras.vectors"][0] == 2.0 and len(found) == len(list(model.parameters()))


def test_copies_of_the_last_block_are_of_its_layer():
    model = Embedder("test_vit", "none", height=64, width=32, parts=[{"stripes": 2}], own_stage=True)
    groups = by_depth(model.backbone.network, model.backbone.parameters(), 0.5)
    found = by_name(model, [(list(parameters), rate, True) for parameters, rate in groups])
    rates = [found[f"backbone.network.blocks.{block}.attn.qkv.weight"][0] for block in (4, "5.stages.0", "5.stages.1")]
    assert rates == [0.5, 1.0, 1.0]


def test_norms_biases_and_tokens_do_not_decay():
    model = vit()
    found = by_name(model, refined([(model.parameters(), 1.0)], (model,), 2.0, False))
    for name, (rate, decays) in found.items():
        assert rate == (2.0 if name.endswith("bias") else 1.0), name
        is_token = name.endswith(("cls_token", "pos_embed", "vectors"))
        assert decays == (not is_token and dict(model.named_parameters())[name].ndim > 1), name
    optimizer = build_optimizer("sgd", refined([(model.parameters(), 1.0)], (model,), 2.0, False), 0.1, 1e-4)
    assert sorted((group["lr"], group["weight_decay"]) for group in optimizer.param_groups) == [
        *[(0.1, 0.0), (0.1, 1e-4)],
        (0.2, 0.0),
    ]


def test_by_default_groups_stay_as_they_are():
    model = vit()
    groups = [(list(model.backbone.parameters()), 1.0), (list(model.heads.parameters()), 3.0)]
    found = refined(groups, (model,), 1.0, True)
    assert [(len(parameters), rate, decays) for parameters, rate, decays in found] == [
        (len(parameters), rate, True) for parameters, rate in groups
    ]


def test_a_network_that_does_not_tell_its_layers():
    with pytest.raises(InputError, match="LAYER_DECAY is not possible for Linear"):
        by_depth(torch.nn.Linear(2, 2), [], 0.9)
