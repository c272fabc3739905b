"""See `python tools/prepare_cuhk03.py --help`."""

import sys

from reid_kit.cli.main import run

sys.exit(run("prepare_cuhk03"))
