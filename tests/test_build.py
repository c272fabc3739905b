from pathlib import Path

import pytest
import torch

from reid_kit.build import build_model, build_test_settings, build_trainer
from reid_kit.build_objective import build_objective
from reid_kit.config import load_config
from reid_kit.data.records import Protocol, Record, RetrievalDataset
from reid_kit.errors import InputError
from reid_kit.model.bn_inception import BNInception
from reid_kit.model.embedder import Features
from reid_kit.training.optimizer import build_optimizer

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("**/*.yaml"))
RUNS = [path for path in CONFIGS if path.parent.name != "base"]


MODELS = {}


def model_of(config):
    """The config's model without any weights; those that differ in nothing else are one."""
    key = config.MODEL.dump(), config.DATA.HEIGHT, config.DATA.WIDTH
    if key not in MODELS:
        with torch.device("meta"):
            MODELS[key] = build_model(config, "none")
    return MODELS[key]


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_a_batch_of_its_own_size_teaches(path):
    """One batch of the config's P, K and width through its loss: the gradient is more than rounding."""
    config = load_config(path)
    P, K, model = config.SAMPLER.P, config.SAMPLER.K, model_of(config)
    torch.manual_seed(0)
    objective = build_objective(config, P, model)
    features = torch.randn(P * K, model.embedding_size, requires_grad=True)
    value, _ = objective(Features(features, features), torch.arange(P).repeat_interleave(K))
    value.backward()
    # what moving all of the features by their own length would change, as the gradient promises
    promised = features.grad.norm() * features.detach().norm()
    assert promised > 1e-3 * value.detach().abs().clamp(min=1e-3), (promised, value)
    untouched = (features.grad.abs().amax(1) == 0).double().mean()  # mining leaves some, pairs of a bad K leave many
    assert untouched <= (0 if config.LOSS.TERMS[0]["name"] == "n_pair" else 0.3)


def test_levels_that_are_tested_are_the_models():
    config = load_config(None, ["MODEL.LEVELS", "[low, high]", "TEST.LEVELS", "[hihg]"])
    with pytest.raises(InputError, match="TEST.LEVELS.*'hihg'. Did you mean 'high'"):
        build_test_settings(config, torch.device("cpu"))
    config = load_config(None, ["MODEL.LEVELS", "[low, high]", "TEST.LEVELS", "[high]"])
    assert build_test_settings(config, torch.device("cpu")).levels == ("high",)


@pytest.mark.parametrize("nesterov", ["true", "false"])
def test_sgd_steps_as_its_equation(nesterov):
    config = load_config(None, ["OPTIMIZER.NAME", "sgd", "OPTIMIZER.NESTEROV", nesterov, "OPTIMIZER.LR", "0.1"])
    start, gradient = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 1.0])
    weight = torch.nn.Parameter(start.clone())
    optimizer = build_optimizer(
        config.OPTIMIZER.NAME, [([weight], 10.0)], config.OPTIMIZER.LR, 0.01, 0.9, config.OPTIMIZER.NESTEROV
    )
    expected, velocity = start.clone(), torch.zeros(2)
    for _ in range(3):
        weight.grad = gradient.clone()
        optimizer.step()
        slope = gradient + 0.01 * expected
        velocity = 0.9 * velocity + slope
        expected = expected - 0.1 * 10 * (slope + 0.9 * velocity if nesterov == "true" else velocity)
    torch.testing.assert_close(weight.detach(), expected)


def test_papers_rates_reach_the_parameters(tmp_path):
    """RLL 3.4: new layers, and the blocks that a file of weights lacks, learn ten times as fast."""
    torch.save(BNInception().state_dict(), tmp_path / "bn_inception.pth")
    keys = ["MODEL.WEIGHTS", str(tmp_path / "bn_inception.pth"), "LOSS.TERMS", "[{name: proxy_nca}]"]
    keys += ["DATA.HEIGHT", "64", "DATA.WIDTH", "64", "OPTIMIZER.LOSS_LR_FACTOR", "100", "DATA.WORKERS", "0"]
    config = load_config(next(path for path in RUNS if path.stem == "sop_rll_lmh"), [*keys, "SAMPLER.P", "2"])
    records = [Record(tmp_path / f"{i}.jpg", i // 2) for i in range(8)]
    dataset = RetrievalDataset("x", records, records, records, Protocol(same_set=True))
    with pytest.warns(UserWarning, match="holds no loss1_conv.weight and .* begin anew"):
        trainer = build_trainer(config, dataset, torch.device("cpu"), None)
    names = {id(p): name for name, p in [*trainer.model.named_parameters(), *trainer.objective.named_parameters()]}
    rates = {names[id(p)]: group["lr"] for group in trainer.optimizer.param_groups for p in group["params"]}
    assert len(rates) == len(names)
    for name, rate in rates.items():
        new, proxies = ".loss1_" in name or ".loss2_" in name or name.startswith("heads"), "proxies" in name
        assert rate == pytest.approx(1e-2 * (100 if proxies else 10 if new else 1)), name
    assert {group["weight_decay"] for group in trainer.optimizer.param_groups} == {1e-5}
    assert not any(group["nesterov"] for group in trainer.optimizer.param_groups)
