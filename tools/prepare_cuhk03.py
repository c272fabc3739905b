"""See `python tools/prepare_cuhk03.py --help`."""

import sys

from reid_kit.cli.main import run

if __name__ == "__main__":  # processes that are not forked import this file
    sys.exit(run("prepare_cuhk03"))
