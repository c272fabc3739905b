"""See `python tools/test.py --help`."""

import sys

from reid_kit.cli.main import run

sys.exit(run("test"))
