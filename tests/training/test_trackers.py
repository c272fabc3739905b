import sys
import time

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from reid_kit.errors import InputError
from reid_kit.training.trackers import check_trackers, open_trackers

CONFIG = {"OPTIMIZER.LR": 0.1, "LOSS.TERMS": [{"name": "softmax"}]}


def record_in_two_sittings(name, folder):
    """A run that is broken off after iteration 20 and resumed at 10."""
    for first in (10, 20):
        (tracker,) = open_trackers([name], folder, CONFIG, first)
        for iteration in (first, first + 10):
            tracker.record("test", iteration, {"CMC@1": iteration / 100})
        tracker.close()


def test_tensorboard(tmp_path):
    record_in_two_sittings("tensorboard", tmp_path)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(e.step, round(e.value, 6)) for e in events.Scalars("test/CMC@1")] == [(10, 0.1), (20, 0.2), (30, 0.3)]


def test_mlflow_in_a_file(tmp_path, monkeypatch):
    tracking = pytest.importorskip("mlflow.tracking", reason="mlflow is an extra: pip install reid_kit[mlflow]")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    record_in_two_sittings("mlflow", tmp_path)
    client = tracking.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("reid_kit").experiment_id])
    assert run.data.params["OPTIMIZER.LR"] == "0.1" and run.info.run_name == tmp_path.name
    points = {(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "test/CMC_at_1")}
    assert points == {(10, 0.1), (20, 0.2), (30, 0.3)}


def test_weights_and_biases_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is an extra: pip install reid_kit[wandb]")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    record_in_two_sittings("wandb", tmp_path)
    written = sorted(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    deadline = time.monotonic() + 30  # its own process writes the file
    while not all(b"CMC@1" in file.read_bytes() for file in written) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert written and all(b"CMC@1" in file.read_bytes() for file in written)
    assert len({file.name for file in written}) == 1  # one run, in two sittings


def test_bad_input(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="'tensorbord'.*Did you mean 'tensorboard'"):
        check_trackers(["tensorbord"])
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"wandb needs a library.*pip install 'reid_kit\[wandb\]'"):
        open_trackers(["wandb"], tmp_path, CONFIG, 0)
