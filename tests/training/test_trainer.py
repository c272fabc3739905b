import json
import os
import signal

import pytest
import torch

from reid_kit.errors import InputError, NonFiniteError
from reid_kit.losses import build_loss
from reid_kit.training.hard_identities import HardIdentities
from tests.training.toys import ToyLoss, toy_trainer


def weights(trainer):
    return {name: value.clone() for name, value in trainer.tested_model.state_dict().items()}


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


class Interrupt(ToyLoss):
    """Sends the process a signal at its n-th call."""

    def __init__(self, call, number=signal.SIGINT):
        super().__init__()
        self.left, self.number = call, number

    def compute(self, batch):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.number)
        return super().compute(batch)


@pytest.mark.parametrize("options", [{}, {"ema": 0.9}, {"clip_norm": 0.1}, {"seed": 5}], ids=str)
@pytest.mark.parametrize("call", [1, 5, 6, 12])
def test_a_run_stopped_anywhere_ends_as_an_unbroken_one(tmp_path, options, call):
    whole = toy_trainer(tmp_path / "whole", **options)
    whole.fit()

    broken = toy_trainer(tmp_path / "broken", loss=Interrupt(call), **options)
    with pytest.raises(KeyboardInterrupt):
        broken.fit()
    assert broken.iteration == call
    resumed = toy_trainer(tmp_path / "broken", resume=True, **options)
    resumed.load_state_dict(torch.load(tmp_path / "broken/last.pt", weights_only=True)["training"])
    assert resumed.iteration == call
    resumed.fit()
    assert same(weights(resumed), weights(whole))
    lines = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "broken")
    ]
    assert lines[0] == lines[1]


def test_resumed_from_a_checkpoint_within_an_epoch(tmp_path):
    whole = toy_trainer(tmp_path / "whole")
    whole.fit()
    states = []
    broken = toy_trainer(tmp_path / "broken", checkpoint_every=2)
    broken.save = lambda path, model, training, metrics: states.append(
        torch.load(_copy(training), weights_only=True) if training else None
    )
    broken.fit()
    middle = next(state for state in states if state and state["position"] == 2)
    resumed = toy_trainer(None)
    resumed.load_state_dict(middle)
    resumed.fit()
    assert same(weights(resumed), weights(whole))


def _copy(state):
    import io

    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return buffer


def test_hard_identities_survive_a_stop(tmp_path):
    def run(folder, **options):
        return toy_trainer(folder, hard_identities=HardIdentities(6, 2), **options)

    whole = run(tmp_path / "whole")
    whole.fit()
    broken = run(tmp_path / "broken", loss=Interrupt(5))
    with pytest.raises(KeyboardInterrupt):
        broken.fit()
    resumed = run(tmp_path / "broken", resume=True)
    resumed.load_state_dict(torch.load(tmp_path / "broken/last.pt", weights_only=True)["training"])
    resumed.fit()
    assert whole.hard_identities.pool == resumed.hard_identities.pool
    assert whole.sampler.pool == resumed.sampler.pool and len(whole.sampler.pool) == 6


def test_a_loss_hears_of_the_end_of_an_epoch():
    loss = build_loss("hierarchical_triplet", classes=6, embedding_size=8)
    toy_trainer(None, loss=loss, epochs=1).fit()
    assert loss.tree.thresholds[-1] == 4 and loss.tree.counts.sum() == 0


def test_best_weights_are_those_of_the_highest_mAP(tmp_path):
    scores = iter([0.3, 0.9, 0.4, 0.5])
    seen = []

    def test(model):
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"mAP": next(scores)}

    trainer = toy_trainer(tmp_path, test=test, eval_every=1)
    trainer.fit()
    best = torch.load(tmp_path / "best.pt", weights_only=True)
    assert best["training"] is None
    assert same(best["model"], seen[1])


def test_clipping_bounds_the_gradient(tmp_path):
    trainer = toy_trainer(None, clip_norm=1e-3)
    trainer.optimizer = torch.optim.SGD(trainer.model.parameters(), lr=1.0)
    trainer.base_rates, trainer.schedule = [1.0], lambda iteration: 1.0
    before = torch.cat([parameter.detach().flatten().clone() for parameter in trainer.model.parameters()])
    trainer.train_batch(next(iter(trainer.loader)))
    after = torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])
    assert (after - before).norm() == pytest.approx(1e-3, rel=1e-3)


def test_ema_is_the_running_mean_of_the_weights():
    trainer = toy_trainer(None, ema=0.75)
    batches = iter(trainer.loader)
    expected = None
    for batch in batches:
        trainer.train_batch(batch)
        weight = trainer.model.layers[0].weight.detach()
        expected = weight.clone() if expected is None else 0.75 * expected + 0.25 * weight
    torch.testing.assert_close(trainer.ema.module.layers[0].weight, expected)


class Explode(ToyLoss):
    def __init__(self, value):
        super().__init__()
        self.value, self.calls = value, 0

    def compute(self, batch):
        self.calls += 1
        return super().compute(batch) * (self.value if self.calls == 4 else 1)


class WithWeights(Interrupt):
    """A loss with weights of its own, which have a gradient also while the toy model, a backbone alone, is frozen."""

    def __init__(self, call=0):
        super().__init__(call)
        self.scale = torch.nn.Parameter(torch.ones(()))

    def compute(self, batch):
        return self.scale * super().compute(batch)


@pytest.mark.parametrize("epochs, frozen", [(4, 0), (4, 2), (4, 4)])
def test_a_frozen_backbone_stays_as_it_is(epochs, frozen):
    states = []

    def remember(model):
        states.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"mAP": 0.5}

    options = {"freeze_epochs": frozen, "epochs": epochs, "eval_every": 1}
    trainer = toy_trainer(None, loss=WithWeights(), test=remember, **options)
    before = weights(trainer)
    trainer.fit()
    assert [same(state, before) for state in states] == [epoch < frozen for epoch in range(epochs)]  # statistics too


@pytest.mark.parametrize("call", [1, 6, 7])
def test_a_run_stopped_while_frozen_ends_as_an_unbroken_one(tmp_path, call):
    whole = toy_trainer(None, loss=WithWeights(), freeze_epochs=2)
    whole.fit()
    broken = toy_trainer(tmp_path, loss=WithWeights(call), freeze_epochs=2)
    with pytest.raises(KeyboardInterrupt):
        broken.fit()
    resumed = toy_trainer(tmp_path, resume=True, loss=WithWeights(), freeze_epochs=2)
    resumed.load_state_dict(torch.load(tmp_path / "last.pt", weights_only=True)["training"])
    resumed.fit()
    assert same(weights(resumed), weights(whole))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_with_terms_and_files(tmp_path, value):
    trainer = toy_trainer(tmp_path, loss=Explode(value))
    with pytest.raises(NonFiniteError) as error:
        trainer.fit()
    message = str(error.value)
    assert "epoch 2, iteration 3" in message and "toy" in message
    assert message.count("image_") == 4
    assert torch.load(tmp_path / "last.pt", weights_only=True)["training"]["epoch"] == 1


def test_embeddings_that_are_not_finite_stop_the_same_way(tmp_path):
    trainer = toy_trainer(tmp_path)
    with torch.no_grad():
        trainer.model.layers[0].weight.fill_(float("nan"))
    with pytest.raises(NonFiniteError, match="(?s)iteration 0.*4 of 4 embeddings.*image_"):
        trainer.fit()


def test_a_second_signal_ends_the_run_at_once(tmp_path):
    class Twice(Interrupt):
        def compute(self, batch):
            value = super().compute(batch)
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGINT)
            return value

    trainer = toy_trainer(tmp_path, loss=Twice(2))
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    assert trainer.iteration == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("which", [1, 2])
def test_a_signal_in_a_test_ends_it_and_the_resumed_run_tests_anew(tmp_path, number, which):
    whole = toy_trainer(tmp_path / "whole")
    whole.fit()
    calls = []

    def test(model):
        calls.append(model)
        if len(calls) == which:
            os.kill(os.getpid(), number)
            pytest.fail("the test went on")
        return {"mAP": 0.5}

    with pytest.raises(KeyboardInterrupt):
        toy_trainer(tmp_path / "broken", test=test).fit()
    resumed = toy_trainer(tmp_path / "broken", resume=True)
    resumed.load_state_dict(torch.load(tmp_path / "broken/last.pt", weights_only=True)["training"])
    assert resumed.iteration == 6 * which
    resumed.fit()
    assert same(weights(resumed), weights(whole)) and resumed.run.records() == whole.run.records()


def test_the_first_signal_is_answered_at_once(tmp_path, capfd):
    with pytest.raises(KeyboardInterrupt):
        toy_trainer(tmp_path, loss=Interrupt(2)).fit()
    assert capfd.readouterr().err.count("stopping after this batch") == 1


def test_a_run_that_cannot_be_built_leaves_no_folder(tmp_path):
    toy_trainer(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_that_fails_in_its_first_batch_can_be_resumed(tmp_path):
    whole = toy_trainer(tmp_path / "whole")
    whole.fit()
    with pytest.raises(ZeroDivisionError):
        toy_trainer(tmp_path / "broken", loss=Fail()).fit()
    resumed = toy_trainer(tmp_path / "broken", resume=True)
    resumed.load_state_dict(torch.load(tmp_path / "broken/last.pt", weights_only=True)["training"])
    resumed.fit()
    assert same(weights(resumed), weights(whole))


class Fail(ToyLoss):
    def compute(self, batch):
        raise ZeroDivisionError


def test_a_line_that_a_full_disk_cut_short_is_left_out(tmp_path):
    trainer = toy_trainer(tmp_path)
    trainer.fit()
    lines = trainer.run.records()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"kind": "tra')
    assert len(lines) == 3 and trainer.run.records() == lines


def test_a_run_folder_that_cannot_be_made_is_one_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot make the run folder .*file/run: Not a directory.*TRAIN.OUTPUT"):
        toy_trainer(tmp_path / "file/run").fit()


def test_a_full_disk_under_the_log_is_one_error(tmp_path):
    (tmp_path / "log.txt").symlink_to("/dev/full")
    with pytest.raises(InputError, match="log.txt: No space left on device.*--resume"):
        toy_trainer(tmp_path).fit()


def test_a_run_is_never_written_over(tmp_path):
    toy_trainer(tmp_path).fit()
    with pytest.raises(InputError, match="already holds a run.*--resume.*TRAIN.OUTPUT"):
        toy_trainer(tmp_path)
    with pytest.raises(InputError, match="nothing to resume"):
        toy_trainer(tmp_path / "new", resume=True)
