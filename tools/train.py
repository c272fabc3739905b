"""See `python tools/train.py --help`."""

import sys

from reid_kit.cli.main import run

sys.exit(run("train"))
