"""See `python tools/plot_loss_weights.py --help`."""

import sys

from reid_kit.cli.main import run

sys.exit(run("plot_loss_weights"))
