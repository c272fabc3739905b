"""Two processes train as one does, in float64, where rounding does not hide what differs."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from reid_kit.build import build_dataset, build_trainer
from reid_kit.cli import train as train_command
from reid_kit.cli.main import run
from reid_kit.config import load_config
from reid_kit.distributed import in_agreement
from reid_kit.errors import InputError
from tests.end_to_end.commands import tiny


def train(root, folder):
    """Weights and gradients after a run of three epochs."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    config = load_config("market_srt", tiny(root, folder))
    trainer = build_trainer(config, build_dataset(config), torch.device("cpu"), None)
    trainer.test = lambda model: {"mAP": 0.0}
    trainer.fit()
    gradients = {name: parameter.grad for name, parameter in trainer.model.named_parameters()}
    return trainer.model.state_dict(), gradients


def process(rank, root, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save(train(root, folder), f"{folder}/{rank}.pt")
    torch.save(agreements(rank), f"{folder}/agreements{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def agreements(rank):
    """How `in_agreement` ends where no rank fails, the second, and both."""
    ends = []
    for failing in ((), (1,), (0, 1)):

        def action(failing=failing):
            if rank in failing:
                raise InputError(f"of {rank}")
            return "well"

        try:
            ends.append(in_agreement(action))
        except (InputError, SystemExit) as end:
            ends.append(repr(end))
    return ends


@pytest.fixture(scope="module")
def folder(demo_root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    multiprocessing.spawn(process, (str(demo_root), str(folder)), nprocs=2)
    return folder


def test_eighteen_steps_equal_those_of_one_process(folder, demo_root):
    try:
        alone = train(demo_root, folder)
    finally:
        torch.set_default_dtype(torch.float32)
    for rank in range(2):
        for mine, theirs in zip(torch.load(folder / f"{rank}.pt"), alone, strict=True):
            assert mine.keys() == theirs.keys()
            for name, value in theirs.items():
                torch.testing.assert_close(mine[name], value, rtol=1e-6, atol=1e-9, msg=name)


def test_processes_go_on_or_end_together_and_one_says_why(folder):
    first, second = (torch.load(folder / f"agreements{rank}.pt") for rank in range(2))
    assert first == ["well", "SystemExit(2)", "InputError('of 0')"]
    assert second == ["well", "InputError('of 1')", "SystemExit(2)"]


def test_a_run_that_torchrun_starts_anew_goes_on(tmp_path, monkeypatch):
    resumed = []
    monkeypatch.setattr(train_command, "start_processes", lambda: None)
    monkeypatch.setattr(train_command, "train", lambda config, resume: resumed.append(resume))
    for restarts, checkpoint in ((None, True), ("0", True), ("1", False), ("1", True)):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", restarts) if restarts else None
        (tmp_path / "last.pt").touch() if checkpoint else (tmp_path / "last.pt").unlink()
        run("train", ["--config", "market_srt", "TRAIN.OUTPUT", str(tmp_path)])
    assert resumed == [False, False, False, True]
