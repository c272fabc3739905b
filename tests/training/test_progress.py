import io
import sys

from reid_kit.training.progress import COLUMNS, EpochProgress

VALUES = {
    "loss": 8.75312,
    "soft_ranking_threshold": 6.59312,
    "softmax": 2.16,
    "soft_ranking_threshold_active": 0.68321,
    "softmax_active": 1.0,
    "lr": 0.00035,
}


def test_a_bar_shows_the_time_left_first(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "80")
    progress = EpochProgress("epoch 119/120", 0, 180, 180)
    progress.bar.mininterval = progress.bar.miniters = 0
    for _ in range(3):
        progress.add(VALUES)
        progress.update(64)
    shown = terminal.getvalue().strip().split("\r")[-1]
    assert len(shown.rstrip()) <= 80
    assert shown.index("left") < shown.index("images/s") < shown.index("loss 8.753") < shown.index("lr 0.00035")


def test_an_epochs_line_is_one_line():
    progress = EpochProgress("epoch 119/120", 0, 180, 0)
    progress.add(VALUES)
    progress.update(64)
    line = progress.close()
    assert line.startswith("epoch 119/120:  0:0") and len(line) <= COLUMNS
    assert "images/s  loss 8.753  lr 0.00035" in line and not line.endswith("soft")
