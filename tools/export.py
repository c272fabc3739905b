"""See `python tools/export.py --help`."""

import sys

from reid_kit.cli.main import run

sys.exit(run("export"))
