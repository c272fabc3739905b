"""See `python tools/make_demo.py --help`."""

import sys

from reid_kit.cli.main import run

sys.exit(run("make_demo"))
