"""Nothing of a run is written over, and a run that never began is in nobody's way."""

import json

import pytest
import torch

from reid_kit.errors import InputError
from reid_kit.training.run_folder import RunFolder
from tests.training.toys import ToyLoss, toy_trainer


@pytest.mark.parametrize(
    "name",
    ["config.yaml", "best.pt", "last.pt", "metrics.jsonl", "log.txt", "results.json", "curves.png", "ranked_list.png",
     "events.out.tfevents.1.host.2.0"],
)  # fmt: skip
def test_a_folder_with_anything_of_a_run_is_taken(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=rf"already holds a run \({name}\), which is never written over"):
        RunFolder(tmp_path, "")
    assert (tmp_path / name).read_text() == "mine"


def test_what_no_run_writes_is_in_nobody_s_way(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    toy_trainer(tmp_path).fit()
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_finished_run_without_its_last_checkpoint_is_taken_and_says_so(tmp_path):
    toy_trainer(tmp_path).fit()
    (tmp_path / "last.pt").unlink()
    with pytest.raises(InputError, match="already holds a run.*no last.pt to go on from.*TRAIN.OUTPUT"):
        toy_trainer(tmp_path)
    with pytest.raises(InputError, match="nothing to resume"):
        toy_trainer(tmp_path, resume=True)


def read_state(path):
    return torch.load(path, weights_only=True)["training"]


class Fail(ToyLoss):
    def compute(self, batch):
        raise ZeroDivisionError


def test_a_run_that_never_began_can_be_begun_anew_with_another_config(tmp_path):
    whole = toy_trainer(tmp_path / "whole")
    whole.fit()
    with pytest.raises(ZeroDivisionError):
        toy_trainer(tmp_path / "run", loss=Fail()).fit()
    before = (tmp_path / "run/last.pt").read_bytes()
    with pytest.raises(InputError, match="already holds a run.*--resume"):  # who cannot read it takes it for a run
        RunFolder(tmp_path / "run", "")
    assert (tmp_path / "run/last.pt").read_bytes() == before
    again = toy_trainer(tmp_path / "run", resume=True)
    again.run = RunFolder(tmp_path / "run", "other: config", read_state=read_state)
    again.fit()
    assert (tmp_path / "run/config.yaml").read_text() == "other: config"
    assert (tmp_path / "run/metrics.jsonl").read_text() == (tmp_path / "whole/metrics.jsonl").read_text()
    with pytest.raises(InputError, match="already holds a run"):
        RunFolder(tmp_path / "run", "", read_state=read_state)


def test_a_run_that_made_a_step_is_not_begun_anew(tmp_path):
    trainer = toy_trainer(tmp_path)
    trainer.run.open()
    trainer.train_batch(next(iter(trainer.loader)))
    trainer.position = 1
    trainer.checkpoint()
    with pytest.raises(InputError, match="already holds a run"):
        RunFolder(tmp_path, "", read_state=read_state)


@pytest.mark.parametrize("killed_at", ["best.pt", "last.pt"])
def test_a_run_killed_between_its_test_and_its_checkpoint_has_that_test_once(tmp_path, killed_at):
    whole = toy_trainer(tmp_path / "whole")
    whole.fit()
    broken = toy_trainer(tmp_path / "run")
    save = broken.save

    def killed(path, model, training, metrics):
        tested = '"test"' in "".join(file.read_text() for file in (tmp_path / "run").glob("metrics.jsonl"))
        if path.name == killed_at and tested:
            raise SystemExit
        save(path, model, training, metrics)

    broken.save = killed
    with pytest.raises(SystemExit):
        broken.fit()
    with open(tmp_path / "run/metrics.jsonl", "a") as file:
        file.write('{"kind": "test", "iter')  # as far as the disk got
    resumed = toy_trainer(tmp_path / "run", resume=True)
    resumed.load_state_dict(read_state(tmp_path / "run/last.pt"))
    resumed.fit()
    assert (tmp_path / "run/metrics.jsonl").read_text() == (tmp_path / "whole/metrics.jsonl").read_text()


@pytest.mark.parametrize("line", ["no json", "[1]", '{"kind": "train"}', "\ufffd", "[" * 100_000])
def test_a_line_that_no_run_wrote_is_named(tmp_path, line):
    good = json.dumps({"kind": "train", "iteration": 10})
    (tmp_path / "metrics.jsonl").write_text(f"{good}\n{line}\n")
    run = RunFolder(tmp_path / "new", "")
    run.path = tmp_path
    with pytest.raises(InputError, match="metrics.jsonl:2 is no line of a run"):
        run.records()
